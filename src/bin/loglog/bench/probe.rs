//! Probe: what nodes and this program use while a load runs.
//!
//! Owns:   the questions to the nodes' admin endpoints, and the thread that asks at the begin and at the end of the window.
//! Never:  asks while the window is open: that would be part of the load.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load::Window;
use super::report::{Report, rounded};
use crate::admin;
use crate::exit::{Outcome, Stop};
use loglog::units::about_bytes;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    admins: Vec<String>,
}

/// What one node says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Node {
    cpu_s: f64,
    /// Memory now and at most, bytes.
    pub(super) memory: f64,
    peak: f64,
    peer_sent: f64,
    leads: bool,
}

/// What all of them and this program have used so far.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) nodes: Vec<Node>,
    own: Duration,
}

/// What was used between two readings.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    own: Duration,
    nodes: Vec<NodeUsage>,
}

#[derive(Clone, Copy, Debug)]
struct NodeUsage {
    cpu_s: f64,
    peak: f64,
    /// Bytes sent to peers, where it leads.
    sent: Option<f64>,
}

/// A reading at the begin and one at the end of a window, under way.
pub(super) struct Watch {
    /// Dropped, it ends the waiting.
    cancel: mpsc::Sender<()>,
    thread: JoinHandle<Outcome<Usage>>,
}

impl Probe {
    pub(super) fn new(admins: Vec<String>) -> Self {
        Self { admins }
    }

    /// Asks all nodes now.
    pub(super) fn read(&self) -> Outcome<Reading> {
        let read = |admin: &String| Ok(Node::parse(&admin::get_text(admin, "/metrics")?));
        let nodes = self.admins.iter().map(read).collect::<Outcome<_>>()?;
        Ok(Reading { nodes, own: own_cpu_time() })
    }

    /// Asks at the begin and at the end of `window`, from a thread of its own: the load's must not wait.
    pub(super) fn watch(self, window: Window) -> Watch {
        let (cancel, cancelled) = mpsc::channel::<()>();
        let wait = move |until: Instant| {
            let _ = cancelled.recv_timeout(until.saturating_duration_since(Instant::now()));
        };
        let thread = std::thread::spawn(move || {
            wait(window.begin);
            let before = self.read()?;
            wait(window.end);
            Ok(Usage::between(&before, &self.read()?))
        });
        Watch { cancel, thread }
    }
}

impl Watch {
    /// What was used. Where the load has ended early, so does the window.
    pub(super) fn usage(self) -> Outcome<Usage> {
        drop(self.cancel);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Stop::failed("the thread that asks the nodes has panicked")))
    }
}

impl Node {
    /// What `/metrics` says; what it does not say is 0.
    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let is_it = |line: &&str| line.split(' ').next() == Some(name);
            let line = text.lines().find(is_it)?;
            line.split(' ').nth(1)?.parse::<f64>().ok()
        };
        let or_none = |name| value(name).unwrap_or(0.0);
        Self {
            cpu_s: or_none("process_cpu_seconds_total"),
            memory: or_none("process_resident_memory_bytes"),
            peak: or_none("process_resident_memory_peak_bytes"),
            peer_sent: or_none("loglog_peer_sent_bytes_total"),
            leads: value("loglog_is_leader") == Some(1.0),
        }
    }
}

impl Usage {
    /// Between two readings.
    pub(super) fn between(before: &Reading, after: &Reading) -> Self {
        let node = |(before, after): (&Node, &Node)| NodeUsage {
            cpu_s: after.cpu_s - before.cpu_s,
            peak: after.peak,
            sent: after.leads.then_some(after.peer_sent - before.peer_sent),
        };
        let nodes = before.nodes.iter().zip(&after.nodes).map(node).collect();
        Self { own: after.own.saturating_sub(before.own), nodes }
    }

    /// This and what was used at another time.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.own += other.own;
        for (node, more) in self.nodes.iter_mut().zip(&other.nodes) {
            node.cpu_s += more.cpu_s;
            node.peak = node.peak.max(more.peak);
            node.sent = node.sent.zip(more.sent).map(|(sent, more)| sent + more);
        }
        self
    }

    /// The same in few words; names begin with `prefix`.
    #[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
    pub(super) fn brief(&self, report: &mut Report, prefix: &str, entries: u64) -> String {
        let each = |seconds: f64| seconds * 1e6 / entries.max(1) as f64;
        let (own, nodes) = (each(self.own.as_secs_f64()), self.nodes.iter().map(|node| node.cpu_s).sum());
        let nodes = (!self.nodes.is_empty()).then_some(each(nodes));
        report.number(&format!("{prefix}_client_cpu_us_per_entry"), own);
        report.maybe(&format!("{prefix}_nodes_cpu_us_per_entry"), nodes);
        let peak = self.nodes.iter().map(|node| node.peak).max_by(f64::total_cmp);
        report.maybe(&format!("{prefix}_node_peak_bytes"), peak);
        let sent = self.nodes.iter().find_map(|node| node.sent);
        report.maybe(&format!("{prefix}_leader_sent_bytes"), sent);
        let words = nodes.map_or(String::new(), |nodes| format!(", nodes {nodes:.2} us"));
        format!("client {own:.2} us{words} for each entry")
    }

    /// Tells of it, for each of `entries`.
    pub(super) fn tell(&self, report: &mut Report, entries: u64) {
        self.tell_each(report, entries, "entry");
    }

    /// The same for each of `count` things, which are called `of`.
    #[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
    pub(super) fn tell_each(&self, report: &mut Report, count: u64, of: &str) {
        let each = |value: f64| value / count.max(1) as f64;
        let name = |who: &str| format!("{who}_cpu_us_per_{of}");
        let own = each(self.own.as_secs_f64() * 1e6);
        report.number(&name("client"), own);
        let mut words = vec![format!("client {own:.2} us")];
        let mut memory = Vec::new();
        for (number, node) in (1..).zip(&self.nodes) {
            let cpu = each(node.cpu_s * 1e6);
            report.number(&name(&format!("node{number}")), cpu);
            report.count(&format!("node{number}_peak_bytes"), rounded(node.peak));
            words.push(format!("node {number} {cpu:.2} us"));
            memory.push(format!("node {number} {}", about_bytes(rounded(node.peak))));
        }
        let sent = self.nodes.iter().find_map(|node| node.sent);
        report.maybe("leader_sent_bytes", sent);
        let what = if of == "mib" { "MiB" } else { of };
        report.row("processor", format!("{} for each {what}", words.join(", ")));
        if !memory.is_empty() {
            report.row("memory", format!("{} at most", memory.join(", ")));
        }
        if let Some(sent) = sent.filter(|_| self.nodes.len() > 1) {
            let all = about_bytes(rounded(sent));
            report.row("leader sent", format!("{all} to its peers, {:.1} bytes for each {what}", each(sent)));
        }
    }
}

/// Processor time that this process has used.
pub(super) fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1.5\nloglog_is_leader 1\n\
                    process_resident_memory_bytes 4096\nloglog_peer_sent_bytes_total 7\n# EOF\n";
        let node = Node::parse(text);
        let want = Node { cpu_s: 1.5, memory: 4096.0, peak: 0.0, peer_sent: 7.0, leads: true };
        assert_eq!(node, want);
        assert_eq!(Node::parse("nonsense"), Node::default());
    }
}
