//! Metrics: the same counters once more, as Prometheus reads them.
//!
//! Owns:   the names (prefix `loglog_`; `process_` for what any process has), their words and units. Dashboards and alerts go by them.
//! Keeps:  the number of series is bounded: connections are one series together, links one for each peer.
//! Never:  keeps a number of its own: each is looked up when it is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loglog_core::Role;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::answers::{self, MemberReport};
use super::sources::Sources;
use crate::histogram::Snapshot;
use crate::process;

/// What [`Metrics::text`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node.
pub(super) struct Metrics(Registry);

impl Metrics {
    pub(super) fn new(sources: Arc<Sources>) -> Self {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("loglog").register_collector(Box::new(NodeCollector(sources)));
        registry.sub_registry_with_prefix("process").register_collector(Box::new(ProcessCollector));
        Self(registry)
    }

    /// Their values now.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a text takes whatever is written to it");
        text
    }
}

#[derive(Debug)]
struct NodeCollector(Arc<Sources>);

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.log(&mut out)?;
        self.consensus(&mut out)?;
        self.peers(&mut out)?;
        self.clients(&mut out)?;
        self.actors(&mut out)?;
        self.program(&mut out)
    }
}

/// What is not LogLog's own, under the names that other programs give it, too.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        if let Some(time) = process::cpu_time() {
            let told = "Processor time that the process used, all its threads together.";
            out.counter("cpu", told, SECONDS, time.as_secs_f64())?;
        }
        if let Some(memory) = process::memory() {
            out.gauge("resident_memory", "Memory of the process.", BYTES, memory.resident)?;
            out.gauge("resident_memory_peak", "The most that it ever was.", BYTES, memory.peak)?;
        }
        Ok(())
    }
}

const SECONDS: Option<&Unit> = Some(&Unit::Seconds);
const BYTES: Option<&Unit> = Some(&Unit::Bytes);

impl NodeCollector {
    fn log(&self, out: &mut Out<'_>) -> fmt::Result {
        let Sources { view, measures, .. } = &*self.0;
        // While the cluster forms, or the log is repaired at the first start, there is none: better no number than a wrong one.
        let is_known = view.reader().is_some();
        let told = "From the arrival of an append to its answer, on the node that leads.";
        out.histogram("append", told, SECONDS, &measures.append.snapshot(), Scale::MICROSECONDS)?;
        let told = "Write and sync of one write group.";
        out.histogram("sync", told, SECONDS, &measures.sync.snapshot(), Scale::MICROSECONDS)?;
        let told = "Bytes that one sync makes durable.";
        out.histogram("write_group", told, BYTES, &measures.group_bytes.snapshot(), Scale::BYTES)?;
        let told = "Entries of the same.";
        out.histogram("write_group_entries", told, None, &measures.group_entries.snapshot(), Scale::ENTRIES)?;
        let told = "Entries made durable in this node's log, whoever leads.";
        out.counter("appended_entries", told, None, measures.entries())?;
        out.counter("appended", "Their bytes in the log.", BYTES, measures.bytes())?;
        out.known("start_offset", "First byte of the log that is kept.", None, view.start().get(), is_known)?;
        let told = "Next byte to be committed, as far as this node knows.";
        out.known("committed_offset", told, None, view.committed().get(), is_known)?;
        let told = "How far the log is synced here.";
        out.known("durable_offset", told, None, answers::durable(&self.0), is_known)?;
        out.counter("torn", "Torn bytes that recoveries of this process cut.", BYTES, view.torn_bytes())?;
        out.counter(
            "repairs",
            "Ranges of the log that were repaired from other nodes.",
            None,
            measures.repairs(),
        )?;
        out.counter(
            "damage_found",
            "Checks, on a client's word, that found this node's log damaged while it ran.",
            None,
            measures.damage_found(),
        )?;
        out.known("disk_free", "Free bytes for new entries.", BYTES, view.available(), is_known)
    }

    fn consensus(&self, out: &mut Out<'_>) -> fmt::Result {
        let consensus = self.0.view.consensus();
        let term = consensus.map_or(0, |it| it.term.get());
        out.gauge("term", "Raft's epoch; 0 while the storage group is down.", None, term)?;
        let leads = consensus.is_some_and(|it| it.role == Role::Leader);
        out.gauge("is_leader", "1 if this node leads.", None, u64::from(leads))?;
        let told = "How often this node saw another node lead than before.";
        out.counter("leader_changes", told, None, self.0.measures.leader_changes())
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let peers: Vec<(String, MemberReport)> = answers::members(&self.0)
            .into_iter()
            .filter(|member| !member.is_self)
            .map(|member| (member.node.to_string(), member))
            .collect();
        let of = |what: fn(&MemberReport) -> Option<u64>| {
            peers.iter().filter_map(move |(name, member)| Some((name.as_str(), what(member)?)))
        };
        let told = "1 where this node's link to that peer is up.";
        out.gauges("peer_connected", told, None, "peer", of(|it| it.connected.map(u64::from)))?;
        let told = "Batches of the leader's log that the peer lacks; on the leader only.";
        out.gauges("peer_lag_batches", told, None, "peer", of(|it| it.lag_batches))?;
        let told = "The same in bytes, where the leader knows.";
        out.gauges("peer_lag", told, BYTES, "peer", of(|it| it.lag_bytes))?;
        let traffic = &self.0.traffic;
        let told = "How often log or payload bytes came from peers that no client had brought.";
        out.counter("fetches", told, None, traffic.fetches())?;
        out.counter("fetched", "Those bytes.", BYTES, traffic.fetched_bytes())?;
        let told = "Log or payload bytes sent to peers that asked for them.";
        out.counter("peer_payload", told, BYTES, traffic.served_bytes())?;
        let told = "All bytes sent to peers: Raft's messages, and what they asked for.";
        out.counter("peer_sent", told, BYTES, traffic.sent_bytes())
    }

