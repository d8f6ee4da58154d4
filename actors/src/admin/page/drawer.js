// Drawer: one actor in full, live while it is open.
//
// Owns:   the dialog. Esc closes it, as it does every dialog, and the focus goes back to where it was.

import { list, make, mark, say, tell } from "./dom.js";
import { ago, count, micros, moment, rate as perSecond, state } from "./format.js";
import { get } from "./node.js";
import * as rates from "./rates.js";
import { spark, trace } from "./spark.js";

const RESTARTS = {
  permanent: "restarted in its place",
  transient: "restarted, unless it ended in peace",
  group: "its whole group is restarted, through recovery",
  never: "it is gone",
};

const dialog = document.getElementById("drawer");
let chosen = null;

/** Shows the actor of this name. */
export async function show(name) {
  chosen = name;
  dialog.replaceChildren(frame(name));
  if (!dialog.open) dialog.showModal();
  await refresh();
}

/** Looks again, if something is shown. */
export async function refresh() {
  if (!dialog.open) return;
  const name = chosen;
  const answer = await get(`api/actors/${encodeURIComponent(name)}`).catch(() => null);
  // That the node is lost is the page's to say.
  if (answer && dialog.open && name === chosen) update(answer);
}

/** Says in the drawer, too, that the node does not answer. */
export function lost() {
  if (dialog.open) tell(dialog.querySelector(".state"), { words: "the node does not answer", kind: "bad" });
}

dialog.addEventListener("close", () => {
  chosen = null;
});
// A click beside the drawer is on the dialog itself.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

function frame(name) {
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  return make(
    "div",
    { class: "inside" },
    make("div", { class: "head" }, make("h2", { id: "drawer-title" }, name), close),
    make("p", { class: "kind" }),
    make("p", { class: "state quiet" }),
    make("div", { class: "spark" }, spark()),
    make("dl", { class: "facts" }),
    make("section", { class: "panicked" }, make("h3", {}, "Last panic"), make("p", { class: "when" }), make("pre"), make("p", { class: "place" })),
    make("section", { class: "observed" }, make("h3", {}, "What it tells of itself"), make("dl", { class: "facts" })),
    make("section", { class: "messages" }, make("h3", {}, "Messages"), make("div")),
  );
}

function update(actor) {
  const inside = dialog.firstElementChild;
  const [, kind, is, drawing, facts, panicked, observed, messages] = inside.children;
  if (actor.error) {
    tell(is, { words: "it has ended, and is not known any more", kind: "quiet" });
    return;
  }
  say(kind, actor.parent ? `${actor.kind}, below ${actor.parent}` : actor.kind);
  tell(is, state(actor));
  const now = rates.rate(actor.name);
  trace(drawing.firstChild, rates.rates(actor.name), rates.ROOM, `messages a second in the last minute: now ${perSecond(now)}`);
  pairs(facts, [
    ["Messages/s", perSecond(now)],
    ["Handled", count(actor.handled)],
    ["Waiting", count(actor.mailbox)],
    ["Oldest waits", actor.mailbox ? micros(actor.oldest_wait_ms * 1000) : "–"],
    ["Restarts", count(actor.restarts)],
    ["Stalls", count(actor.stalls)],
    ["Last progress", actor.last_progress_unix_ms ? ago(Date.now() - actor.last_progress_unix_ms) : "–"],
    ["After a panic", RESTARTS[actor.restart] ?? actor.restart],
  ]);

  panicked.hidden = !actor.last_panic;
  if (actor.last_panic) {
    const { text, location, unix_ms: at } = actor.last_panic;
    say(panicked.children[1], `${moment(at)}, ${ago(Date.now() - at)}`);
    say(panicked.children[2], text);
    say(panicked.children[3], location ? `at ${location}` : "");
  }
  const own = Object.entries(actor.observed ?? {});
  observed.hidden = own.length === 0;
  pairs(observed.lastElementChild, own.map(([name, value]) => [name.replaceAll("_", " "), plain(value)]));
  messages.hidden = actor.messages.length === 0;
  list(messages.lastElementChild, actor.messages, (message) => message.type, messageTable, fillMessage);
}

function pairs(place, all) {
  const create = () => make("div", {}, make("dt"), make("dd"));
  list(place, all, ([name]) => name, create, (row, [name, value]) => {
    say(row.firstElementChild, name);
    say(row.lastElementChild, value);
  });
}

function messageTable({ type }) {
  const heads = ["p50", "p99", "max"].map((head) => make("th", { scope: "col" }, head));
  const line = (name) => make("tr", {}, make("th", { scope: "row" }, name), make("td"), make("td"), make("td"));
  const caption = make("caption", {}, make("b", {}, type), " ", make("span"));
  const head = make("thead", {}, make("tr", {}, make("td"), ...heads));
  return make("table", {}, caption, head, make("tbody", {}, line("waited"), line("took")));
}

function fillMessage(table, { handled, wait_us: waited, handling_us: took }) {
  say(table.caption.lastElementChild, `${count(handled)} handled`);
  [waited, took].forEach((times, at) => {
    [times.p50, times.p99, times.max].forEach((time, column) => say(table.tBodies[0].rows[at].cells[column + 1], micros(time)));
  });
}

function plain(value) {
  if (value == null) return "–";
  if (typeof value === "number") return count(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" ? value : JSON.stringify(value);
}
