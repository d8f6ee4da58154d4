//! The clock and what is to come, in order of time; at the same moment, in order of its making.
//!
//! Never:  knows what an event means.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Simulated microseconds since the start.
pub type Micros = u64;

/// Microseconds in a millisecond.
pub const MS: Micros = 1000;
/// Microseconds in a second.
pub const SECOND: Micros = 1000 * MS;

/// A queue of events.
#[derive(Debug)]
pub struct Queue<E> {
    now: Micros,
    order: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, E>,
    next: u64,
}

impl<E> Queue<E> {
    /// An empty one, at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self { now: 0, order: BinaryHeap::new(), events: BTreeMap::new(), next: 0 }
    }

    /// The time of the event taken last.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// Has `event` happen `delay` from now.
    pub fn push(&mut self, delay: Micros, event: E) {
        self.order.push(Reverse((self.now + delay, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// Takes the next event, and time with it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((at, number)) = self.order.pop()?;
        self.now = at;
        self.events.remove(&number)
    }

    /// Events to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}
