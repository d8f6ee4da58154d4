//! What a bench counted, and how it is told.

use std::time::Duration;

use hdrhistogram::Histogram;
use loglog_client::AppendError;
use loglog_proto::entry::OVERHEAD;
use serde::Serialize;

use super::AppendArgs;
use crate::table::{facts, grouped};

/// Latencies from 1 µs to a minute, to three digits; what lies beyond counts as the bound.
const NANOS: (u64, u64) = (1_000, 60_000_000_000);

/// Counts of one or of all connections.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    latencies: Histogram<u64>,
    /// In all, warm-up and end included.
    pub(super) acknowledged: u64,
    pub(super) errors: u64,
    first_error: Option<AppendError>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies =
            Histogram::new_with_bounds(NANOS.0, NANOS.1, 3).expect("bounds in order, three digits");
        Self { latencies, acknowledged: 0, errors: 0, first_error: None }
    }

    /// Counts an acknowledgement, with its latency if it came within the window.
    pub(super) fn acknowledged(&mut self, latency: Option<Duration>) {
        self.acknowledged += 1;
        if let Some(latency) = latency {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanos.clamp(NANOS.0, NANOS.1));
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
        self.latencies.add(&other.latencies).expect("histograms of the same bounds");
        self.acknowledged += other.acknowledged;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

/// The result. Field names are what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    payload_bytes: usize,
    in_flight: usize,
    connections: u16,
    seconds: f64,
    /// Acknowledged within the window.
    entries: u64,
    entries_per_s: f64,
    /// Payload, in millions of bytes.
    mb_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    errors: u64,
    /// Acknowledged in all, warm-up included.
    acknowledged: u64,
    /// By how much the log's end moved meanwhile.
    log_bytes: u64,
    /// Of that, by others or by Raft itself.
    log_bytes_of_others: u64,
    /// Acknowledged bytes that the log did not grow by: must be 0.
    pub(super) log_bytes_missing: u64,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "rates are printed with few digits")]
    pub(super) fn new(args: &AppendArgs, tally: &Tally, log_bytes: u64) -> Self {
        let seconds = args.duration.as_secs_f64();
        let entries = tally.latencies.len();
        let entries_per_s = entries as f64 / seconds.max(f64::MIN_POSITIVE);
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at =
            |quantile| if entries == 0 { 0.0 } else { micros(tally.latencies.value_at_quantile(quantile)) };
        let ours = tally.acknowledged * (args.payload + OVERHEAD) as u64;
        Self {
            payload_bytes: args.payload,
            in_flight: args.in_flight,
            connections: args.connections,
            seconds,
            entries,
            entries_per_s,
            mb_per_s: entries_per_s * args.payload as f64 / 1e6,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(tally.latencies.max()),
            errors: tally.errors,
            acknowledged: tally.acknowledged,
            log_bytes,
            log_bytes_of_others: log_bytes.saturating_sub(ours),
            log_bytes_missing: ours.saturating_sub(log_bytes),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and fits"
    )]
    pub(super) fn for_people(&self) -> String {
        let check = match (self.log_bytes_missing, self.log_bytes_of_others) {
            (0, 0) => "the log grew by exactly that".to_owned(),
            (0, more) => format!("the log grew by that and {} bytes of others", grouped(more)),
            (missing, _) => format!("THE LOG LACKS {} BYTES OF IT", grouped(missing)),
        };
        facts(&[
            (
                "load",
                format!(
                    "{} bytes an entry, {} in flight on each of {} connections, {} s",
                    self.payload_bytes, self.in_flight, self.connections, self.seconds
                ),
            ),
            ("entries/s", grouped(self.entries_per_s.round() as u64)),
            ("MB/s", format!("{:.1}", self.mb_per_s)),
            (
                "latency",
                format!(
                    "p50 {}, p99 {}, p999 {}, max {}",
                    latency(self.p50_us),
                    latency(self.p99_us),
                    latency(self.p999_us),
                    latency(self.max_us)
                ),
            ),
            ("errors", grouped(self.errors)),
            ("check", format!("{} acknowledged in all; {check}", grouped(self.acknowledged))),
        ])
    }
}

/// Microseconds in three digits.
fn latency(micros: f64) -> String {
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

    fn args() -> AppendArgs {
        AppendArgs {
            payload: 100,
            in_flight: 16,
            connections: 2,
            duration: Duration::from_secs(2),
            warmup: Duration::ZERO,
            json: false,
        }
    }

    fn tally(counts: u64) -> Tally {
        let mut tally = Tally::new();
        for number in 0..counts {
            tally.acknowledged((number > 0).then(|| Duration::from_micros(number)));
        }
        tally
    }

    #[test]
    fn only_what_came_in_the_window_is_measured_and_all_is_checked() {
        let report = Report::new(&args(), &tally(1001), 1001 * 132);
        assert_eq!((report.entries, report.acknowledged), (1000, 1001));
        assert!((report.entries_per_s - 500.0).abs() < 1e-9);
        assert!((report.p50_us - 500.0).abs() < 1.0, "{}", report.p50_us);
        assert!((report.max_us - 1000.0).abs() < 1.0, "{}", report.max_us);
        assert_eq!((report.log_bytes_missing, report.log_bytes_of_others), (0, 0));
        let text = report.for_people();
        assert!(text.contains("entries/s  500\n") && text.contains("exactly that"), "{text}");
    }

    #[test]
    fn missing_bytes_are_seen() {
        let report = Report::new(&args(), &tally(10), 9 * 132);
        assert_eq!(report.log_bytes_missing, 132);
        assert!(report.for_people().contains("LACKS 132 BYTES"));
        assert_eq!(Report::new(&args(), &tally(10), 11 * 132).log_bytes_of_others, 132);
    }

    #[test]
    fn nothing_measured_is_no_trouble() {
        let report = Report::new(&args(), &Tally::new(), 0);
        assert_eq!(report.entries, 0);
        assert!(serde_json::to_string(&report).is_ok());
    }

    #[test]
    fn tallies_add_up() {
        let mut all = Tally::new();
        all.add(&tally(5));
        let mut bad = tally(3);
        let gone = AppendError::Closed { may_have_happened: true };
        bad.error(gone.clone());
        all.add(&bad);
        assert_eq!((all.acknowledged, all.errors, all.first_error()), (8, 1, Some(&gone)));
    }
}
