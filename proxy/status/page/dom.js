// Elements and words. Whatever comes from the proxy becomes a text node or an attribute's value, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

// fill gives an element other content: elements, texts, and nothing for null.
export function fill(element, ...content) {
  element.replaceChildren(...content.flat(Infinity).filter((x) => x !== null && x !== undefined));
  return element;
}

function make(element, attributes, content) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  return fill(element, content);
}

export const el = (tag, attributes, ...content) => make(document.createElement(tag), attributes, content);
export const draw = (tag, attributes, ...content) => make(document.createElementNS(SVG, tag), attributes, content);

const whole = new Intl.NumberFormat("en");
export const number = (n) => whole.format(n);
export const plural = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

// span is a time in nanoseconds in words.
export function span(ns) {
  const ms = ns / 1e6;
  if (ms < 1) return `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120e3) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7200e3) return `${Math.round(ms / 60e3)} min`;
  return `${Math.round(ms / 360e3) / 10} h`;
}

// ago is how long before now, both in milliseconds, something was.
export function ago(then, now) {
  const s = Math.max(0, Math.round((now - then) / 1000));
  if (s < 2) return "just now";
  if (s < 120) return `${s} s ago`;
  if (s < 7200) return `${Math.round(s / 60)} min ago`;
  if (s < 172800) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

// ask fetches one of the page's data.
export async function ask(what, parameters = {}, signal = undefined) {
  const url = new URL(`data/${what}`, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  const limit = AbortSignal.timeout(10e3);
  const answer = await fetch(url, { signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).trim()}`);
  return answer.json();
}
