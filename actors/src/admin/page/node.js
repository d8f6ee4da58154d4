// Node: what the node says, asked once a second.
//
// Owns:   the clock of the page; whether the node answers, and since when not.
// Keeps:  one round at a time; none while nobody looks.
// Never:  changes the page.

const INTERVAL_MS = 1000;
/** A node that answers, answers sooner. */
const PATIENCE_MS = 4000;

const PATHS = {
  actors: "api/actors",
  cluster: "api/cluster",
  log: "api/log",
  history: "api/history",
  ready: "health/ready",
};

/** GET. What the node refuses comes as {error}; no answer at all is an exception. */
export async function get(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const answer = await response.json();
  // Not being ready is an answer, too.
  return response.ok || "ready" in answer ? answer : { error: answer.error ?? `status ${response.status}` };
}

/**
 * Asks again and again. `heard` gets each round's answers; `lost` is told since when the node has not answered, with each round in
 * which it does not.
 */
export function watch({ heard, lost }) {
  let since = null;
  let timer = null;
  let busy = false;

  async function round() {
    if (busy || document.hidden) return;
    busy = true;
    clearTimeout(timer);
    const began = Date.now();
    let answers = null;
    try {
      const all = Object.entries(PATHS).map(async ([name, path]) => [name, await get(path)]);
      answers = Object.fromEntries(await Promise.all(all));
    } catch {
      // A page that is hidden meanwhile, or a machine that slept, lost nothing.
      if (!document.hidden) since ??= began;
    }
    busy = false;
    timer = setTimeout(round, Math.max(100, INTERVAL_MS - (Date.now() - began)));
    if (answers) {
      since = null;
      heard(answers);
    } else if (since != null) {
      lost(since);
    }
  }

  document.addEventListener("visibilitychange", round);
  round();
}
