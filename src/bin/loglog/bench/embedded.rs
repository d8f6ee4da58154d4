//! `loglog bench embedded`: one node, appended to from within this program and over loopback TCP, in turns.
//!
//! Owns:   the node, in a folder of its own that goes with it, and the rounds.
//! Keeps:  both ways do the same work: the same node, client library, loop and durability; only the way between them differs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog::{AppendError, Client, Node, PipelineOptions, Ticket};
use loglog_proto::entry::OVERHEAD;
use loglog_proto::limits::WRITER_SEQUENCES_MAX;
use rand::RngCore;
use serde::Serialize;

use super::folder::Folder;
use super::probe::own_cpu_time as cpu_time;
use super::{in_flight, payload_bytes};
use crate::connect::{stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::output::Output;
use crate::table::grouped;
use loglog::units::parse_duration;

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Bytes of payload in each entry: a number, or with a unit ("4 KiB").
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = payload_bytes)]
    payload: usize,

    /// Appends in flight. As many as a writer may have, by default, so that what is measured is the way and not the disk.
    #[arg(long, value_name = "N", default_value_t = WRITER_SEQUENCES_MAX, value_parser = in_flight)]
    in_flight: usize,

    /// How long each way is measured in each round.
    #[arg(long, value_name = "TIME", default_value = "2 s", value_parser = parse_duration)]
    duration: Duration,

    /// How often both ways are measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// The folder in which the node keeps its log for as long as this runs: what is measured is its disk.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Appends a second, each the median of the rounds. Field names are what `--json` prints.
#[derive(Serialize)]
struct Report {
    payload_bytes: usize,
    in_flight: usize,
    rounds: u16,
    embedded_per_s: f64,
    /// Processor time an append, client and node, microseconds.
    embedded_cpu_us: f64,
    tcp_per_s: f64,
    tcp_cpu_us: f64,
    /// The median of the rounds' ratios.
    ratio: f64,
}

/// Appends between two looks at the clock.
const LOOK_EVERY: u64 = 16;

pub(super) async fn run(args: &Args) -> Outcome {
    let folder = Folder::make(&args.data)?;
    let node = Node::builder().data_dir(folder.path()).listen("127.0.0.1:0").start().await;
    let node = node.map_err(|error| Stop::failed(error.to_string()))?;
    let measured = measure(args, &node).await;
    node.shutdown().await.map_err(|error| Stop::failed(error.to_string()))?;
    let report = measured?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        output.bytes(report.for_people().as_bytes())?;
    }
    output.flush()
}

async fn measure(args: &Args, node: &Node) -> Outcome<Report> {
    let embedded = node.log();
    let address = node.client_address().expect("it was told to listen");
    let tcp = Client::connect(address).await.map_err(|error| stop(&error))?;
    let before = tcp.end(true).await.map_err(|error| stop(&error))?;
    let (mut appended, mut rounds) = (0, Vec::new());
    // The first is for warming up.
    for _ in 0..=args.rounds {
        let inside = rate(&embedded, args).await.map_err(|error| stop_append(&error))?;
        let outside = rate(&tcp, args).await.map_err(|error| stop_append(&error))?;
        appended += inside.appended + outside.appended;
        rounds.push((inside, outside));
    }
    let grown = tcp.end(true).await.map_err(|error| stop(&error))? - before;
    let expected = appended * (args.payload + OVERHEAD) as u64;
    if grown.get() != expected {
        let message = format!("{appended} appends are {expected} bytes, and the log grew by {}", grown.get());
        return Err(Stop::new(Exit::Damaged, message));
    }
    let rounds = &rounds[1..];
    Ok(Report {
        payload_bytes: args.payload,
        in_flight: args.in_flight,
        rounds: args.rounds,
        embedded_per_s: median(rounds.iter().map(|(inside, _)| inside.per_s)),
        embedded_cpu_us: median(rounds.iter().map(|(inside, _)| inside.cpu_us)),
        tcp_per_s: median(rounds.iter().map(|(_, outside)| outside.per_s)),
        tcp_cpu_us: median(rounds.iter().map(|(_, outside)| outside.cpu_us)),
        ratio: median(rounds.iter().map(|(inside, outside)| inside.per_s / outside.per_s)),
    })
}

/// What one way came to, in one round.
struct Rate {
    appended: u64,
    per_s: f64,
    /// Processor time an append, client and node.
    cpu_us: f64,
}

/// Appends durably for a while.
#[expect(clippy::cast_precision_loss, reason = "a rate needs few digits")]
async fn rate(log: &Client, args: &Args) -> Result<Rate, AppendError> {
    let mut payload = vec![0; args.payload];
    rand::rng().fill_bytes(&mut payload);
    let payload = Bytes::from(payload);
    let bytes_max = args.in_flight.saturating_mul(args.payload + 1024);
    let pipeline = log.pipeline(PipelineOptions {
        entries_max: args.in_flight,
        bytes_max,
        ..PipelineOptions::default()
    });
    let (began, cpu, mut appended) = (Instant::now(), cpu_time(), 0);
    let mut flying: VecDeque<Ticket> = VecDeque::with_capacity(args.in_flight);
    // A look at the clock costs about as much as an append.
    while appended % LOOK_EVERY != 0 || began.elapsed() < args.duration {
        if flying.len() == args.in_flight
            && let Some(oldest) = flying.pop_front()
        {
            oldest.await?;
            appended += 1;
        }
        flying.push_back(pipeline.append(payload.clone()).await?);
    }
    for ticket in flying {
        ticket.await?;
        appended += 1;
    }
    Ok(Rate {
        per_s: appended as f64 / began.elapsed().as_secs_f64(),
        cpu_us: (cpu_time() - cpu).as_secs_f64() * 1e6 / appended as f64,
        appended,
    })
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Report {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and fits"
    )]
    fn for_people(&self) -> String {
        format!(
            "{} bytes an entry, {} in flight, {} rounds, every acknowledgement durable\n\
             embedded   {} entries/s, {:.2} us of processor time each\n\
             TCP        {} entries/s, {:.2} us of processor time each\n\
             ratio      {:.2}\n",
            self.payload_bytes,
            self.in_flight,
            self.rounds,
            grouped(self.embedded_per_s.round() as u64),
            self.embedded_cpu_us,
            grouped(self.tcp_per_s.round() as u64),
            self.tcp_cpu_us,
            self.ratio
        )
    }
}
