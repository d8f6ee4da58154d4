//! The bounded queue between those who log and the thread that writes.
//!
//! Owns:   the count of what did not fit.
//! Keeps:  whoever logs never waits; a loss is reported by the first record that fits again, or at the end.

use std::sync::atomic::{AtomicU64, Ordering};

use slog::{Drain, Never, OwnedKVList, Record, b, o, record};
use slog_async::AsyncCore;

/// The queue's entrance.
pub(super) struct Queue {
    core: AsyncCore,
    /// Lost and not yet reported.
    unreported: AtomicU64,
    /// Lost since the start.
    dropped: AtomicU64,
}

impl Queue {
    pub(super) const fn new(core: AsyncCore) -> Self {
        Self { core, unreported: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Queues a record that tells how many were lost since the last such record, if any were and there is room.
    pub(super) fn report(&self) {
        let count = self.unreported.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let told = self.core.log(
            &record!(
                slog::Level::Warning,
                "",
                &format_args!("log records were dropped: they came faster than they could be written"),
                b!("dropped" => count)
            ),
            &o!().into(),
        );
        if told.is_err() {
            self.unreported.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drain for Queue {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.unreported.load(Ordering::Relaxed) > 0 {
            self.report();
        }
        if self.core.log(record, values).is_err() {
            self.unreported.fetch_add(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
