//! Seek: appends that wait until their payload is found on another node, and what came behind them.
//!
//! ```text
//!   append 7, payload elsewhere ─► sought ─► found ─► goes on, then 8, then 9
//!   append 8, 9, payloads here  ─► wait behind 7: else they would be out of order
//! ```
//!
//! Owns:   the order of a writer's appends while one of them waits.
//! Keeps:  one payload of a writer is sought at a time; other writers never wait.
//! Never:  asks anybody.

use std::collections::{HashMap, VecDeque};

use loglog_proto::WriterId;

/// Writers for whom a payload may be sought at a time.
const WRITERS_MAX: usize = 256;

/// The appends that wait. `T` is an append with what belongs to it.
#[derive(Debug)]
pub struct Seek<T> {
    writers: HashMap<WriterId, VecDeque<T>>,
}

impl<T> Default for Seek<T> {
    fn default() -> Self {
        Self { writers: HashMap::new() }
    }
}

impl<T> Seek<T> {
    /// Queues an append if one of its writer's waits already; gives it back if none does.
    pub fn behind(&mut self, writer: WriterId, append: T) -> Option<T> {
        match self.writers.get_mut(&writer) {
            Some(waiting) => {
                waiting.push_back(append);
                None
            }
            None => Some(append),
        }
    }

    /// Whether the payload of one more writer may be sought.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.writers.len() < WRITERS_MAX
    }

    /// The payload of this append is sought: what comes from its writer waits behind it.
    pub fn begin(&mut self, writer: WriterId, append: T) {
        self.writers.entry(writer).or_default().push_front(append);
    }

    /// The search for the payload of the writer's first append has ended. It and all behind it, in order; nothing waits any more.
    pub fn end(&mut self, writer: WriterId) -> VecDeque<T> {
        self.writers.remove(&writer).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_waits_and_others_do_not() {
        let (mut seek, one, other) = (Seek::default(), WriterId::new(1), WriterId::new(2));
        assert_eq!(seek.behind(one, 6), Some(6));
        seek.begin(one, 7);
        assert_eq!(seek.behind(one, 8), None);
        assert_eq!(seek.behind(other, 1), Some(1));
        let mut ended = seek.end(one);
        assert_eq!(ended, [7, 8]);
        // 7 was found, 8 is sought in turn; what came meanwhile stays behind it.
        ended.pop_front();
        seek.begin(one, 8);
        assert_eq!(seek.behind(one, 9), None);
        assert_eq!(seek.end(one), [8, 9]);
        assert_eq!(seek.behind(one, 10), Some(10));
        assert!(seek.end(other).is_empty());
    }

    #[test]
    fn writers_are_bounded() {
        let mut seek = Seek::default();
        for writer in 0..WRITERS_MAX as u64 {
            assert!(seek.has_room());
            seek.begin(WriterId::new(writer), ());
        }
        assert!(!seek.has_room());
    }
}
