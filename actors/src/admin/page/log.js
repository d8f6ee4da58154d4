// Log: the segments to scale, and how far the log is kept, committed and synced.

import { fill, list, make, mark, say, tell } from "./dom.js";
import { bytes, count } from "./format.js";

/** More blocks than that are not told apart at any width: neighbours are drawn as one. */
const BLOCKS_MAX = 160;
/** So many segments are listed, the newest. */
const ROWS_MAX = 100;

export function log({ log }) {
  const note = document.getElementById("log-note");
  if (log.error) {
    say(note, log.error);
    return;
  }
  const place = document.getElementById("log");
  if (!place.firstChild) build(place);
  const { start, committed, durable, segments } = log;
  const first = segments.length ? segments[0].base : start;
  const end = Math.max(committed, durable, segments.at(-1)?.end ?? 0);
  const share = (offset) => (end > first ? (offset - first) / (end - first) : 0);

  say(note, `${bytes(committed - start)} in ${count(segments.length)} ${segments.length === 1 ? "segment" : "segments"} of up to ${bytes(log.segment_bytes_max)}`);
  const [strip, marks, facts, details] = place.children;
  const words = `from ${count(start)}, committed to ${count(committed)}, synced here to ${count(durable)}`;
  mark(strip, "aria-label", `${count(segments.length)} segments ${words}`);
  const [blocks, trimmed, open] = strip.children;
  list(blocks, gathered(segments), (block) => block.base, () => make("i"), (block, { base, end: until, sealed, title }) => {
    span(block, share(base), share(until));
    mark(block, "class", sealed ? "sealed" : "active");
    mark(block, "title", title);
  });
  span(trimmed, 0, share(start));
  span(open, share(committed), share(durable));
  for (const [at, offset] of [start, committed, durable].entries()) {
    marks.children[at].style.insetInlineStart = `${(100 * share(offset)).toFixed(3)}%`;
  }

  const values = {
    start: count(start),
    committed: count(committed),
    durable: count(durable),
    ahead: bytes(Math.max(0, durable - committed)),
    recoveries: count(log.generation),
    torn: bytes(log.torn_bytes),
    repairs: count(log.repairs),
  };
  for (const [name, value] of Object.entries(values)) say(facts.querySelector(`[data-fact=${name}]`), value);
  const full = { words: "full: appends are refused", kind: "bad" };
  tell(facts.querySelector("[data-fact=disk]"), log.disk_full ? full : { words: `${bytes(log.disk_free)} free`, kind: "good" });
  listed(details, segments);
}

function build(place) {
  const fact = (name, title, swatch) =>
    make("div", {}, make("dt", swatch ? { class: swatch } : {}, title), make("dd", {}, make("span", { "data-fact": name })));
  place.append(
    make("div", { class: "strip", role: "img" }, make("div", { class: "blocks" }), make("div", { class: "trimmed" }), make("div", { class: "open" })),
    make("div", { class: "marks", "aria-hidden": "true" }, ...["start", "committed", "durable"].map((name) => make("i", { class: name }))),
    make(
      "dl",
      { class: "facts" },
      fact("start", "Start", "start"),
      fact("committed", "Committed", "committed"),
      fact("durable", "Synced here", "durable"),
      fact("ahead", "Synced, not yet committed"),
      fact("disk", "Disk"),
      fact("recoveries", "Recoveries, this start included"),
      fact("torn", "Torn bytes cut"),
      fact("repairs", "Repairs from other nodes"),
    ),
    make("details", {}, make("summary", {}, "Segments"), make("div", { class: "scroll" }, table())),
  );
}

function table() {
  const heads = ["Begins at", "Length", "First index", "Term", "State"];
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody"));
}

function listed(details, segments) {
  const newest = segments.slice(-ROWS_MAX).reverse();
  const words = newest.length < segments.length ? `The newest ${ROWS_MAX} segments` : "Every segment";
  say(details.firstElementChild, words);
  if (!details.open) return;
  const create = () => make("tr", {}, ...Array.from({ length: 5 }, () => make("td")));
  list(details.querySelector("tbody"), newest, (segment) => segment.base, create, (row, { base, end, base_index, term, sealed }) => {
    const cells = [count(base), bytes(end - base), count(base_index), count(term), sealed ? "sealed" : "active"];
    cells.forEach((text, at) => say(row.children[at], text));
  });
}

/** Segments as blocks to draw, neighbours together where there are too many. */
function gathered(segments) {
  const size = Math.ceil(segments.length / BLOCKS_MAX);
  const blocks = [];
  for (let at = 0; at < segments.length; at += size) {
    const part = segments.slice(at, at + size);
    const [first, last] = [part[0], part.at(-1)];
    const what = part.length === 1 ? `Segment of term ${first.term}, ${last.sealed ? "sealed" : "active"}` : `${part.length} segments`;
    blocks.push({ base: first.base, end: last.end, sealed: last.sealed, title: `${what}: ${count(first.base)} to ${count(last.end)}` });
  }
  return blocks;
}

function span(element, from, to) {
  element.style.insetInlineStart = `${(100 * from).toFixed(3)}%`;
  fill(element, to - from);
}
