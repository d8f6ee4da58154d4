// Format: numbers, bytes, times and states as people read them.
//
// Keeps:  a text's width about the same from second to second, so that nothing jumps.
// Never:  touches the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const NONE = "–";

/** 1,234,567 */
export const count = (n) => (n == null ? NONE : whole.format(n));

/** 12.3 MiB: three figures, always. */
export function bytes(n) {
  if (n == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 ? n : figures(n)} ${units[at]}`;
}

/** Microseconds as µs, ms or s. */
export function micros(n) {
  if (n == null) return NONE;
  if (n < 1000) return `${Math.round(n)} µs`;
  if (n < 1_000_000) return `${figures(n / 1000)} ms`;
  return `${figures(n / 1_000_000)} s`;
}

/** Messages a second; small ones with a digit after the point. */
export const rate = (n) => (n == null ? NONE : n > 0 && n < 10 ? n.toFixed(1) : whole.format(n));

/** A span in milliseconds as one word or two: what matters, not what flickers. */
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s / 60) % 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s / 3600) % 24)} h`;
}

/** How long ago. */
export const ago = (ms) => (ms < 1500 ? "just now" : `${span(ms)} ago`);

/** A moment: the time of day, with the date if that is not today's. */
export function moment(unixMs) {
  const date = new Date(unixMs);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** An actor's state: words, and the class that gives them their colour. */
export function state(actor) {
  if (actor.stalled_ms != null) return { words: `stuck for ${span(actor.stalled_ms)}`, kind: "bad" };
  const kinds = { running: "good", starting: "fair", backoff: "fair", failed: "bad", stopped: "quiet" };
  const words = { backoff: "restarts soon" };
  return { words: words[actor.state] ?? actor.state, kind: kinds[actor.state] ?? "quiet" };
}

function figures(n) {
  return n < 10 ? n.toFixed(2) : n < 100 ? n.toFixed(1) : whole.format(n);
}
