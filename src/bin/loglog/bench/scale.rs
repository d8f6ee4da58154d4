//! `loglog bench scale`: one connection with N appends in flight beside N connections with one each.
//!
//! Owns:   the rounds, both ways in turns. The median of them counts.
//! Keeps:  both ways are the Rust client's, over the same node, with as many appends in flight altogether.

use std::time::Duration;

use futures_util::future::join_all;
use loglog_client::Client;

use super::embedded::median;
use super::follow::descriptors;
use super::latency::Latencies;
use super::load::{Window, Writer};
use super::payload::{Mix, Source};
use super::probe::Usage;
use super::report::{Form, Report, rounded};
use super::tally::Tally;
use super::target::{Target, Where};
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

    /// Bytes of payload in each entry, as for `bench append`.
    #[arg(long, value_name = "BYTES", default_value = "100")]
    payload: Mix,

    /// How many connections, and how many appends in flight.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = in_flight)]
    connections: usize,

    /// How long each way is measured in each round.
    #[arg(long, value_name = "TIME", default_value = "2 s", value_parser = parse_duration)]
    duration: Duration,

    /// How often both ways are measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    #[command(flatten)]
    form: Form,
}

/// What one way came to in all rounds.
#[derive(Default)]
struct Way {
    per_s: Vec<f64>,
    latencies: Option<Latencies>,
    usage: Option<Usage>,
    entries: u64,
}

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    let most = args.connections as u64 + 1000;
    descriptors(most)?;
    let mut place = args.place.clone();
    if place.nodes.is_some() {
        place.set.insert(0, format!("connection.max={most}"));
        descriptors(most * 4 / 3)?;
    }
    let report = place.measure(at, async |target: &mut Target| measure(args, target).await).await?;
    args.form.print(&report)
}

async fn measure(args: &Args, target: &Target) -> Outcome<Report> {
    let source = Source::new(args.payload.clone(), None, 1).map_err(|why| Stop::new(Exit::Usage, why))?;
    let observer = target.client().await?;
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(target.client().await?);
    }
    let disk_before = target.disk()?;
    let before = observer.end(true).await.map_err(|error| stop(&error))?;
    let mut one = vec![Writer::new(&clients[0], &source, 0, args.connections)];
    let mut many: Vec<Writer> = (1..)
        .zip(&clients)
        .map(|(number, client): (u64, &Client)| Writer::new(client, &source, number, 1))
        .collect();
    let (mut one_way, mut many_way, mut log_bytes) = (Way::default(), Way::default(), 0);
    // The first round is for warming up.
    for round in 0..=args.rounds {
        for (writers, way) in [(&mut one, &mut one_way), (&mut many, &mut many_way)] {
            log_bytes += way.measure(args, target, writers, round > 0).await?;
        }
    }
    let grown = (observer.end(true).await.map_err(|error| stop(&error))? - before).get();
    if grown < log_bytes {
        return Err(Stop::new(
            Exit::Damaged,
            format!("what was acknowledged takes {log_bytes} bytes, and the log grew by {grown}"),
        ));
    }
    let disk_after = if disk_before.is_some() { target.disk()? } else { None };
    let mut report = Report::default();
    tell(args, &one_way, &many_way, &mut report);
    disk::tell(&mut report, disk_before, disk_after);
    Ok(report)
}

impl Way {
    /// One round. Returns what was acknowledged, in bytes of the log.
    #[expect(clippy::cast_precision_loss, reason = "rates are printed with few digits")]
    async fn measure(
        &mut self,
        args: &Args,
        target: &Target,
        writers: &mut [Writer],
        counts: bool,
    ) -> Outcome<u64> {
        let window = Window::from_now(args.duration / 10, args.duration);
        let watch = target.probe().watch(window);
        let tallies = join_all(writers.iter_mut().map(|writer| writer.closed_loop(window))).await;
        let usage = watch.usage()?;
        let mut all = Tally::new();
        tallies.iter().for_each(|tally| all.add(tally));
        if let Some(error) = all.first_error() {
            return Err(stop_append(error));
        }
        if counts {
            self.per_s.push(all.measured as f64 / args.duration.as_secs_f64());
            self.entries += all.measured;
            self.usage = Some(match self.usage.take() {
                Some(before) => before.and(&usage),
                None => usage,
            });
            match &mut self.latencies {
                Some(latencies) => latencies.add(&all.latencies),
                None => self.latencies = Some(all.latencies),
            }
        }
        Ok(all.log_bytes)
    }

    fn tell(&self, name: &str, title: &str, report: &mut Report) {
        let per_s = median(self.per_s.iter().copied());
        report.number(&format!("{name}_per_s"), per_s);
        let mut words = format!("{} entries/s", grouped(rounded(per_s)));
        if let Some(latencies) = &self.latencies {
            latencies.tell(report, &format!("{name}_"));
            words = format!("{words}, {}", latencies.words());
        }
        if let Some(usage) = &self.usage {
            words = format!("{words}; processor {}", usage.brief(report, name, self.entries));
        }
        report.row(title, words);
    }
}

fn tell(args: &Args, one: &Way, many: &Way, report: &mut Report) {
    let ratio = median(many.per_s.iter().zip(&one.per_s).map(|(many, one)| many / one));
    let count = grouped(args.connections as u64);
    report.number("payload_bytes", args.payload.mean());
    report.count("connections", args.connections as u64);
    report.count("rounds", u64::from(args.rounds));
    report.row(
        "load",
        format!(
            "{} bytes an entry, {count} in flight, {} rounds of {} s; every acknowledgement durable",
            args.payload,
            args.rounds,
            args.duration.as_secs_f64()
        ),
    );
    one.tell("one", "1 connection", report);
    many.tell("many", &format!("{count} connections"), report);
    report.number("ratio", ratio);
    report.row("ratio", format!("{ratio:.2}, many to one"));
}
