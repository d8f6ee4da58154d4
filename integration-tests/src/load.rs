//! Load: writers and readers through the real client library, and what must be in the log afterwards.
//!
//! Owns:   a runtime of their own; what was acknowledged to each writer; what each reader saw.
//! Keeps:  every entry is a function of (writer, number), so that it is checked wherever it is met.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use loglog_client::{Client, PipelineOptions};
use loglog_proto::Offset;
use loglog_proto::entry::Kind;
use loglog_proto::response::Appended;
use loglog_proto::walk::Entries;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::appender::payload;
use crate::wait::until;

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
    writers: Vec<JoinHandle<Vec<Appended>>>,
    readers: Vec<JoinHandle<Vec<Place>>>,
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
}

/// An entry of ours in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub offset: Offset,
    /// The byte behind it.
    pub end: Offset,
    /// Whose it is.
    pub writer: u64,
    /// The how-manieth of that writer, from 1.
    pub number: u64,
}

/// What was done.
#[derive(Debug)]
pub struct Finished {
    /// By writer, from 1: where each append was acknowledged.
    pub acknowledged: Vec<Vec<Appended>>,
    /// By reader: what it saw.
    pub seen: Vec<Vec<Place>>,
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
        });
        let writers = (1..=options.writers).map(|writer| runtime.spawn(write(Arc::clone(&shared), writer)));
        let writers = writers.collect();
        let readers = (0..options.readers).map(|reader| runtime.spawn(follow(Arc::clone(&shared), reader)));
        let readers = readers.collect();
        Self { runtime: Some(runtime), shared, writers, readers }
    }

    /// Appends acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
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
            let acknowledged = all(writers, "every append gets its outcome").await;
            let end = acknowledged.iter().flatten().map(|it| it.end.get()).max().unwrap_or(0);
            self.shared.end.store(end, Ordering::Relaxed);
            Finished { acknowledged, seen: all(readers, "every reader sees the end").await }
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
async fn write(shared: Arc<Shared>, writer: u64) -> Vec<Appended> {
    let at = usize::try_from(writer - 1).expect("few writers");
    let client = shared.client(at).await;
    let options =
        PipelineOptions { entries_max: shared.in_flight, timeout: None, ..PipelineOptions::default() };
    let pipeline = client.pipeline(options);
    let (mut waiting, mut acknowledged) = (VecDeque::new(), Vec::new());
    for number in 1.. {
        let is_last = shared.stop.load(Ordering::Relaxed);
        if !is_last {
            let handed_in = nanoseconds(shared.began.elapsed());
            let ticket = pipeline.append(payload(writer, number)).await.expect("room");
            waiting.push_back((handed_in, ticket));
        }
        let room = if is_last { 0 } else { shared.in_flight - 1 };
        while waiting.len() > room {
            let Some((handed_in, ticket)) = waiting.pop_front() else { break };
            acknowledged.push(ticket.await.expect("retries resolve every outcome"));
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            shared.handed_in[at].store(handed_in, Ordering::Relaxed);
        }
        if is_last {
            break;
        }
    }
    acknowledged
}

/// Follows the log from its begin, until it is told where the end is and has seen it.
async fn follow(shared: Arc<Shared>, reader: usize) -> Vec<Place> {
    let client = shared.client(reader).await;
    let mut entries = client.follow(Offset::ZERO);
    let (mut seen, mut at) = (Vec::new(), Offset::ZERO);
    while at.get() < shared.end.load(Ordering::Relaxed) {
        let next = tokio::time::timeout(Duration::from_millis(100), entries.next()).await;
        let Ok(Some(entry)) = next else { continue };
        let entry = entry.expect("a reader survives whatever happens to a node");
        assert!(entry.offset >= at, "no entry twice: {} after {at}", entry.offset);
        at = entry.end;
        seen.push(place(entry.offset, entry.end, &entry.payload));
    }
    seen
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("some centuries")
}

/// Who wrote this; checks that it is what he wrote.
fn place(offset: Offset, end: Offset, bytes: &[u8]) -> Place {
    let numbers = || {
        let mut parts = bytes.splitn(3, |byte| *byte == b':');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        Some((number()?, number()?))
    };
    let (writer, number) = numbers().unwrap_or_else(|| panic!("the entry at {offset} is nobody's"));
    assert!(
        bytes == payload(writer, number),
        "the entry at {offset} is not what writer {writer} wrote as {number}"
    );
    Place { offset, end, writer, number }
}

impl Finished {
    /// Checks a whole log: each writer's entries once, in its order, with their bytes, where they were acknowledged; and that
    /// every reader saw just these. `others` are payloads that may be there besides. Returns how many there are.
    ///
    /// # Panics
    /// If something is missing, doubled, changed or elsewhere.
    #[must_use]
    pub fn check(&self, log: &[u8], others: &[Bytes]) -> usize {
        let mut places = Vec::new();
        let mut next = vec![0; self.acknowledged.len()];
        let mut walk = Entries::new(Offset::ZERO, log);
        while let Some(entry) = walk.next_entry().expect("entries with right CRCs") {
            if entry.prefix.kind != Kind::Data || others.iter().any(|other| other == entry.payload) {
                continue;
            }
            let place = place(entry.offset, entry.end(), entry.payload);
            let writer = usize::try_from(place.writer - 1).expect("few writers");
            let expected = &self.acknowledged[writer].get(next[writer]);
            next[writer] += 1;
            assert_eq!(
                place.number,
                next[writer] as u64,
                "writer {}: once, in order, none left out",
                writer + 1
            );
            assert_eq!(
                expected.map(|it| (it.offset, it.end)),
                Some((place.offset, place.end)),
                "writer {}, {}: where it was acknowledged",
                writer + 1,
                place.number
            );
            places.push(place);
        }
        assert!(walk.rest().is_empty(), "whole entries up to the end");
        for (writer, acknowledged) in self.acknowledged.iter().enumerate() {
            assert_eq!(acknowledged.len(), next[writer], "writer {}: all that was acknowledged", writer + 1);
        }
        for (reader, seen) in self.seen.iter().enumerate() {
            assert!(!seen.is_empty(), "reader {reader} saw something");
            assert!(seen.len() <= places.len(), "reader {reader} saw no more than there is");
            let differs = seen.iter().zip(&places).position(|(seen, place)| seen != place);
            assert_eq!(differs, None, "reader {reader} saw a prefix of the log");
        }
        places.len()
    }
}
