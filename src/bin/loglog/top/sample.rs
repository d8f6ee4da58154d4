//! Sample: what one node says of itself at one moment.
//!
//! Owns:   the shapes of the answers, as far as they are drawn.
//! Keeps:  what a node cannot say yet (its log while it is recovered) is missing, and the rest is there.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::admin::get;
use crate::exit::Stop;

/// What is asked.
const PATHS: [(&str, &str); 5] = [
    ("actors", "/api/actors"),
    ("cluster", "/api/cluster"),
    ("log", "/api/log"),
    ("history", "/api/history"),
    ("ready", "/health/ready"),
];

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) actors: Actors,
    pub(super) cluster: Option<Cluster>,
    pub(super) log: Option<Log>,
    pub(super) history: History,
    pub(super) ready: Ready,
    /// As it came.
    pub(super) raw: Value,
}

/// The answer of `/api/actors`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Actors {
    pub(super) node: u32,
    pub(super) unix_ms: u64,
    pub(super) actors: Vec<Actor>,
}

/// One actor.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Actor {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) mailbox: u64,
    pub(super) oldest_wait_ms: u64,
    pub(super) handled: u64,
    pub(super) restarts: u64,
    pub(super) stalls: u64,
    pub(super) stalled_ms: Option<u64>,
    pub(super) last_panic: Option<Panic>,
}

/// The last panic.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Panic {
    pub(super) text: String,
    pub(super) unix_ms: u64,
}

/// The answer of `/api/cluster`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cluster {
    pub(super) cluster: String,
    pub(super) role: String,
    pub(super) term: u64,
    pub(super) uptime_s: u64,
    pub(super) committed: u64,
    pub(super) durable: u64,
    pub(super) members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) node: u32,
    pub(super) client_address: String,
    pub(super) voter: bool,
    pub(super) leads: bool,
    pub(super) connected: Option<bool>,
    pub(super) durable: Option<u64>,
    pub(super) lag_bytes: Option<u64>,
}

/// The answer of `/api/log`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub(super) start: u64,
    pub(super) committed: u64,
    pub(super) durable: u64,
    pub(super) disk_free: u64,
    pub(super) disk_full: bool,
    pub(super) segments: Vec<Segment>,
}

/// One segment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) end: u64,
}

/// The answer of `/api/history`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) interval_ms: u64,
    pub(super) samples: Vec<Second>,
}

/// What happened in one interval.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Second {
    pub(super) appends: u64,
    pub(super) append_bytes: u64,
    pub(super) sync_p99_us: Option<u64>,
    pub(super) sync_count: u64,
}

/// The answer of `/health/ready`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ready {
    pub(super) ready: bool,
    pub(super) why: Option<String>,
}

/// Asks the node whose admin endpoint is at `admin`; an error is the words for it.
pub(super) async fn ask(admin: String) -> Result<Sample, String> {
    let asked = tokio::task::spawn_blocking(move || gather(&admin)).await;
    asked.unwrap_or_else(|error| Err(format!("it cannot be asked: {error}")))
}

fn gather(admin: &str) -> Result<Sample, String> {
    let mut raw = Map::new();
    for (name, path) in PATHS {
        let answer = match get(admin, path) {
            Ok(answer) => answer,
            Err(Stop::Failure(_, words)) => {
                // Who does not tell of his actors does not answer; the others may have to wait.
                if name == "actors" {
                    return Err(words);
                }
                serde_json::json!({ "error": words })
            }
            Err(Stop::Unread) => return Err("no answer".to_owned()),
        };
        raw.insert(name.to_owned(), answer);
    }
    parse(Value::Object(raw)).map_err(|error| format!("it answers in a way that is not known here: {error}"))
}

fn parse(raw: Value) -> serde_json::Result<Sample> {
    let has = |name: &str| raw[name].get("error").is_none().then(|| raw[name].clone());
    Ok(Sample {
        actors: Actors::deserialize(&raw["actors"])?,
        cluster: has("cluster").map(serde_json::from_value).transpose()?,
        log: has("log").map(serde_json::from_value).transpose()?,
        history: has("history").map(serde_json::from_value).transpose()?.unwrap_or_default(),
        ready: has("ready").map(serde_json::from_value).transpose()?.unwrap_or_default(),
        raw,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_cannot_say_yet_is_missing_and_the_rest_is_there() {
        let raw = json!({
            "actors": {"node": 3, "unix_ms": 5, "actors": [{"name": "consensus", "handled": 7, "new": "word"}]},
            "cluster": {"error": "the log is recovered"},
            "log": {"start": 0, "committed": 10},
            "history": {"interval_ms": 1000, "samples": [{"appends": 1, "sync_p99_us": null}]},
            "ready": {"ready": false, "why": "the log is recovered"},
        });
        let sample = parse(raw).unwrap();
        assert_eq!((sample.actors.node, sample.actors.actors[0].handled), (3, 7));
        assert!(sample.cluster.is_none());
        assert_eq!(sample.ready.why.as_deref(), Some("the log is recovered"));
        assert_eq!(sample.log.unwrap().committed, 10);
        assert_eq!(sample.history.samples[0].sync_p99_us, None);
        assert!(parse(json!({"actors": []})).is_err());
    }
}
