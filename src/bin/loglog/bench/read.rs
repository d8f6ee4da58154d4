//! `loglog bench read`: what is in the log, read in bulk, and beside it the most that this machine can send over loopback.
//!
//! Owns:   the rounds, each way in turns. The median of them counts.
//! Keeps:  both ways carry as many bytes to as many connections of this program, into buffers of the same size.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use loglog_client::{Client, EntriesOptions, Offset};
use loglog_proto::Length;
use loglog_proto::limits::READ_BYTES_MAX;

use super::disk;
use super::embedded::median;
use super::fill::{check_room, fill};
use super::payload::{Mix, Source};
use super::probe::Usage;
use super::raw::{self, Plan};
use super::report::{Form, Report, rounded};
use super::sendfile::Sendfile;
use super::target::{Target, Where};
use crate::connect::{Endpoints, stop};
use crate::exit::{Exit, Outcome, Stop};
use crate::table::grouped;
use loglog::units::{about_bytes, parse_bytes_or_plain};

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,

    /// Bytes asked for at once, at most 4 MiB.
    #[arg(long, value_name = "BYTES", default_value = "4 MiB", value_parser = limit)]
    limit: u64,

    /// Connections, which share the log among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Reads in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    in_flight: u16,

    /// Read entries through the Rust client, which takes the bytes apart and checks each CRC, and not raw bytes; over one connection.
    #[arg(long, conflicts_with_all = ["connections", "in_flight"])]
    entries: bool,

    /// Append before, if the log is shorter than this.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes_or_plain)]
    fill: Option<u64>,

    /// Payload of what --fill appends: as for `bench append`.
    #[arg(long, value_name = "BYTES", default_value = "1 KiB")]
    payload: Mix,

    /// Read no more than this, from the log's start on.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes_or_plain)]
    max: Option<u64>,

    /// How often both ways are measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    #[command(flatten)]
    form: Form,
}

fn limit(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes_or_plain(text).map_err(|error| error.to_string())?;
    let max = READ_BYTES_MAX as u64;
    if (1..=max).contains(&bytes) { Ok(bytes) } else { Err(format!("a read takes 1 to {max} bytes")) }
}

/// What the rounds came to.
#[derive(Default)]
struct Rounds {
    read_mb_per_s: Vec<f64>,
    sendfile_mb_per_s: Vec<f64>,
    usage: Option<Usage>,
    entries: u64,
    bytes: u64,
}

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    let report = args.place.measure(at, async |target: &mut Target| measure(args, target).await).await?;
    args.form.print(&report)
}

async fn measure(args: &Args, target: &Target) -> Outcome<Report> {
    let client = target.client().await?;
    if let Some(length) = args.fill {
        let source = Source::new(args.payload.clone(), None, 1).map_err(|why| Stop::new(Exit::Usage, why))?;
        // The log, and a file of the same size beside it.
        check_room(target.data_or_here(), length.saturating_mul(2))?;
        fill(&client, &source, length).await?;
    }
    let ends = client.ends(true).await.map_err(|error| stop(&error))?;
    let end = args.max.map_or(ends.end, |max| ends.end.min(ends.start + Length::new(max)));
    let range = ends.start.get()..end.get();
    if range.is_empty() {
        return Err(Stop::new(Exit::NotFound, "the log is empty: --fill appends something to read before"));
    }
    let bytes = range.end - range.start;
    check_room(target.data_or_here(), bytes)?;
    let file = Sendfile::new(target.data_or_here(), bytes)?;
    let disk_before = target.disk()?;
    let plan = Plan {
        address: target.address()?,
        range,
        limit: args.limit,
        connections: args.connections,
        depth: usize::from(args.in_flight),
    };
    let rounds = rounds(args, target, &client, &plan, file).await?;
    let disk_after = if disk_before.is_some() { target.disk()? } else { None };
    let mut report = Report::default();
    tell(args, &rounds, bytes, &mut report);
    disk::tell(&mut report, disk_before, disk_after);
    Ok(report)
}

