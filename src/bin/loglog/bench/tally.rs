//! Tally: what became of a writer's appends.
//!
//! Owns:   the counts, and what is looked for in the log afterwards.

use std::time::{Duration, Instant};

use loglog_client::{AppendError, Appended, Offset};
use loglog_proto::entry::OVERHEAD;

use super::latency::Latencies;
use super::load::Window;
use super::payload::payload_of;

/// What became of the appends of one writer, or of all.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) latencies: Latencies,
    /// Acknowledged within the window, and the bytes of their payloads.
    pub(super) measured: u64,
    pub(super) measured_bytes: u64,
    /// In all, warm-up and end included, and what they take in the log.
    pub(super) acknowledged: u64,
    pub(super) log_bytes: u64,
    /// Due within the window, and not sent by its end.
    pub(super) unsent: u64,
    pub(super) errors: u64,
    first_error: Option<AppendError>,
    /// Where this writer's first and last entry lie.
    pub(super) places: Option<(Offset, Offset)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            measured: 0,
            measured_bytes: 0,
            acknowledged: 0,
            log_bytes: 0,
            unsent: 0,
            errors: 0,
            first_error: None,
            places: None,
        }
    }

    /// Counts an acknowledgement.
    pub(super) fn acknowledged(&mut self, appended: &Appended, is_measured: bool) {
        let bytes = payload_of(appended);
        self.acknowledged += 1;
        self.log_bytes += bytes + OVERHEAD as u64;
        if is_measured {
            self.measured += 1;
            self.measured_bytes += bytes;
        }
        let first = self.places.map_or(appended.offset, |(first, _)| first);
        self.places = Some((first, appended.offset));
    }

    /// Notes what was due within the window, from `due` on each `every`, and is unsent at its end: overdue for so long at least.
    pub(super) fn never_sent(&mut self, mut due: Instant, every: Duration, window: Window) {
        while due < window.end {
            if due >= window.begin {
                self.unsent += 1;
                self.latencies.record(window.end - due);
            }
            due += every;
        }
    }

    pub(super) fn error(&mut self, error: AppendError) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    pub(super) fn first_error(&self) -> Option<&AppendError> {
        self.first_error.as_ref()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.measured += other.measured;
        self.measured_bytes += other.measured_bytes;
        self.acknowledged += other.acknowledged;
        self.log_bytes += other.log_bytes;
        self.unsent += other.unsent;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

#[cfg(test)]
mod tests {
    use loglog_client::Term;

    use super::*;

    fn appended(offset: u64, payload: u64) -> Appended {
        let end = Offset::new(offset + payload + OVERHEAD as u64);
        Appended { offset: Offset::new(offset), end, term: Term::new(1) }
    }

    #[test]
    fn only_what_came_in_the_window_is_measured_and_all_is_counted() {
        let mut tally = Tally::new();
        tally.acknowledged(&appended(64, 100), false);
        tally.acknowledged(&appended(196, 50), true);
        assert_eq!((tally.measured, tally.measured_bytes), (1, 50));
        assert_eq!((tally.acknowledged, tally.log_bytes), (2, 150 + 64));
        assert_eq!(tally.places, Some((Offset::new(64), Offset::new(196))));
        let mut all = Tally::new();
        let gone = AppendError::Closed { may_have_happened: true };
        tally.error(gone.clone());
        all.add(&tally);
        all.add(&tally);
        assert_eq!((all.acknowledged, all.errors, all.first_error()), (4, 2, Some(&gone)));
    }

    #[test]
    fn what_was_due_and_never_sent_counts_with_the_time_it_was_overdue() {
        let begin = Instant::now();
        let window = Window { begin, end: begin + Duration::from_secs(1) };
        let mut tally = Tally::new();
        // Nothing was sent from the first half second on.
        tally.never_sent(begin + Duration::from_millis(500), Duration::from_millis(1), window);
        assert_eq!(tally.unsent, 500);
        assert!((tally.latencies.at(0.5) - 250e3).abs() < 2e3, "{}", tally.latencies.at(0.5));
        // What was due before the window is not of it.
        let mut early = Tally::new();
        early.never_sent(begin - Duration::from_millis(10), Duration::from_millis(1), window);
        assert_eq!(early.unsent, 1000);
    }
}
