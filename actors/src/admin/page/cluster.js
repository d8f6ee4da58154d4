// Cluster: who keeps the log, who leads, who lags.

import { fill, list, make, say, tell } from "./dom.js";
import { ago, bytes, count } from "./format.js";

/** Lags below this fill less than the whole bar, however the others are. */
const SCALE_MIN = 1 << 20;

export function cluster({ cluster }) {
  const note = document.getElementById("cluster-note");
  if (cluster.error) {
    say(note, cluster.error);
    return;
  }
  const { members, leader, node } = cluster;
  const voters = members.filter((member) => member.voter).length;
  const votes = `${count(voters)} of ${count(members.length)} vote`;
  const lead = leader == null ? "no leader is known" : leader === node ? "this node leads" : `node ${leader} leads, and knows the lags`;
  say(note, members.length === 1 ? "one node, alone" : `${votes}, ${lead}`);
  const scale = Math.max(SCALE_MIN, ...members.map((member) => member.lag_bytes ?? 0));
  list(document.getElementById("members"), members, (member) => member.node, create, (row, member) => update(row, member, scale));
}

function create(member) {
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, make("div"));
  return make(
    "li",
    {},
    make("p", { class: "who" }, make("b", {}, `Node ${member.node}`), " ", make("span", { class: "roles" })),
    make("p", { class: "state quiet" }),
    make("div", { class: "lag" }, bar, make("p")),
    make("p", { class: "where" }),
  );
}

function update(row, member, scale) {
  const [who, state, lag, where] = row.children;
  const roles = [member.leads ? "leads" : member.voter ? "follows" : "learns"];
  if (member.is_self) roles.push("this node");
  say(who.lastElementChild, roles.join(", "));
  tell(state, link(member));
  fill(lag.firstElementChild.firstElementChild, (member.lag_bytes ?? 0) / scale);
  say(lag.lastElementChild, behind(member));
  say(where, `clients ${member.client_address}, peers ${member.peer_address}, life ${member.incarnation}`);
}

function link(member) {
  if (member.is_self) return { words: "answers here", kind: "good" };
  if (member.connected == null) return { words: "not known here", kind: "quiet" };
  const heard = member.heard_ms == null ? "" : `, heard ${ago(member.heard_ms)}`;
  return member.connected ? { words: `connected${heard}`, kind: "good" } : { words: `no connection${heard}`, kind: "bad" };
}

function behind({ lag_bytes: lag, lag_batches: batches }) {
  if (lag == null) return "lag not known here";
  if (lag === 0) return "has all of it";
  const what = `${bytes(lag)} behind`;
  return batches ? `${what}, ${count(batches)} ${batches === 1 ? "batch" : "batches"}` : what;
}
