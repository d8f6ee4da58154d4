//! Backoff: whether an actor that panicked may start again, and after how long.
//!
//! Owns:   the times of the restarts within the window.
//! Keeps:  at most `restarts_max` restarts in any `window`; delays between half the ceiling and the ceiling.
//! Never:  reads a clock, draws from a random source of its own, sleeps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng;

/// How often an actor may be restarted, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Restarts allowed within [`window`](Self::window); the panic after that one gives up.
    pub restarts_max: usize,
    /// Restarts older than this are forgiven.
    pub window: Duration,
    /// Ceiling of the first delay; it doubles with every restart that the window still holds.
    pub delay_min: Duration,
    /// Where the doubling ends.
    pub delay_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            restarts_max: 8,
            window: Duration::from_secs(60),
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_secs(5),
        }
    }
}

/// What to do about a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Wait this long, then restart.
    RestartAfter(Duration),
    /// Too many restarts within the window: leave it to the parent.
    GiveUp,
}

/// Remembers restarts and decides about the next one.
#[derive(Debug)]
pub struct Backoff {
    limits: Limits,
    /// Oldest first; never longer than `limits.restarts_max`.
    recent: VecDeque<Instant>,
}

impl Backoff {
    /// A backoff that has seen no panic yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, recent: VecDeque::new() }
    }

    /// Decides about a panic that happened at `now`, and counts the restart if it grants one.
    ///
    /// The delay is drawn from the upper half of its ceiling, so that actors felled by one cause do not
    /// all come back at once.
    pub fn on_panic(&mut self, now: Instant, rng: &mut impl Rng) -> Decision {
        let window = self.limits.window;
        while self.recent.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.limits.restarts_max {
            return Decision::GiveUp;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        let ceiling = self.limits.delay_min.saturating_mul(2_u32.saturating_pow(doublings));
        let ceiling = ceiling.min(self.limits.delay_max);
        self.recent.push_back(now);
        Decision::RestartAfter(rng.random_range(ceiling / 2..=ceiling))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const LIMITS: Limits = Limits {
        restarts_max: 4,
        window: Duration::from_secs(10),
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_millis(500),
    };

    fn delay(decision: Decision) -> Duration {
        match decision {
            Decision::RestartAfter(delay) => delay,
            Decision::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn delays_double_up_to_the_cap_with_jitter_in_the_upper_half() {
        let now = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(LIMITS);
            for ceiling_ms in [100, 200, 400, 500] {
                let ceiling = Duration::from_millis(ceiling_ms);
                let delay = delay(backoff.on_panic(now, &mut rng));
                assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} for {ceiling:?}");
                seen.insert(delay);
            }
        }
        assert!(seen.len() > 100, "no jitter");
    }

    #[test]
    fn same_seed_same_delays() {
        let now = Instant::now();
        let run = || {
            let (mut rng, mut backoff) = (StdRng::seed_from_u64(7), Backoff::new(LIMITS));
            [(); 4].map(|()| backoff.on_panic(now, &mut rng))
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn gives_up_after_the_last_allowed_restart() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut backoff = Backoff::new(LIMITS);
        for _ in 0..4 {
            assert_ne!(backoff.on_panic(now, &mut rng), Decision::GiveUp);
        }
        assert_eq!(backoff.on_panic(now, &mut rng), Decision::GiveUp);
    }

    #[test]
    fn restarts_older_than_the_window_are_forgiven() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut backoff = Backoff::new(LIMITS);
        for second in 0..4 {
            backoff.on_panic(start + Duration::from_secs(second), &mut rng);
        }
        let just_before = start + LIMITS.window - Duration::from_millis(1);
        assert_eq!(backoff.on_panic(just_before, &mut rng), Decision::GiveUp);
        assert_ne!(backoff.on_panic(start + LIMITS.window, &mut rng), Decision::GiveUp);
        let much_later = start + LIMITS.window * 9;
        assert!(delay(backoff.on_panic(much_later, &mut rng)) <= LIMITS.delay_min, "not forgiven");
    }

    #[test]
    fn zero_restarts_allowed_gives_up_at_once_and_huge_counts_do_not_overflow() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut never = Backoff::new(Limits { restarts_max: 0, ..LIMITS });
        assert_eq!(never.on_panic(now, &mut rng), Decision::GiveUp);
        let mut many = Backoff::new(Limits { restarts_max: 1000, ..LIMITS });
        for _ in 0..1000 {
            assert!(delay(many.on_panic(now, &mut rng)) <= LIMITS.delay_max);
        }
    }
}
