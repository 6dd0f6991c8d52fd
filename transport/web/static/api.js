// The node that served this page, and nobody else. A token is sent in a header that no
// other site can make a browser send, and is forgotten with the tab.

let token = sessionStorage.getItem("token") ?? "";
const listeners = new Set();

export const session = {
  get signedIn() { return token !== ""; },
  signIn(t) { token = t; sessionStorage.setItem("token", t); listeners.forEach((f) => f()); },
  signOut() { token = ""; sessionStorage.removeItem("token"); listeners.forEach((f) => f()); },
  onChange(f) { listeners.add(f); },
};

export class Problem extends Error {
  constructor(status, body) {
    super(body?.message || `HTTP ${status}`);
    this.status = status;
    this.reason = body?.reason ?? "";
    this.violations = body?.violations ?? [];
  }
}

async function request(method, path, { body, signal, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, cache: "no-store", credentials: "omit", body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Problem(0, { message: "this node can't be reached" });
  }
  if (!answer.ok) {
    let told;
    try { told = await answer.json(); } catch { /* not ours */ }
    throw new Problem(answer.status, told);
  }
  return answer;
}

export const get = async (path, options) => (await request("GET", path, options)).json();
export const send = async (method, path, body) => (await request(method, path, { body })).json();

// events yields what the node sends by server-sent events, until it or we end it. It is
// fetched, for an EventSource can't send a token.
export async function* events(path, signal) {
  const answer = await request("GET", path, { signal, accept: "text/event-stream" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5)).join("\n");
      if (!data) continue;
      const message = JSON.parse(data);
      if (message.error) throw new Problem(503, message.error);
      yield message.result;
    }
  }
}

export const query = (params) => {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) {
    if (Array.isArray(v)) v.forEach((x) => q.append(k, x));
    else if (v !== undefined && v !== "" && v !== false) q.append(k, v);
  }
  const text = q.toString();
  return text && `?${text}`;
};