async fn rounds(
    args: &Args,
    target: &Target,
    client: &Client,
    plan: &Plan,
    file: Sendfile,
) -> Outcome<Rounds> {
    let file = std::sync::Arc::new(file);
    let mut rounds = Rounds::default();
    // The first is for warming up: what is read comes from memory afterwards, as far as there is room.
    for round in 0..=args.rounds {
        let before = target.probe().read()?;
        let began = Instant::now();
        let (bytes, entries) = if args.entries {
            entries(client, plan).await?
        } else {
            let plan = plan.clone();
            (blocking(move || raw::read_all(&plan), "read the log").await?, 0)
        };
        let took = began.elapsed();
        let usage = Usage::between(&before, &target.probe().read()?);
        if bytes != plan.range.end - plan.range.start {
            let expected = plan.range.end - plan.range.start;
            return Err(Stop::failed(format!("{expected} bytes were asked for, and {bytes} came")));
        }
        let (file, connections) = (file.clone(), args.connections);
        let began = Instant::now();
        let sent = blocking(move || file.send_all(connections), "send a file").await?;
        let sending = began.elapsed();
        if round > 0 {
            rounds.read_mb_per_s.push(mb_per_s(bytes, took));
            rounds.sendfile_mb_per_s.push(mb_per_s(sent, sending));
            rounds.usage = Some(rounds.usage.map_or(usage.clone(), |all| all.and(&usage)));
            (rounds.entries, rounds.bytes) = (entries, rounds.bytes + bytes);
        }
    }
    Ok(rounds)
}

/// Every entry of the range, checked: how many bytes and entries.
async fn entries(client: &Client, plan: &Plan) -> Outcome<(u64, u64)> {
    let options = EntriesOptions { chunk: Length::new(plan.limit), ..EntriesOptions::default() };
    let range = Offset::new(plan.range.start)..Offset::new(plan.range.end);
    let (mut entries, mut count) = (client.entries_with(range, options), 0);
    while let Some(entry) = entries.next().await {
        entry.map_err(|error| stop(&error))?;
        count += 1;
    }
    // Raft's own entries lie between them, checked as well: all of the range was read.
    Ok((plan.range.end - plan.range.start, count))
}

/// Runs `work` on a thread where it may wait, so that an interrupt is heard meanwhile.
async fn blocking(work: impl FnOnce() -> std::io::Result<u64> + Send + 'static, what: &str) -> Outcome<u64> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome
        .map_err(|error| Stop::failed(format!("cannot {what}: {error}")))?
        .map_err(|error| Stop::failed(format!("cannot {what}: {error}")))
}

#[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
fn mb_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
fn tell(args: &Args, rounds: &Rounds, bytes: u64, report: &mut Report) {
    let read = median(rounds.read_mb_per_s.iter().copied());
    let sendfile = median(rounds.sendfile_mb_per_s.iter().copied());
    let ratio =
        median(rounds.read_mb_per_s.iter().zip(&rounds.sendfile_mb_per_s).map(|(read, most)| read / most));
    report.count("bytes", bytes);
    report.count("limit_bytes", args.limit);
    report.count("connections", u64::from(args.connections));
    report.count("in_flight", u64::from(args.in_flight));
    report.count("rounds", u64::from(args.rounds));
    report.number("mb_per_s", read);
    let per_s = args.entries.then(|| rounds.entries as f64 * read * 1e6 / bytes as f64);
    report.maybe("entries_per_s", per_s);
    report.number("sendfile_mb_per_s", sendfile);
    report.number("ratio", ratio);
    let how = if args.entries {
        "entries by the Rust client, each CRC checked".to_owned()
    } else {
        format!("raw, {} reads in flight on each of {} connections", args.in_flight, args.connections)
    };
    report.row(
        "load",
        format!(
            "{} of log, {how}, {} a read, {} rounds",
            about_bytes(bytes),
            about_bytes(args.limit),
            args.rounds
        ),
    );
    report.row("MB/s", grouped(rounded(read)));
    if let Some(per_s) = per_s {
        report.row("entries/s", grouped(rounded(per_s)));
    }
    report
        .row("sendfile", format!("{} MB/s of a file of that size over loopback", grouped(rounded(sendfile))));
    report.row("ratio", format!("{ratio:.2}"));
    if let Some(usage) = &rounds.usage {
        let (count, of) = if args.entries {
            (rounds.entries * u64::from(args.rounds), "entry")
        } else {
            (rounds.bytes.div_ceil(1 << 20), "mib")
        };
        usage.tell_each(report, count, of);
    }
}
