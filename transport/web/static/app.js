// The shell: which screen is shown, who is signed in, what the keyboard does, and whether
// the node still answers.

import { session } from "./api.js";
import { access, signIn } from "./actions.js";
import { h, show } from "./dom.js";
import { follow, live } from "./live.js";
import { overview } from "./overview.js";
import { transactions } from "./transactions.js";
import { transaction } from "./transaction.js";
import { participants } from "./participants.js";
import { cluster } from "./cluster.js";

const screens = [
  { name: "Overview", path: "", key: "o", open: overview },
  { name: "Transactions", path: "tx", key: "t", open: transactions },
  { name: "Participants", path: "participants", key: "p", open: participants },
  { name: "Cluster", path: "cluster", key: "c", open: cluster },
];

const main = document.getElementById("main");
let shown; // ends the work of the screen that is shown

function route() {
  const [path, ...rest] = decodeURI(location.hash.replace(/^#\/?/, "")).split("?")[0].split("/");
  const screen = screens.find((x) => x.path === path) ?? screens[0];
  shown?.abort();
  shown = new AbortController();
  for (const a of document.querySelectorAll("#nav a")) {
    if (a.dataset.path === screen.path) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  const one = screen.path === "tx" && rest[0];
  document.title = `${one ? `${rest[0].slice(0, 8)} · ` : ""}${screen.name} · decree`;
  (one ? transaction : screen.open)(main, shown.signal, rest[0]);
}

function chooseTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  dispatchEvent(new Event("themechange"));
}

function tools() {
  show(document.getElementById("tools"),
    h("button", { class: "icon", onclick: chooseTheme, title: "Light or dark", "aria-label": "Change between light and dark" }, "◐"),
    h("button", { class: "icon", onclick: help, title: "Keyboard: ?", "aria-label": "Keyboard shortcuts" }, "?"),
    session.signedIn
      ? h("button", { onclick: () => session.signOut() }, "Sign out")
      : access.open
        ? h("span", { class: "open", title: "This node asks nobody who they are: whoever reaches this page may act. decree cert and decree token secure it." }, "not secured")
        : h("button", { onclick: () => signIn() }, "Sign in"));
}

const shortcuts = [
  ["g then o, t, p, c", "Overview, transactions, participants, cluster"],
  ["/", "Find a transaction by its txid"],
  ["j, k", "Next, previous row"],
  ["Enter", "Open the row"],
  ["Esc", "Close a dialog; from a transaction, back to the list"],
  ["d", "Light or dark"],
  ["?", "This list"],
];

function help() {
  const box = h("dialog", { "aria-labelledby": "help" },
    h("h2", { id: "help" }, "Keyboard"),
    h("dl", { class: "keys" }, shortcuts.map(([k, what]) => [h("dt", {}, k.split(/(, | then )/).map((x, i) => (i % 2 ? x : h("kbd", {}, x)))), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", { class: "primary", autofocus: true }, "Close")));
  document.body.append(box);
  box.addEventListener("close", () => box.remove());
  box.showModal();
}

let prefix = 0;
addEventListener("keydown", (e) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  if (typing) {
    if (e.key === "Escape") e.target.blur();
    return;
  }
  if (performance.now() - prefix < 1500) {
    prefix = 0;
    const screen = screens.find((x) => x.key === e.key);
    if (screen) {
      e.preventDefault();
      location.hash = `#/${screen.path}`;
      return;
    }
  }
  const act = {
    g: () => { prefix = performance.now(); },
    "?": help,
    d: chooseTheme,
    "/": () => {
      const field = document.getElementById("find");
      if (field) field.focus();
      else {
        sessionStorage.setItem("find", "1");
        location.hash = "#/tx";
      }
    },
    Escape: () => { if (/^#\/tx\/./.test(location.hash)) location.hash = "#/tx"; },
  }[e.key];
  if (act) {
    e.preventDefault();
    act();
  }
});

// What is wrong with the connection or the cluster is said in one calm line.
let since;
function banner() {
  const words =
    live.state === "lost" ? "This node does not answer. What is shown is what was known last; it goes on by itself when the node is back."
    : live.state === "denied" ? (session.signedIn ? `Not allowed: ${live.problem.message}.` : "Sign in to see this cluster.")
    : live.state === "live" && !live.leader ? "There is no leader at the moment. Nothing is lost: clients wait, and go on with the next one."
    : "";
  since = words ? since ?? performance.now() : undefined;
  const box = document.getElementById("banner");
  if (box.textContent !== words) show(box, words && h("p", {}, words));
  document.body.classList.toggle("stale", live.state === "lost");
}

show(document.getElementById("nav"), screens.map((x) => h("a", { href: `#/${x.path}`, data: { path: x.path }, title: `g ${x.key}` }, x.name)));
tools();
access.onChange(tools);
session.onChange(tools);
session.onChange(() => access.ask());
live.subscribe(banner, new AbortController().signal);
addEventListener("hashchange", () => { route(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
session.onChange(route);
route();
follow();
access.ask();
