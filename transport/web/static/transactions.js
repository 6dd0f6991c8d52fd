// All transactions: found, filtered, and scrolled through without end. Only the rows that
// can be seen are in the document.

import { get, query } from "./api.js";
import { clock, count, day, h, show, span, time, word } from "./dom.js";
import { live } from "./live.js";

const ROW = 44; // pixels
const PAGE = 500;
const REFRESH = 2000;
const MARGIN = 8; // rows beyond those that can be seen

// state is a transaction's, as a sign and a word: colour is never all there is.
export function state(x) {
  const name = word(x.state, "STATE");
  const damaged = /HEURISTIC/.test(x.damage ?? "");
  return h("span", { class: `state ${damaged ? "damaged" : name}` }, damaged ? "damaged" : name);
}

export function why(x) {
  if (/HEURISTIC/.test(x.damage ?? "")) return word(x.damage, "RECEIPT");
  if (x.reason) return [word(x.reason.code, "ABORT_CODE"), x.reason.participant && `by ${x.reason.participant}`, x.reason.detail].filter(Boolean).join(" · ");
  const b = x.branches.find((y) => y.last_error);
  return b ? `${b.participant}: ${b.last_error}` : "";
}

// took is from staging to the end: the stamps of one log entry are the same.
export function took(x) {
  const from = time(x.staged?.time);
  const to = time(x.finished?.time);
  return from === undefined || to === undefined ? "" : span(to - from);
}

