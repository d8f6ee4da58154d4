//! `loglog bench append`: durable appends, as fast as they go or at a rate.
//!
//! Owns:   the flags, and the report. [`super::load`] appends, [`super::verify`] looks for what was acknowledged.
//! Keeps:  every acknowledgement is counted, and the count is held against the log's end.

use std::time::Duration;

use futures_util::future::join_all;
use loglog_client::Client;

use super::load::{Window, Writer, sampled};
use super::payload::{Mix, Source};
use super::report::{Form, Report, rounded};
use super::tally::Tally;
use super::target::{Target, Where};
use super::verify::{Told, Verify, verify};
use super::{disk, in_flight};
use crate::connect::{Endpoints, stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::table::grouped;
use loglog::units::parse_duration;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,

    /// Bytes of payload in each entry: a number, or with a unit ("4 KiB"); or several with weights ("100:8,1 KiB:2").
    #[arg(long, value_name = "BYTES", default_value = "100")]
    payload: Mix,

    /// Appends in flight of each writer; with --rate the most of them.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = in_flight)]
    in_flight: usize,

    /// Appends a second, all writers together: each is sent when it is due, and its latency counted from then, however late it is. Without it, each
    /// writer sends the next as soon as an answer has come.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Writers over each connection.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    writers: u16,

    /// Pack so many events, each of --payload bytes, into each append.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pack: Option<u32>,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_duration)]
    duration: Duration,

    /// How long to append before measuring.
    #[arg(long, value_name = "TIME", default_value = "1 s", value_parser = parse_duration)]
    warmup: Duration,

    /// What is read back and compared afterwards. By how much the log grew is always looked at.
    #[arg(long, value_enum, default_value_t = Verify::All)]
    verify: Verify,

    /// What the payloads are drawn from: the same bytes and sizes for the same number.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    form: Form,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.replace(['_', ','], "").parse::<f64>().ok();
    rate.filter(|rate| (0.001..=1e8).contains(rate))
        .ok_or_else(|| "expected appends a second, from 0.001 to 100000000".to_owned())
}

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    let source =
        Source::new(args.payload.clone(), args.pack, args.seed).map_err(|why| Stop::new(Exit::Usage, why))?;
    let (report, result) =
        args.place.measure(at, async |target: &mut Target| measure(args, &source, target).await).await?;
    args.form.print(&report)?;
    result
}

/// The report, and how to end after it.
async fn measure(args: &Args, source: &Source, target: &Target) -> Outcome<(Report, Outcome)> {
    let observer = target.client().await?;
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(target.client().await?);
    }
    let disk_before = target.disk()?;
    let before = observer.end(true).await.map_err(|error| stop(&error))?;
    let window = Window::from_now(args.warmup, args.duration);
    let watch = target.probe().watch(window);
    let tallies = load(args, source, &clients, window).await?;
    let after = observer.end(true).await.map_err(|error| stop(&error))?;

    let mut tally = Tally::new();
    tallies.iter().for_each(|one| tally.add(one));
    let grown = (after - before).get();
    let mut report = Report::default();
    tell(args, source, &tally, &mut report);
    watch.usage()?.tell(&mut report, tally.measured);
    let disk_after = if disk_before.is_some() { target.disk()? } else { None };
    disk::tell(&mut report, disk_before, disk_after);
    let result = check(args.verify, &tally, grown, &mut report);
    if result.is_ok() {
        let told: Vec<Told> = (0..)
            .zip(&tallies)
            .filter_map(|(writer, one)| Some(Told { writer, count: one.acknowledged, places: one.places? }))
            .collect();
        let checked = verify(args.verify, &observer, source, (before, after), &told).await?;
        report.count("verified", checked);
        report.row("verified", format!("{} entries read back and compared", grouped(checked)));
    } else {
        report.count("verified", 0);
    }
    Ok((report, result))
}

/// Every writer's share.
async fn load(args: &Args, source: &Source, clients: &[Client], window: Window) -> Outcome<Vec<Tally>> {
    let clients = clients.iter().flat_map(|client| std::iter::repeat_n(client, usize::from(args.writers)));
    let mut writers: Vec<Writer> = (0..)
        .zip(clients)
        .map(|(number, client)| Writer::new(client, source, number, args.in_flight))
        .collect();
    let Some(rate) = args.rate else {
        return Ok(join_all(writers.iter_mut().map(|writer| writer.closed_loop(window))).await);
    };
    let begin = std::time::Instant::now();
    // One append after the other, each of another writer.
    let between = Duration::from_secs_f64(1.0 / rate);
    let count = u32::from(args.connections) * u32::from(args.writers);
    let each = (0..)
        .zip(&mut writers)
        .map(|(number, writer)| writer.open_loop(begin + between * number, between * count, window));
    join_all(each).await.into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "rates are printed with few digits")]
