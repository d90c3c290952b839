// What the node does as a whole, asked every few seconds as long as somebody looks.

import { ago, ask, clock, el, fill, find, number, plural, span } from "./dom.js";
import * as plot from "./plot.js";
import * as services from "./services.js";

const EVERY = 3000;

let heard = 0; // when the proxy answered last
let started = ""; // the proxy that answered last
let before = ""; // what the table of Services depends on
let wake = null; // ends the pause between two questions

const time = (text) => (text ? Date.parse(text) : 0);

// state says in a word, and how bad it is, what is known of a family in the kernel.
function state(f, now) {
  const k = f.kernel;
  if (k.failing) return ["bad", `failing for ${span((now - time(k.failing)) * 1e6)}`];
  if (!k.applied) return ["warn", "nothing applied yet"];
  if (k.lastDoubt && !k.lastDoubt.repaired) return ["warn", "in doubt, repair comes"];
  if (k.waiting && now - time(k.waiting) > 10e3) return ["warn", `a change waits for ${span((now - time(k.waiting)) * 1e6)}`];
  return ["good", "as applied"];
}

function card(f, now) {
  const k = f.kernel, [level, text] = state(f, now);
  const moment = (t) => (t ? `${ago(time(t), now)} (${clock(time(t))})` : "never");
  const audit = k.lastAudit, found = audit?.error ? `failed: ${audit.error}` : audit?.differences ? `${plural(audit.differences, "difference")}, mended then` : "they agree";
  const facts = [
    ["Last sync", moment(k.applied)],
    ["Last written in full", moment(k.compared)],
    ["Changed by others", k.doubts === 0 ? "never seen since the start" : `${plural(k.doubts, "time")} since the start`],
  ];
  if (audit) facts.splice(2, 0, ["Compared by audit", `${moment(audit.at)}: ${found}`]);
  if (k.lastDoubt) facts.push(["The last time", `${moment(k.lastDoubt.at)}: ${k.lastDoubt.reason}`],
    ["Repaired", k.lastDoubt.repaired ? `${span((time(k.lastDoubt.repaired) - time(k.lastDoubt.at)) * 1e6)} later` : "not yet"]);
  if (k.error) facts.push(["Error", k.error]);
  return el("article", { class: "card" },
    el("h3", null, f.family, el("span", { class: `pill ${level}` }, text)),
    el("dl", null, facts.map(([name, value]) => [el("dt", null, name), el("dd", null, value)])));
}

function amiss(s) {
  find("amiss").hidden = s.setAside.count + s.conflicts.count === 0;
  const more = (list) => (list.count > list.first.length ? el("li", null, `… and ${number(list.count - list.first.length)} more`) : null);
  fill(find("aside"), s.setAside.first.map((a) => el("li", null,
    el("strong", null, a.name), ` (${a.protocol}, ${a.family}) is set aside, because the kernel refuses it:`, el("p", { class: "address" }, a.why))), more(s.setAside));
  fill(find("conflicts"), s.conflicts.first.map((c) => el("li", null,
    el("span", { class: "address" }, c.frontend), ` (${c.protocol}) belongs to `, el("strong", null, c.owner), `, also claimed by ${c.losers.join(", ")}`)), more(s.conflicts));
}

function summary(s) {
  const now = time(s.now), served = s.families.filter((f) => f.served || f.kernel.failing || f.kernel.waiting);
  const sum = (of) => s.families.reduce((n, f) => n + f[of], 0);
  document.title = `Sluice ${s.node}`;
  find("node").textContent = s.node;
  find("about").textContent = `mode ${s.mode}, ${s.version}`;
  fill(find("numbers"), [
    ["Services", s.services], ["frontends", sum("frontends")], ["backends", sum("backends")],
    ["without backends", sum("unserved")], ["set aside", s.setAside.count], ["conflicts", s.conflicts.count],
  ].map(([name, n]) => el("div", null, el("dt", null, name), el("dd", null, number(n)))));
  fill(find("kernel"), served.length ? served.map((f) => card(f, now)) : el("p", { class: "quiet" }, "Nothing is applied yet."));
  amiss(s);
  const states = served.map((f) => state(f, now));
  const worst = ["bad", "warn", "good"].find((level) => states.some(([l]) => l === level)) ?? "warn";
  const words = { bad: "syncs fail", warn: "not settled", good: s.setAside.count ? "serving, some set aside" : "serving" };
  const pill = find("state");
  pill.className = `pill ${worst === "good" && s.setAside.count ? "warn" : worst}`;
  if (pill.textContent !== words[worst]) pill.textContent = words[worst];
  return JSON.stringify(s.families.map((f) => f.kernel.applied));
}

// refresh asks for what is new. The Services are asked for again only if a sync may have changed them.
async function refresh() {
  try {
    const s = await ask("summary");
    if (s.started !== started) plot.forget();
    started = s.started;
    plot.add(await ask("syncs", { after: plot.newest() }));
    const now = summary(s);
    if (now !== before) await services.load();
    before = now;
    heard = Date.now();
    find("trouble").hidden = true;
  } catch (e) {
    find("trouble").textContent = `The proxy does not answer${heard ? ` since ${clock(heard)}` : ""}: what is shown may be old. ${e.message}`;
    find("trouble").hidden = false;
    const pill = find("state");
    pill.className = "pill bad";
    pill.textContent = "no answer";
  }
}

async function watch() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => { wake = done; setTimeout(done, EVERY); });
  }
}

document.addEventListener("visibilitychange", () => wake?.());
plot.start();
services.start();
watch();
