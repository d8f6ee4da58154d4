//! `loglog append`: lines or a whole file into the log.
//!
//! ```text
//!     reader thread ─► chunks ─► pipeline ─► tickets, in order ─► offsets on standard output
//! ```
//!
//! Keeps:  an offset is printed once its entry is committed, in the order of the input; after a failure, all
//!         that was printed is in the log.
//! Never:  stops because nobody reads the offsets: the entries matter more.

use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use indicatif::ProgressBar;
use loglog::units::{about_bytes, parse_duration};
use loglog_client::{AppendError, AppendOptions, Appended, Client, Pipeline, PipelineOptions, Ticket};
use loglog_proto::Offset;
use tokio::sync::{Notify, mpsc};

use crate::connect::{Endpoints, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::input::{Chunk, Input, Shape};
use crate::output::Output;
use crate::progress::progress;
use crate::table::grouped;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Every line is an entry, without its newline (the default).
    #[arg(long, conflicts_with = "whole")]
    lines: bool,

    /// The whole input is one entry.
    #[arg(long)]
    whole: bool,

    /// Append only if the log ends at this offset. With --lines that is asked of the first line; the others follow it.
    #[arg(long, value_name = "N")]
    expect_end: Option<u64>,

    /// How long to try each entry: nodes may come and go meanwhile.
    #[arg(long, value_name = "TIME", default_value = "30 s", value_parser = parse_duration)]
    timeout: Duration,

    /// Print no offsets.
    #[arg(long, short)]
    quiet: bool,

    /// What to append; standard input without it. Any bytes will do, text or not.
    file: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let shape = if args.whole { Shape::Whole } else { Shape::Lines };
    let input = Input::open(args.file.as_deref()).map_err(Stop::failed)?;
    let client = at.connect_within(args.timeout).await?;
    let mut acknowledged = Acknowledged::new(progress(input.size, !args.quiet), !args.quiet);
    let outcome = append_all(&client, input.read(shape), &args, &mut acknowledged).await;
    acknowledged.finish()?;
    outcome.map_err(|stop| stop.after(&acknowledged.words()))
}

async fn append_all(
    client: &Client,
    mut chunks: mpsc::Receiver<Result<Chunk, String>>,
    args: &Args,
    acknowledged: &mut Acknowledged,
) -> Outcome {
    let mut first = None;
    if args.expect_end.is_some() {
        let Some(chunk) = chunks.recv().await else { return Ok(()) };
        let mut chunk = chunk.map_err(Stop::failed)?;
        // The reader hands on no empty chunk.
        let payload = chunk.payloads.remove(0);
        let length = payload.len();
        let options = AppendOptions { expect_end: args.expect_end.map(Offset::new) };
        let appended = client.append_with(payload, options).await.map_err(|error| stop_append(&error))?;
        acknowledged.take(&appended, length)?;
        first = Some(chunk);
    }
    let pipeline =
        client.pipeline(PipelineOptions { timeout: Some(args.timeout), ..PipelineOptions::default() });
    // Unbounded, since the pipeline bounds how many there are.
    let (tickets, waiting) = mpsc::unbounded_channel();
    let failed = Notify::new();
    let (fed, settled) = tokio::join!(
        feed(&pipeline, first, chunks, tickets, &failed),
        settle(waiting, acknowledged, &failed)
    );
    // What the log refused comes before what was wrong with later input.
    settled.and(fed)
}

/// Sends every payload, as fast as the pipeline has room, until one has `failed`.
async fn feed(
    pipeline: &Pipeline,
    mut first: Option<Chunk>,
    mut chunks: mpsc::Receiver<Result<Chunk, String>>,
    tickets: mpsc::UnboundedSender<(Ticket, usize)>,
    failed: &Notify,
) -> Outcome {
    let mut failed = pin!(failed.notified());
    loop {
        let chunk = match first.take() {
            Some(chunk) => chunk,
            None => tokio::select! {
                biased;
                () = &mut failed => return Ok(()),
                chunk = chunks.recv() => match chunk {
                    Some(chunk) => chunk.map_err(Stop::failed)?,
                    None => return Ok(()),
                },
            },
        };
        for payload in chunk.payloads {
            let length = payload.len();
            let ticket = tokio::select! {
                biased;
                () = &mut failed => return Ok(()),
                ticket = pipeline.append(payload) => ticket.map_err(|error| stop_append(&error))?,
            };
            // The other side takes tickets until there are no more.
            let _ = tickets.send((ticket, length));
        }
    }
}

