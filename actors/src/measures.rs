//! Measures: what a node counts and times of the log's work, beside what each actor shows of itself.
//!
//! Owns:   histograms and counts since the process began, and the last two minutes second by second.
//! Keeps:  written by whoever does the work, once a write group or a batch of answers, never once an entry; no lock on that path.
//! Never:  decides anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use loglog_proto::RaftId;
use serde::Serialize;

use crate::clock::{now_us, unix_ms};
use crate::histogram::{Histogram, Snapshot};

/// Seconds that are remembered.
pub const SAMPLES_MAX: usize = 120;

/// Shared by the actors of a node.
#[derive(Debug)]
pub struct Measures {
    is_on: bool,
    /// Microseconds from an append's arrival (its frame was decoded) to its acknowledgement on the way to the socket. One look at the
    /// clock for all that arrived in one socket read and were answered together; each append counts.
    pub append: Histogram,
    /// Microseconds of one write group's write and sync.
    pub sync: Histogram,
    /// Log bytes of one write group.
    pub group_bytes: Histogram,
    /// Entries of one write group, control entries and the like included.
    pub group_entries: Histogram,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Who led last, raw; 0 for nobody yet.
    leader: AtomicU64,
    leader_changes: AtomicU64,
    repairs: AtomicU64,
    damage_found: AtomicU64,
    history: Mutex<History>,
}

/// What one second held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When it ended, milliseconds since 1970.
    pub unix_ms: u64,
    /// Entries made durable in this node's log.
    pub appends: u64,
    /// Their bytes in the log.
    pub append_bytes: u64,
    /// 99 of 100 write groups took no longer than this, microseconds.
    pub sync_p99_us: u64,
    /// Write groups.
    pub sync_count: u64,
}

#[derive(Debug, Default)]
struct History {
    samples: VecDeque<Sample>,
    entries: u64,
    bytes: u64,
    sync: Option<Snapshot>,
}

impl Measures {
    /// Nothing yet; with `is_on` false, no times are taken.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self {
            is_on,
            append: Histogram::default(),
            sync: Histogram::default(),
            group_bytes: Histogram::default(),
            group_entries: Histogram::default(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            repairs: AtomicU64::new(0),
            damage_found: AtomicU64::new(0),
            history: Mutex::default(),
        }
    }

    /// Whether times are taken.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Entries made durable in this node's log, whoever leads: clients', and the few that Raft and operators add.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Their bytes in the log.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How often this node saw another node lead than before; the first counts.
    #[must_use]
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Relaxed)
    }

    /// Ranges of the log that were repaired from other nodes, cut ones included (S10).
    #[must_use]
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Relaxed)
    }

    /// Checks that found damage while the node ran.
    #[must_use]
    pub fn damage_found(&self) -> u64 {
        self.damage_found.load(Relaxed)
    }

    /// The last seconds, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Sample> {
        self.lock().samples.iter().copied().collect()
    }

    /// Now, if times are taken; else 0.
    pub(crate) fn now(&self) -> u64 {
        if self.is_on { now_us() } else { 0 }
    }

    /// `count` appends that arrived at `since` were acknowledged.
    pub(crate) fn acknowledged(&self, since: u64, count: u64) {
        if self.is_on && count > 0 {
            self.append.record_many(now_us().saturating_sub(since), count);
        }
    }

    /// A write group is durable.
    pub(crate) fn synced(&self, since: u64, entries: u64, bytes: u64) {
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        if self.is_on {
            self.sync.record(now_us().saturating_sub(since));
            self.group_bytes.record(bytes);
            self.group_entries.record(entries);
        }
    }

    /// Somebody leads.
    pub(crate) fn led_by(&self, leader: RaftId) {
        if self.leader.swap(leader.get(), Relaxed) != leader.get() {
            self.leader_changes.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn repaired(&self) {
        self.repairs.fetch_add(1, Relaxed);
    }

    pub(crate) fn found_damage(&self) {
        self.damage_found.fetch_add(1, Relaxed);
    }

    /// Ends a second of the history.
    pub(crate) fn sample(&self) {
        let (entries, bytes, sync) = (self.entries(), self.bytes(), self.sync.snapshot());
        let mut history = self.lock();
        let between = history.sync.as_ref().map_or_else(|| sync.clone(), |before| sync.since(before));
        let sample = Sample {
            unix_ms: unix_ms(),
            appends: entries - history.entries,
            append_bytes: bytes - history.bytes,
            sync_p99_us: between.quantile(0.99),
            sync_count: between.count(),
        };
        if history.samples.len() == SAMPLES_MAX {
            history.samples.pop_front();
        }
        history.samples.push_back(sample);
        (history.entries, history.bytes, history.sync) = (entries, bytes, Some(sync));
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_what_its_second_brought_and_the_oldest_goes() {
        let measures = Measures::new(true);
        measures.synced(now_us(), 10, 1000);
        measures.sample();
        measures.synced(now_us(), 5, 70);
        measures.synced(now_us(), 1, 30);
        measures.sample();
        measures.sample();
        let seen: Vec<_> =
            measures.history().iter().map(|it| (it.appends, it.append_bytes, it.sync_count)).collect();
        assert_eq!(seen, [(10, 1000, 1), (6, 100, 2), (0, 0, 0)]);
        assert_eq!(measures.history()[2].sync_p99_us, 0, "of this second, not of those before");
        for _ in 0..SAMPLES_MAX {
            measures.sample();
        }
        assert_eq!(measures.history().len(), SAMPLES_MAX);
        assert_eq!(measures.history()[0].appends, 0);
    }

    #[test]
    fn each_append_of_a_batch_counts_and_none_is_timed_where_that_is_off() {
        let (on, off) = (Measures::new(true), Measures::new(false));
        for measures in [&on, &off] {
            measures.acknowledged(measures.now(), 300);
            measures.synced(measures.now(), 300, 4000);
        }
        assert_eq!((on.append.snapshot().count(), on.sync.snapshot().count()), (300, 1));
        assert_eq!((off.append.snapshot().count(), off.sync.snapshot().count()), (0, 0));
        assert_eq!((off.entries(), off.bytes()), (300, 4000), "counted still");
    }
}
