//! Load: writers and readers through the real client library, somebody who asks every node, and what all of them were told.
//!
//! Owns:   a runtime of their own; the history of what was appended, acknowledged, seen and told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use loglog_client::{Client, Error, PipelineOptions};
use loglog_proto::Offset;
use loglog_proto::error::Code;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::checker::{Enough, Facts, check};
use crate::clock::now;
use crate::history::{Answer, Author, FinalLog, History, Sighting, op_of, payload};
use crate::wait::until;
use crate::watch::Watch;

/// How long the last appends may take, once nothing is in their way.
const FINISH: Duration = Duration::from_secs(100);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Each a client of its own, with one pipeline.
    pub writers: u64,
    /// Appends on their way, of each writer.
    pub in_flight: usize,
    /// Each a client of its own, the first through the first node, and so on.
    pub readers: usize,
}

/// Writers and readers at work.
#[derive(Debug)]
pub struct Load {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<History>>,
    readers: Vec<JoinHandle<Vec<Sighting>>>,
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Shared {
    nodes: Vec<String>,
    in_flight: usize,
    began: Instant,
    stop: AtomicBool,
    /// Where the readers may end, once that is known.
    end: AtomicU64,
    acknowledged: AtomicU64,
    /// By writer: when the newest append that was acknowledged was handed in, nanoseconds since `began`.
    handed_in: Vec<AtomicU64>,
    /// By reader: how far it has read.
    read: Vec<AtomicU64>,
}

/// What was done.
#[derive(Debug)]
pub struct Finished {
    /// All of it but the final logs.
    pub history: History,
    /// By reader: how many entries it saw.
    pub seen: Vec<usize>,
}

/// How long after a moment appends went on.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Until the first append handed in after it was acknowledged.
    pub first: Duration,
    /// Until every writer had such a one.
    pub all: Duration,
}

impl Load {
    /// Begins.
    ///
    /// # Panics
    /// If there is no runtime to be had.
    #[must_use]
    pub fn start(nodes: Vec<String>, options: LoadOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let shared = Arc::new(Shared {
            nodes,
            in_flight: options.in_flight,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            end: AtomicU64::new(u64::MAX),
            acknowledged: AtomicU64::new(0),
            handed_in: (0..options.writers).map(|_| AtomicU64::new(0)).collect(),
            read: (0..options.readers).map(|_| AtomicU64::new(0)).collect(),
        });
        let watch = Some(Watch::start(shared.nodes.clone()));
        let writers = (1..=options.writers).map(|writer| runtime.spawn(write(Arc::clone(&shared), writer)));
        let writers = writers.collect();
        let readers = (0..options.readers).map(|reader| runtime.spawn(follow(Arc::clone(&shared), reader)));
        let readers = readers.collect();
        Self { runtime: Some(runtime), shared, writers, readers, watch }
    }

    /// Appends acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How far every reader has read: what lies before may be trimmed.
    #[must_use]
    pub fn read(&self) -> Offset {
        let read = self.shared.read.iter().map(|it| it.load(Ordering::Relaxed)).min();
        Offset::new(read.unwrap_or(u64::MAX))
    }

    /// Waits until so many more appends are acknowledged.
    ///
    /// # Panics
    /// If they are not within `deadline`.
    pub fn progress(&self, more: u64, deadline: Duration) -> Duration {
        let wanted = self.acknowledged() + more;
        until("appends go on", deadline, || self.acknowledged() >= wanted)
    }

    /// Waits until appends that were handed in after `since` are acknowledged: those on their way then do not count.
    ///
    /// # Panics
    /// If not every writer gets there within `deadline`.
    pub fn resumed(&self, since: Instant, deadline: Duration) -> Resumed {
        let after = nanoseconds(since - self.shared.began);
        let is_after = |it: &AtomicU64| it.load(Ordering::Relaxed) > after;
        until("an append is acknowledged", deadline, || self.shared.handed_in.iter().any(is_after));
        let first = since.elapsed();
        until("every writer's appends are acknowledged", deadline, || {
            self.shared.handed_in.iter().all(is_after)
        });
        Resumed { first, all: since.elapsed() }
    }

