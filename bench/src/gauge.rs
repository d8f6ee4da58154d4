//! Gauge: one run's clock, counts and latencies.
//!
//! Owns:   the window within which acknowledgements count, and what client and servers cost meanwhile.
//! Keeps:  what it costs a load to be measured is the same for every system, and next to nothing: one atomic read and one write an append.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::RngCore;

use crate::plan::Load;
use crate::proc;

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// With so many in flight or fewer, every append's latency is taken.
const ALL_UP_TO: usize = 64;
/// With more, that of one in so many: a look at the clock costs about as much as an append.
const ONE_IN: u64 = 16;

/// One run.
#[derive(Debug)]
pub(crate) struct Gauge {
    phase: AtomicU8,
    failed: AtomicBool,
    one_in: u64,
    counts: Mutex<Vec<Arc<AtomicU64>>>,
    latencies: Mutex<Histogram<u64>>,
}

/// One connection's share of a run. What it counted is the gauge's when it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    gauge: Arc<Gauge>,
    /// Written by this lane alone.
    shared: Arc<AtomicU64>,
    sent: u64,
    acknowledged: u64,
    latencies: Histogram<u64>,
}

/// What a window came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) elapsed: Duration,
    pub(crate) appends: u64,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
    /// The servers' peaks together, bytes.
    pub(crate) server_peak: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(600_000_000_000, 3).expect("bounds that hold")
}

impl Gauge {
    pub(crate) fn new(load: Load) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(WARMING_UP),
            failed: AtomicBool::new(false),
            one_in: if load.in_flight <= ALL_UP_TO { 1 } else { ONE_IN },
            counts: Mutex::default(),
            latencies: Mutex::new(histogram()),
        })
    }

    pub(crate) fn lane(self: &Arc<Self>) -> Lane {
        let shared = Arc::new(AtomicU64::new(0));
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        Lane { gauge: self.clone(), shared, sent: 0, acknowledged: 0, latencies: histogram() }
    }

    /// Ends the run early: what fails once is no load any more.
    pub(crate) fn give_up(&self) {
        self.failed.store(true, Relaxed);
        self.phase.store(OVER, Relaxed);
    }

    /// Latencies within the window, nanoseconds; of those lanes that are gone.
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(quantile)
    }

    /// Measures on a thread of its own, so that no runtime's load delays it: after `warmup`, for `duration`, then ends the run.
    pub(crate) fn window(
        self: &Arc<Self>,
        pids: Vec<u32>,
        warmup: Duration,
        duration: Duration,
    ) -> tokio::sync::oneshot::Receiver<Result<Window, String>> {
        let (to, window) = tokio::sync::oneshot::channel();
        let gauge = self.clone();
        std::thread::spawn(move || {
            let measured = gauge.measure(&pids, warmup, duration);
            gauge.phase.store(OVER, Relaxed);
            let _ = to.send(measured);
        });
        window
    }

    fn measure(&self, pids: &[u32], warmup: Duration, duration: Duration) -> Result<Window, String> {
        self.sleep(warmup)?;
        let before = self.snapshot(pids)?;
        self.phase.store(MEASURING, Relaxed);
        self.sleep(duration)?;
        let after = self.snapshot(pids)?;
        let peaks: Result<Vec<u64>, String> = pids.iter().map(|pid| proc::peak_of(*pid)).collect();
        Ok(Window {
            elapsed: after.at - before.at,
            appends: after.appends - before.appends,
            client_cpu: after.client_cpu - before.client_cpu,
            server_cpu: after.server_cpu.saturating_sub(before.server_cpu),
            server_peak: peaks?.iter().sum(),
        })
    }

    fn sleep(&self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.failed.load(Relaxed) {
                return Err("the load failed".to_owned());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    fn snapshot(&self, pids: &[u32]) -> Result<Snapshot, String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let server_cpu: Result<Vec<Duration>, String> = pids.iter().map(|pid| proc::cpu_of(*pid)).collect();
        Ok(Snapshot {
            at: Instant::now(),
            appends: counts.iter().map(|count| count.load(Relaxed)).sum(),
            client_cpu: proc::cpu_of_self(),
            server_cpu: server_cpu?.iter().sum(),
        })
    }
}

