//! Logging: structured records to standard error, without ever making an actor wait.
//!
//! ```text
//!     slog macros ───┐
//!     `log` records ─┼─► level ─► bounded queue ─► thread ─► terminal lines or JSON ─► standard error
//!     `tracing` ─────┘             full: dropped, counted, reported
//! ```
//!
//! Owns:   the chain above, the level that holds, the flush at exit.
//! Never:  keeps a logger in a global for our own code: loggers are passed in, a child for each actor. (What
//!         dependencies say arrives through the globals of `log` and `tracing`: they offer nothing else.)

mod bridge;
mod control;
mod format;
mod levels;
mod queue;

use std::io;
use std::sync::Arc;

use loglog_actors::admin::sources::LogControl;
use slog::{Drain, Logger, Never, o};

pub use bridge::{CaptureError, SlogLayer};
pub use format::{FormatError, LogFormat};
pub use levels::{LevelError, LevelHandle, LevelSpec};

use levels::LevelFilter;
use queue::Queue;

/// Records that may wait for the thread that writes them. At a few hundred bytes each, under 2 MiB.
const QUEUE_RECORDS: usize = 4096;

/// A running log. Dropping it writes what still waits and stops its thread; later records are lost.
///
/// So keep it in `main` until all else is over, and end by returning, not by `std::process::exit`.
pub struct Logging {
    logger: Logger,
    level: LevelHandle,
    queue: Arc<Queue>,
    // Only dropped: that writes what waits.
    _flush: slog_async::AsyncGuard,
}

impl Logging {
    /// Logs to standard error.
    #[must_use]
    pub fn start(format: LogFormat, levels: &LevelSpec) -> Self {
        match format.resolve() {
            LogFormat::Json => Self::with_drain(format::json(io::stderr()), levels),
            _ => Self::with_drain(format::terminal(), levels),
        }
    }

    /// Logs to `drain`, on a thread of its own.
    pub fn with_drain<D>(drain: D, levels: &LevelSpec) -> Self
    where
        D: Drain<Ok = (), Err = Never> + Send + 'static,
    {
        let (core, flush) = slog_async::AsyncCore::custom(drain)
            .chan_size(QUEUE_RECORDS)
            .thread_name("log".to_owned())
            .build_with_guard();
        let queue = Arc::new(Queue::new(core));
        let level = LevelHandle::new(levels);
        let logger = Logger::root(LevelFilter::new(Arc::clone(&queue), level.clone()), o!());
        Self { logger, level, queue, _flush: flush }
    }

    /// The root logger: make a child of it for each actor, `logger.new(o!("actor" => …))`.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Changes the level at run time.
    #[must_use]
    pub fn level(&self) -> &LevelHandle {
        &self.level
    }

    /// The same for a node's administrators, and what they may see.
    #[must_use]
    pub fn control(&self) -> Arc<dyn LogControl> {
        Arc::new(control::Control { level: self.level.clone(), queue: Arc::clone(&self.queue) })
    }

    /// Records lost since the start because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Takes in what dependencies say through `log` (actix does) and `tracing`, for the rest of the process.
    ///
    /// # Errors
    /// [`CaptureError`] if somebody in this process did so before.
    pub fn capture_dependencies(&self) -> Result<(), CaptureError> {
        bridge::install(&self.logger, &self.level)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // The last chance to say it: behind it comes the flush.
        self.queue.report();
    }
}

#[cfg(test)]
#[path = "logging/logging_test.rs"]
mod tests;
