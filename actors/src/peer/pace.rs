//! Pace: how fast bulk is copied between nodes, so that appends do not suffer from a node that catches up.
//!
//! ```text
//!   take(bytes) ─► at once while no more than a burst is owed, else when what was taken before is paid for
//! ```
//!
//! Owns:   the account of what was taken; whoever shares a pace shares it.
//! Never:  delays what somebody waits for: that is not taken from here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This much time's worth of bytes may be ahead of the pace.
const BURST: Duration = Duration::from_millis(100);

/// A pace that is shared by its clones.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When all that was taken is paid for.
    paid: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// So many bytes a second; 0: as fast as it goes.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Arc::default() }
    }

    /// The same pace, for others than those who share this one.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::new(self.bytes_per_second)
    }

    /// Waits until it is time for these bytes, in the order of the calls.
    pub async fn take(&self, bytes: u64) {
        let wait = self.due(Instant::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes the bytes; returns how long to wait for them.
    fn due(&self, now: Instant, bytes: u64) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing was taken is not saved up.
        let begin = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(begin + cost);
        (begin - now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_burst_through_and_spreads_what_follows() {
        let (pace, now) = (Pace::new(1_000_000), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(pace.due(now, 60_000), ms(0));
        assert_eq!(pace.clone().due(now, 60_000), ms(0), "less than 100 ms are owed");
        assert_eq!(pace.due(now, 500_000), ms(20));
        assert_eq!(pace.due(now, 1), ms(520));
        assert_eq!(pace.due(now + ms(5000), 100_000), ms(0), "idle time is not saved up");
        assert_eq!(pace.due(now + ms(5000), 100_000), ms(0));
        assert_eq!(pace.due(now + ms(5000), 100_000), ms(100));
    }

    #[test]
    fn zero_is_no_limit() {
        let (pace, now) = (Pace::new(0), Instant::now());
        assert!((0..100).all(|_| pace.due(now, u64::MAX).is_zero()));
    }
}
