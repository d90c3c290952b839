// The plot of the syncs: above how long each took, below how many objects it wrote, both on a logarithmic scale over time.

import { clock, draw, el, fill, find, number, plural, span } from "./dom.js";

const HEIGHT = 290, LEFT = 62, RIGHT = 14;
const KEPT = 1024;

let syncs = []; // the oldest first
let points = []; // of what is drawn: {x, y, sync}
let picked = null; // number of a sync
let cursor = null; // the group that marks it

// add takes what the proxy has done since the last time.
export function add(news) {
  if (news.length === 0) return;
  for (const s of news) {
    s.at = Date.parse(s.ended);
    syncs.push(s);
  }
  syncs = syncs.slice(-KEPT);
  table();
  render();
}

export const newest = () => syncs.at(-1)?.number ?? 0;
export const forget = () => { syncs = []; };

const what = (s) => (s.error ? "failed" : s.full ? "everything" : "a difference");

function table() {
  fill(find("latest"), syncs.slice(-25).reverse().map((s) => el("tr", null,
    el("td", null, clock(s.at)), el("td", null, s.family), el("td", null, what(s) + (s.error ? `: ${s.error}` : "")),
    el("td", { class: "n" }, span(s.tookNanoseconds)), el("td", { class: "n" }, s.delayNanoseconds ? span(s.delayNanoseconds) : "–"),
    el("td", { class: "n" }, number(s.writes)), el("td", { class: "n" }, number(s.objects)), el("td", { class: "n" }, number(s.bytes)))));
}

// scale maps a value to a height; marks are the powers of ten within.
function scale(values, top, bottom, least) {
  const low = Math.floor(Math.log10(Math.max(least, Math.min(...values))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(least, ...values) * 1.05)));
  const at = (v) => bottom - (bottom - top) * (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low);
  const step = Math.ceil((high - low) / 4);
  const marks = [];
  for (let e = low; e <= high; e += step) marks.push(10 ** e);
  return { at, marks };
}

// ticks are round times of day, at most n of them.
function ticks(from, to, n) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const step = 1000 * (steps.find((s) => (to - from) / 1000 / s <= n) ?? 86400 * Math.ceil((to - from) / 86400e3 / n));
  const shift = new Date(from).getTimezoneOffset() * 60e3;
  const marks = [];
  for (let t = Math.ceil((from - shift) / step) * step + shift; t <= to; t += step) marks.push(t);
  return marks;
}

function mark(s, x, y) {
  if (s.error) return draw("path", { class: "failed", d: `M${x - 4} ${y - 4}l8 8M${x + 4} ${y - 4}l-8 8` });
  if (s.full) return draw("path", { class: "full", d: `M${x} ${y - 5}l5 5-5 5-5-5z` });
  return draw("circle", { class: "partial", cx: x, cy: y, r: 3.2 });
}

export function render() {
  const plot = find("plot"), width = plot.clientWidth;
  if (width === 0) return;
  const limit = Number(find("span").value) * 1000, newestAt = Date.now();
  const list = limit ? syncs.filter((s) => s.at >= newestAt - limit) : syncs;
  points = [];
  cursor = null;
  if (list.length === 0) {
    fill(plot, el("p", { class: "quiet" }, syncs.length ? "No sync in that time." : "No sync yet."));
    return;
  }
  const to = Math.max(list.at(-1).at, limit ? newestAt : 0), from = Math.min(limit ? to - limit : list[0].at, to - 10e3);
  const x = (t) => LEFT + (width - LEFT - RIGHT) * (t - from) / (to - from);
  const time = scale(list.map((s) => s.tookNanoseconds), 26, 135, 1e5);
  const size = scale(list.map((s) => s.writes), 168, 262, 1);

  const grid = [
    draw("text", { class: "name", x: 0, y: 13 }, "Time taken"), draw("text", { class: "name", x: 0, y: 155 }, "Objects written"),
    [[time, span], [size, number]].map(([scale, words]) => scale.marks.map((v) => [
      draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: scale.at(v), y2: scale.at(v) }),
      draw("text", { x: LEFT - 8, y: scale.at(v) + 4, "text-anchor": "end" }, words(v).replace(".0 ", " ")),
    ])),
    ticks(from, to, Math.max(2, Math.floor(width / 120))).map((t) =>
      draw("text", { x: x(t), y: HEIGHT - 8, "text-anchor": x(t) > width - 40 ? "end" : "middle" }, clock(t))),
  ];
  const marks = list.map((s) => {
    const at = { x: x(s.at), y: time.at(s.tookNanoseconds), low: size.at(s.writes), sync: s };
    points.push(at);
    return [mark(s, at.x, at.y), mark(s, at.x, at.low)];
  });
  cursor = draw("g");
  fill(plot, draw("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" }, grid, marks, cursor));
  show();
}

// show marks the sync that is picked and says its numbers.
function show() {
  const at = points.find((p) => p.sync.number === picked);
  if (!at) return;
  fill(cursor, draw("line", { class: "cursor", x1: at.x, x2: at.x, y1: 20, y2: 266 }),
    draw("circle", { class: "here", cx: at.x, cy: at.y, r: 7 }), draw("circle", { class: "here", cx: at.x, cy: at.low, r: 7 }));
  const s = at.sync;
  const said = [
    `${clock(s.at)}, ${s.family}: ${s.error ? `failed after ${span(s.tookNanoseconds)}: ${s.error}` : `wrote ${what(s)} in ${span(s.tookNanoseconds)}`}`,
    `${number(s.writes)} of ${plural(s.objects, "object")}, ${plural(s.bytes, "byte")} in ${plural(s.transactions, "transaction")}`,
    s.delayNanoseconds ? `${span(s.delayNanoseconds)} after the change in the cluster` : null,
    s.setAside ? `${plural(s.setAside, "port")} set aside` : null,
  ];
  find("picked").textContent = said.filter(Boolean).join("; ");
}

function pick(at) {
  if (!at) return;
  picked = at.sync.number;
  show();
}

// start makes the plot follow its size, the pointer and the arrow keys.
export function start() {
  const plot = find("plot");
  new ResizeObserver(render).observe(plot);
  find("span").addEventListener("change", render);
  plot.addEventListener("pointermove", (e) => {
    const x = e.clientX - plot.getBoundingClientRect().left;
    pick(points.reduce((a, b) => (!a || Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a), null));
  });
  plot.addEventListener("keydown", (e) => {
    const i = points.findIndex((p) => p.sync.number === picked), last = points.length - 1;
    const to = { ArrowLeft: i < 0 ? last : Math.max(0, i - 1), ArrowRight: i < 0 ? last : Math.min(last, i + 1), Home: 0, End: last }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    pick(points[to]);
  });
}
