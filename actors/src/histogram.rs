//! Histogram: how numbers are distributed, in a fixed number of buckets, without a lock.
//!
//! ```text
//!   0 1 2 3 │ 4 5 6 7 │ 8-9 10-11 12-13 14-15 │ 16-19 20-23 24-27 28-31 │ …        four buckets a power of two
//! ```
//!
//! Owns:   the counts since it was made.
//! Keeps:  what it says of a quantile is at most a quarter too large, never too small; counts only grow.
//! Never:  allocates after it was made; knows the unit of what it counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of a power of two.
const STEPS: usize = 4;
/// The last power of two told apart: in microseconds 64 s, in bytes 64 MiB. What is larger counts there.
const POWER_MAX: usize = 26;
/// How many buckets there are.
pub const BUCKETS: usize = (POWER_MAX - 1) * STEPS + STEPS;

/// Counts numbers. Any thread may record, any may look.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

/// A histogram as it was at one moment, or what was added between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    buckets: [u64; BUCKETS],
    /// The sum of what was recorded.
    pub sum: u64,
    /// The largest number recorded, ever.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Records `value` once.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Records `value` as often as `times`.
    pub fn record_many(&self, value: u64, times: u64) {
        self.buckets[bucket_of(value)].fetch_add(times, Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// A copy. What is recorded meanwhile may be in its counts and not in its sum.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

impl Snapshot {
    /// How many numbers were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What at least `share` of all numbers do not exceed, up to a quarter more; 0 where there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let count = self.count();
        let mut left = rank(count, share);
        for (at, in_bucket) in self.buckets.iter().enumerate() {
            if *in_bucket >= left && *in_bucket > 0 {
                return upper_bound(at).min(self.max);
            }
            left -= (*in_bucket).min(left);
        }
        0
    }

    /// What was added since `before`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(before.buckets[at])),
            sum: self.sum.saturating_sub(before.sum),
            max: self.max,
        }
    }

    /// For each power of two from `first` on, how many numbers are below it: few enough buckets to be exported.
    pub fn below_powers(&self, first: u32) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0;
        let mut at = 0;
        (first..=u32::try_from(POWER_MAX).unwrap_or(u32::MAX)).map(move |power| {
            let bound = 1_u64 << power;
            while at < BUCKETS && upper_bound(at) < bound {
                below += self.buckets[at];
                at += 1;
            }
            (bound, below)
        })
    }
}

/// How many numbers are at or below the quantile, of `count`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a count beyond 2^52 or a share beyond 1 only makes the answer rough"
)]
fn rank(count: u64, share: f64) -> u64 {
    ((count as f64 * share).ceil() as u64).clamp(1, count.max(1))
}

/// The bucket that `value` falls into.
const fn bucket_of(value: u64) -> usize {
    if value < STEPS as u64 {
        #[expect(clippy::cast_possible_truncation, reason = "below four")]
        return value as usize;
    }
    let power = value.ilog2();
    let step = ((value >> (power - 2)) & 3) as usize;
    let at = (power as usize - 1) * STEPS + step;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The largest number of a bucket.
const fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << (power - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_a_quarter_wide_at_most() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let last = upper_bound(bucket);
            assert_eq!((bucket_of(next), bucket_of(last)), (bucket, bucket));
            assert!(last - next <= next / 4, "{next} to {last}");
            next = last + 1;
        }
        assert_eq!(next, 1 << (POWER_MAX + 1));
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1, "what is too large is counted still");
    }

    #[test]
    fn quantiles_are_those_of_the_numbers_or_a_quarter_more() {
        let histogram = Histogram::default();
        for value in 1..=1000 {
            histogram.record(value);
        }
        let seen = histogram.snapshot();
        assert_eq!((seen.count(), seen.sum, seen.max), (1000, 500_500, 1000));
        for (share, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000), (0.0, 1)] {
            let said = seen.quantile(share);
            assert!((exact..=exact * 5 / 4).contains(&said), "{share}: {said} for {exact}");
        }
        assert_eq!(Histogram::default().snapshot().quantile(0.99), 0);
    }

    #[test]
    fn one_slow_in_a_hundred_is_the_p99_of_a_hundred_and_one_but_not_of_a_thousand() {
        let histogram = Histogram::default();
        histogram.record_many(10, 100);
        histogram.record_many(5000, 2);
        assert_eq!(histogram.snapshot().quantile(0.99), 5000, "never beyond the largest");
        histogram.record_many(10, 900);
        assert!(histogram.snapshot().quantile(0.99) < 13);
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let histogram = Histogram::default();
        histogram.record_many(1_000_000, 50);
        let before = histogram.snapshot();
        histogram.record_many(100, 3);
        let between = histogram.snapshot().since(&before);
        assert_eq!((between.count(), between.sum), (3, 300));
        assert!((100..=125).contains(&between.quantile(0.99)));
    }

    #[test]
    fn powers_count_what_is_below_them() {
        let histogram = Histogram::default();
        for value in [0, 1, 63, 64, 100, 1 << 20, u64::MAX] {
            histogram.record(value);
        }
        let seen = histogram.snapshot();
        let below: Vec<_> = seen.below_powers(6).collect();
        assert_eq!(below[0], (64, 3));
        assert_eq!(below[1], (128, 5));
        assert_eq!(below.last(), Some(&(1 << 26, 6)), "the largest is in none: it is in the count only");
        assert_eq!(seen.count(), 7);
    }
}
