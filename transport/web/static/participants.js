// Who takes part, and how they are.

import { get } from "./api.js";
import { check, operator, removeParticipant } from "./actions.js";
import { clock, count, duration, h, show, span, time } from "./dom.js";
import { live } from "./live.js";

const PACE = 3000;

export function participants(main, signal) {
  const box = h("section", { class: "grid" });
  show(main, h("div", { class: "head" }, h("h1", {}, "Participants")), box);
  let all = [];
  let before = ""; // what is shown: what has not changed is left alone
  const checks = new Map(); // what a check told, by name

  function render() {
    const lead = live.leader;
    const loads = new Map((lead?.loads ?? []).map((l) => [l.participant, l]));
    if (all.length === 0) {
      show(box, h("p", { class: "empty" }, "No participant is registered. Register one: ", h("code", {}, "decree participant put NAME --target ADDRESS")));
      return;
    }
    const now = JSON.stringify([all, lead?.loads, [...checks]]);
    if (now === before) return;
    before = now;
    const focus = document.activeElement?.id;
    show(box, all.map((p) => card(p, loads.get(p.name))));
    if (focus) document.getElementById(focus)?.focus();
  }

  function card(p, l) {
    const health = !l ? ["idle", "no call yet"] : l.down ? ["bad", "down"] : l.failures > 0 ? ["warn", "failing"] : ["good", "well"];
    const told = checks.get(p.name);
    const fact = (k, v, more) => h("div", {}, h("dt", {}, k), h("dd", {}, v, more && h("small", {}, ` ${more}`)));
    return h("article", { class: "card" },
      h("div", { class: "head" }, h("h2", {}, h("span", { class: `dot ${health[0]}` }), p.name), h("span", { class: "tag" }, p.driver)),
      h("p", { class: "dim" }, health[1], l?.failures ? `: ${count(l.failures)} deliveries failed since the last that did not` : ""),
      h("dl", { class: "facts" },
        fact("unfinished", h("a", { id: `open-${p.name}`, href: `#/tx?state=unfinished&at=${encodeURIComponent(p.name)}` }, count(p.unfinished))),
        l && fact("prepares", count(l.preparing), l.prepares_waiting ? `+ ${count(l.prepares_waiting)} waiting` : ""),
        l && fact("deliveries", count(l.delivering), l.deliveries_waiting ? `+ ${count(l.deliveries_waiting)} waiting` : ""),
        l?.pace && fact("prepare takes", span(duration(l.pace))),
        l?.scanned && fact("orphans", count(l.orphans), `at ${clock(time(l.scanned)).slice(0, 8)}`)),
      told && h("p", { class: `told ${told.reachable ? "" : "bad"}`, role: "status" }, told.reachable
        ? `Reached. ${told.recovers ? `It holds ${count(told.prepared)} prepared.` : "It cannot list what it holds prepared."}` : `Not reached: ${told.error}`),
      h("div", { class: "row" },
        operator("Check", async () => {
          try { checks.set(p.name, await check(p.name)); } catch (e) { checks.set(p.name, { reachable: false, error: e.message }); }
          render();
        }, { id: `check-${p.name}` }),
        operator("Remove…", async () => { if (await removeParticipant(p.name)) load(); }, { class: "danger-quiet", id: `remove-${p.name}` })));
  }

  async function load() {
    try {
      all = (await get("/v1/participants", { signal })).participants;
      render();
    } catch (e) {
      if (e.name !== "AbortError" && all.length === 0) show(box, h("p", { class: "empty" }, e.message));
    }
  }
  async function keep() {
    await load();
    if (!signal.aborted) setTimeout(keep, PACE);
  }
  keep();
  live.subscribe(() => all.length && render(), signal);
}
