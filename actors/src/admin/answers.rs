//! Answers: what the admin endpoint answers, and how it is gathered from the sources.
//!
//! Owns:   the shapes of the answers; `openapi.json` describes them.
//! Never:  waits.

use loglog_storage::Member;
use serde::Serialize;

use super::sources::Sources;
use crate::clock::unix_ms;
use crate::measures::Sample;
use crate::report::ActorReport;
use crate::services;
use crate::watch::INTERVAL;

/// The answer of `/api/actors`.
#[derive(Serialize)]
pub(super) struct Actors {
    node: u32,
    unix_ms: u64,
    actors: Vec<ActorReport>,
}

pub(super) fn actors(sources: &Sources, kind: Option<&str>) -> Actors {
    let mut actors = sources.registry.snapshot();
    actors.retain(|actor| kind.is_none_or(|kind| actor.kind == kind));
    Actors { node: sources.node.get(), unix_ms: unix_ms(), actors }
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
pub(super) struct MemberReport {
    pub(super) node: u32,
    incarnation: String,
    peer_address: String,
    client_address: String,
    voter: bool,
    pub(super) is_self: bool,
    leads: bool,
    pub(super) connected: Option<bool>,
    durable: Option<u64>,
    pub(super) lag_bytes: Option<u64>,
    pub(super) lag_batches: Option<u64>,
    heard_ms: Option<u64>,
}

/// Every member, in the order of ids; none where no cluster is known yet.
pub(super) fn members(sources: &Sources) -> Vec<MemberReport> {
    let Some(identity) = sources.identity.get() else { return Vec::new() };
    let Some(membership) = identity.membership() else { return Vec::new() };
    let leader = sources.view.consensus().and_then(|consensus| consensus.leader);
    let (peers, durable) = (sources.view.peers(), durable(sources));
    let last = sources.view.reader().map_or(0, |reader| reader.last().index.get());
    let own_batches = sources.view.committed_index().get().saturating_sub(last);
    let report = |member: &Member, voter: bool| {
        let is_self = member.id == identity.raft_id();
        let peer = peers.iter().find(|peer| peer.id == member.id);
        let lag = peer.and_then(|peer| peer.lag);
        let silent = peer.and_then(|peer| peer.silent).filter(|_| !is_self);
        let committed = sources.view.committed().get();
        MemberReport {
            node: member.id.node().get(),
            incarnation: member.id.incarnation().to_string(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter,
            is_self,
            leads: leader == Some(member.id),
            connected: (!is_self).then(|| identity.is_linked(member.id)),
            durable: if is_self { Some(durable) } else { lag.map(|lag| committed.saturating_sub(lag.bytes)) },
            lag_bytes: if is_self {
                Some(committed.saturating_sub(durable))
            } else {
                lag.map(|lag| lag.bytes)
            },
            lag_batches: if is_self { Some(own_batches) } else { lag.map(|lag| lag.batches) },
            heard_ms: silent.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        }
    };
    let voters = membership.voters.iter().map(|member| report(member, true));
    let learners = membership.learners.iter().map(|member| report(member, false));
    let mut members: Vec<MemberReport> = voters.chain(learners).collect();
    members.sort_by_key(|member| member.node);
    members
}

pub(super) fn cluster(sources: &Sources) -> Option<Cluster> {
    let identity = sources.identity.get()?;
    let consensus = sources.view.consensus();
    Some(Cluster {
        cluster: identity.cluster.to_string(),
        node: sources.node.get(),
        incarnation: identity.incarnation.to_string(),
        version: sources.version,
        role: services::role(consensus),
        term: consensus.map_or(0, |consensus| consensus.term.get()),
        leader: consensus.and_then(|consensus| consensus.leader).map(|leader| leader.node().get()),
        uptime_s: sources.began.elapsed().as_secs(),
        start: sources.view.start().get(),
        committed: sources.view.committed().get(),
        durable: durable(sources),
        restarts: sources.registry.restarts(),
        members: members(sources),
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
        repairs: sources.measures.repairs(),
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

/// The answer of `/api/history`.
#[derive(Serialize)]
pub(super) struct History {
    interval_ms: u64,
    samples: Vec<Sample>,
}

pub(super) fn history(sources: &Sources) -> History {
    let interval_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
    History { interval_ms, samples: sources.measures.history() }
}
