//! Metrics: the same counters once more, as Prometheus reads them.
//!
//! Owns:   the names (prefix `loglog_`), their words and units. Dashboards and alerts go by them.
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

use super::answers;
use super::sources::Sources;

/// What [`Metrics::text`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node.
pub(super) struct Metrics(Registry);

impl Metrics {
    pub(super) fn new(sources: Arc<Sources>) -> Self {
        let mut registry = Registry::with_prefix("loglog");
        registry.register_collector(Box::new(NodeCollector(sources)));
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

const BYTES: Option<&Unit> = Some(&Unit::Bytes);

impl NodeCollector {
    fn log(&self, out: &mut Out<'_>) -> fmt::Result {
        let view = &self.0.view;
        out.gauge("start_offset", "First byte of the log that is kept.", None, view.start().get())?;
        out.gauge(
            "committed_offset",
            "Next byte to be committed, as far as this node knows.",
            None,
            view.committed().get(),
        )?;
        let durable = view.reader().map_or(0, |reader| reader.end().get());
        out.gauge("durable_offset", "How far the log is synced here.", None, durable)?;
        out.counter("torn", "Torn bytes that recoveries of this process cut.", BYTES, view.torn_bytes())?;
        out.gauge("disk_free", "Free bytes for new entries.", BYTES, view.available())
    }

    fn consensus(&self, out: &mut Out<'_>) -> fmt::Result {
        let consensus = self.0.view.consensus();
        let term = consensus.map_or(0, |it| it.term.get());
        out.gauge("term", "Raft's epoch; 0 while the storage group is down.", None, term)?;
        let leads = consensus.is_some_and(|it| it.role == Role::Leader);
        out.gauge("is_leader", "1 if this node leads.", None, u64::from(leads))
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let traffic = &self.0.traffic;
        out.counter(
            "fetches",
            "How often log or payload bytes came from peers that no client had brought.",
            None,
            traffic.fetches(),
        )?;
        out.counter("fetched", "Those bytes.", BYTES, traffic.fetched_bytes())?;
        out.counter(
            "peer_payload",
            "Log or payload bytes sent to peers that asked for them.",
            BYTES,
            traffic.served_bytes(),
        )?;
        Ok(())
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
        for actor in answers::summaries(&self.0) {
            let sum = sums.entry(series_of(&actor.name, &actor.kind).to_owned()).or_default();
            sum.restarts += actor.restarts;
            sum.mailbox += actor.mailbox;
            sum.handled += actor.handled;
            sum.stalled += u64::from(actor.stalled_ms.is_some());
        }
        let of = |what: fn(&ActorSum) -> u64| sums.iter().map(move |(name, sum)| (name.as_str(), what(sum)));
        out.counters(
            "actor_restarts",
            "Restarts of the actor, alone or with its group.",
            None,
            "actor",
            of(|it| it.restarts),
        )?;
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

/// Connections come and go without end, so they are one series.
fn series_of<'a>(name: &'a str, kind: &str) -> &'a str {
    match kind {
        "Connection" => "connection",
        "PeerConnection" => "peer-connection",
        _ => name,
    }
}

#[derive(Default)]
struct ActorSum {
    restarts: u64,
    mailbox: u64,
    handled: u64,
    stalled: u64,
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
