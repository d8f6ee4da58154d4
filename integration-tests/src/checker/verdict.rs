//! Verdict: what the checker found, and how much it looked at.

use std::fmt;

use super::answers;
use super::violation::Violation;
use crate::history::History;

/// Violations printed; more of them tell no more.
const SHOWN: usize = 20;

/// What was found.
#[derive(Clone, Debug)]
#[must_use = "a verdict that nobody looks at proves nothing"]
pub struct Verdict {
    /// All that is wrong.
    pub violations: Vec<Violation>,
    /// How much was looked at.
    pub facts: Facts,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Appends.
    pub operations: u64,
    /// Of them acknowledged.
    pub acknowledged: u64,
    /// Of them refused for good.
    pub refused: u64,
    /// Data entries known, in trimmed parts too.
    pub entries: u64,
    /// Reads, of bytes and of entries.
    pub reads: u64,
    /// Linearizable ends.
    pub certain_ends: u64,
}

impl Facts {
    pub(super) fn of(history: &History, entries: u64) -> Self {
        Self {
            operations: history.operations.len() as u64,
            acknowledged: history.operations.iter().filter(|it| it.acknowledged().is_some()).count() as u64,
            refused: history.operations.iter().filter(|it| answers::refused_for_good(it).is_some()).count()
                as u64,
            entries,
            reads: (history.reads.len() + history.sightings.len()) as u64,
            certain_ends: history.ends.iter().filter(|it| it.linearizable).count() as u64,
        }
    }
}

impl Verdict {
    /// Whether nothing is wrong, and enough was seen.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.violations.is_empty()
    }

    /// Asserts that nothing is wrong; returns how much was looked at.
    ///
    /// # Panics
    /// If something is, saying what.
    #[track_caller]
    pub fn passed(self) -> Facts {
        assert!(self.is_pass(), "{self}");
        self.facts
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {} violations", self.facts, self.violations.len())?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        if self.violations.len() > SHOWN {
            writeln!(f, "  and more")?;
        }
        Ok(())
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} appends, {} acknowledged, {} refused; {} entries, {} reads, {} linearizable ends",
            self.operations, self.acknowledged, self.refused, self.entries, self.reads, self.certain_ends
        )
    }
}
