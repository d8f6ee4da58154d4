//! Answers: what the admin endpoint answers, and how it is gathered from the sources.
//!
//! Owns:   the shapes of the answers; `openapi.json` describes them.
//! Never:  waits.

use loglog_storage::Member;
use serde::Serialize;
use serde_json::Value;

use super::sources::Sources;
use super::tree::in_tree_order;
use crate::stats::{ActorReport, Panic, unix_ms};
use crate::{services, storage_group};

/// The node's own row.
const NODE: &str = "node";

/// The answer of `/api/actors`.
#[derive(Serialize)]
pub(super) struct Actors {
    node: u32,
    unix_ms: u64,
    actors: Vec<Summary>,
}

/// One actor, in short.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) kind: String,
    parent: Option<String>,
    restart: &'static str,
    state: String,
    pub(super) mailbox: u64,
    oldest_wait_ms: u64,
    enqueued: u64,
    pub(super) handled: u64,
    pub(super) restarts: u64,
    last_panic: Option<Panic>,
    pub(super) stalled_ms: Option<u64>,
    stalls: u64,
    last_progress_unix_ms: Option<u64>,
}

/// One actor in full.
#[derive(Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    summary: Summary,
    messages: Vec<Value>,
    observed: Option<Value>,
}

pub(super) fn actors(sources: &Sources, kind: Option<&str>) -> Actors {
    let mut actors = summaries(sources);
    actors.retain(|actor| kind.is_none_or(|kind| actor.kind == kind));
    Actors { node: sources.node.get(), unix_ms: unix_ms(), actors }
}

/// Every actor's row, a parent before its children.
pub(super) fn summaries(sources: &Sources) -> Vec<Summary> {
    let mut rows = vec![node(sources), group(sources)];
    rows.extend(sources.registry.snapshot().into_iter().map(summary));
    in_tree_order(rows, |row| (row.name.as_str(), row.parent.as_deref()))
}

pub(super) fn actor(sources: &Sources, name: &str) -> Option<Detail> {
    let summary = summaries(sources).into_iter().find(|row| row.name == name)?;
    Some(Detail { summary, messages: Vec::new(), observed: None })
}

fn summary(report: ActorReport) -> Summary {
    Summary {
        name: report.name,
        kind: report.kind.to_owned(),
        parent: Some(report.parent),
        restart: "permanent",
        state: format!("{:?}", report.state).to_lowercase(),
        mailbox: report.queued,
        oldest_wait_ms: 0,
        enqueued: report.enqueued,
        handled: report.handled,
        restarts: report.restarts,
        last_panic: report.last_panic,
        stalled_ms: None,
        stalls: 0,
        last_progress_unix_ms: report.last_progress_unix_ms,
    }
}

/// A part that is no actor: it has no mailbox.
fn part(
    name: &str,
    kind: &str,
    parent: Option<&str>,
    restart: &'static str,
    state: &str,
    restarts: u64,
) -> Summary {
    Summary {
        name: name.to_owned(),
        kind: kind.to_owned(),
        parent: parent.map(str::to_owned),
        restart,
        state: state.to_owned(),
        mailbox: 0,
        oldest_wait_ms: 0,
        enqueued: 0,
        handled: 0,
        restarts,
        last_panic: None,
        stalled_ms: None,
        stalls: 0,
        last_progress_unix_ms: None,
    }
}

fn node(sources: &Sources) -> Summary {
    let state = if sources.is_serving() { "running" } else { "starting" };
    part(NODE, "Node", None, "never", state, 0)
}

fn group(sources: &Sources) -> Summary {
    let lives = sources.view.generation();
    let state = match (sources.view.consensus(), lives) {
        (Some(_), _) => "running",
        (None, 0) => "starting",
        (None, _) => "backoff",
    };
    part(storage_group::NAME, "Group", Some(NODE), "permanent", state, lives.saturating_sub(1))
}

/// The answer of `/api/cluster`.
#[derive(Serialize)]
pub(super) struct Cluster {
    cluster: String,
    node: u32,
    incarnation: String,
    version: &'static str,
    role: &'static str,
    term: u32,
    leader: Option<u32>,
    uptime_s: u64,
    start: u64,
    committed: u64,
    durable: u64,
    restarts: u64,
    members: Vec<MemberReport>,
}