/// Waits for every ticket, in order. After one that failed, only to learn what became of those behind it: an entry
/// that was on its way may be in the log although the one before it is not.
async fn settle(
    mut tickets: mpsc::UnboundedReceiver<(Ticket, usize)>,
    acknowledged: &mut Acknowledged,
    failed: &Notify,
) -> Outcome {
    let mut failure: Option<Broken> = None;
    loop {
        let (ticket, length) = match tickets.try_recv() {
            Ok(next) => next,
            Err(_) => {
                // Nobody should wait for offsets that are known.
                acknowledged.flush()?;
                match tickets.recv().await {
                    Some(next) => next,
                    None => break,
                }
            }
        };
        let mut ticket = pin!(ticket);
        let answer = match poll!(ticket.as_mut()) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                acknowledged.flush()?;
                ticket.await
            }
        };
        match (answer, &mut failure) {
            (Ok(appended), None) => acknowledged.take(&appended, length)?,
            (Err(error), None) => {
                failure = Some(Broken { error, in_log: 0, unknown: 0 });
                failed.notify_one();
            }
            (Ok(_), Some(broken)) => broken.in_log += 1,
            (Err(error), Some(broken)) => broken.unknown += u64::from(error.may_have_happened()),
        }
    }
    failure.map_or(Ok(()), |broken| Err(broken.stop()))
}

/// An entry that failed, and what became of those sent behind it.
struct Broken {
    error: AppendError,
    in_log: u64,
    unknown: u64,
}

impl Broken {
    fn stop(&self) -> Stop {
        let stop = stop_append(&self.error);
        let Stop::Failure(_, message) = &stop else { return stop };
        if self.in_log == 0 && self.unknown == 0 {
            return stop;
        }
        let behind = format!(
            "{message}; of those sent behind it {} are in the log, {} may be",
            grouped(self.in_log),
            grouped(self.unknown)
        );
        Stop::new(Exit::Unknown, behind)
    }
}

/// What is known to be in the log.
struct Acknowledged {
    /// `None` where nothing is to be printed, or nobody reads it any more.
    output: Option<Output>,
    bar: ProgressBar,
    began: Instant,
    entries: u64,
    payload_bytes: u64,
    end: Option<Offset>,
}

impl Acknowledged {
    fn new(bar: ProgressBar, print: bool) -> Self {
        let output = print.then(Output::new);
        Self { output, bar, began: Instant::now(), entries: 0, payload_bytes: 0, end: None }
    }

    fn take(&mut self, appended: &Appended, length: usize) -> Outcome {
        self.entries += 1;
        self.payload_bytes += length as u64;
        self.end = Some(appended.end);
        // A line's newline is of the input too.
        self.bar.inc(length as u64 + 1);
        self.print(|output| output.line(appended.offset))
    }

    fn flush(&mut self) -> Outcome {
        self.print(Output::flush)
    }

    fn print(&mut self, print: impl FnOnce(&mut Output) -> Outcome) -> Outcome {
        let Some(output) = &mut self.output else { return Ok(()) };
        match print(output) {
            Err(Stop::Unread) => {
                self.output = None;
                Ok(())
            }
            other => other,
        }
    }

    fn finish(&mut self) -> Outcome {
        self.flush()?;
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            eprintln!(
                "{} entries, {}, in {:.1} s",
                grouped(self.entries),
                about_bytes(self.payload_bytes),
                self.began.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }

    /// In front of a failure: what is in the log all the same.
    fn words(&self) -> String {
        match self.end {
            None => String::new(),
            Some(end) => {
                format!(
                    "the first {} entries are in the log, through offset {end}, then: ",
                    grouped(self.entries)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_behind_a_failed_one_make_the_outcome_unknown() {
        let error = AppendError::NoRoom { after: Duration::from_secs(1) };
        let exit = |in_log, unknown| match (Broken { error: error.clone(), in_log, unknown }).stop() {
            Stop::Failure(exit, _) => exit,
            Stop::Unread => panic!("a failure"),
        };
        assert_eq!(exit(0, 0), Exit::Unavailable);
        assert_eq!(exit(1, 0), Exit::Unknown);
        assert_eq!(exit(0, 1), Exit::Unknown);
    }
}
