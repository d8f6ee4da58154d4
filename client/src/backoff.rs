//! Backoff: how long to wait before the next try.
//!
//! Keeps:  waits double up to a limit, with jitter, so that clients do not come back all at once.
//! Never:  sleeps or draws from a source of its own: the caller does both.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The wait after `failures` tries in a row that came to nothing: half to all of 10 ms, 20 ms, … 1 s.
pub(crate) fn wait(failures: u32, rng: &mut impl Rng) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    full.mul_f64(rng.random_range(0.5..=1.0))
}

/// The wait before a node is sought again, after `failures` tries in a row: none, then half to all of 10, 20, 50, … 500 ms. Shorter
/// than [`wait`], since a cluster without a leader has one again soon.
pub(crate) fn seek(failures: u32, rng: &mut impl Rng) -> Duration {
    const STEPS: [u64; 7] = [0, 10, 20, 50, 100, 200, 500];
    let step = usize::try_from(failures).unwrap_or(usize::MAX).min(STEPS.len() - 1);
    Duration::from_millis(STEPS[step]).mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut rng = SmallRng::seed_from_u64(1);
        for failures in 0..70 {
            let full = Duration::from_millis(10 << failures.min(7)).min(LONGEST);
            let wait = wait(failures, &mut rng);
            assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
        }
    }
    #[test]
    fn a_node_is_sought_at_once_and_then_every_half_second() {
        let mut rng = SmallRng::seed_from_u64(1);
        assert_eq!(seek(0, &mut rng), Duration::ZERO);
        let waits: Duration = (1..6).map(|failures| seek(failures, &mut rng)).sum();
        assert!(waits <= Duration::from_millis(380), "{waits:?}");
        assert!(seek(u32::MAX, &mut rng) <= Duration::from_millis(500));
    }
}
