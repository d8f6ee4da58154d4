//! `loglog bench tail`: how soon a reader that waits at the end has what was just appended.
//!
//! Owns:   one writer, and a reader at the leader and at a follower, where there is one.
//! Keeps:  all times of one entry are counted from the same moment: when its append was handed in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::{join_all, select};
use loglog_client::{Client, Offset};

use super::disk;
use super::latency::Latencies;
use super::load::{Window, Writer};
use super::payload::{Mix, Source};
use super::report::{Form, Report};
use super::target::{Target, Where};
use super::timer::Timer;
use crate::connect::{Endpoints, stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::table::grouped;
use loglog::units::{format_duration, parse_duration};

/// How long a reader may take for the last entries.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,

    /// Bytes of payload in each entry, as for `bench append`.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    payload: Mix,

    /// Time from one append to the next.
    #[arg(long, value_name = "TIME", default_value = "2 ms", value_parser = parse_duration)]
    every: Duration,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_duration)]
    duration: Duration,

    /// How long to append before measuring.
    #[arg(long, value_name = "TIME", default_value = "1 s", value_parser = parse_duration)]
    warmup: Duration,

    #[command(flatten)]
    form: Form,
}

/// A reader, and when it had which entry.
struct Reader {
    name: &'static str,
    client: Client,
    had: RefCell<Vec<(Offset, Instant)>>,
}

/// One append: where its entry lies, when it was handed in and when it was acknowledged.
type Append = (Offset, Instant, Instant);

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    let report = args.place.measure(at, async |target: &mut Target| measure(args, target).await).await?;
    args.form.print(&report)
}

async fn measure(args: &Args, target: &Target) -> Outcome<Report> {
    let source = Source::new(args.payload.clone(), None, 1).map_err(|why| Stop::new(Exit::Usage, why))?;
    let client = target.client().await?;
    let readers = readers(target).await?;
    let disk_before = target.disk()?;
    let from = client.end(true).await.map_err(|error| stop(&error))?;
    let window = Window::from_now(args.warmup, args.duration);
    let watch = target.probe().watch(window);
    let mut writer = Writer::new(&client, &source, 0, 1);
    let appending = async {
        let appends = append(args, &mut writer, window).await?;
        let last = appends.last().map_or(from, |(offset, ..)| *offset);
        // Readers may be behind: they get what is left of the time.
        let missing = || readers.iter().any(|reader| reader.last() < Some(last));
        let waited = Instant::now();
        while !appends.is_empty() && missing() {
            if waited.elapsed() > PATIENCE {
                return Err(Stop::new(
                    Exit::Unavailable,
                    "a reader did not get what was appended within 30 s",
                ));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(appends)
    };
    let reading = join_all(readers.iter().map(|reader| reader.follow(from)));
    let appends = match select(Box::pin(appending), Box::pin(reading)).await {
        futures_util::future::Either::Left((appends, _)) => appends?,
        // Following ends with errors only.
        futures_util::future::Either::Right((ends, _)) => {
            return Err(ends.into_iter().find_map(Result::err).unwrap_or_else(|| Stop::failed("no reader")));
        }
    };
    let appends: Vec<Append> =
        appends.into_iter().filter(|(_, sent, _)| *sent >= window.begin && *sent < window.end).collect();
    let mut report = Report::default();
    tell(args, &appends, &readers, &mut report)?;
    watch.usage()?.tell(&mut report, appends.len() as u64);
    let disk_after = if disk_before.is_some() { target.disk()? } else { None };
    disk::tell(&mut report, disk_before, disk_after);
    Ok(report)
}

/// One at the leader, and one at another member.
async fn readers(target: &Target) -> Outcome<Vec<Reader>> {
    let members = target.members().await?;
    let address =
        |leads| members.iter().find(|(_, is_leader)| *is_leader == leads).map(|(address, _)| address);
    let mut readers = Vec::new();
    for (name, address) in [("leader", address(true)), ("follower", address(false))] {
        let Some(address) = address else { continue };
        let client = Client::connect(address.as_str()).await.map_err(|error| stop(&error))?;
        readers.push(Reader { name, client, had: RefCell::default() });
    }
    Ok(readers)
}

impl Reader {
    fn last(&self) -> Option<Offset> {
        self.had.borrow().last().map(|(offset, _)| *offset)
    }

    async fn follow(&self, from: Offset) -> Outcome {
        let mut entries = self.client.follow(from);
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| stop(&error))?;
            self.had.borrow_mut().push((entry.offset, Instant::now()));
        }
        Ok(())
    }
}

/// One append each `every`, each after the one before.
async fn append(args: &Args, writer: &mut Writer, window: Window) -> Outcome<Vec<Append>> {
    let (timer, mut appends) = (Timer::new()?, Vec::new());
    let mut due = Instant::now();
    while due < window.end {
        timer.until(due).await;
        let sent = Instant::now();
        let outcome = async { writer.send().await?.await }.await;
        let appended = outcome.map_err(|error| stop_append(&error))?;
        appends.push((appended.offset, sent, Instant::now()));
        due = (due + args.every).max(sent);
    }
    Ok(appends)
}

fn tell(args: &Args, appends: &[Append], readers: &[Reader], report: &mut Report) -> Outcome {
    let mut own = Latencies::new();
    appends.iter().for_each(|(_, sent, answered)| own.record(*answered - *sent));
    report.number("payload_bytes", args.payload.mean());
    report.number("every_us", args.every.as_secs_f64() * 1e6);
    report.number("seconds", args.duration.as_secs_f64());
    report.count("entries", own.len());
    own.tell(report, "append_");
    report.row(
        "load",
        format!(
            "{} bytes, one append each {}, {} in {} s; every acknowledgement durable",
            args.payload,
            format_duration(args.every),
            grouped(own.len()),
            args.duration.as_secs_f64()
        ),
    );
    report.row("append", own.words());
    for name in ["leader", "follower"] {
        let reader = readers.iter().find(|reader| reader.name == name);
        let times = reader.map(|reader| reader.times(appends)).transpose()?;
        let times = times.unwrap_or_else(Latencies::new);
        times.tell(report, &format!("{name}_"));
        let ratio = times.at(0.5) / own.at(0.5);
        report.maybe(&format!("{name}_ratio"), reader.map(|_| ratio));
        if reader.is_some() {
            let words = format!("{}; {ratio:.2} of append's p50", times.words());
            report.row(&format!("reader at the {name}"), words);
        }
    }
    Ok(())
}

impl Reader {
    /// From each append to when this reader had its entry.
    fn times(&self, appends: &[Append]) -> Outcome<Latencies> {
        let had: HashMap<Offset, Instant> = self.had.borrow().iter().copied().collect();
        let mut times = Latencies::new();
        for (offset, sent, _) in appends {
            let missing = || {
                let message =
                    format!("the reader at the {} never had the entry at offset {offset}", self.name);
                Stop::new(Exit::Damaged, message)
            };
            times.record(had.get(offset).ok_or_else(missing)?.saturating_duration_since(*sent));
        }
        Ok(times)
    }
}
