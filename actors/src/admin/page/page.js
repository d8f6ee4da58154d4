// Page: the node as it is, once a second.
//
// Owns:   the head of the page, the banner, what is said aloud.
// Keeps:  old data never look like new ones: without the node they are grey, and the banner says since when.

import { actors, onChoose } from "./actors.js";
import { cluster } from "./cluster.js";
import { mark, say, tell } from "./dom.js";
import * as drawer from "./drawer.js";
import { figures } from "./figures.js";
import { moment, span } from "./format.js";
import { log } from "./log.js";
import { watch } from "./node.js";

const byId = (id) => document.getElementById(id);
let restarts = new Map();
let name = "LogLog";

onChoose(drawer.show);
watch({ heard, lost });

function heard(answers) {
  if (!byId("banner").hidden) say(byId("news"), "The node answers again.");
  byId("banner").hidden = true;
  mark(document.body, "class", null);
  head(answers);
  for (const part of [figures, cluster, log, actors]) part(answers);
  tellRestarts(answers.actors.actors ?? []);
  drawer.refresh();
}

function lost(since) {
  byId("banner").hidden = false;
  say(byId("banner"), `The node has not answered since ${moment(since)}, for ${span(Date.now() - since)}. What is below is what it said last. Asking again every second.`);
  mark(document.body, "class", "lost");
  tell(byId("pulse"), { words: "lost", kind: "bad" });
  drawer.lost();
  document.title = `lost: ${name}`;
}

function head({ actors: { node }, cluster, ready }) {
  name = `Node ${node}`;
  say(byId("title"), name);
  tell(byId("pulse"), ready.ready ? { words: "live and ready", kind: "good" } : { words: `live, not ready: ${ready.why ?? "it does not say why"}`, kind: "fair" });
  if (cluster.error) {
    say(byId("subtitle"), cluster.error);
    document.title = name;
    return;
  }
  const does = { leader: "leads", follower: "follows", candidate: "stands for election", learner: "learns" };
  const role = does[cluster.role] ?? cluster.role;
  say(byId("subtitle"), `${role} in term ${cluster.term}, up ${span(cluster.uptime_s * 1000)}, version ${cluster.version}, cluster ${cluster.cluster}`);
  document.title = `${name} ${role}`;
}

/** For those who listen: which actors were restarted since the last look. */
function tellRestarts(all) {
  const now = new Map(all.map((actor) => [actor.name, actor.restarts]));
  const restarted = [...now].filter(([actor, many]) => restarts.has(actor) && many > restarts.get(actor));
  if (restarted.length) say(byId("news"), `Restarted: ${restarted.map(([actor]) => actor).join(", ")}.`);
  restarts = now;
}
