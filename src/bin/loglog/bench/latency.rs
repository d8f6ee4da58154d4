//! Latencies: how long things took, and how that is told.
//!
//! Owns:   the histogram and its bounds; the names of its quantiles in a report.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::Report;

/// Latencies from 1 µs to ten minutes, to three digits; what lies beyond counts as the bound.
const NANOS: (u64, u64) = (1_000, 600_000_000_000);

/// Times that something took.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(NANOS.0, NANOS.1, 3).expect("bounds in order, three digits"))
    }

    /// Notes one.
    pub(super) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos.clamp(NANOS.0, NANOS.1));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("histograms of the same bounds");
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds that the `quantile` smallest took at most; 0 where there are none.
    pub(super) fn at(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { micros(self.0.value_at_quantile(quantile)) }
    }

    /// The longest, microseconds.
    pub(super) fn max(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { micros(self.0.max()) }
    }

    /// Adds the figures under names that begin with `prefix`.
    pub(super) fn tell(&self, report: &mut Report, prefix: &str) {
        for (name, value) in [
            ("p50_us", self.at(0.5)),
            ("p99_us", self.at(0.99)),
            ("p999_us", self.at(0.999)),
            ("max_us", self.max()),
        ] {
            report.number(&format!("{prefix}{name}"), value);
        }
    }

    /// The same for people.
    pub(super) fn words(&self) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| time(self.at(quantile)));
        format!("p50 {p50}, p99 {p99}, p999 {p999}, max {}", time(self.max()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten minutes of nanoseconds are exact")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Microseconds in three digits.
pub(super) fn time(micros: f64) -> String {
    match micros {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e4 => format!("{:.2} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let mut all = Latencies::new();
        assert_eq!((all.len(), all.at(0.5), all.max()), (0, 0.0, 0.0));
        for us in 1..=1000 {
            all.record(Duration::from_micros(us));
        }
        assert!((all.at(0.5) - 500.0).abs() < 1.0, "{}", all.at(0.5));
        assert!((all.max() - 1000.0).abs() < 1.0, "{}", all.max());
        let mut more = Latencies::new();
        more.record(Duration::from_secs(3600));
        all.add(&more);
        assert_eq!(all.len(), 1001);
        assert!((all.max() / 6e8 - 1.0).abs() < 0.01, "the bound: {}", all.max());
    }

    #[test]
    fn times_have_three_digits() {
        for (us, text) in
            [(0.4, "0 us"), (999.0, "999 us"), (1234.0, "1.23 ms"), (45_600.0, "46 ms"), (2e6, "2.00 s")]
        {
            assert_eq!(time(us), text);
        }
    }
}