// cursors are txids: those below one are older. They begin with their time.
const hex = (digits) => [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join("-");

export function afterPrefix(prefix) {
  const most = "ffffffffffff7fffbfffffffffffffff";
  return hex(prefix + most.slice(prefix.length));
}

export const olderThan = (ms) => hex(`${Math.max(0, Math.floor(ms)).toString(16).padStart(12, "0")}70008000000000000000`.padEnd(32, "0"));

const ages = [["", "any age"], ["10", "older than 10 s"], ["60", "older than a minute"], ["3600", "older than an hour"], ["86400", "older than a day"]];
const states = ["active", "preparing", "committing", "aborting", "committed", "aborted"];

export function transactions(main, signal) {
  const asked = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const find = h("input", { id: "find", type: "search", placeholder: "txid, or its beginning", "aria-label": "Find by txid", spellcheck: "false", autocomplete: "off", value: asked.get("find") ?? "" });
  const kind = h("select", { "aria-label": "State" }, h("option", { value: "" }, "every state"), h("option", { value: "unfinished" }, "unfinished"), states.map((x) => h("option", { value: x }, x)));
  const where = h("select", { "aria-label": "Participant" }, h("option", { value: "" }, "every participant"));
  const age = h("select", { "aria-label": "Age" }, ages.map(([v, words]) => h("option", { value: v }, words)));
  const damaged = h("input", { type: "checkbox", id: "damaged", checked: asked.has("damaged") });
  const told = h("span", { class: "dim", role: "status" });
  const top = h("button", { class: "top-button", hidden: true, onclick: () => { list.scrollTop = 0; list.focus(); } }, "To the latest");
  const canvas = h("div", { class: "canvas", role: "rowgroup" });
  const list = h("div", { class: "list", tabindex: 0, role: "table", "aria-label": "Transactions", "aria-rowcount": -1 }, canvas);
  const columns = h("div", { class: "trow thead", role: "presentation", "aria-hidden": "true" }, ["state", "txid", "participants", "began", "took", ""].map((x) => h("span", {}, x)));
  show(main, h("div", { class: "head" }, h("h1", {}, "Transactions"), told),
    h("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() }, find, kind, where, age, h("label", { class: "check" }, damaged, "damaged")),
    h("div", { class: "tablebox" }, columns, list, top));
  kind.value = asked.get("state") ?? "";
  age.value = asked.get("age") ?? "";

  get("/v1/participants", { signal }).then((all) => {
    where.append(...all.participants.map((p) => h("option", { value: p.name }, p.name)));
    where.value = asked.get("at") ?? "";
    if (where.value) reload();
  }, () => {});

  let rows = [];
  let token;
  let loading;
  let chosen = -1;
  let generation = 0;
  let problem = "";
  const shown = new Map();

  const prefix = () => find.value.trim().toLowerCase().replaceAll("-", "");
  const filter = () => ({
    states: kind.value === "unfinished" ? ["STATE_ACTIVE", "STATE_PREPARING", "STATE_COMMITTING", "STATE_ABORTING"] : kind.value ? [`STATE_${kind.value.toUpperCase()}`] : [],
    participant: where.value, damaged: damaged.checked || undefined,
  });
  function start() {
    const p = prefix();
    if (p) return afterPrefix(p);
    return age.value ? olderThan(Date.now() - Number(age.value) * 1000) : undefined;
  }
  const mine = (x) => x.txid.replaceAll("-", "").startsWith(prefix());

  async function more() {
    if (loading || token === null) return;
    const mineGeneration = generation;
    loading = true;
    try {
      const p = prefix();
      if (p && !/^[0-9a-f]*$/.test(p)) throw new Error("A txid has the digits 0 to 9 and a to f.");
      if (p.length === 32) {
        rows = [(await get(`/v1/transactions/${hex(p)}`, { signal })).transaction];
        token = null;
      } else {
        const page = await get(`/v1/transactions${query({ ...filter(), page_size: PAGE, page_token: token })}`, { signal });
        if (mineGeneration !== generation) return;
        const fit = page.transactions.filter(mine);
        rows.push(...fit);
        const passed = p && fit.length < page.transactions.length;
        token = passed ? null : page.next_page_token || null;
      }
      problem = "";
    } catch (e) {
      if (e.name === "AbortError") return;
      problem = e.status === 404 ? "" : e.message;
      token = null;
    } finally {
      if (mineGeneration === generation) {
        loading = false;
        render();
      }
    }
    if (mineGeneration === generation && token !== null && rows.length < PAGE) more(); // what was looked at held nothing
  }

  function reload() {
    generation++;
    rows = [];
    token = start();
    loading = false;
    chosen = -1;
    list.scrollTop = 0;
    const asking = query({ find: find.value.trim(), state: kind.value, at: where.value, age: age.value }) ;
    history.replaceState(null, "", `#/tx${damaged.checked ? (asking ? `${asking}&damaged` : "?damaged") : asking}`);
    more();
  }

  // fresh brings the newest in, while they can be seen.
  async function fresh() {
    const mineGeneration = generation;
    if (!prefix() && !age.value && list.scrollTop < ROW * 4 && !loading && !document.hidden) {
      try {
        const page = await get(`/v1/transactions${query({ ...filter(), page_size: 100 })}`, { signal });
        if (mineGeneration === generation && list.scrollTop < ROW * 4) merge(page.transactions, page.next_page_token);
      } catch { /* the banner says it */ }
    }
    if (!signal.aborted) setTimeout(fresh, REFRESH);
  }

  function merge(newest, next) {
    const seam = newest.length ? rows.findIndex((x) => x.txid === newest[newest.length - 1].txid) : -1;
    if (newest.length === 0 || (seam < 0 && newest.length === 100) || rows.length === 0) {
      rows = newest;
      token = next || null;
      chosen = -1;
    } else {
      const grown = newest.length - (seam + 1);
      rows = [...newest, ...rows.slice(seam + 1)];
      if (chosen >= 0) chosen += Math.max(0, grown);
    }
    render();
  }

  function row(i) {
    const x = rows[i];
    const began = time(x.staged?.time ?? x.decided?.time);
    return h("a", { class: `trow${i === chosen ? " chosen" : ""}`, href: `#/tx/${x.txid}`, role: "row", "aria-rowindex": i + 1, tabindex: -1, data: { row: i } },
      h("span", { role: "cell" }, state(x)), h("code", { role: "cell" }, x.txid),
      h("span", { role: "cell", class: "names" }, x.branches.map((b) => b.participant).join(" + ")),
      h("span", { role: "cell", class: "when", title: day(began) }, clock(began)), h("span", { role: "cell", class: "took" }, took(x)),
      h("span", { role: "cell", class: "why", title: why(x) }, why(x)));
  }

  function render() {
    const total = rows.length;
    canvas.style.height = `${total * ROW}px`;
    list.setAttribute("aria-rowcount", token === null ? total : -1);
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - MARGIN);
    const to = Math.min(total, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + MARGIN);
    for (const [i, old] of shown) {
      if (i < from || i >= to) {
        old.node.remove();
        shown.delete(i);
      }
    }
    for (let i = from; i < to; i++) {
      const old = shown.get(i);
      if (old && old.x === rows[i] && old.chosen === (i === chosen)) continue;
      const node = row(i);
      node.style.transform = `translateY(${i * ROW}px)`;
      if (old) old.node.replaceWith(node);
      else canvas.append(node);
      shown.set(i, { node, x: rows[i], chosen: i === chosen });
    }
    top.hidden = list.scrollTop < ROW * 20;
    const retained = Number((live.leader ?? live.own)?.status?.retained ?? 0);
    told.textContent = problem ? problem : loading && total === 0 ? "…" : total === 0 ? "" : token === null ? `${count(total)} in all` : `${count(total)} loaded${retained ? ` of ${count(retained)}` : ""}`;
    let empty = list.querySelector(".empty");
    if (total === 0 && !loading) {
      if (!empty) list.append((empty = h("p", { class: "empty" })));
      empty.textContent = problem || "No transaction is like that.";
    } else empty?.remove();
    if (token !== null && !loading && to > total - 200 && total > 0) more();
  }

  let frame;
  list.addEventListener("scroll", () => {
    frame ??= requestAnimationFrame(() => { frame = undefined; render(); });
  });
  const size = new ResizeObserver(render);
  size.observe(list);
  signal.addEventListener("abort", () => size.disconnect());

  const choose = (i) => {
    if (rows.length === 0) return;
    chosen = Math.max(0, Math.min(rows.length - 1, i));
    const y = chosen * ROW;
    if (y < list.scrollTop) list.scrollTop = y;
    else if (y + ROW > list.scrollTop + list.clientHeight) list.scrollTop = y + ROW - list.clientHeight;
    render();
    shown.get(chosen)?.node.focus({ preventScroll: true });
  };
  async function last() {
    while (token !== null && !signal.aborted) {
      await more();
      if (loading) await new Promise((r) => setTimeout(r, 20));
    }
    choose(rows.length - 1);
  }
  addEventListener("keydown", (e) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) || e.ctrlKey || e.metaKey || document.querySelector("dialog[open]")) return;
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const act = {
      j: () => choose(chosen + 1), k: () => choose(chosen - 1), ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1),
      PageDown: () => choose(Math.max(chosen, 0) + page), PageUp: () => choose(chosen - page), Home: () => choose(0), End: last,
      Enter: () => { if (chosen >= 0 && document.activeElement === list) location.hash = `#/tx/${rows[chosen].txid}`; else return false; },
    }[e.key];
    if (act && act() !== false) e.preventDefault();
  }, { signal });

  let typing;
  find.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(reload, 200);
  });
  for (const x of [kind, where, age, damaged]) x.addEventListener("change", reload);
  if (sessionStorage.getItem("find")) {
    sessionStorage.removeItem("find");
    find.focus();
  }
  reload();
  setTimeout(fresh, REFRESH);
}
