//! Waiting: since when the oldest message in a mailbox waits, known without a look into the mailbox.
//!
//! ```text
//!   told 0 1 2 3 4 5 …          slot = number % 32          taken: how many the actor took out
//!                ▲ the head of the queue is number `taken`: its slot says when it was told
//! ```
//!
//! Senders number their messages and write each one's time into a ring. So the answer is right also while the actor is stuck in a
//! handler: it is the time of the first message behind the one being handled. A message told when more than the ring holds wait
//! already finds its slot in use and leaves it. When such a one is at the head, the time of the message before it is what is said:
//! in so deep a queue, neighbours were told close to one another. (Two senders at the same moment may swap places in mailbox and
//! ring; they swap times that are equal but for that moment.)
//!
//! Owns:   the times of the messages that wait.
//! Never:  locks; reads a clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Messages whose times are kept.
const SLOTS: usize = 32;
/// Bits of a slot that hold the time: in microseconds almost nine years. The others hold the low bits of the message's number.
const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The ring of one mailbox.
#[derive(Debug)]
pub(crate) struct Waiting {
    slots: [AtomicU64; SLOTS],
    /// When the message that was taken out last was told; 0 for never.
    taken_at: AtomicU64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { slots: [const { AtomicU64::new(0) }; SLOTS], taken_at: AtomicU64::new(0) }
    }
}

impl Waiting {
    /// Message `number` is told at `at`; `taken` messages were taken out so far.
    pub(crate) fn told(&self, number: u64, taken: u64, at: u64) {
        if number.saturating_sub(taken) < SLOTS as u64 {
            self.slot(number).store(tag(number) | (at & TIME_MASK), Relaxed);
        }
    }

    /// The next message is taken out; it was told at `at`.
    pub(crate) fn taken(&self, at: u64) {
        self.taken_at.store(at, Relaxed);
    }

    /// When the oldest was told of the messages that wait, `told` being all and `taken` those that do not any more.
    pub(crate) fn oldest(&self, told: u64, taken: u64) -> Option<u64> {
        if told <= taken {
            return None;
        }
        let slot = self.slot(taken).load(Relaxed);
        let at = if slot & !TIME_MASK == tag(taken) { slot & TIME_MASK } else { 0 };
        let at = if at == 0 { self.taken_at.load(Relaxed) } else { at };
        (at != 0).then_some(at)
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder counts, and keeps its low bits")]
        &self.slots[number as usize % SLOTS]
    }
}

const fn tag(number: u64) -> u64 {
    number << TIME_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_first_that_was_not_taken() {
        let waiting = Waiting::default();
        assert_eq!(waiting.oldest(0, 0), None);
        for number in 0..10 {
            waiting.told(number, 0, 1000 + number);
        }
        for taken in 0..10 {
            assert_eq!(waiting.oldest(10, taken), Some(1000 + taken));
        }
        assert_eq!(waiting.oldest(10, 10), None);
        assert_eq!(waiting.oldest(10, 11), None, "more were taken than told: some came past the handle");
    }

    #[test]
    fn while_one_is_handled_the_next_one_told_is_the_oldest() {
        let waiting = Waiting::default();
        waiting.told(0, 0, 50);
        waiting.taken(50);
        assert_eq!(waiting.oldest(1, 1), None);
        waiting.told(1, 1, 9000);
        waiting.told(2, 1, 9500);
        assert_eq!(waiting.oldest(3, 1), Some(9000), "not when the one being handled was told");
    }

    #[test]
    fn slots_are_used_again_and_old_times_are_not_taken_for_new_ones() {
        let waiting = Waiting::default();
        for number in 0..1000 {
            waiting.told(number, number, 10_000 + number);
            assert_eq!(waiting.oldest(number + 1, number), Some(10_000 + number));
            waiting.taken(10_000 + number);
        }
    }

    #[test]
    fn in_a_deep_queue_the_message_before_stands_for_one_that_found_no_slot() {
        let waiting = Waiting::default();
        for number in 0..100 {
            waiting.told(number, 0, 1000 + number);
        }
        assert_eq!(waiting.oldest(100, 0), Some(1000), "the ring keeps the oldest, not the youngest");
        assert_eq!(waiting.oldest(100, 31), Some(1031));
        waiting.taken(1049);
        assert_eq!(waiting.oldest(100, 50), Some(1049));
    }
}
