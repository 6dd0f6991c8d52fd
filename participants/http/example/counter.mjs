// A service of named counters that takes part in decree's transactions, in
// Node's standard library alone:
//
//   node counter.mjs PORT JOURNAL
//
// Its state is what its journal says. A message is appended and synced before it
// is carried out and answered, and all of them are carried out again at the next
// start: so carryOut looks at nothing but the state and the message.
import { createServer } from 'node:http';
import { appendFileSync, fsyncSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { dirname } from 'node:path';

const [port, journal] = process.argv.slice(2);
const counters = new Map(); // name -> { value, holder: the prepared branch, if any }
const branches = new Map(); // name of a branch -> its message, with a status, and a reason or counter and add
const fences = new Map(); // cluster -> the highest { epoch, horizon } heard

const ok = (body) => [200, body];
const no = (body) => [409, body]; // the one other answer with a meaning
const nameOf = (m) => `${m.cluster}/${m.txid}/${m.branch}`;
const madeAt = ({ txid }) => parseInt(txid.slice(0, 8) + txid.slice(9, 13), 16); // a UUIDv7 begins with its milliseconds

function carryOut(m) {
  const fence = fences.get(m.cluster) ?? { epoch: 0, horizon: 0 };
  if (m.epoch < fence.epoch) return no({ error: 'stale_epoch', detail: `heard of epoch ${fence.epoch}` });
  fences.set(m.cluster, { epoch: m.epoch, horizon: Math.max(fence.horizon, m.horizon_ms) });
  const b = branches.get(nameOf(m));
  return { prepare, commit, abort }[m.operation](m, b);
}

// A branch that is known hears what it heard before; so nothing is done twice.
function prepare(m, b) {
  const refuse = (reason) => no({ vote: 'abort', reason });
  if (b?.status === 'aborted') return refuse(b.reason ?? 'aborted before');
  if (b) return b.digest === m.digest ? ok({ vote: 'commit' }) : refuse('prepared with other content');
  if (madeAt(m) < fences.get(m.cluster).horizon) return refuse('older than the horizon');
  const { counter, add } = m.payload ?? {};
  const { value, holder } = counters.get(counter) ?? { value: 0 };
  if (add === 0) return ok({ vote: 'read_only' });
  const reason =
    typeof counter !== 'string' || !Number.isSafeInteger(value + add) ? 'want {"counter": NAME, "add": INTEGER}'
    : holder ? `${counter} is locked by ${holder}`
    : value + add < 0 ? `${counter} is ${value}`
    : undefined;
  if (reason) {
    close(m, reason); // so that it stays a no
    return refuse(reason);
  }
  counters.set(counter, { value, holder: nameOf(m) });
  branches.set(nameOf(m), { ...m, status: 'prepared', counter, add });
  return ok({ vote: 'commit' });
}

// Not found is not success: without a trace of the branch its work is lost, and
// must stay so, because that is what is reported.
function commit(m, b) {
  if (b?.status === 'prepared') end(b, 'committed', b.add);
  else if (!b) close(m, 'a commit came while it was not prepared');
  return b?.status === 'committed' ? ok({ status: 'committed' }) : no({ heuristic: 'abort', detail: 'it is not prepared' });
}

// An abort that overtakes its prepare leaves a trace, which refuses the prepare.
function abort(m, b) {
  if (b?.status === 'committed') return no({ heuristic: 'commit', detail: 'it was committed before' });
  if (b?.status === 'prepared') end(b, 'aborted', 0);
  else if (!b) close(m);
  return ok({ status: 'aborted' });
}

const close = (m, reason) => branches.set(nameOf(m), { ...m, status: 'aborted', reason });

function end(b, status, add) {
  b.status = status;
  counters.set(b.counter, { value: counters.get(b.counter).value + add });
}

// Pages are in the order of names, so none that stays prepared falls between two.
function list({ cluster, limit, cursor = '' }) {
  const names = [...branches].filter(([, b]) => b.cluster === cluster && b.status === 'prepared').map(([name]) => name);
  const rest = names.filter((name) => name > cursor).sort();
  const page = rest.slice(0, limit || 1000);
  const next_cursor = rest.length > page.length ? page.at(-1) : undefined;
  return ok({ branches: page.map((name) => branches.get(name)).map(({ txid, branch }) => ({ txid, branch })), next_cursor });
}

const uuid7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const wellFormed = (m) =>
  typeof m?.cluster === 'string' && uuid7.test(m.txid) && [m.branch, m.epoch, m.horizon_ms].every(Number.isSafeInteger);

function answer(operation, m) {
  if (operation === 'recover' && typeof m?.cluster === 'string') return list(m);
  if (!wellFormed(m)) return [400, { error: 'invalid_request', detail: 'want cluster, txid, branch, epoch and horizon_ms' }];
  if (operation === 'status') return ok({ status: branches.get(nameOf(m))?.status ?? 'unknown' });
  const message = { ...m, operation };
  appendFileSync(file, JSON.stringify(message) + '\n');
  fsyncSync(file); // where this throws, the process ends: what is on the disk is known only to the next one
  return carryOut(message);
}

// What a crash left of a message's line was never answered, and is cut off.
const file = openSync(journal, 'a');
fsyncSync(openSync(dirname(journal))); // the file's name must last too
const written = readFileSync(journal);
const whole = written.lastIndexOf('\n') + 1;
truncateSync(journal, whole);
written.toString('utf8', 0, whole).split('\n').filter(Boolean).forEach((line) => carryOut(JSON.parse(line)));

const operations = ['prepare', 'commit', 'abort', 'status', 'recover'];
createServer(async (request, response) => {
  const send = ([code, body]) => response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  const [, operation, counter] = request.url.split('/');
  if (request.method === 'GET' && operation === 'counters') return send(ok({ value: counters.get(counter)?.value ?? 0 }));
  if (request.method !== 'POST' || !operations.includes(operation)) return send([404, { error: 'unsupported' }]);
  let text = '', message;
  try {
    for await (const chunk of request.setEncoding('utf8')) if ((text += chunk).length > 1 << 22) return;
    message = JSON.parse(text);
  } catch {
    return send([400, { error: 'invalid_request', detail: 'want a JSON object' }]);
  }
  send(answer(operation, message));
})
  .listen(port, '127.0.0.1')
  .on('listening', function () { console.log(`http://127.0.0.1:${this.address().port}`); });
