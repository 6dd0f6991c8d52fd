// Elements, made from trusted names and untrusted text: whatever comes from a node goes
// into text nodes and attributes that are no code, never into markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(e, props, children) {
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (k === "data") Object.assign(e.dataset, v);
    else e.setAttribute(k, v === true ? "" : String(v));
  }
  e.append(...children.flat(9).filter((c) => c !== undefined && c !== null && c !== false).map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

export const show = (parent, ...children) => parent.replaceChildren(...children.flat(9).filter(Boolean));

// Figures, times and words, as the command line writes them.
export const count = (n) => Number(n ?? 0).toLocaleString("en-US");

export function span(ms) {
  if (ms === undefined || Number.isNaN(ms)) return "–";
  const a = Math.abs(ms);
  if (a === 0) return "0";
  if (a < 0.0995) return `${Math.round(ms * 1000)} µs`;
  if (a < 9.995) return `${ms.toFixed(a < 0.995 ? 2 : 1)} ms`;
  if (a < 999.5) return `${Math.round(ms)} ms`;
  if (a < 59950) return `${(ms / 1000).toFixed(a < 9995 ? 1 : 0)} s`;
  const minutes = Math.floor(a / 60000);
  if (minutes < 60) return `${minutes} m ${Math.floor((a % 60000) / 1000)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} m` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Protobuf's JSON has times to the nanosecond; a Date has milliseconds. In ms, as a float.
export function time(text) {
  if (!text) return undefined;
  const [, head, fraction = ""] = /^(.*?)(?:\.(\d+))?Z$/.exec(text) ?? [];
  return head ? Date.parse(`${head}Z`) + Number(`0.${fraction || 0}`) * 1000 : undefined;
}

export const duration = (text) => (text ? parseFloat(text) * 1000 : undefined);

export const clock = (ms) => (ms === undefined ? "–" : new Date(ms).toLocaleTimeString("en-GB", { hour12: false }) + "." + String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0"));
export const day = (ms) => (ms === undefined ? "" : new Date(ms).toLocaleDateString("en-CA"));

export function bytes(n) {
  n = Number(n ?? 0);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024) return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} TiB`;
}

// STATE_COMMITTED is committed.
export const word = (value, prefix) => (!value || value === `${prefix}_UNSPECIFIED` ? "" : value.replace(`${prefix}_`, "").toLowerCase().replaceAll("_", "-"));

export const short = (txid) => `${txid.slice(0, 8)}…${txid.slice(-6)}`;
