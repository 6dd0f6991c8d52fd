// One transaction as a drawing: a lane for the coordinator, with what the replicated log
// holds, and a lane for each branch, with what its leaders have seen.

import { s, span, time, word } from "./dom.js";

const LANE = 62;
const HEAD = 46;
const NARROW = 620; // below it, names stand above their lanes

// plot reads an answer of GetTimeline into moments, in ms.
export function plot(answer, now) {
  const tx = answer.transaction;
  const recordings = (answer.recordings ?? []).map((r) => ({
    ...r,
    since: time(r.since), asOf: time(r.as_of), begun: time(r.begun), staging: time(r.staging), staged: time(r.staged),
    deciding: time(r.deciding), decided: time(r.decided), delivered: time(r.delivered),
  }));
  const stamp = (x) => (x ? { ...x, at: time(x.time) } : undefined);
  const p = {
    tx, recordings,
    staged: stamp(tx.staged), decided: stamp(tx.decided), finished: stamp(tx.finished),
    over: Boolean(tx.finished), commit: /COMMIT/.test(tx.state), abort: /ABORT/.test(tx.state),
    deadline: tx.staged && tx.timeout ? time(tx.staged.time) + parseFloat(tx.timeout) * 1000 : undefined,
  };
  const seen = (name) => recordings.map((r) => r[name]).find((t) => t !== undefined);
  p.stagedAt = seen("staged") ?? p.staged?.at;
  p.decidedAt = seen("decided") ?? p.decided?.at;
  p.branches = (tx.branches ?? []).map((b) => branch(b, recordings, p));
  const known = [p.staged?.at, p.stagedAt, p.decidedAt, p.decided?.at, ...recordings.flatMap((r) => [r.begun, r.staging, r.deciding, r.decided, r.delivered]),
    ...p.branches.flatMap((b) => b.moments)].filter((t) => t !== undefined);
  p.start = Math.min(...known);
  p.asOf = p.over ? undefined : Math.max(now ?? 0, ...recordings.map((r) => r.asOf ?? 0), ...known.filter((t) => !p.branches.some((b) => b.next === t)));
  p.end = Math.max(...known, p.asOf ?? 0, p.finished?.at ?? 0);
  return p;
}

function branch(b, recordings, p) {
  const out = { ...b, prepares: [], tries: [], elided: 0, attempts: 0, moments: [] };
  for (const r of recordings) {
    const x = (r.branches ?? []).find((y) => y.number === b.number);
    if (!x) continue;
    const sent = time(x.prepare_sent);
    const voted = time(x.voted);
    if (sent !== undefined) out.prepares.push({ sent, voted });
    if (x.vote && x.vote !== "VOTE_UNSPECIFIED") Object.assign(out, { heard: x.vote, votedAt: voted, detail: x.vote_detail });
    const failed = (x.failed ?? []).map((f) => ({ sent: time(f.sent), ended: time(f.failed), ok: false }));
    const acknowledged = time(x.acknowledged);
    const last = time(x.last_attempt);
    const tries = [...failed];
    const under = last !== undefined && acknowledged === undefined && (failed.length === 0 || failed[failed.length - 1].sent !== last);
    if (acknowledged !== undefined && last !== undefined) tries.push({ sent: last, ended: acknowledged, ok: true });
    else if (under) tries.push({ sent: last, ended: undefined, ok: undefined, cut: r.asOf === undefined });
    const first = time(x.first_attempt);
    const elided = x.attempts - tries.length;
    if (elided > 0 && tries.length) {
      out.elided += elided;
      out.elidedFrom ??= first;
      out.elidedTo = tries[0].sent;
    }
    out.tries.push(...tries);
    out.attempts += x.attempts;
    out.first ??= first;
    if (last !== undefined) out.last = last;
    if (acknowledged !== undefined) out.acknowledged = acknowledged;
    if (x.last_error) out.error = plain(x.last_error, p.tx.txid);
    if (x.evidence) out.evidence = x.evidence;
    out.next = r.asOf === undefined ? undefined : time(x.next_attempt);
    if (x.receipt && x.receipt !== "RECEIPT_UNSPECIFIED") out.heardReceipt = x.receipt;
  }
  out.moments = [...out.prepares.flatMap((x) => [x.sent, x.voted]), ...out.tries.flatMap((x) => [x.sent, x.ended]), out.elidedFrom, out.acknowledged, out.next].filter((t) => t !== undefined);
  out.outcome = b.receipt && b.receipt !== "RECEIPT_UNSPECIFIED" ? b.receipt : out.heardReceipt;
  out.earlier = out.acknowledged === undefined && out.outcome !== undefined; // its receipt is in the log, and nobody tells when it came
  out.answered = out.heard ?? (b.vote !== "VOTE_UNSPECIFIED" ? b.vote : undefined);
  return out;
}

