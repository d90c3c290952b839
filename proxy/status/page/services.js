// The table of Services: the proxy searches, sorts and cuts pages; here is one page of them.

import { ask, el, fill, find, number, plural, span } from "./dom.js";

const PAGE = 50;

let offset = 0;
let asked = null; // what is under way
const open = new Map(); // ports whose details are shown, and the row with them

// more is the end of a list that was cut.
const more = (list) => (list.count > list.first.length ? el("li", { class: "quiet" }, `… and ${number(list.count - list.first.length)} more`) : null);

function frontends(half) {
  return el("ul", null, half.frontends.first.map((f) =>
    el("li", null, el("span", { class: "address" }, f.address), " ", el("span", { class: "kind" }, f.kind))), more(half.frontends));
}

function backends(half) {
  if (half.setAside) return [el("span", { class: "pill bad" }, "set aside"), el("p", { class: "quiet address" }, half.setAside)];
  if (half.backends.count === 0) return el("span", { class: "pill warn" }, half.serves ? "none" : "none: refused");
  return [
    el("span", { class: "kind" }, plural(half.backends.count, "backend") + (half.here ? `, ${number(half.here)} on this node` : "")),
    el("ul", null, half.backends.first.map((b) =>
      el("li", null, el("span", { class: "address" }, b.address), b.here ? el("span", { class: "here" }, " here") : null)), more(half.backends)),
  ];
}

function row(r) {
  const key = `${r.service} ${r.port} ${r.protocol}`;
  const button = el("button", { type: "button", class: "open", "aria-expanded": String(open.has(key)) }, r.service);
  const affinity = r.families.find((f) => f.affinitySeconds)?.affinitySeconds;
  const tr = el("tr", { class: "row" },
    el("td", null, button, el("div", { class: "under quiet" }, [r.port, r.protocol].filter(Boolean).join(", "),
      affinity ? `, clients keep their backend for ${span(affinity * 1e9)}` : null)),
    el("td", { "data-label": "Frontends" }, r.families.map(frontends)),
    el("td", { "data-label": "Backends" }, r.families.map(backends)));
  button.addEventListener("click", () => {
    if (open.has(key)) {
      open.get(key).remove();
      open.delete(key);
    } else {
      open.set(key, el("tr", { class: "detail" }, el("td", { colspan: 3 }, el("p", { class: "quiet" }, "asking …"))));
      tr.after(open.get(key));
      explain(open.get(key).firstChild, r);
    }
    button.setAttribute("aria-expanded", String(open.has(key)));
  });
  if (!open.has(key)) return tr;
  explain(open.get(key).firstChild, r); // what it says stays until there is an answer
  return [tr, open.get(key)];
}

// explain shows what explain says of a port.
async function explain(cell, r) {
  try {
    const answer = await ask("service", { name: r.service });
    const name = r.port ? `${r.service}:${r.port}` : r.service;
    const ports = answer.ports.filter((p) => p.service === name && p.protocol === r.protocol);
    fill(cell, ports.map(details), answer.left ? el("p", { class: "quiet" }, `… and ${plural(answer.left, "more endpoint")}`) : null,
      el("p", { class: "quiet" }, "The same on the node: ", el("code", null, `sluice explain ${r.service}`)));
  } catch (e) {
    fill(cell, el("p", null, `No answer: ${e.message}`));
  }
}

const route = (r) => (r.verdict === "forward" ? `${r.pool}${r.masquerade ? ", masqueraded" : ""}` : r.verdict);
const heads = (...names) => el("thead", null, el("tr", null, names.map((n) => el("th", { scope: "col" }, n))));
const table = (label, head, rows) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", null, head, el("tbody", null, rows)));

function details(port) {
  const judged = (j) => el("td", { class: j.used ? "yes" : "no" }, `${j.used ? "yes" : "no"}: ${j.why}`);
  return [
    el("h4", null, "What becomes of new connections"),
    table("Frontends", heads("Frontend", "Kind", "From pods", "From the node", "From outside", "Only for"), port.frontends.map((f) => el("tr", null,
      el("td", { class: "address" }, f.address), el("td", null, f.kind),
      ["pod", "node", "outside"].map((s) => el("td", null, route(f.routes[s]))),
      el("td", { class: "address" }, f.allowed ? f.allowed.join(", ") || "nobody" : "everyone")))),
    port.endpoints ? [
      el("h4", null, "Endpoints, and why they are backends or not"),
      table("Endpoints", heads("Endpoint", "Node", "Pool cluster", "Pool local"), port.endpoints.map((e) => el("tr", null,
        el("td", { class: "address" }, e.address), el("td", null, e.node ?? ""), judged(e.pools.cluster), judged(e.pools.local)))),
    ] : null,
  ];
}

// load shows the page at the offset. An earlier question that is still under way is dropped.
export async function load() {
  asked?.abort();
  const mine = asked = new AbortController();
  let answer;
  try {
    answer = await ask("services", { q: find("q").value, only: find("only").value, offset, limit: PAGE }, mine.signal);
  } catch (e) {
    if (mine === asked && !mine.signal.aborted) find("found").textContent = `No answer: ${e.message}`;
    return;
  }
  if (mine !== asked) return;
  if (answer.rows.length === 0 && offset > 0 && answer.matched > 0) { // fewer than before
    offset = Math.floor((answer.matched - 1) / PAGE) * PAGE;
    return load();
  }
  const focused = document.activeElement?.closest(".open")?.textContent;
  fill(find("rows"), answer.rows.map(row));
  if (focused) [...document.querySelectorAll(".open")].find((b) => b.textContent === focused)?.focus();
  find("found").textContent = answer.matched === answer.count ? `${plural(answer.count, "port")} of Services`
    : `${number(answer.matched)} of ${plural(answer.count, "port")} of Services`;
  const last = offset + answer.rows.length;
  find("where").textContent = answer.matched > 0 ? `${number(offset + 1)} to ${number(last)} of ${number(answer.matched)}` : "";
  find("back").disabled = offset === 0;
  find("next").disabled = last >= answer.matched;
}

function turn(by) {
  offset = Math.max(0, offset + by);
  open.clear();
  load();
  find("services").scrollIntoView();
}

function search() {
  offset = 0;
  open.clear();
  load();
}

// start makes the search and the pages work.
export function start() {
  let timer;
  find("q").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
  find("only").addEventListener("change", search);
  find("search").addEventListener("submit", (e) => { e.preventDefault(); search(); });
  find("back").addEventListener("click", () => turn(-PAGE));
  find("next").addEventListener("click", () => turn(PAGE));
  document.addEventListener("keydown", (e) => {
    if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select")) return;
    e.preventDefault();
    find("q").focus();
  });
}
