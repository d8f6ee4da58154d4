//! Enough: what a run must have gone through to prove anything. A run in which nothing happened breaks no promise, either.

use std::collections::BTreeMap;

use super::verdict::Facts;
use super::violation::Violation;
use crate::history::History;

/// Thresholds; zero asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enough {
    /// Appends acknowledged.
    pub acks: u64,
    /// Changes of leader.
    pub leader_changes: u64,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Enough {
    /// So many appends acknowledged.
    #[must_use]
    pub fn acks(acks: u64) -> Self {
        Self { acks, ..Self::default() }
    }

    /// And so many changes of leader.
    #[must_use]
    pub fn leader_changes(mut self, leader_changes: u64) -> Self {
        self.leader_changes = leader_changes;
        self
    }

    /// And so many faults of this kind.
    #[must_use]
    pub fn faults(mut self, kind: &str, count: u64) -> Self {
        self.faults.insert(kind.to_owned(), count);
        self
    }

    pub(super) fn check(&self, history: &History, facts: &Facts, found: &mut Vec<Violation>) {
        let mut at_least = |what: &str, seen: u64, wanted: u64| {
            if seen < wanted {
                found.push(Violation::TooLittle { what: what.to_owned(), seen, wanted });
            }
        };
        at_least("appends acknowledged", facts.acknowledged, self.acks);
        at_least("changes of leader", history.evidence.leader_changes, self.leader_changes);
        for (kind, wanted) in &self.faults {
            let seen = history.evidence.faults.get(kind).copied().unwrap_or(0);
            at_least(&format!("faults of the kind '{kind}'"), seen, *wanted);
        }
    }
}