    /// Ends it: all appends get their outcome, and every reader reads to the end of them.
    ///
    /// # Panics
    /// If one cannot.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        self.shared.stop.store(true, Ordering::Relaxed);
        let runtime = self.runtime.as_ref().expect("it lives as long as the load");
        let (writers, readers) = (std::mem::take(&mut self.writers), std::mem::take(&mut self.readers));
        runtime.block_on(async {
            let mut history = History::new();
            for part in all(writers, "every append gets its outcome").await {
                history.join(part);
            }
            let acknowledged = history.operations.iter().filter_map(|it| it.acknowledged());
            let end = acknowledged.map(|(_, it)| it.end.get()).max().unwrap_or(0);
            self.shared.end.store(end, Ordering::Relaxed);
            let mut counts = Vec::new();
            for mut seen in all(readers, "every reader sees the end").await {
                counts.push(seen.len());
                history.sightings.append(&mut seen);
            }
            history.join(self.watch.take().expect("it is finished once").finish());
            Finished { history, seen: counts }
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn all<T>(tasks: Vec<JoinHandle<T>>, what: &str) -> Vec<T> {
    let mut outcomes = Vec::new();
    for task in tasks {
        let outcome = tokio::time::timeout(FINISH, task).await;
        outcomes.push(outcome.unwrap_or_else(|_| panic!("{what}: not within {FINISH:?}")).expect("no panic"));
    }
    outcomes
}

impl Shared {
    /// A client that begins with the node after so many.
    async fn client(&self, from: usize) -> Client {
        let mut nodes = self.nodes.clone();
        let count = nodes.len();
        nodes.rotate_left(from % count);
        Client::connect(nodes).await.expect("a node")
    }
}

/// Appends as `writer` until told to stop.
async fn write(shared: Arc<Shared>, writer: u64) -> History {
    let at = usize::try_from(writer - 1).expect("few writers");
    let client = shared.client(at).await;
    let options =
        PipelineOptions { entries_max: shared.in_flight, timeout: None, ..PipelineOptions::default() };
    let pipeline = client.pipeline(options);
    let mut history = History::part(u32::try_from(writer).expect("few writers"));
    let mut waiting = VecDeque::new();
    for number in 1.. {
        let is_last = shared.stop.load(Ordering::Relaxed);
        if !is_last {
            let handed_in = nanoseconds(shared.began.elapsed());
            let op = history.invoke(Author::Pipeline { stream: writer, number }, None, now());
            let attempt = history.sent(op, None, now());
            let ticket = pipeline.append(payload(op)).await.expect("room");
            waiting.push_back((handed_in, op, attempt, ticket));
        }
        let room = if is_last { 0 } else { shared.in_flight - 1 };
        while waiting.len() > room {
            let Some((handed_in, op, attempt, ticket)) = waiting.pop_front() else { break };
            let appended = ticket.await.expect("retries resolve every outcome");
            history.answered(op, attempt, Answer::Acknowledged(appended), now());
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            shared.handed_in[at].store(handed_in, Ordering::Relaxed);
        }
        if is_last {
            break;
        }
    }
    history
}

/// Follows the log from its begin, until it is told where the end is and has seen it.
async fn follow(shared: Arc<Shared>, reader: usize) -> Vec<Sighting> {
    let client = shared.client(reader).await;
    let mut entries = client.follow(Offset::ZERO);
    let (mut seen, mut at) = (Vec::new(), Offset::ZERO);
    while at.get() < shared.end.load(Ordering::Relaxed) {
        let next = tokio::time::timeout(Duration::from_millis(100), entries.next()).await;
        let Ok(Some(entry)) = next else { continue };
        let entry = match entry {
            // Only he who asks knows whether another node would do: that disk may be the only one.
            Err(Error::Refused(refusal)) if refusal.code == Code::Internal => {
                entries = client.follow(at);
                continue;
            }
            entry => entry.expect("a reader survives whatever else happens to a node"),
        };
        at = entry.end;
        let (by, op) = (reader as u64, op_of(&entry.payload));
        seen.push(Sighting { reader: by, offset: entry.offset, end: entry.end, op, at: now() });
        shared.read[reader].store(at.get(), Ordering::Relaxed);
    }
    seen
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("some centuries")
}

impl Finished {
    /// Judges all of it by what the nodes hold in the end: [`check`]. Nothing may have been trimmed that a reader had not read.
    ///
    /// # Panics
    /// If a promise was broken, a reader left something out, or too little happened.
    pub fn check(&mut self, finals: Vec<FinalLog>, enough: &Enough) -> Facts {
        self.history.finals = finals;
        // The checker looks at neighbours only: where each begins is told here.
        let acknowledged = self.history.operations.iter().filter_map(|it| it.acknowledged());
        let first = acknowledged.map(|(_, it)| it.offset).min();
        for reader in 0..self.seen.len() as u64 {
            let seen = self.history.sightings.iter().find(|it| it.reader == reader);
            assert_eq!(seen.map(|it| it.offset), first, "reader {reader} saw the first entry");
            self.saw_all(reader);
        }
        check(&self.history, enough).passed()
    }

    /// The checker cannot know what lay in a part that was trimmed; a reader that follows from the log's begin can.
    fn saw_all(&self, reader: u64) {
        let seen = self.history.sightings.iter().filter(|it| it.reader == reader);
        let seen: HashMap<_, _> = seen.filter_map(|it| Some((it.op?, (it.offset, it.end)))).collect();
        for operation in &self.history.operations {
            let Some((_, told)) = operation.acknowledged() else { continue };
            let found = seen.get(&operation.id);
            assert_eq!(
                found,
                Some(&(told.offset, told.end)),
                "{:?}: reader {reader} saw it there",
                operation.id
            );
        }
    }
}