// plain leaves out what an error says of the call that it is shown beside.
const plain = (error, txid) => {
  const at = error.indexOf(`${txid}/`);
  const end = at < 0 ? -1 : error.indexOf(": ", at);
  return end < 0 || at > 12 ? error : error.slice(end + 2);
};

// scale maps moments to x. Each phase is linear and keeps a share of the width that it can
// be read in; where deliveries fail, their pauses are squeezed. linear says that none of it
// was necessary.
const SHARE = 0.3;

function scale(p, left, right) {
  const known = [p.start, p.end, p.decidedAt, p.asOf, ...p.recordings.flatMap((r) => [r.begun, r.delivered]), ...p.branches.flatMap((b) => b.moments)];
  const moments = [...new Set(known.filter((t) => t !== undefined && t >= p.start && t <= p.end))].sort((a, b) => a - b);
  const turn = p.decidedAt ?? p.end;
  const squeezed = p.branches.some((b) => b.tries.some((k) => k.ok === false)) || p.end - turn > 40 * (turn - p.start);
  const unit = Math.max((turn - p.start) / 4, (p.end - turn) / 4000, 0.001);
  const weigh = (from, to) => (squeezed && from >= turn ? Math.log1p((to - from) / unit) : to - from);
  const gaps = moments.slice(1).map((t, i) => ({ late: moments[i] >= turn, w: weigh(moments[i], t) }));
  const sum = (late) => gaps.reduce((n, g) => n + (g.late === late ? g.w : 0), 0);
  const [early, later] = [sum(false), sum(true)];
  const share = later === 0 ? 1 : early === 0 ? 0 : Math.min(1 - SHARE, Math.max(SHARE, early / (early + later)));
  const at = [0];
  for (const g of gaps) at.push(at[at.length - 1] + (g.late ? ((1 - share) * g.w) / later : (share * g.w) / early));
  const x = (t) => {
    if (t <= p.start) return left;
    if (t >= p.end) return right;
    const i = moments.findIndex((m) => m >= t);
    const part = at[i - 1] + (at[i] - at[i - 1]) * ((t - moments[i - 1]) / (moments[i] - moments[i - 1]));
    return left + part * (right - left);
  };
  return { x, linear: !squeezed && (later === 0 || Math.abs(share - early / (early + later)) < 1e-9), moments };
}

// ticks are where the axis is labelled, those that matter first, none on another.
function ticks(p, x, linear, room) {
  const total = p.end - p.start;
  let wanted = [p.start, p.decidedAt, p.over ? p.end : p.asOf ?? p.end, p.stagedAt, ...p.branches.flatMap((b) => [b.acknowledged, b.votedAt, b.last, b.first])];
  if (linear) {
    const step = [1, 2, 5].flatMap((m) => [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7].map((e) => m * 10 ** e)).sort((a, b) => a - b).find((d) => total / d <= 9) ?? total;
    wanted = Array.from({ length: Math.floor(total / step) + 1 }, (_, i) => p.start + i * step);
  }
  const taken = [];
  for (const t of wanted) {
    if (t === undefined || t < p.start || t > p.end) continue;
    if (taken.every((u) => Math.abs(x(u) - x(t)) > room && span(u - p.start) !== span(t - p.start))) taken.push(t);
  }
  return taken.sort((a, b) => a - b);
}

const line = (x1, y1, x2, y2, cls) => s("line", { x1, y1, x2, y2, class: cls });
const text = (x, y, cls, words, anchor) => s("text", { x, y, class: cls, "text-anchor": anchor }, words);
const titled = (node, words) => (node.append(s("title", {}, words)), node);

const cut = (words, room, glyph = 7.2) => {
  const n = Math.max(3, Math.floor(room / glyph));
  const all = [...words];
  return all.length <= n ? words : all.slice(0, n - 1).join("") + "…";
};