struct Snapshot {
    at: Instant,
    appends: u64,
    client_cpu: Duration,
    server_cpu: Duration,
}

impl Lane {
    /// Whether to append more.
    pub(crate) fn goes_on(&self) -> bool {
        self.gauge.phase.load(Relaxed) != OVER
    }

    /// An append is on its way: when, if its latency is to be taken.
    pub(crate) fn sent(&mut self) -> Option<Instant> {
        self.sent += 1;
        self.sent.is_multiple_of(self.gauge.one_in).then(Instant::now)
    }

    /// It was acknowledged.
    pub(crate) fn acknowledged(&mut self, sent: Option<Instant>) {
        self.acknowledged += 1;
        self.shared.store(self.acknowledged, Relaxed);
        if let Some(sent) = sent
            && self.gauge.phase.load(Relaxed) == MEASURING
        {
            self.latencies.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut all = self.gauge.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = all.add(&self.latencies);
    }
}

/// Random bytes: nothing on the way should gain from their likeness, neither within a payload nor from one to the next.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    pool: Bytes,
    length: usize,
    at: usize,
}

impl Payloads {
    /// How much there is beside one payload.
    const MORE: usize = 1 << 20;

    pub(crate) fn new(length: usize) -> Self {
        let mut pool = vec![0; length + Self::MORE];
        rand::rng().fill_bytes(&mut pool);
        Self { pool: Bytes::from(pool), length, at: 0 }
    }

    /// The next one, without a copy.
    pub(crate) fn next(&mut self) -> Bytes {
        let payload = self.pool.slice(self.at..self.at + self.length);
        self.at = (self.at + self.length.max(1)) % Self::MORE;
        payload
    }
}

/// What each of the connections has in flight: `in_flight` spread over `connections`, of which there are no more than that.
pub(crate) fn shares(in_flight: usize, connections: usize) -> Vec<usize> {
    let connections = connections.clamp(1, in_flight.max(1));
    (0..connections).map(|one| (in_flight + one) / connections).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!(shares(1, 4), [1]);
        assert_eq!(shares(64, 4), [16; 4]);
        assert_eq!(shares(10, 4), [2, 2, 3, 3]);
        assert_eq!(shares(10, 4).iter().sum::<usize>(), 10);
    }

    #[test]
    fn payloads_differ_and_have_their_length() {
        let mut payloads = Payloads::new(100);
        let (one, two) = (payloads.next(), payloads.next());
        assert_eq!((one.len(), two.len()), (100, 100));
        assert_ne!(one, two);
        for _ in 0..100_000 {
            assert_eq!(payloads.next().len(), 100);
        }
        assert_eq!(Payloads::new(0).next().len(), 0);
    }

    #[test]
    fn only_the_window_counts() {
        let gauge = Gauge::new(Load { payload: 1, in_flight: 1 });
        let mut lane = gauge.lane();
        let sent = lane.sent();
        lane.acknowledged(sent);
        let (warmup, duration) = (Duration::from_millis(20), Duration::from_millis(100));
        let mut window = gauge.window(vec![std::process::id()], warmup, duration);
        while lane.goes_on() {
            let sent = lane.sent();
            std::thread::sleep(Duration::from_millis(1));
            lane.acknowledged(sent);
        }
        let all = lane.acknowledged;
        drop(lane);
        let window = loop {
            match window.try_recv() {
                Ok(window) => break window.expect("measured"),
                Err(_) => std::thread::yield_now(),
            }
        };
        assert!(window.appends > 0 && window.appends < all, "{window:?} of {all}");
        assert!(window.elapsed >= duration && window.server_peak > 0, "{window:?}");
        assert!(gauge.quantile(0.5) >= 1_000_000, "{}", gauge.quantile(0.5));
    }
}
