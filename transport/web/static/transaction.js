// One transaction, as it came to where it is.

import { get } from "./api.js";
import { abort, operator, resolve } from "./actions.js";
import { clock, count, day, h, show, span, time, word } from "./dom.js";
import { draw, plot } from "./timeline.js";
import { state, why } from "./transactions.js";

const PACE = 1000; // of asking again, while it is unfinished

const titles = {
  active: "Enlisting branches", preparing: "Preparing", committing: "Committed, delivery pending",
  aborting: "Aborted, delivery pending", committed: "Committed", aborted: "Aborted",
};

export function transaction(main, signal, txid) {
  const head = h("div", {});
  const figure = h("figure", { class: "card drawing" });
  const table = h("section", { class: "card" });
  const caption = h("figcaption", {});
  const canvas = h("div", { class: "canvas-box" });
  figure.append(canvas, caption);
  show(main, head, figure, table);
  let answer;
  let asked; // when it came, by this browser's clock

  function picture() {
    if (!answer) return;
    const fromAsOf = performance.now() - asked;
    const asOf = Math.max(0, ...(answer.recordings ?? []).map((r) => time(r.as_of) ?? 0));
    const p = plot(answer, asOf ? asOf + fromAsOf : undefined);
    const { svg, linear } = draw(p, Math.max(300, canvas.clientWidth));
    show(canvas, svg);
    show(caption, legend(p), h("p", { class: "dim" },
      linear ? "Time runs evenly. " : "Time is squeezed where nothing happens. ",
      recorded(p, answer)));
    return p;
  }

  function all() {
    const p = picture();
    show(head, heading(p, answer, refresh));
    show(table, branches(p, answer.transaction, refresh));
  }

  async function refresh() {
    try {
      answer = await get(`/v1/transactions/${encodeURIComponent(txid)}/timeline`, { signal });
      asked = performance.now();
      figure.hidden = table.hidden = false;
      all();
    } catch (e) {
      if (e.name === "AbortError") return;
      if (!answer || e.status === 404) {
        figure.hidden = table.hidden = true;
        show(head, h("div", { class: "head" }, h("h1", {}, "No such transaction here")), h("p", { class: "empty" }, e.message), h("p", {}, h("a", { href: "#/tx" }, "All transactions")));
      }
    }
  }

  async function keep() {
    await refresh();
    if (!signal.aborted && !(answer?.transaction?.finished)) setTimeout(keep, PACE);
  }
  keep();
  const size = new ResizeObserver(() => answer && picture());
  size.observe(canvas);
  signal.addEventListener("abort", () => size.disconnect());
}

function heading(p, answer, refresh) {
  const x = answer.transaction;
  const name = word(x.state, "STATE");
  const bad = /HEURISTIC/.test(x.damage ?? "");
  const copy = h("button", { class: "quiet", "aria-label": "Copy the txid", onclick: async () => {
    await navigator.clipboard?.writeText(x.txid);
    copy.textContent = "copied";
    setTimeout(() => { copy.textContent = "copy"; }, 1200);
  } }, "copy");
  const facts = [
    p.decidedAt !== undefined && ["decided after", span(p.decidedAt - p.start)],
    p.over && ["over after", span(p.finished.at - p.start)],
    !p.over && p.asOf !== undefined && ["for", span(p.asOf - p.start)],
    !p.decided && p.deadline !== undefined && p.asOf !== undefined && ["aborts in", span(Math.max(0, p.deadline - p.asOf))],
    ["began", `${day(p.start)} ${clock(p.start)}`],
    ["kind", x.interactive ? "interactive" : "one-shot"],
    p.decided && ["decision", `entry ${p.decided.index}, epoch ${p.decided.epoch}`],
  ].filter(Boolean);
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/tx" }, "Transactions"), " / ", h("code", {}, x.txid), " ", copy),
    h("div", { class: "head" }, h("h1", { class: `outcome ${bad ? "damaged" : name}` }, bad ? `${titles[name] ?? name}, damaged` : titles[name] ?? name),
      !p.decided && operator("Abort…", async () => { if (await abort(x)) refresh(); }, { class: "danger-quiet" })),
    x.reason && h("p", { class: "reason" }, why({ ...x, damage: undefined })),
    bad && h("p", { class: "reason bad" }, `A branch ended against the decision: ${word(x.damage, "RECEIPT")}. What to do, step by step, is in the operations guide under heuristics.`),
    h("dl", { class: "facts" }, facts.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v)))),
  ];
}

