// What an operator does: each after signing in, where the node asks who calls, and after
// typing what it is done to.

import { get, query, send, session } from "./api.js";
import { h } from "./dom.js";

// access is whether this node asks who calls.
const listeners = new Set();
export const access = {
  open: false,
  onChange(f) { listeners.add(f); },
  async ask() {
    let open = false;
    if (!session.signedIn) {
      try {
        await get("/v1/participants");
        open = true;
      } catch { /* it asks, or does not answer */ }
    }
    if (open !== access.open) {
      access.open = open;
      listeners.forEach((f) => f());
    }
  },
};

function dialog(title, content, label, done, danger) {
  return new Promise((resolve) => {
    const wrong = h("p", { class: "wrong", role: "alert" });
    const go = h("button", { class: danger ? "danger" : "primary", type: "submit" }, label);
    const form = h("form", {}, h("h2", { id: "dialog-title" }, title), content, wrong,
      h("div", { class: "row end" }, h("button", { type: "button", onclick: () => box.close() }, "Cancel"), go));
    const box = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result;
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      go.disabled = true;
      wrong.textContent = "";
      try {
        result = (await done(form)) ?? true;
        box.close();
      } catch (problem) {
        wrong.textContent = problem.message;
      }
      go.disabled = false;
    });
    box.addEventListener("close", () => {
      box.remove();
      resolve(result);
    });
    document.body.append(box);
    box.showModal();
  });
}

export const signIn = () => dialog("Sign in",
  [h("p", {}, "With a token of the role reader, to look, or operator, to act. It stays in this tab and is forgotten with it."),
    h("label", {}, "Token", h("input", { name: "token", type: "password", autocomplete: "off", required: true, autofocus: true }))],
  "Sign in", async (form) => {
    const before = session.signedIn;
    session.signIn(form.elements.token.value.trim());
    try {
      await get("/v1/cluster");
    } catch (problem) {
      if (!before) session.signOut();
      throw problem;
    }
  });

// confirm asks for a word to be typed before it acts.
function confirm(title, told, typed, label, act, extra = []) {
  const field = h("input", { name: "typed", autocomplete: "off", spellcheck: "false", required: true, autofocus: true });
  return dialog(title, [told.map((t) => h("p", {}, t)), extra,
    h("label", {}, h("span", {}, "Type ", h("code", {}, typed), " to go on"), field)], label,
  (form) => {
    if (field.value.trim() !== typed) throw new Error(`That is not ${typed}.`);
    return act(form);
  }, true);
}

const because = (form) => query({ reason: form.elements.reason.value });
const reason = () => h("label", {}, "Reason, for the record", h("input", { name: "reason", autocomplete: "off", maxlength: 400, required: true }));

export const abort = (tx) => confirm("Abort this transaction",
  ["It aborts unless it is decided already. Every branch is told so.", tx.txid], tx.txid.slice(-6), "Abort it",
  (form) => send("POST", `/v1/transactions/${tx.txid}:abort`, { reason: form.elements.reason.value, wait: "WAIT_DECISION" }), [reason()]);

const fates = {
  BRANCH_FATE_PREPARED: "holds the branch, prepared, and waits",
  BRANCH_FATE_COMMITTED: "says that the branch is committed",
  BRANCH_FATE_ABORTED: "says that the branch is aborted",
};

// resolve takes an operator's word for what became of a branch, after its participant was
// asked.
export async function resolve(tx, number, participant) {
  const branch = `/v1/transactions/${tx.txid}/branches/${number}`;
  const found = await send("POST", `${branch}:examine`, {}).catch((problem) => ({ error: problem.message }));
  const evidence = found.error ? `could not be asked: ${found.error}` : fates[found.fate] ?? "has no proof either way";
  return confirm(`Resolve branch ${number}`, [
    `${participant} ${evidence}.`,
    "The decision stays as it is. What is owed to the branch ends with your word, which cannot be taken back; where the word is against the decision, the transaction is damaged and says so.",
  ], tx.txid.slice(-6), "Resolve it", (form) => send("POST", `${branch}:resolve`, { as: form.elements.as.value, reason: form.elements.reason.value }),
  [h("label", {}, "It is", h("select", { name: "as", required: true }, h("option", { value: "" }, "choose"),
    h("option", { value: "OUTCOME_COMMITTED" }, "committed"), h("option", { value: "OUTCOME_ABORTED" }, "aborted"))), reason()]);
}

export const removeParticipant = (name) => confirm("Remove a participant",
  ["No new transaction can name it. It is refused while an unfinished transaction touches it."], name, "Remove it",
  (form) => send("DELETE", `/v1/participants/${encodeURIComponent(name)}${because(form)}`), [reason()]);

export const handOver = (to) => confirm("Transfer leadership",
  ["Transactions under way go on under the next leader; clients wait some milliseconds."], to, "Hand over",
  (form) => send("POST", "/v1/cluster:transferLeadership", { id: to, reason: form.elements.reason.value }), [reason()]);

export const removeNode = (id) => confirm("Remove a node",
  ["It leaves the cluster for good: to return, it needs a new id and an empty directory."], id, "Remove it",
  (form) => send("DELETE", `/v1/cluster/nodes/${encodeURIComponent(id)}${because(form)}`), [reason()]);

export const check = (name) => send("POST", `/v1/participants/${encodeURIComponent(name)}:check`, {});

// operator wraps a button's work: who is not signed in is asked first.
export const operator = (label, work, props = {}) => h("button", {
  ...props,
  onclick: async () => {
    if (!access.open && !session.signedIn && !(await signIn())) return;
    await work();
  },
}, label);