// draw makes the drawing for a width.
export function draw(p, width) {
  const narrow = width < NARROW;
  const gutter = narrow ? 8 : 176;
  const lane = narrow ? LANE + 20 : LANE;
  const COORDINATOR = narrow ? 98 : 82;
  const left = gutter + 14;
  const right = width - (narrow ? 22 : 34);
  const { x, linear } = scale(p, left, right);
  const base = HEAD + COORDINATOR;
  const height = base + Math.max(1, p.branches.length) * lane + 14;
  const svg = s("svg", { class: "timeline", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": summary(p) });
  svg.append(s("defs", {}, s("pattern", { id: "unseen", width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, line(0, 0, 0, 8, "hatch"))));

  // Who led.
  const unseen = [];
  const first = p.recordings[0];
  if (!first) unseen.push([left - 6, right + 8, "no leader that can be asked has recorded this"]);
  else if (first.taken_over && x(first.begun) - left > 2) unseen.push([left - 6, x(first.begun), `before ${first.node} led: not recorded here`]);
  for (const [a, b, why] of unseen) {
    svg.append(titled(s("rect", { x: a, y: HEAD - 4, width: Math.max(0, b - a), height: height - HEAD - 4, class: "unseen" }), why));
    if (b - a > 150) svg.append(text((a + b) / 2, height - 18, "unseen-words", cut(why, b - a - 10, 6.2), "middle"));
  }

  for (const t of ticks(p, x, linear, narrow ? 58 : 72)) {
    svg.append(line(x(t), HEAD - 8, x(t), height - 6, "grid"), text(x(t), HEAD - 14, "tick", t === p.start ? "0" : `+${span(t - p.start)}`, "middle"));
  }

  // The lanes.
  const names = [["coordinator", leaders(p)], ...p.branches.map((b) => [b.participant, `branch ${b.number}${b.external ? " · application's own" : ""}`])];
  names.forEach(([name, more], i) => {
    const top = i === 0 ? HEAD : base + (i - 1) * lane;
    const tall = i === 0 ? COORDINATOR : lane;
    svg.append(s("rect", { x: 0, y: top, width, height: tall, class: i === 0 ? "lane first" : "lane" }));
    if (narrow) {
      const label = text(gutter, top + 15, "name", cut(name, width * 0.55));
      svg.append(label, text(width - 8, top + 15, "more", cut(more, width * 0.4, 6.2), "end"));
    } else {
      svg.append(titled(text(gutter - 12, top + tall / 2 - 2, "name", cut(name, gutter - 20, 7.6), "end"), name), text(gutter - 12, top + tall / 2 + 15, "more", cut(more, gutter - 20, 6.2), "end"));
    }
  });

  const mid = HEAD + (narrow ? 46 : 40);
  svg.append(line(left, mid, p.over ? x(p.end) : right, mid, "rail"));
  const replication = (from, to, what) => {
    if (from === undefined || to === undefined) return;
    svg.append(titled(s("rect", { x: x(from), y: mid - 5, width: Math.max(2, x(to) - x(from)), height: 10, rx: 5, class: "log" }), `${what}: ${span(to - from)} to replicate`));
  };
  for (const r of p.recordings) {
    replication(r.staging, r.staged, "staging");
    replication(r.deciding, r.decided, "decision");
    if (r.taken_over && r.begun > p.start) {
      svg.append(line(x(r.begun), HEAD - 2, x(r.begun), height - 8, "handover"), titled(s("circle", { cx: x(r.begun), cy: mid, r: 5, class: "takes-over" }), `${r.node} takes over, epoch ${r.epoch}`));
      if (!narrow) svg.append(text(x(r.begun) + 6, HEAD + 14, "stamp", `${r.node} takes over`, "start"));
    }
  }
  const marks = [];
  if (p.decided) {
    const at = x(p.decidedAt);
    const kind = p.commit ? "commit" : "abort";
    svg.append(line(at, HEAD - 2, at, height - 8, `point ${kind}`));
    svg.append(titled(s("path", { d: `M${at} ${mid - 12}l12 12-12 12-12-12z`, class: `decision ${kind}` }), `${kind} decided: entry ${p.decided.index}, epoch ${p.decided.epoch}`));
    marks.push([at, p.commit ? "commit point" : "abort", `entry ${p.decided.index} · epoch ${p.decided.epoch}`, `big ${kind}`]);
  }
  if (p.staged) {
    const at = x(p.stagedAt);
    svg.append(titled(s("circle", { cx: at, cy: mid, r: 6, class: "staged" }), `staged: entry ${p.staged.index}, epoch ${p.staged.epoch}`));
    marks.push([at, "staged", p.decided && p.staged.index === p.decided.index ? "same entry" : `entry ${p.staged.index}`, ""]);
  }
  if (p.finished) {
    const at = x(p.end);
    svg.append(titled(s("rect", { x: at - 5, y: mid - 5, width: 10, height: 10, class: "finished" }), `receipts logged: entry ${p.finished.index}, epoch ${p.finished.epoch}`));
    marks.push([at, "finished", `entry ${p.finished.index}`, ""]);
  }
  const placed = [];
  for (const [at, words, more, cls] of marks) {
    const wide = Math.max(words.length * 7.4, more.length * 6.3) + 10;
    const beside = cls && at + wide + 10 < width; // the line of the decision goes through what is below it
    const anchor = beside ? "start" : at + wide / 2 > width - 4 ? "end" : at - wide / 2 < left - 14 ? "start" : "middle";
    const place = beside ? at + 10 : anchor === "end" ? (cls ? at - 10 : at + 6) : anchor === "start" ? at - 6 : at;
    const from = anchor === "end" ? place - wide : anchor === "start" ? place : place - wide / 2;
    if (placed.some(([a, b]) => from < b && from + wide > a)) continue;
    placed.push([from, from + wide]);
    svg.append(text(place, mid + 25, `stamp ${cls}`, words, anchor), text(place, mid + 39, "more", more, anchor));
  }

  p.branches.forEach((b, i) => drawBranch(svg, p, b, x, base + i * lane + (narrow ? 48 : 30), right));

  if (p.asOf !== undefined) {
    const at = x(p.asOf);
    svg.append(line(at, HEAD - 2, at, height - 8, "now"), text(Math.min(at, width - 16), height - 2, "tick now-word", "now", "middle"));
  }
  return { svg, linear };
}

function drawBranch(svg, p, b, x, y, right) {
  const bar = (from, to, cls, words, tall = 14) =>
    titled(s("rect", { x: x(from), y: y - tall / 2, width: Math.max(3, x(to) - x(from)), height: tall, rx: 4, class: cls }), words);
  const until = p.decidedAt ?? p.asOf ?? p.end;
  const settled = b.acknowledged ?? (b.tries.length ? b.tries[0].sent : undefined);

  for (const q of b.prepares) {
    const to = q.voted ?? until;
    svg.append(bar(q.sent, to, q.voted === undefined ? "prepare open" : "prepare", `prepare: ${span(to - q.sent)}${q.voted === undefined ? ", no answer" : ""}`));
    if (x(to) - x(q.sent) > 56) svg.append(text((x(q.sent) + x(to)) / 2, y + 4, "in-bar", "prepare", "middle"));
  }
  if (b.answered === "VOTE_COMMIT") {
    const from = b.votedAt ?? p.stagedAt ?? p.start;
    const to = Math.max(from, b.acknowledged ?? (b.earlier ? p.decidedAt : undefined) ?? p.asOf ?? p.end);
    svg.prepend(titled(s("line", { x1: x(from), y1: y, x2: x(to), y2: y, class: "holds" }), `prepared, and holding its locks: ${span(to - from)}`));
  }
  const kind = p.commit ? "commit" : "abort";
  if (b.elided > 0 && b.elidedFrom !== undefined) {
    const [a, z] = [x(b.elidedFrom), x(b.elidedTo)];
    svg.append(titled(s("line", { x1: a, y1: y, x2: z, y2: y, class: "elided" }), `${b.elided} more attempts`));
    if (z - a > 70) svg.append(text((a + z) / 2, y - 9, "more", `${b.elided} more`, "middle"));
  }
  b.tries.forEach((k, i) => {
    const at = k.ended ?? (k.cut ? k.sent : p.asOf ?? p.end);
    if (k.ok) {
      svg.append(bar(k.sent, at, `deliver ${kind}`, `${kind}: acknowledged after ${span(at - k.sent)}`));
      if (x(at) - x(k.sent) > 60) svg.append(text((x(k.sent) + x(at)) / 2, y + 4, "in-bar", kind, "middle"));
    } else if (k.ok === undefined) {
      svg.append(bar(k.sent, at, `deliver ${kind} open`, k.cut ? "the leader fell before the answer" : `${kind}: under way for ${span(at - k.sent)}`));
    } else {
      svg.append(bar(k.sent, at, "failed", `attempt failed after ${span(at - k.sent)}`, 10));
      svg.append(s("path", { d: `M${x(at) - 4} ${y - 4}l8 8m0-8l-8 8`, class: "cross" }));
    }
  });
  if (b.answered && b.votedAt !== undefined) svg.append(vote(b, x(b.votedAt), y));
  if (b.earlier && p.recordings[0]?.begun > p.decidedAt) {
    const at = (x(p.decidedAt) + x(p.recordings[0].begun)) / 2;
    svg.append(titled(s("g", { class: `receipt earlier ${kind}` }, s("circle", { cx: at, cy: y, r: 8 }), s("path", { d: `M${at - 3.5} ${y}l2.5 2.8 4.5-5.4` })), "acknowledged under an earlier leader"));
  }
  if (b.acknowledged !== undefined) {
    const bad = /HEURISTIC/.test(b.outcome ?? "");
    const at = x(b.acknowledged);
    svg.append(titled(s("g", { class: bad ? "receipt bad" : `receipt ${kind}` }, s("circle", { cx: at, cy: y, r: 8 }),
      s("path", { d: bad ? `M${at} ${y - 4}v4.5m0 3v.1` : `M${at - 3.5} ${y}l2.5 2.8 4.5-5.4` })), bad ? `damage: ${word(b.outcome, "RECEIPT")}` : "acknowledged"));
  }
  if (b.next !== undefined && b.acknowledged === undefined) {
    const at = Math.min(x(b.next), right);
    svg.append(titled(s("circle", { cx: at, cy: y, r: 6, class: "next" }), "next attempt"));
    if (p.asOf !== undefined) svg.append(text(Math.min(at, right + 6), y - 12, "more", b.next > p.asOf ? `in ${span(b.next - p.asOf)}` : "due", "end"));
  }
  const words = note(b, p);
  if (words) {
    const from = settled ?? b.votedAt ?? p.start;
    const room = right - x(from);
    const flip = room < 180;
    svg.append(titled(text(flip ? right + 8 : x(from), y + 25, `note ${words.cls}`, cut(words.text, flip ? right - 190 : room, 6.4), flip ? "end" : "start"), words.text));
  }
}

function vote(b, at, y) {
  const no = b.answered === "VOTE_ABORT";
  const reads = b.answered === "VOTE_READ_ONLY";
  const sign = no ? `M${at - 3} ${y - 3}l6 6m0-6l-6 6` : reads ? `M${at - 3.5} ${y}h7` : `M${at - 3.5} ${y}l2.5 2.8 4.5-5.4`;
  return titled(s("g", { class: `vote ${no ? "no" : reads ? "reads" : "yes"}` }, s("circle", { cx: at, cy: y, r: 8 }), s("path", { d: sign })), `vote: ${word(b.answered, "VOTE")}`);
}

function note(b, p) {
  if (/HEURISTIC/.test(b.outcome ?? "")) return { text: `${word(b.outcome, "RECEIPT")}${b.evidence ? `: ${b.evidence}` : ""}`, cls: "bad" };
  if (b.answered === "VOTE_ABORT" && b.detail) return { text: `votes no: ${b.detail}`, cls: "no" };
  if (b.acknowledged === undefined && b.error) return { text: `attempt ${b.attempts} failed: ${b.error}`, cls: "no" };
  if (b.attempts > 1 && b.error) return { text: `${b.attempts} attempts; before: ${b.error}`, cls: "" };
  if (b.answered === "VOTE_ABORT") return { text: "votes no", cls: "no" };
  if (b.answered === "VOTE_READ_ONLY") return { text: "only reads: left out of phase two", cls: "" };
  return p.over || b.prepares.length || p.decided ? undefined : { text: "not asked yet", cls: "" };
}

function leaders(p) {
  const all = p.recordings.map((r) => `${r.node}, epoch ${r.epoch}`);
  return all.length === 0 ? "not recorded" : all.length < 3 ? all.join(" → ") : `${all.length} leaders`;
}

// summary says it in words, for who can't see it.
export function summary(p) {
  const parts = [`Transaction ${word(p.tx.state, "STATE")}`];
  if (p.decidedAt !== undefined) parts.push(`decided ${span(p.decidedAt - p.start)} after its beginning, in log entry ${p.decided.index}, epoch ${p.decided.epoch}`);
  for (const b of p.branches) {
    const told = [b.answered && `voted ${word(b.answered, "VOTE")}`, b.attempts && `${b.attempts} deliveries`, b.acknowledged !== undefined || b.earlier ? "acknowledged" : p.decided && "not acknowledged"].filter(Boolean);
    parts.push(`${b.participant}: ${told.join(", ") || "nothing recorded"}`);
  }
  return `${parts.join(". ")}. The table below has it all.`;
}
