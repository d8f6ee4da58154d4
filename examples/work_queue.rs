//! A work queue: producers add jobs, workers claim them through the log, one dies half-way, and each job is done once.
//!
//! ```sh
//! cargo run --example work_queue                      # three nodes in this program
//! cargo run --example work_queue 127.0.0.1:19194      # or nodes that run already
//! ```
//!
//! What is exact and what is not: of several claims of a job the first in the log counts, for everybody, so a job has one holder at a time; and it is
//! recorded as done once. It may be *executed* more than once, though: a worker that has died may have done it and not said so, and nobody can tell.
//! Let jobs bear that, or pass the claim's offset along with what they do and have that refuse lower ones.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Failure, Logs};
use loglog::{ApplyError, Client, Entry, Offset, Replica, ReplicaOptions, StateMachine};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// So long a worker may be silent about a job before another takes it.
const PATIENCE: Duration = Duration::from_millis(300);

/// Its text and the claim that counts, if any.
type Job = (String, Option<Offset>);

/// The state: jobs by the offsets of their entries.
#[derive(Default)]
struct Queue {
    open: BTreeMap<Offset, Job>,
    /// How often each was recorded as done.
    done: BTreeMap<Offset, u32>,
}

/// Entries are lines: `queue job TEXT`, `queue claim JOB BEFORE` (`BEFORE` is the claim that it takes the place of, or 0), and `queue done JOB CLAIM`.
impl StateMachine for Queue {
    fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let Ok(text) = std::str::from_utf8(&entry.payload) else { return Ok(()) };
        let Some(line) = text.strip_prefix("queue ") else { return Ok(()) };
        if let Some(text) = line.strip_prefix("job ") {
            self.open.insert(entry.offset, (text.to_owned(), None));
            return Ok(());
        }
        let (verb, numbers) = line.split_once(' ').ok_or("a line of the queue without a word")?;
        let (job, claim) = numbers.split_once(' ').ok_or("a line of the queue without two numbers")?;
        let (job, claim) = (Offset::new(job.parse()?), Offset::new(claim.parse()?));
        // Done already: too late for either.
        let Some((_, claimed)) = self.open.get_mut(&job) else { return Ok(()) };
        match verb {
            // The first claim counts that names the one before; later ones name what is no longer the last.
            "claim" if claimed.unwrap_or(Offset::ZERO) == claim => *claimed = Some(entry.offset),
            // Only the holder's word counts, not that of one given up for dead.
            "done" if *claimed == Some(claim) => {
                self.open.remove(&job);
                *self.done.entry(job).or_default() += 1;
            }
            _ => {}
        }
        Ok(())
    }

    // A queue that is kept for long needs these; see `key_value`.
    fn snapshot(&self, _: &mut dyn Write) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Claims jobs and does them, for ever; or dies half-way through its first.
async fn work(number: usize, log: Client, dies: bool, executed: Arc<AtomicU64>) -> Result<(), Failure> {
    let mut replica = Replica::open(log, Queue::default(), ReplicaOptions::default()).await?;
    // When this worker saw each claim, by its own clock.
    let mut seen: HashMap<Offset, Instant> = HashMap::new();
    loop {
        replica.catch_up().await?;
        let is_free = |(_, (_, claim)): &(Offset, Job)| {
            claim.is_none_or(|claim| seen.entry(claim).or_insert_with(Instant::now).elapsed() > PATIENCE)
        };
        let mut free: Vec<_> = replica.state().open.clone().into_iter().filter(is_free).collect();
        if free.is_empty() {
            // Nothing to do until something comes, or somebody has been silent for too long.
            if let Ok(next) = timeout(PATIENCE / 3, replica.next()).await {
                next?;
            }
            continue;
        }
        // Each takes another one, so that fewer claims are for nothing.
        let (job, (text, before)) = free.swap_remove(number % free.len());
        let before = before.unwrap_or(Offset::ZERO);
        let claim = replica.log().append(format!("queue claim {job} {before}")).await?;
        replica.catch_up_to(claim.end).await?;
        let Some((_, Some(counts))) = replica.state().open.get(&job) else { continue };
        if *counts != claim.offset {
            continue; // Another's claim came first.
        }
        let why = if before == Offset::ZERO { "" } else { ", since the one before was silent for too long" };
        println!("worker {number}: {text} (claim {}{why})", claim.offset);
        executed.fetch_add(1, Ordering::Relaxed);
        if dies {
            println!("worker {number} dies half-way");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await; // The work.
        replica.log().append(format!("queue done {job} {}", claim.offset)).await?;
    }
}

/// Adds jobs; each is acknowledged, and from then on in the queue whatever happens.
async fn produce(name: &str, log: Client, count: u32) -> Result<Vec<Offset>, Failure> {
    let mut jobs = Vec::new();
    for number in 1..=count {
        jobs.push(log.append(format!("queue job {name}'s job {number}")).await?.offset);
    }
    Ok(jobs)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let logs = Logs::open().await?;
    let [one, two, three] = logs.clients.clone();

    let executed = Arc::new(AtomicU64::new(0));
    // One worker is there first, and soon no more.
    let (some, more, ()) = tokio::try_join!(
        produce("anna", one.clone(), 6),
        produce("bert", two.clone(), 6),
        work(1, two.clone(), true, executed.clone()),
    )?;
    let jobs = [some, more].concat();
    let mut workers = JoinSet::new();
    for (number, log) in [(2, two), (3, three)] {
        workers.spawn(work(number, log, false, executed.clone()));
    }

    // This looks on, and ends it when all is done.
    let mut replica = Replica::open(one, Queue::default(), ReplicaOptions::default()).await?;
    while !jobs.iter().all(|job| replica.state().done.contains_key(job)) {
        tokio::select! {
            applied = replica.next() => drop(applied?),
            // With an error: else they never end.
            Some(ended) = workers.join_next() => ended??,
        }
    }
    workers.shutdown().await;
    let done: u32 = jobs.iter().map(|job| replica.state().done[job]).sum();
    println!(
        "{} jobs, executed {} times, recorded as done {done} times",
        jobs.len(),
        executed.load(Ordering::Relaxed)
    );
    assert_eq!(done as usize, jobs.len());

    logs.close().await?;
    println!("done");
    Ok(())
}