    fn clients(&self, out: &mut Out<'_>) -> fmt::Result {
        let Sources { connections, upload_bytes, waiting_reads, .. } = &*self.0;
        out.gauge("connections", "Connections of clients.", None, connections.load(Relaxed))?;
        out.gauge(
            "waiting_reads",
            "Reads that wait for the log to grow.",
            None,
            waiting_reads.load(Relaxed),
        )?;
        out.gauge(
            "upload_buffer",
            "Bytes of payloads that wait for their place.",
            BYTES,
            upload_bytes.load(Relaxed),
        )
    }

    fn actors(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut sums: BTreeMap<String, ActorSum> = BTreeMap::new();
        for actor in self.0.registry.snapshot() {
            let sum = sums.entry(series_of(&actor.name, actor.kind).to_owned()).or_default();
            sum.restarts += actor.restarts;
            sum.panics += actor.panics;
            sum.mailbox += actor.mailbox;
            sum.handled += actor.handled;
            sum.stalled += u64::from(actor.stalled_ms.is_some());
        }
        // Those that are gone count on, and where there was none yet, that is a zero.
        for (kind, series) in ONE_SERIES {
            let sum = sums.entry((*series).to_owned()).or_default();
            (sum.handled, sum.panics) = self.0.registry.totals(kind);
        }
        let of = |what: fn(&ActorSum) -> u64| sums.iter().map(move |(name, sum)| (name.as_str(), what(sum)));
        out.counters(
            "actor_restarts",
            "Restarts of the actor, alone or with its group.",
            None,
            "actor",
            of(|it| it.restarts),
        )?;
        out.counters("actor_panics", "How often it panicked.", None, "actor", of(|it| it.panics))?;
        out.gauges("actor_mailbox_depth", "Messages that wait.", None, "actor", of(|it| it.mailbox))?;
        out.gauges(
            "actor_stalled",
            "1 if it makes no progress though there is work.",
            None,
            "actor",
            of(|it| it.stalled),
        )?;
        out.counters("actor_handled", "Messages that it took.", None, "actor", of(|it| it.handled))
    }

    fn program(&self, out: &mut Out<'_>) -> fmt::Result {
        if let Some(log) = &self.0.log {
            out.counter("log_records_dropped", "Records of this program's own log that were lost, since they came faster than they could be written.", None, log.dropped())?;
        }
        let mut info = out.describe("build", "What runs here.", None, MetricType::Info)?;
        info.encode_info(&[("version", self.0.version)])
    }
}

/// Kinds that come and go without end, each with the one series that stands for all of them.
const ONE_SERIES: &[(&str, &str)] = &[("Connection", "connection"), ("PeerConnection", "peer-connection")];

fn series_of<'a>(name: &'a str, kind: &str) -> &'a str {
    ONE_SERIES.iter().find(|(own, _)| *own == kind).map_or(name, |(_, series)| series)
}

#[derive(Default)]
struct ActorSum {
    restarts: u64,
    panics: u64,
    mailbox: u64,
    handled: u64,
    stalled: u64,
}

/// How a histogram's numbers become buckets.
#[derive(Clone, Copy)]
struct Scale {
    /// The first bucket ends below this power of two.
    first: u32,
    /// What one of them is, in the metric's unit.
    one: f64,
    /// Whether a number stands for itself, and not for all that was cut off to get it.
    is_exact: bool,
}

impl Scale {
    const MICROSECONDS: Self = Self { first: 5, one: 1e-6, is_exact: false };
    const BYTES: Self = Self { first: 6, one: 1.0, is_exact: true };
    const ENTRIES: Self = Self { first: 1, one: 1.0, is_exact: true };
}

/// Where metrics go.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn describe<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.describe(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A gauge that there is only where `is_known`.
    fn known(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: u64,
        is_known: bool,
    ) -> fmt::Result {
        if is_known { self.gauge(name, help, unit, value) } else { Ok(()) }
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let mut encoder = self.describe(name, help, unit, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    #[expect(clippy::cast_precision_loss, reason = "sums beyond 2^53 only become rough")]
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        seen: &Snapshot,
        scale: Scale,
    ) -> fmt::Result {
        let (mut buckets, mut counted) = (Vec::new(), 0);
        for (bound, below) in seen.below_powers(scale.first) {
            // A bucket holds what is at its bound, too.
            let bound = if scale.is_exact { bound - 1 } else { bound };
            buckets.push((bound as f64 * scale.one, below - counted));
            counted = below;
        }
        buckets.push((f64::INFINITY, seen.count() - counted));
        let mut encoder = self.describe(name, help, unit, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(seen.sum as f64 * scale.one, seen.count(), &buckets, None)
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(name, help, unit, MetricType::Gauge)?;
        for (of, value) in values {
            encoder.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(name, help, unit, MetricType::Counter)?;
        for (of, value) in values {
            encoder.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }
}
