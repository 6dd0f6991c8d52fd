// What the nodes tell of themselves, once a second, and the last five minutes of it.

import { events, session } from "./api.js";
import { duration, time } from "./dom.js";

const HISTORY = 300;
const SILENCE = 5000; // without a message for so long, the connection is taken for dead
const listeners = new Set();

export const live = {
  state: "connecting", // live, lost, denied
  problem: undefined,
  views: [],
  at: undefined,
  history: { t: [], rate: [], p50: [], p99: [] },
  get own() { return this.views[0]; },
  get leader() { return this.views.find((v) => v.leading); },
  subscribe(f, signal) {
    listeners.add(f);
    signal.addEventListener("abort", () => listeners.delete(f));
    f();
  },
};

const tell = () => listeners.forEach((f) => f());

function take(views) {
  live.views = views;
  live.at = performance.now();
  live.state = "live";
  const p = live.leader?.pulse;
  const x = live.history;
  const has = p && duration(p.window) > 0;
  x.t.push(Date.now() / 1000);
  x.rate.push(has ? p.per_second : live.leader ? 0 : null);
  x.p50.push(has && Number(p.transactions) ? duration(p.p50) : null);
  x.p99.push(has && Number(p.transactions) ? duration(p.p99) : null);
  for (const list of Object.values(x)) if (list.length > HISTORY) list.shift();
  tell();
}

let attempt;

export async function follow() {
  attempt?.abort();
  const mine = (attempt = new AbortController());
  for (let failures = 0; !mine.signal.aborted; failures++) {
    const call = new AbortController();
    mine.signal.addEventListener("abort", () => call.abort());
    let watch = setTimeout(() => call.abort(), SILENCE);
    try {
      for await (const message of events("/v1/live:watch", call.signal)) {
        failures = 0;
        clearTimeout(watch);
        watch = setTimeout(() => call.abort(), SILENCE);
        take(message.views ?? []);
      }
      live.problem = undefined;
    } catch (e) {
      live.problem = e;
    } finally {
      clearTimeout(watch);
    }
    if (mine.signal.aborted) return;
    const denied = live.problem?.status === 401 || live.problem?.status === 403;
    live.state = denied ? "denied" : "lost";
    tell();
    if (denied) return;
    await new Promise((r) => setTimeout(r, Math.min(5000, 250 * 2 ** Math.min(failures, 5)) * (0.5 + Math.random())));
  }
}

session.onChange(follow);

// The oldest unfinished transaction, by cluster time, which goes on between messages.
export function oldest() {
  const v = live.leader ?? live.own;
  const since = time(v?.oldest);
  if (since === undefined) return undefined;
  const now = time(v.status.cluster_time);
  return { txid: v.oldest_txid, age: Math.max(0, (now ?? Date.now()) - since) };
}
