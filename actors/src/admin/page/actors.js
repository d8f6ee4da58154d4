// Actors: every actor below its parent, live. Connections are one row that opens.
//
// Owns:   the table's rows; which rows are open.

import { fill, list, make, mark, say, tell } from "./dom.js";
import { ago, count as number, rate as perSecond, span, state } from "./format.js";
import * as rates from "./rates.js";

/** Siblings of these kinds are one row until it is opened. */
const CROWDS = { Connection: "connections", PeerConnection: "peer connections" };
/** So many connections are shown of those that are open. */
const CROWD_ROWS_MAX = 100;
/** A message that waits this long is worth a word. */
const OLD_MS = 1000;
/** A mailbox this deep fills its bar, unless another is deeper. */
const SCALE_MIN = 20;

const PARTS = new Set(["Node", "Group"]);

const open = new Set();
let last = null;
let choose = () => {};

/** Tells whom to call with the name of an actor that was chosen. */
export function onChoose(callback) {
  choose = callback;
}

export function actors(answers) {
  const answer = answers.actors;
  if (answer.error) {
    say(document.getElementById("actors-note"), answer.error);
    return;
  }
  if (answer !== last) rates.count(answer);
  last = answer;
  summary(answer.actors);
  const rows = arranged(answer.actors);
  const scale = Math.max(SCALE_MIN, ...rows.map((row) => row.mailbox));
  const body = document.querySelector("#actors tbody");
  list(body, rows, (row) => row.key, create, (element, row) => update(element, row, scale, answer.unix_ms));
}

function summary(all) {
  const words = [`${number(all.length)} in all`];
  const strange = new Map();
  for (const actor of all) {
    const word = actor.stalled_ms != null ? "stuck" : actor.state === "running" ? null : state(actor).words;
    if (word) strange.set(word, (strange.get(word) ?? 0) + 1);
  }
  if (strange.size === 0) words.push("all running");
  for (const [word, many] of strange) words.push(`${number(many)} ${word}`);
  say(document.getElementById("actors-note"), words.join(", "));
}

/** Rows in the node's order, with depths, and crowds folded. */
function arranged(all) {
  const depths = new Map();
  const crowds = new Map();
  const rows = [];
  for (const actor of all) {
    const depth = actor.parent != null && depths.has(actor.parent) ? depths.get(actor.parent) + 1 : 0;
    depths.set(actor.name, depth);
    if (!(actor.kind in CROWDS)) {
      rows.push({ ...actor, key: actor.name, depth, perSecond: rates.rate(actor.name) });
      continue;
    }
    const key = `${actor.parent}/${actor.kind}`;
    if (!crowds.has(key)) {
      crowds.set(key, { key, depth, crowd: CROWDS[actor.kind], members: [] });
      rows.push(crowds.get(key));
    }
    crowds.get(key).members.push(actor);
  }
  for (const crowd of crowds.values()) sum(crowd);
  return rows.flatMap((row) => (row.crowd && open.has(row.key) ? [row, ...opened(row)] : [row]));
}

function sum(crowd) {
  const { members } = crowd;
  const add = (of) => members.reduce((total, member) => total + (of(member) ?? 0), 0);
  // What is worst is what is told.
  const worst = members.find((member) => member.stalled_ms != null) ?? members.find((member) => member.state !== "running") ?? members[0];
  Object.assign(crowd, {
    state: worst.state,
    stalled_ms: worst.stalled_ms,
    mailbox: add((member) => member.mailbox),
    oldest_wait_ms: Math.max(...members.map((member) => member.oldest_wait_ms)),
    perSecond: add((member) => rates.rate(member.name)),
    restarts: add((member) => member.restarts),
    stalls: add((member) => member.stalls),
    last_panic: null,
  });
}

function opened({ key, depth, members }) {
  const shown = members.slice(0, CROWD_ROWS_MAX);
  const rows = shown.map((actor) => ({ ...actor, key: actor.name, depth: depth + 1, perSecond: rates.rate(actor.name) }));
  const more = members.length - shown.length;
  if (more) rows.push({ key: `${key}/more`, depth: depth + 1, more, mailbox: 0 });
  return rows;
}

function create(row) {
  if (row.more) return make("tr", { class: "more" }, make("td", { colspan: 7 }));
  const button = make("button", { type: "button" });
  if (!row.crowd) mark(button, "aria-haspopup", "dialog");
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, make("div"));
  const element = make(
    "tr",
    PARTS.has(row.kind) ? { class: "part" } : {},
    make("th", { scope: "row", class: "name" }, button),
    make("td", { class: "is" }, make("span", { class: "state quiet" })),
    make("td", { class: "waiting" }, make("div", {}, make("span"), bar, make("em"))),
    make("td", { class: "rate" }, make("span")),
    make("td", { class: "restarts" }, make("span")),
    make("td", { class: "stalls" }, make("span")),
    make("td", { class: "panic" }, make("span")),
  );
  // Anywhere in the row; from the keyboard the button gets it, and passes it up.
  element.addEventListener("click", () => (row.crowd ? toggle(row.key) : choose(row.key)));
  return element;
}

function toggle(key) {
  if (!open.delete(key)) open.add(key);
  actors({ actors: last });
}

function update(element, row, scale, now) {
  mark(element, "data-depth", row.depth);
  if (row.more) {
    say(element.firstElementChild, `and ${number(row.more)} more: loglog actors lists them all`);
    return;
  }
  const [name, is, waiting, rate, restarts, stalls, panic] = element.children;
  const button = name.firstElementChild;
  say(button, row.crowd ? `${row.crowd} ×${number(row.members.length)}` : row.name);
  if (row.crowd) mark(button, "aria-expanded", open.has(row.key));
  tell(is.firstElementChild, state(row));
  // The node and its groups are no actors: nobody writes to them.
  const isPart = PARTS.has(row.kind);
  const [mailbox, bar, oldest] = waiting.firstElementChild.children;
  const isOld = row.oldest_wait_ms >= OLD_MS;
  figure(mailbox, row.mailbox, isPart ? "–" : number(row.mailbox));
  // An age says more than a length.
  say(oldest, isOld ? `for ${span(row.oldest_wait_ms)}` : "");
  oldest.hidden = !isOld;
  bar.hidden = isPart || isOld;
  fill(bar.firstElementChild, row.mailbox / scale);
  figure(rate.firstElementChild, row.perSecond, isPart ? "–" : perSecond(row.perSecond));
  figure(restarts.firstElementChild, row.restarts, number(row.restarts), "some");
  figure(stalls.firstElementChild, row.stalls, number(row.stalls), "some");
  const told = row.last_panic ? `${ago(now - row.last_panic.unix_ms)}: ${row.last_panic.text}` : "";
  say(panic.firstElementChild, told);
  mark(panic, "title", told || null);
}

/** A number that steps back where it is nothing, and may step forward where it is something. */
function figure(element, value, text, some = null) {
  say(element, text);
  mark(element, "class", value ? some : "zero");
}
