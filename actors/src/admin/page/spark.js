// Spark: a small line that shows how a number went.
//
// Keeps:  zero at the bottom, now at the right; a gap where there is no number.

import { draw, mark } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 40;

/** A drawing to be given numbers by `trace`. */
export function spark() {
  const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" };
  return draw("svg", attributes, draw("path", { class: "area" }), draw("path", { class: "line" }));
}

/** Draws `values`, the last one now, `room` of them over the whole width; `words` say the same. */
export function trace(svg, values, room, words) {
  const most = Math.max(1, ...values.filter((value) => value != null));
  const x = (at) => (WIDTH * (room - values.length + at)) / (room - 1);
  const y = (value) => HEIGHT - 1 - ((HEIGHT - 3) * value) / most;
  let line = "";
  let area = "";
  for (const run of runs(values)) {
    const points = run.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
    line += `M${points}`;
    area += `M${x(run[0][0]).toFixed(1)} ${HEIGHT}L${points}L${x(run.at(-1)[0]).toFixed(1)} ${HEIGHT}Z`;
  }
  const [below, above] = svg.children;
  mark(below, "d", area);
  mark(above, "d", line);
  mark(svg, "aria-label", words);
}

function runs(values) {
  const all = [];
  let run = [];
  values.forEach((value, at) => {
    if (value != null) run.push([at, value]);
    else if (run.length) {
      all.push(run);
      run = [];
    }
  });
  if (run.length) all.push(run);
  return all;
}
