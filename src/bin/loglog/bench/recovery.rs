//! `loglog bench recovery`: how long a node takes to come back with a log of some size, and how fast it appends to it.
//!
//! Owns:   the sizes, one after the other, each with a node and a log of its own.
//! Keeps:  a start is over when the node has answered where its log ends, linearizably: it can take appends then.
//! Never:  drops the system's caches: what was written just before may be read from memory.

use std::path::PathBuf;
use std::time::Duration;

use loglog_client::Client;

use super::embedded::median;
use super::fill::{check_room, fill};
use super::latency::time;
use super::load::{Window, Writer};
use super::payload::{Mix, Source};
use super::probe::Usage;
use super::report::{Form, Report, rounded};
use super::target::{Target, Where};
use super::{disk, in_flight};
use crate::connect::{Endpoints, stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::table::grouped;
use loglog::units::{about_bytes, parse_bytes, parse_duration};

/// What the log is filled with.
const FILL: usize = 64 << 10;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Sizes of the log, with commas between.
    #[arg(long, value_name = "BYTES,…", default_value = "1 GiB", value_delimiter = ',', value_parser = size)]
    sizes: Vec<u64>,

    /// End the node with kill -9, and not in order.
    #[arg(long)]
    kill: bool,

    /// How often it is ended and started.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    starts: u16,

    /// Bytes of payload in the entries whose appends are measured, as for `bench append`.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    payload: Mix,

    /// Appends in flight.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = in_flight)]
    in_flight: usize,

    /// How long appends are measured, before and behind.
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = parse_duration)]
    duration: Duration,

    /// Below which folder the bench's own node keeps its data.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,

    /// Configuration of the node, as loglogd's --set.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    #[command(flatten)]
    form: Form,
}

fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    // The largest is told of before hours are spent on the smaller ones. What is measured beside takes some room, too.
    let largest = args.sizes.iter().max().copied().unwrap_or(0);
    check_room(&args.data, largest)?;
    let place = Where {
        nodes: Some(1),
        data: Some(args.data.clone()),
        set: args.set.clone(),
        busy_poll: Duration::ZERO,
        admin: Vec::new(),
    };
    let mut reports = Vec::new();
    for size in &args.sizes {
        let work = async |target: &mut Target| measure(args, *size, target).await;
        reports.push(place.measure(at, work).await?);
    }
    args.form.print_all(&reports)
}

async fn measure(args: &Args, size: u64, target: &mut Target) -> Outcome<Report> {
    let usage = |why| Stop::new(Exit::Usage, why);
    let source = Source::new(args.payload.clone(), None, 1).map_err(usage)?;
    let large = Source::new(Mix::one(FILL), None, 2).map_err(usage)?;
    let disk_before = target.disk()?;
    let client = target.client().await?;
    let (empty, ..) = rate(args, target, &client, &source).await?;
    eprintln!("loglog: filling a log to {}", about_bytes(size));
    check_room(&args.data, size)?;
    fill(&client, &large, size).await?;
    let ends = client.ends(true).await.map_err(|error| stop(&error))?;
    drop(client);
    let mut starts = Vec::new();
    for _ in 0..args.starts {
        target.end(args.kill).await?;
        starts.push(target.start_again().await?.as_secs_f64());
    }
    let client = target.client().await?;
    let again = client.ends(true).await.map_err(|error| stop(&error))?;
    if again.start != ends.start || again.end < ends.end {
        let message = format!("the log ended at {} and ends at {} after its recovery", ends.end, again.end);
        return Err(Stop::new(Exit::Damaged, message));
    }
    let (full, entries, used) = rate(args, target, &client, &source).await?;
    let disk_after = target.disk()?;
    let mut report = Report::default();
    let most = starts.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0);
    let start = median(starts.iter().copied());
    report.count("log_bytes", ends.length().get());
    report.text("ended_by", if args.kill { "kill" } else { "term" });
    report.count("starts", u64::from(args.starts));
    report.number("start_ms", start * 1e3);
    report.number("start_max_ms", most * 1e3);
    report.number("payload_bytes", args.payload.mean());
    report.count("in_flight", args.in_flight as u64);
    report.number("empty_per_s", empty);
    report.number("full_per_s", full);
    report.number("ratio", full / empty);
    let by = if args.kill { "kill -9" } else { "SIGTERM" };
    report.row("log", format!("{}, the node ended by {by}", about_bytes(ends.length().get())));
    report.row(
        "start",
        format!(
            "{} until it answers, median of {}; {} at most",
            time(start * 1e6),
            args.starts,
            time(most * 1e6)
        ),
    );
    report.row(
        "appends/s",
        format!(
            "{} with that log, {} with an empty one ({} bytes, {} in flight, every acknowledgement durable): {:.2} of it",
            grouped(rounded(full)),
            grouped(rounded(empty)),
            args.payload,
            args.in_flight,
            full / empty
        ),
    );
    used.tell(&mut report, entries);
    disk::tell(&mut report, disk_before, disk_after);
    Ok(report)
}

/// Durable appends a second, how many they were, and what they took.
#[expect(clippy::cast_precision_loss, reason = "a rate needs few digits")]
async fn rate(args: &Args, target: &Target, client: &Client, source: &Source) -> Outcome<(f64, u64, Usage)> {
    let window = Window::from_now(args.duration / 10, args.duration);
    let watch = target.probe().watch(window);
    let tally = Writer::new(client, source, 0, args.in_flight).closed_loop(window).await;
    match tally.first_error() {
        Some(error) => Err(stop_append(error)),
        None => {
            let per_s = tally.measured as f64 / args.duration.as_secs_f64();
            Ok((per_s, tally.measured, watch.usage()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn sizes_have_units_and_commas_between() {
        let line =
            Line::try_parse_from(["x", "--sizes", "1 GiB,20 GiB"]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(line.args.sizes, [1 << 30, 20 << 30]);
        for (text, why) in [("1", "a unit is missing"), ("1 GiB,", "no number"), ("x", "no number")] {
            let error = Line::try_parse_from(["x", "--sizes", text]).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains(why)), "{text}");
        }
    }
}
