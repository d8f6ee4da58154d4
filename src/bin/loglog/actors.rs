//! `loglog actors`: the actors of a node, as its admin endpoint shows them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::admin::{AdminAt, in_path};
use crate::exit::{Outcome, Stop};
use crate::output::Output;
use crate::table::{facts, grouped, table};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this actor, with everything that is known of it.
    name: Option<String>,

    /// Print it as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: AdminAt,
}

/// The answer of `/api/actors`, as far as it is printed.
#[derive(Deserialize)]
struct Actors {
    actors: Vec<Actor>,
}

/// One actor.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Actor {
    name: String,
    kind: String,
    parent: Option<String>,
    restart: String,
    state: String,
    mailbox: u64,
    oldest_wait_ms: u64,
    handled: u64,
    restarts: u64,
    stalls: u64,
    stalled_ms: Option<u64>,
    last_panic: Option<Panic>,
    messages: Vec<MessageType>,
    observed: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Panic {
    text: String,
    location: Option<String>,
    unix_ms: u64,
}

#[derive(Deserialize)]
struct MessageType {
    #[serde(rename = "type")]
    name: String,
    handled: u64,
    wait_us: Quantiles,
    handling_us: Quantiles,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
    max: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let path = match &args.name {
        Some(name) => format!("/api/actors/{}", in_path(name)),
        None => "/api/actors".to_owned(),
    };
    let answer = args.at.get(&path)?;
    let mut output = Output::new();
    if args.json {
        output.json(&answer)?;
    } else {
        let strange =
            |error| Stop::failed(format!("the node answers in a way that is not known here: {error}"));
        let text = if args.name.is_some() {
            detail(&serde_json::from_value(answer).map_err(strange)?)
        } else {
            let Actors { actors } = serde_json::from_value(answer).map_err(strange)?;
            tree(&actors)
        };
        output.bytes(text.as_bytes())?;
    }
    output.flush()
}

/// All of them as a table, each below its parent and set in.
fn tree(actors: &[Actor]) -> String {
    let heading = ["actor", "state", "mailbox", "oldest", "handled", "restarts", "stalls", "last panic"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    for actor in actors {
        // Parents come first.
        let depth =
            actor.parent.as_deref().and_then(|parent| depths.get(parent)).map_or(0, |depth| depth + 1);
        depths.insert(&actor.name, depth);
        let panic = actor.last_panic.as_ref().map(|panic| panic.text.as_str()).unwrap_or_default();
        rows.push(vec![
            format!("{}{}", "  ".repeat(depth), actor.name),
            state(actor),
            grouped(actor.mailbox),
            format!("{} ms", grouped(actor.oldest_wait_ms)),
            grouped(actor.handled),
            grouped(actor.restarts),
            grouped(actor.stalls),
            // A panic's text may have several lines.
            panic.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    table(&rows)
}

/// How long ago that was.
fn ago(unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.saturating_sub(unix_ms / 1000);
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

fn state(actor: &Actor) -> String {
    match actor.stalled_ms {
        Some(ms) => format!("{}, stuck for {} s", actor.state, ms / 1000),
        None => actor.state.clone(),
    }
}

/// All that is known of one.
fn detail(actor: &Actor) -> String {
    let panic = actor.last_panic.as_ref().map_or("none".to_owned(), |panic| {
        let location = panic.location.as_ref().map(|it| format!(" (at {it})")).unwrap_or_default();
        format!("{}{location}, {}", panic.text, ago(panic.unix_ms))
    });
    let mut text = facts(&[
        ("actor", format!("{} ({})", actor.name, actor.kind)),
        ("parent", actor.parent.clone().unwrap_or_else(|| "none".to_owned())),
        ("state", state(actor)),
        ("after a panic", actor.restart.clone()),
        (
            "mailbox",
            format!("{}, the oldest for {} ms", grouped(actor.mailbox), grouped(actor.oldest_wait_ms)),
        ),
        ("handled", grouped(actor.handled)),
        ("restarts", grouped(actor.restarts)),
        ("stalls", grouped(actor.stalls)),
        ("last panic", panic),
    ]);
    if let Some(observed) = actor.observed.as_ref().filter(|observed| !observed.is_empty()) {
        let rows: Vec<(&str, String)> =
            observed.iter().map(|(name, value)| (name.as_str(), plain(value))).collect();
        text.push('\n');
        text.push_str(&facts(&rows));
    }
    if !actor.messages.is_empty() {
        let heading =
            ["message", "handled", "wait p50", "p99", "max", "handling p50", "p99", "max (microseconds)"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for MessageType { name, handled, wait_us, handling_us } in &actor.messages {
            let mut row = vec![name.clone(), grouped(*handled)];
            let quantiles = [wait_us, handling_us].into_iter().flat_map(|it| [it.p50, it.p99, it.max]);
            row.extend(quantiles.map(grouped));
            rows.push(row);
        }
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_stand_below_their_parents() {
        let actor = |name: &str, parent: Option<&str>| Actor {
            name: name.into(),
            parent: parent.map(Into::into),
            state: "running".into(),
            ..Actor::default()
        };
        let mut stuck = actor("consensus", Some("storage-group"));
        stuck.stalled_ms = Some(6_400);
        stuck.handled = 12_345;
        stuck.last_panic = Some(Panic { text: "broken\npromise".into(), location: None, unix_ms: 1 });
        let text = tree(&[actor("node", None), actor("storage-group", Some("node")), stuck]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("node  ") && lines[2].starts_with("  storage-group"), "{text}");
        assert!(lines[3].starts_with("    consensus    running, stuck for 6 s"), "{text}");
        assert!(lines[3].contains("12,345") && lines[3].ends_with("broken"), "{text}");
    }

    #[test]
    fn one_actor_is_told_in_full() {
        let actor: Actor = serde_json::from_value(serde_json::json!({
            "name": "segment-writer", "kind": "SegmentWriter", "parent": "storage-group", "restart": "group",
            "state": "running", "handled": 7,
            "messages": [{"type": "Group", "handled": 7, "wait_us": {"p50": 1, "p99": 2, "max": 3},
                          "handling_us": {"p50": 90, "p99": 1500, "max": 2000}}],
            "observed": {"segment": "0000000000000000", "durable": 4096}
        }))
        .unwrap();
        let text = detail(&actor);
        for part in [
            "actor          segment-writer (SegmentWriter)\n",
            "after a panic  group\n",
            "last panic     none\n",
            "durable  4,096\n",
            "Group          7",
            "1,500",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