/// One member.
#[derive(Serialize)]
struct MemberReport {
    node: u32,
    incarnation: String,
    peer_address: String,
    client_address: String,
    voter: bool,
    is_self: bool,
    leads: bool,
    connected: Option<bool>,
    durable: Option<u64>,
    lag_bytes: Option<u64>,
    lag_batches: Option<u64>,
    heard_ms: Option<u64>,
}

pub(super) fn cluster(sources: &Sources) -> Option<Cluster> {
    let identity = sources.identity.get()?;
    let consensus = sources.view.consensus();
    let leader = consensus.and_then(|consensus| consensus.leader);
    let durable = durable(sources);
    let report = |member: &Member, voter: bool| {
        let is_self = member.id == identity.raft_id();
        MemberReport {
            node: member.id.node().get(),
            incarnation: member.id.incarnation().to_string(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter,
            is_self,
            leads: leader == Some(member.id),
            connected: None,
            durable: is_self.then_some(durable),
            lag_bytes: is_self.then_some(0),
            lag_batches: is_self.then_some(0),
            heard_ms: None,
        }
    };
    let membership = identity.membership();
    let mut members: Vec<MemberReport> = Vec::new();
    if let Some(membership) = membership {
        members.extend(membership.voters.iter().map(|member| report(member, true)));
        members.extend(membership.learners.iter().map(|member| report(member, false)));
    }
    members.sort_by_key(|member| member.node);
    Some(Cluster {
        cluster: identity.cluster.to_string(),
        node: sources.node.get(),
        incarnation: identity.incarnation.to_string(),
        version: sources.version,
        role: services::role(consensus),
        term: consensus.map_or(0, |consensus| consensus.term.get()),
        leader: leader.map(|leader| leader.node().get()),
        uptime_s: sources.began.elapsed().as_secs(),
        start: sources.view.start().get(),
        committed: sources.view.committed().get(),
        durable,
        restarts: sources.registry.restarts(),
        members,
    })
}

/// The answer of `/api/log`.
#[derive(Serialize)]
pub(super) struct Log {
    start: u64,
    committed: u64,
    durable: u64,
    segment_bytes_max: u64,
    disk_free: u64,
    disk_full: bool,
    generation: u64,
    torn_bytes: u64,
    repairs: u64,
    segments: Vec<Segment>,
}

/// One segment.
#[derive(Serialize)]
struct Segment {
    base: u64,
    end: u64,
    base_index: u64,
    term: u32,
    sealed: bool,
}

pub(super) fn log(sources: &Sources) -> Option<Log> {
    let view = &sources.view;
    let reader = view.reader()?;
    let segments = reader.segments().into_iter().map(|segment| Segment {
        base: segment.header.base_offset.get(),
        end: segment.end.get(),
        base_index: segment.header.base_index.get(),
        term: segment.header.term.get(),
        sealed: segment.sealed,
    });
    Some(Log {
        start: view.start().get(),
        committed: view.committed().get(),
        durable: durable(sources),
        segment_bytes_max: sources.segment_bytes_max.get(),
        disk_free: view.available(),
        disk_full: view.consensus().is_some_and(|consensus| consensus.disk_full),
        generation: view.generation(),
        torn_bytes: view.torn_bytes(),
        repairs: 0,
        segments: segments.collect(),
    })
}

/// How far the log is synced here, also while consensus is down.
pub(super) fn durable(sources: &Sources) -> u64 {
    sources.view.reader().map_or(0, |reader| reader.end().get())
}

/// The answer of `/api/config`.
#[derive(Serialize)]
pub(super) struct Config<'a> {
    values: Vec<ConfigValue<'a>>,
}

/// One key.
#[derive(Serialize)]
struct ConfigValue<'a> {
    key: &'a str,
    value: &'a str,
}

pub(super) fn config(sources: &Sources) -> Config<'_> {
    let values = sources.config.iter().map(|(key, value)| ConfigValue { key, value });
    Config { values: values.collect() }
}
