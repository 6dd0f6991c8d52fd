// What goes on now.

import { get } from "./api.js";
import { bytes, count, duration, h, short, show, span } from "./dom.js";
import { live, oldest } from "./live.js";
import { state, took } from "./transactions.js";

const OLD = 10000; // a transaction that is unfinished for longer is told of
const LAG = 1000; // entries

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function chart(box, title, series, format) {
  const axis = () => ({ stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui", size: 56 });
  const make = () => new uPlot({
    width: Math.max(240, box.clientWidth), height: 190, title: undefined, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (u, min, max) => [0, Math.max(max * 1.15, 1)] } },
    axes: [
      { ...axis(), size: 28, values: (u, at) => at.map((t) => `${Math.round(t - Date.now() / 1000)} s`), space: 70, grid: { show: false } },
      { ...axis(), values: (u, all) => all.map(format) },
    ],
    series: [{}, ...series.map((x) => ({ label: x.name, stroke: colour(x.colour), width: 2, dash: x.dash, fill: x.fill && colour(x.fill), points: { show: false }, spanGaps: false }))],
  }, [[]], box);
  let plot = make();
  return {
    set(data) { plot.setData(data); },
    again(data) { plot.destroy(); plot = make(); plot.setData(data); },
    destroy() { plot.destroy(); },
    legend: h("figcaption", {}, title, series.length > 1 && series.map((x) => h("span", { class: `key ${x.cls}` }, x.name))),
  };
}

export function overview(main, signal) {
  const tile = (name) => {
    const value = h("strong", {}, "–");
    const more = h("small", {});
    return { value, more, box: h("div", { class: "tile" }, h("span", {}, name), value, more) };
  };
  const t = { rate: tile("Decided per second"), p50: tile("Median"), p99: tile("99th percentile"), aborts: tile("Aborted"), open: tile("Unfinished"), oldest: tile("The oldest") };
  const rateBox = h("div", { class: "plot" });
  const latencyBox = h("div", { class: "plot" });
  const rateFigure = h("figure", { class: "card", role: "img", "aria-label": "Transactions decided per second, the last five minutes" });
  const latencyFigure = h("figure", { class: "card", role: "img", "aria-label": "Time to the decision, median and 99th percentile, the last five minutes" });
  const led = h("p", { class: "led" });
  const attention = h("div", {});
  const latest = h("div", {});
  show(main,
    h("div", { class: "head" }, h("h1", {}, "Overview"), led),
    h("section", { class: "tiles", "aria-label": "Now" }, Object.values(t).map((x) => x.box)),
    attention,
    h("section", { class: "charts" }, rateFigure, latencyFigure),
    h("section", { class: "card" }, h("h2", {}, "Latest transactions"), latest));
  const rates = chart(rateBox, "Decided per second", [{ name: "per second", colour: "--blue", fill: "--blue-soft", cls: "blue" }], (v) => count(v));
  const times = chart(latencyBox, "Time to the decision", [
    { name: "median", colour: "--blue", cls: "blue" },
    { name: "99th percentile", colour: "--orange", dash: [6, 4], cls: "orange" }], (v) => span(v));
  rateFigure.append(rates.legend, rateBox);
  latencyFigure.append(times.legend, latencyBox);

  const data = () => {
    const x = live.history;
    return [[x.t, x.rate], [x.t, x.p50, x.p99]];
  };
  const redraw = () => { const [a, b] = data(); rates.again(a); times.again(b); };
  const sizes = new ResizeObserver(redraw);
  sizes.observe(rateBox);
  addEventListener("themechange", redraw, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal });
  signal.addEventListener("abort", () => { sizes.disconnect(); rates.destroy(); times.destroy(); });

  live.subscribe(() => {
    const own = live.own;
    if (!own) return;
    const leader = live.leader;
    const p = leader?.pulse;
    const some = p && Number(p.transactions) > 0;
    show(led, leader
      ? [h("span", { class: "dot good" }), `${leader.node} leads, epoch ${leader.status.epoch}`, h("span", { class: "dim" }, ` · seen from ${own.node}`)]
      : [h("span", { class: "dot bad" }), "no leader", h("span", { class: "dim" }, ` · seen from ${own.node}`)]);
    t.rate.value.textContent = p ? rate(p.per_second) : "–";
    t.rate.more.textContent = p && duration(p.window) ? `over the last ${span(duration(p.window))}` : "";
    t.p50.value.textContent = some ? span(duration(p.p50)) : "–";
    t.p50.more.textContent = "to the decision";
    t.p99.value.textContent = some ? span(duration(p.p99)) : "–";
    t.p99.more.textContent = "to the decision";
    t.aborts.value.textContent = some ? `${(100 * (p.abort_share ?? 0)).toFixed(p.abort_share < 0.1 ? 1 : 0)} %` : "–";
    t.aborts.more.textContent = some ? `of ${count(p.transactions)}` : "";
    const view = leader ?? own;
    t.open.value.textContent = count(view.status.unfinished);
    t.open.more.textContent = `of ${count(view.status.retained)} known`;
    const old = oldest();
    t.oldest.value.textContent = old ? span(old.age) : "none";
    show(t.oldest.more, old && h("a", { href: `#/tx/${old.txid}` }, short(old.txid)));
    show(attention, concerns());
    const [a, b] = data();
    rates.set(a);
    times.set(b);
  }, signal);

  const list = async () => {
    try {
      const page = await get("/v1/transactions?page_size=8", { signal });
      show(latest, page.transactions.length === 0
        ? h("p", { class: "empty" }, "No transactions yet. Submit one: ", h("code", {}, "decree tx submit --branch NAME=JSON"))
        : h("ul", { class: "latest" }, page.transactions.map((x) => h("li", {}, h("a", { href: `#/tx/${x.txid}` },
          state(x), h("code", {}, short(x.txid)), h("span", { class: "grow" }, x.branches.map((b) => b.participant).join(" + ")), h("span", { class: "dim" }, took(x)))))));
    } catch (e) {
      if (e.name !== "AbortError" && e.status) show(latest, h("p", { class: "empty" }, e.message));
    }
    if (!signal.aborted) setTimeout(list, 2000);
  };
  list();
}

