//! Probe: what nodes and this program use while a load runs.
//!
//! Owns:   the questions to the nodes' admin endpoints, and the thread that asks at the begin and at the end of the window.
//! Never:  asks while the window is open: that would be part of the load.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load::Window;
use super::report::Report;
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
    before: Reading,
    after: Reading,
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
            Ok(Usage { before, after: self.read()? })
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
    /// Between two readings that somebody took.
    pub(super) const fn between(before: Reading, after: Reading) -> Self {
        Self { before, after }
    }

    /// Tells of it, for each of `entries` where that makes sense.
    #[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
    pub(super) fn tell(&self, report: &mut Report, entries: u64) {
        let each = |seconds: f64| seconds * 1e6 / entries.max(1) as f64;
        let own = each((self.after.own.saturating_sub(self.before.own)).as_secs_f64());
        report.number("client_cpu_us", own);
        let mut words = vec![format!("client {own:.2} us")];
        let (mut memory, mut sent) = (Vec::new(), None);
        for (number, (before, after)) in (1..).zip(self.before.nodes.iter().zip(&self.after.nodes)) {
            let cpu = each(after.cpu_s - before.cpu_s);
            report.number(&format!("node{number}_cpu_us"), cpu);
            report.count(&format!("node{number}_peak_bytes"), super::report::rounded(after.peak));
            words.push(format!("node {number} {cpu:.2} us"));
            memory.push(format!("node {number} {}", about_bytes(super::report::rounded(after.peak))));
            if after.leads {
                sent = Some(after.peer_sent - before.peer_sent);
            }
        }
        report.maybe("leader_sent_bytes", sent);
        report.maybe("leader_sent_bytes_per_entry", sent.map(|sent| sent / entries.max(1) as f64));
        report.row("processor", format!("{} an entry", words.join(", ")));
        if !memory.is_empty() {
            report.row("memory", format!("{} at most", memory.join(", ")));
        }
        if let Some(sent) = sent.filter(|_| self.after.nodes.len() > 1) {
            let each = sent / entries.max(1) as f64;
            let all = about_bytes(super::report::rounded(sent));
            report.row("leader sent", format!("{all} to its peers, {each:.1} bytes an entry"));
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
