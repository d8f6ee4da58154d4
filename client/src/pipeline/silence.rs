//! Silence: when a leader that says nothing is worth asking the other nodes about.
//!
//! Owns:   since when nothing was heard while something is waited for.
//! Keeps:  asks soon, so that a frozen leader costs less than an election, and ever more seldom after that.
//! Never:  gives a link up: only another node's word that it leads does.

use std::time::Duration;

use tokio::time::Instant;

/// So long may a leader say nothing.
const FIRST: Duration = Duration::from_millis(500);
/// The time between questions doubles to this, after the first few.
const LONGEST: Duration = Duration::from_secs(4);

/// How long nothing was heard.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    asked: u32,
}

impl Silence {
    /// Something was heard, or nothing is waited for.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing was heard since the other nodes were asked.
    pub(super) fn lasts(&self) -> bool {
        self.asked > 0
    }

    /// Something is waited for. Returns when to ask the other nodes, if nothing is heard until then.
    pub(super) fn ask_at(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + FIRST.saturating_mul(1 << self.asked.saturating_sub(4).min(8)).min(LONGEST)
    }

    /// The other nodes are asked.
    pub(super) fn asked(&mut self, now: Instant) {
        self.since = Some(now);
        self.asked += 1;
    }
}
