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
use std::time::Instant;

use futures_util::poll;
use indicatif::ProgressBar;
use loglog_client::{AppendOptions, Appended, Client, Pipeline, PipelineOptions, Ticket};
use loglog_proto::Offset;
use tokio::sync::mpsc;

use crate::connect::{Endpoints, stop_append};
use crate::exit::{Outcome, Stop};
use crate::input::{Chunk, Input, Shape};
use crate::output::Output;
use crate::progress::progress;
use crate::table::grouped;
use loglog::units::about_bytes;

/// Tickets that wait for their answer; the pipeline's own bounds are tighter.
const TICKETS: usize = 8192;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Every line is an entry, without its newline (the default).
    #[arg(long, conflicts_with = "whole")]
    lines: bool,

    /// The whole input is one entry.
    #[arg(long)]
    whole: bool,

    /// Append only if the log ends at this offset; with --lines, that is asked of the first line.
    #[arg(long, value_name = "N")]
    expect_end: Option<u64>,

    /// Print no offsets.
    #[arg(long, short)]
    quiet: bool,

    /// What to append; standard input without it. Any bytes will do, text or not.
    file: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let shape = if args.whole { Shape::Whole } else { Shape::Lines };
    let input = Input::open(args.file.as_deref()).map_err(Stop::failed)?;
    let client = at.connect().await?;
    let mut acknowledged = Acknowledged::new(progress(input.size, !args.quiet), !args.quiet);
    let outcome =
        append_all(&client, input.read(shape), args.expect_end.map(Offset::new), &mut acknowledged).await;
    acknowledged.finish()?;
    outcome.map_err(|stop| stop.after(&acknowledged.words()))
}

async fn append_all(
    client: &Client,
    mut chunks: mpsc::Receiver<Result<Chunk, String>>,
    expect_end: Option<Offset>,
    acknowledged: &mut Acknowledged,
) -> Outcome {
    let mut first = None;
    if expect_end.is_some() {
        let Some(chunk) = chunks.recv().await else { return Ok(()) };
        let mut chunk = chunk.map_err(Stop::failed)?;
        let payload = chunk.payloads.remove(0);
        let length = payload.len();
        let options = AppendOptions { expect_end };
        let appended = client.append_with(payload, options).await.map_err(|error| stop_append(&error))?;
        acknowledged.take(&appended, length)?;
        first = Some(chunk);
    }
    let mut pipeline = client.pipeline(PipelineOptions::default());
    let (tickets, waiting) = mpsc::channel(TICKETS);
    let mut feed = pin!(feed(&mut pipeline, first, chunks, tickets));
    let mut settle = pin!(settle(waiting, acknowledged));
    tokio::select! {
        // An entry that failed ends it all: those behind it fail too.
        settled = &mut settle => settled.and(feed.await),
        fed = &mut feed => {
            // Even if the input broke off, what was sent is waited for.
            settle.await?;
            fed
        }
    }
}

/// Sends every payload, as fast as the pipeline has room.
async fn feed(
    pipeline: &mut Pipeline,
    mut first: Option<Chunk>,
    mut chunks: mpsc::Receiver<Result<Chunk, String>>,
    tickets: mpsc::Sender<(Ticket, usize)>,
) -> Outcome {
    loop {
        let chunk = match first.take() {
            Some(chunk) => chunk,
            None => match chunks.recv().await {
                Some(chunk) => chunk.map_err(Stop::failed)?,
                None => return Ok(()),
            },
        };
        for payload in chunk.payloads {
            let length = payload.len();
            let ticket = pipeline.append(payload).await.map_err(|error| stop_append(&error))?;
            if tickets.send((ticket, length)).await.is_err() {
                // The other side stopped, and says why.
                return Ok(());
            }
        }
    }
}

/// Waits for every ticket, in order.
async fn settle(mut tickets: mpsc::Receiver<(Ticket, usize)>, acknowledged: &mut Acknowledged) -> Outcome {
    loop {
        let (ticket, length) = match tickets.try_recv() {
            Ok(next) => next,
            Err(_) => {
                // Nobody should wait for offsets that are known.
                acknowledged.flush()?;
                match tickets.recv().await {
                    Some(next) => next,
                    None => return Ok(()),
                }
            }
        };
        let mut ticket = pin!(ticket);
        let answer = match poll!(ticket.as_mut()) {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => {
                acknowledged.flush()?;
                ticket.await
            }
        };
        let appended = answer.map_err(|error| stop_append(&error))?;
        acknowledged.take(&appended, length)?;
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
