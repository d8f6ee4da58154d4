//! `loglog bench`: how much, how fast.
//!
//! Owns:   the load: a closed loop, so many appends in flight on each of so many connections.
//! Keeps:  every acknowledgement is counted, and the count is held against the log's end.

mod embedded;
mod report;

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Subcommand;
use futures_util::future::join_all;
use loglog_client::{AppendError, Client, Pipeline, PipelineOptions, Ticket};
use loglog_proto::limits::{PAYLOAD_BYTES_MAX, WRITER_SEQUENCES_MAX};
use rand::RngCore;
use tokio::sync::{Semaphore, mpsc};

use crate::connect::{Endpoints, stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::output::Output;
use loglog::units::{parse_bytes_or_plain, parse_duration};
use report::{Report, Tally};

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Durable appends: rate and latency.
    Append(AppendArgs),
    /// The same node from within its program and over loopback TCP, in turns: how much faster it is built in.
    Embedded(embedded::Args),
}

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AppendArgs {
    /// Bytes of payload in each entry: a number, or with a unit ("4 KiB").
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = payload_bytes)]
    payload: usize,

    /// Appends in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = in_flight)]
    in_flight: usize,

    /// Connections, each a writer of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_duration)]
    duration: Duration,

    /// How long to append before measuring.
    #[arg(long, value_name = "TIME", default_value = "1 s", value_parser = parse_duration)]
    warmup: Duration,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes_or_plain(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
        .ok_or_else(|| format!("the largest payload has {PAYLOAD_BYTES_MAX} bytes"))
}

fn in_flight(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=WRITER_SEQUENCES_MAX).contains(count))
        .ok_or_else(|| format!("expected a number from 1 to {WRITER_SEQUENCES_MAX}"))
}

pub(crate) async fn run(bench: Bench, at: &Endpoints) -> Outcome {
    let args = match bench {
        Bench::Append(args) => args,
        Bench::Embedded(args) => return embedded::run(&args).await,
    };
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(at.connect().await?);
    }
    let observer = at.connect().await?;
    let before = observer.end(true).await.map_err(|error| stop(&error))?;
    let window = Window::from_now(args.warmup, args.duration);
    let tallies = join_all(clients.iter().map(|client| load(client, &args, window))).await;
    let after = observer.end(true).await.map_err(|error| stop(&error))?;

    let mut tally = Tally::new();
    tallies.iter().for_each(|one| tally.add(one));
    let grown = after.get().saturating_sub(before.get());
    let report = Report::new(&args, &tally, grown);
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        output.bytes(report.for_people().as_bytes())?;
    }
    output.flush()?;
    if report.log_bytes_missing > 0 {
        return Err(Stop::new(
            Exit::Damaged,
            format!(
                "the log grew by {grown} bytes, {} less than what was acknowledged: acknowledged entries are missing",
                report.log_bytes_missing
            ),
        ));
    }
    match tally.first_error() {
        Some(error) => {
            Err(stop_append(error).after(&format!("{} appends failed, the first: ", tally.errors)))
        }
        None => Ok(()),
    }
}

/// When to measure.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn from_now(warmup: Duration, duration: Duration) -> Self {
        let begin = Instant::now() + warmup;
        Self { begin, end: begin + duration }
    }
}

/// One connection's share of the load.
async fn load(client: &Client, args: &AppendArgs, window: Window) -> Tally {
    // Random bytes: nothing on the way should gain from their likeness.
    let mut payload = vec![0; args.payload];
    rand::rng().fill_bytes(&mut payload);
    let payload = Bytes::from(payload);
    // Room for all that are in flight, each with what the pipeline adds to it: the loop below is what binds.
    let bytes_max = args.in_flight.saturating_mul(args.payload + 1024);
    let options = PipelineOptions { entries_max: args.in_flight, bytes_max, ..PipelineOptions::default() };
    let pipeline = client.pipeline(options);
    let room = Semaphore::new(args.in_flight);
    let (tickets, waiting) = mpsc::unbounded_channel();
    let (fed, mut tally) =
        tokio::join!(feed(&pipeline, payload, window.end, &room, tickets), settle(waiting, window, &room));
    if let Err(error) = fed {
        tally.error(error);
    }
    tally
}

/// Appends until `end`, whenever there is room for one more in flight.
async fn feed(
    pipeline: &Pipeline,
    payload: Bytes,
    end: Instant,
    room: &Semaphore,
    tickets: mpsc::UnboundedSender<(Instant, Ticket)>,
) -> Result<(), AppendError> {
    // A closed semaphore: something failed.
    while let Ok(permit) = room.acquire().await {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        // Given back by the other side, once there is an answer.
        permit.forget();
        let ticket = pipeline.append(payload.clone()).await?;
        let _ = tickets.send((sent, ticket));
    }
    Ok(())
}

/// Waits for every answer and counts it; those within the window are measured.
async fn settle(
    mut tickets: mpsc::UnboundedReceiver<(Instant, Ticket)>,
    window: Window,
    room: &Semaphore,
) -> Tally {
    let mut tally = Tally::new();
    while let Some((sent, ticket)) = tickets.recv().await {
        match ticket.await {
            Ok(_) => {
                let now = Instant::now();
                let measured = (window.begin..window.end).contains(&now);
                tally.acknowledged(measured.then(|| now - sent));
            }
            Err(error) => {
                tally.error(error);
                // What fails once is no load any more.
                room.close();
            }
        }
        room.add_permits(1);
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_bounded() {
        assert_eq!(payload_bytes("4 KiB"), Ok(4096));
        assert!(payload_bytes("16 MiB").is_err());
        assert_eq!(in_flight("1"), Ok(1));
        assert!(in_flight("0").is_err());
        assert!(in_flight("5000").is_err());
    }
}
