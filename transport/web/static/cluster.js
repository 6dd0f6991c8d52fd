// The nodes: who leads, how far each has come, and what room its disk has.

import { get } from "./api.js";
import { handOver, operator, removeNode } from "./actions.js";
import { bytes, clock, count, day, h, show, time } from "./dom.js";
import { live } from "./live.js";

export function cluster(main, signal) {
  const told = h("p", { class: "led dim" });
  const box = h("section", { class: "grid" });
  const trail = h("section", { class: "card", hidden: true });
  show(main, h("div", { class: "head" }, h("h1", {}, "Cluster"), told), box, trail);
  keepTrail(trail, signal);
  let before = "";
  live.subscribe(() => {
    const own = live.own;
    if (!own) return;
    const leader = live.leader;
    const st = (leader ?? own).status;
    show(told, h("code", {}, st.cluster), `${st.group ? ` · group ${st.group.number} of ${st.group.of}` : ""} · epoch ${st.epoch} · cluster time ${day(time(st.cluster_time))} ${clock(time(st.cluster_time))}`);
    const now = JSON.stringify(live.views);
    if (now === before) return;
    before = now;
    const focus = document.activeElement?.id;
    const order = [...live.views].sort((a, b) => (a.node < b.node ? -1 : 1));
    show(box, order.map((v) => card(v, own, leader)));
    if (focus) document.getElementById(focus)?.focus();
  }, signal);
}

function card(v, own, leader) {
  const fact = (k, value, more) => h("div", {}, h("dt", {}, k), h("dd", {}, value, more && h("small", {}, ` ${more}`)));
  const member = (leader ?? own).status.nodes.find((n) => n.id === v.node);
  const role = v.leading ? "leader" : member && !member.voter ? "catching up" : "follower";
  const behind = leader && v.status ? Math.max(0, Number(leader.status.commit_index) - Number(v.status.applied_index)) : undefined;
  return h("article", { class: `card node${v.leading ? " leads" : ""}` },
    h("div", { class: "head" }, h("h2", {}, h("span", { class: `dot ${v.error ? "bad" : "good"}` }), v.node), h("span", { class: `tag${v.leading ? " strong" : ""}` }, v.error ? "no answer" : role)),
    h("p", { class: "dim" }, member?.raft_address, v === own && " · serves this page"),
    v.error ? h("p", { class: "told bad" }, v.error) : h("dl", { class: "facts" },
      fact("applied", count(v.status.applied_index)), fact("committed", count(v.status.commit_index)), fact("in its log", count(v.status.last_index)),
      behind !== undefined && !v.leading && fact("behind", behind === 0 ? "nothing" : count(behind)),
      fact("disk", v.status.disk_low ? h("strong", { class: "bad" }, bytes(v.status.disk_free)) : bytes(v.status.disk_free), "free"),
      fact("reserve", bytes(v.status.disk_reserve)), fact("version", v.status.version || "–")),
    leader && h("div", { class: "row" },
      !v.leading && !v.error && role === "follower" && operator("Make it lead…", () => handOver(v.node), { id: `lead-${v.node}` }),
      !v.leading && operator("Remove…", () => removeNode(v.node), { class: "danger-quiet", id: `remove-${v.node}` })));
}

const TRAIL = 5000;

// keepTrail shows what operators did last, to who may see it.
async function keepTrail(trail, signal) {
  try {
    const { records } = await get("/v1/audit?page_size=20", { signal });
    trail.hidden = records.length === 0;
    show(trail, h("h2", {}, "What operators did"), h("div", { class: "scroll" }, h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, ["When", "Who", "What", "Reason"].map((x) => h("th", { scope: "col" }, x)))),
      h("tbody", {}, records.map((r) => h("tr", {},
        h("td", { data: { label: "When" } }, h("span", {}, `${day(time(r.time))} ${clock(time(r.time)).slice(0, 8)}`)),
        h("td", { data: { label: "Who" } }, r.who || "not known"),
        h("td", { data: { label: "What" } }, h("strong", {}, r.action), " ", r.target, r.refused && h("div", { class: "detail bad" }, "refused")),
        h("td", { data: { label: "Reason" } }, r.reason || h("span", { class: "dim" }, "none"))))))));
  } catch { /* not for this reader, or the banner says it */ }
  if (!signal.aborted) setTimeout(() => keepTrail(trail, signal), TRAIL);
}
