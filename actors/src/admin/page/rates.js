// Rates: messages a second of each actor, from what it has handled in all.
//
// Owns:   the last minute of each living actor's rates.

/** Kept of each. */
export const ROOM = 60;

const known = new Map();

/** Takes in one answer of api/actors. */
export function count({ unix_ms: now, actors }) {
  for (const { name, handled } of actors) {
    const before = known.get(name);
    const entry = { now, handled, rates: before?.rates ?? [] };
    // A node that started anew begins at zero.
    if (before && now > before.now && handled >= before.handled) {
      entry.rates.push(((handled - before.handled) * 1000) / (now - before.now));
      if (entry.rates.length > ROOM) entry.rates.shift();
    } else if (before && now <= before.now) {
      continue;
    }
    known.set(name, entry);
  }
  const living = new Set(actors.map((actor) => actor.name));
  for (const name of known.keys()) if (!living.has(name)) known.delete(name);
}

/** Now, or null for one that was seen once only. */
export const rate = (name) => known.get(name)?.rates.at(-1) ?? null;

/** The last minute. */
export const rates = (name) => known.get(name)?.rates ?? [];
