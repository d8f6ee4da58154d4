//! Who a pipeline is to the log: its writer, and what is known about it.
//!
//! Keeps:  the known end is one learnt before anything was sent under this name (S29).

use loglog_proto::{Offset, Sequence, WriterId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Who the pipeline is to the log.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) writer: WriterId,
    pub(super) generation: u32,
    next: u64,
    /// The newest sequence known to be in the log.
    pub(super) last: Option<Sequence>,
    pub(super) acknowledged: bool,
    /// Learnt before anything was sent (S29).
    pub(super) known_end: Option<Offset>,
    /// Whether anything was ever sent under this name.
    pub(super) exposed: bool,
    /// Whether only an end asked for from now on will do: the one before was too old.
    pub(super) must_learn: bool,
}

impl Identity {
    pub(super) fn draw(rng: &mut SmallRng, generation: u32) -> Self {
        let writer = WriterId::new(rng.random_range(1..=u64::MAX));
        let (last, known_end) = (None, None);
        Self {
            writer,
            generation,
            next: 1,
            last,
            acknowledged: false,
            known_end,
            exposed: false,
            must_learn: false,
        }
    }

    /// The next sequence.
    pub(super) fn number(&mut self) -> Sequence {
        let sequence = Sequence::new(self.next);
        self.next += 1;
        sequence
    }
}
