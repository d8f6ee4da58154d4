// Figures: what happens per second, and how it went in the last two minutes.

import { say } from "./dom.js";
import { bytes, count, micros } from "./format.js";
import { spark, trace } from "./spark.js";

const ROOM = 120;

const FIGURES = [
  {
    id: "appends",
    of: (sample, seconds) => sample.appends / seconds,
    show: (value) => `${count(value)}/s`,
    name: "appends a second",
  },
  {
    id: "bytes",
    of: (sample, seconds) => sample.append_bytes / seconds,
    show: (value) => `${bytes(value && Math.round(value))}/s`,
    name: "appended bytes a second",
  },
  { id: "sync", of: (sample) => (sample.sync_count ? sample.sync_p99_us : null), show: micros, name: "p99 of syncs" },
];

export function figures({ history }) {
  if (history.error) return;
  const samples = history.samples.slice(-ROOM);
  const seconds = history.interval_ms / 1000;
  for (const { id, of, show, name } of FIGURES) {
    const values = samples.map((sample) => of(sample, seconds));
    const [, number, drawing, note] = document.getElementById(id).children;
    if (!drawing.firstChild) drawing.append(spark());
    const known = values.filter((value) => value != null);
    const most = known.length ? show(Math.max(...known)) : null;
    say(number, show(values.at(-1)));
    say(note, most ? `most in two minutes ${most}` : "nothing yet");
    trace(drawing.firstChild, values, ROOM, `${name} in the last two minutes: now ${show(values.at(-1))}, most ${most ?? "unknown"}`);
  }
}