function legend(p) {
  const key = (cls, words) => h("span", { class: `key ${cls}` }, words);
  return h("p", { class: "legend" }, key("prepare", "prepare"), key("holds", "prepared, waits"), key("log", "replicating"),
    p.abort ? key("abort", "abort") : key("commit", "commit"),
    p.branches.some((b) => b.tries.some((t) => t.ok === false)) && key("failed", "attempt failed"), p.branches.some((b) => b.next !== undefined) && key("next", "next attempt"));
}

function recorded(p, answer) {
  const all = p.recordings;
  if (all.length === 0) return "The log holds the three stamps; the leader that saw the rest is gone, or has driven many others since.";
  const words = `Recorded by ${all.map((r) => `${r.node} in epoch ${r.epoch}`).join(", then ")}.`;
  const before = all[0].taken_over ? " What came before it led is not recorded here." : "";
  return words + before + (answer.leading ? "" : " The leader is out of reach; it may know more.");
}

// settled is what an operator said of a branch, or the way to say it: where the decision
// is still owed to it, or it ended against the decision.
function settled(p, b, tx, refresh) {
  if (b.resolved && b.resolved !== "OUTCOME_UNSPECIFIED") return h("div", { class: "detail" }, `resolved by an operator: ${word(b.resolved, "OUTCOME")}`);
  const owed = b.acknowledged === undefined && !b.earlier && b.answered !== "VOTE_READ_ONLY";
  const damaged = b.outcome && b.outcome !== "RECEIPT_DONE";
  if (!p.decided || !owed && !damaged) return undefined;
  return h("div", {}, operator("Resolve…", async () => { if (await resolve(tx, b.number, b.participant)) refresh(); },
    { class: "danger-quiet", "aria-label": `Resolve branch ${b.number}` }));
}

function branches(p, tx, refresh) {
  const at = (t) => (t === undefined ? h("span", { class: "dim" }, "–") : h("span", { title: clock(t) }, `+${span(t - p.start)}`));
  const rows = p.branches.map((b) => {
    const prepare = b.prepares[0];
    const next = b.next !== undefined && b.acknowledged === undefined && p.asOf !== undefined ? (b.next > p.asOf ? `in ${span(b.next - p.asOf)}` : "due, waits for its turn") : "";
    const fields = [
      ["Branch", h("strong", {}, `${b.number} `, h("a", { href: `#/tx?at=${encodeURIComponent(b.participant)}` }, b.participant))],
      ["Prepare", [at(prepare?.sent), b.prepares.length > 1 && h("span", { class: "dim" }, ` ×${b.prepares.length}`)]],
      ["Vote", [b.answered ? h("span", { class: `vote-word ${word(b.answered, "VOTE")}` }, word(b.answered, "VOTE")) : h("span", { class: "dim" }, "–"), b.votedAt !== undefined && [" ", at(b.votedAt)], b.detail && h("div", { class: "detail" }, b.detail)]],
      ["Deliveries", b.attempts ? [count(b.attempts), h("span", { class: "dim" }, " from "), at(b.first), b.last !== b.first && [h("span", { class: "dim" }, " to "), at(b.last)]] : h("span", { class: "dim" }, "–")],
      ["Acknowledged", [b.earlier ? h("span", { class: "dim" }, "yes, time not recorded") : at(b.acknowledged), b.outcome && b.outcome !== "RECEIPT_DONE" && h("div", { class: "detail bad" }, word(b.outcome, "RECEIPT"), b.evidence && `: ${b.evidence}`), settled(p, b, tx, refresh)]],
      ["Last error", b.error ? h("span", { class: "detail" }, b.error) : h("span", { class: "dim" }, "none")],
      ["Next attempt", next || h("span", { class: "dim" }, "–")],
    ];
    return h("tr", {}, fields.map(([label, content]) => h("td", { data: { label } }, content)));
  });
  return [h("h2", {}, "Branches"), p.branches.length === 0 ? h("p", { class: "empty" }, p.decided ? "None is known: the abort came before the transaction." : "None is enlisted yet.")
    : h("div", { class: "scroll" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Branch", "Prepare", "Vote", "Deliveries", "Acknowledged", "Last error", "Next attempt"].map((x) => h("th", { scope: "col" }, x)))), h("tbody", {}, rows)))];
}