fn tell(args: &Args, source: &Source, tally: &Tally, report: &mut Report) {
    let seconds = args.duration.as_secs_f64().max(f64::MIN_POSITIVE);
    let per_s = tally.measured as f64 / seconds;
    let events = f64::from(source.events());
    let mb_per_s = tally.measured_bytes as f64 / seconds / 1e6;
    let every = if args.rate.is_some() { 1 } else { sampled(args.in_flight) };
    if args.payload.to_string().contains(':') {
        report.text("payload", &args.payload.to_string());
    }
    report.number("payload_bytes", args.payload.mean());
    report.count("in_flight", args.in_flight as u64);
    report.count("connections", u64::from(args.connections));
    report.count("writers", u64::from(args.writers));
    report.count("events_per_entry", u64::from(source.events()));
    report.maybe("rate", args.rate);
    report.number("busy_poll_us", args.place.busy_poll.as_secs_f64() * 1e6);
    report.number("seconds", args.duration.as_secs_f64());
    report.count("entries", tally.measured);
    report.number("entries_per_s", per_s);
    report.number("events_per_s", per_s * events);
    report.number("mb_per_s", mb_per_s);
    tally.latencies.tell(report, "");
    report.count("latency_every", every);
    report.count("unsent", tally.unsent);
    report.count("errors", tally.errors);
    report.count("acknowledged", tally.acknowledged);
    let how = match args.rate {
        Some(rate) => format!("{rate} appends/s, at most {} in flight", grouped(args.in_flight as u64)),
        None => format!("{} in flight", grouped(args.in_flight as u64)),
    };
    let what = match args.pack {
        Some(events) => format!("{events} events of {} bytes packed in an entry", args.payload),
        None => format!("{} bytes an entry", args.payload),
    };
    let awake = if args.place.busy_poll.is_zero() { "" } else { "the client polls; " };
    report.row(
        "load",
        format!(
            "{what}, {how}, {} writers on each of {} connections, {} s; {awake}every acknowledgement durable",
            args.writers,
            args.connections,
            args.duration.as_secs_f64()
        ),
    );
    report.row("entries/s", grouped(rounded(per_s)));
    if args.pack.is_some() {
        report.row("events/s", grouped(rounded(per_s * events)));
    }
    report.row("MB/s", format!("{mb_per_s:.1}"));
    let of = match (args.rate, every) {
        (Some(_), _) => " from when each was due",
        (None, 1) => "",
        (None, _) => " of every 16th",
    };
    report.row("latency", format!("{}{of}", tally.latencies.words()));
    if tally.unsent > 0 {
        let unsent = grouped(tally.unsent);
        report.row(
            "unsent",
            format!("{unsent} were due and not sent by the end: they count as long as they were overdue"),
        );
    }
    report.row("errors", grouped(tally.errors));
}

/// Holds what was acknowledged against the `grown` bytes of the log.
fn check(how: Verify, tally: &Tally, grown: u64, report: &mut Report) -> Outcome {
    let missing = tally.log_bytes.saturating_sub(grown);
    report.count("log_bytes", grown);
    report.count("log_bytes_of_others", grown.saturating_sub(tally.log_bytes));
    report.count("log_bytes_missing", missing);
    let words = match (missing, grown.saturating_sub(tally.log_bytes)) {
        (0, 0) => "the log grew by exactly that".to_owned(),
        (0, more) => format!("the log grew by that and {} bytes of others", grouped(more)),
        (missing, _) => format!("THE LOG LACKS {} BYTES OF IT", grouped(missing)),
    };
    report.row("check", format!("{} acknowledged in all; {words}", grouped(tally.acknowledged)));
    if missing > 0 {
        return Err(Stop::new(
            Exit::Damaged,
            format!(
                "the log grew by {grown} bytes, {missing} less than what was acknowledged: acknowledged entries are missing"
            ),
        ));
    }
    match tally.first_error() {
        Some(error) => {
            let what = if how == Verify::None { "" } else { " (nothing was read back)" };
            let words =
                format!("{} writers stopped at an append that failed{what}, the first: ", tally.errors);
            Err(stop_append(error).after(&words))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use loglog_client::{AppendError, Appended, Offset, Term};

    use super::*;

    fn tally(entries: u64) -> Tally {
        let mut tally = Tally::new();
        for number in 0..entries {
            let (offset, end) = (Offset::new(number * 132), Offset::new(number * 132 + 132));
            tally.acknowledged(&Appended { offset, end, term: Term::new(1) }, true);
        }
        tally
    }

    fn words(result: Outcome) -> String {
        match result {
            Ok(()) => String::new(),
            Err(Stop::Failure(exit, message)) => format!("{exit:?} {message}"),
            Err(Stop::Unread) => panic!("a failure"),
        }
    }

    #[test]
    fn the_log_must_have_grown_by_what_was_acknowledged() {
        let of = |grown| {
            let mut report = Report::default();
            let result = words(check(Verify::All, &tally(10), grown, &mut report));
            (result, report.for_people())
        };
        assert!(of(1320).0.is_empty() && of(1320).1.contains("exactly that"));
        assert!(of(1400).0.is_empty() && of(1400).1.contains("80 bytes of others"));
        assert!(of(1188).0.starts_with("Damaged"), "{}", of(1188).0);
        assert!(of(1188).1.contains("LACKS 132 BYTES"), "{}", of(1188).1);
    }

    #[test]
    fn an_append_that_failed_is_told() {
        let mut failed = tally(1);
        failed.error(AppendError::Closed { may_have_happened: true });
        let result = words(check(Verify::All, &failed, 132, &mut Report::default()));
        assert!(result.starts_with("Unknown 1 writers stopped"), "{result}");
    }

    #[test]
    fn rates_are_bounded() {
        assert_eq!(rate("10_000"), Ok(10_000.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "x", "nan", "inf"] {
            assert!(rate(text).unwrap_err().contains("appends a second"), "{text}");
        }
    }
}