const rate = (n) => (n >= 100 ? count(Math.round(n)) : Number(n ?? 0).toFixed(n >= 10 ? 0 : 1));

// concerns are what somebody should look at.
function concerns() {
  const all = [];
  const lead = live.leader ?? live.own;
  if (Number(lead.status.damaged) > 0) all.push(["bad", `${count(lead.status.damaged)} damaged: a branch ended against the decision`, "#/tx?damaged"]);
  const old = oldest();
  if (old && old.age > OLD) all.push(["warn", `one transaction is unfinished for ${span(old.age)}`, `#/tx/${old.txid}`]);
  for (const l of lead.loads ?? []) if (l.down) all.push(["warn", `${l.participant} is down: ${count(l.unfinished)} ${l.unfinished === 1 ? "transaction waits" : "transactions wait"} for it`, "#/participants"]);
  for (const v of live.views) {
    if (v.error) all.push(["warn", `${v.node} does not answer`, "#/cluster"]);
    else if (v.status.disk_low) all.push(["bad", `${v.node} is short of disk: ${bytes(v.status.disk_free)} are left`, "#/cluster"]);
    else if (live.leader && Number(live.leader.status.commit_index) - Number(v.status.applied_index) > LAG) all.push(["warn", `${v.node} is ${count(Number(live.leader.status.commit_index) - Number(v.status.applied_index))} entries behind`, "#/cluster"]);
  }
  return all.length > 0 && h("section", { class: "concerns", "aria-label": "Needs a look" }, h("ul", {}, all.slice(0, 6).map(([cls, words, href]) => h("li", { class: cls }, h("a", { href }, words)))));
}
