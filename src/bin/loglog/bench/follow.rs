//! `loglog bench follow`: many who wait at the log's end; what each costs the node while nothing happens, and how long until all of
//! them have what was appended.
//!
//! Owns:   the crowds, one that idles and one that is woken, and the file descriptors they need.
//! Keeps:  followers are [`super::follower`]s and no whole clients, so that this process has time to hear of their answers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use loglog_client::{Client, Offset};
use loglog_proto::Length;
use loglog_proto::entry::OVERHEAD;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::{AbortHandle, LocalSet};

use super::follower::{Crowd, Follower};
use super::load::Writer;
use super::payload::{Mix, Source};
use super::probe::Usage;
use super::report::{Form, Report, rounded};
use super::target::{Target, Where};
use super::{disk, payload_bytes};
use crate::connect::{Endpoints, stop, stop_append};
use crate::exit::{Exit, Outcome, Stop};
use crate::table::grouped;
use loglog::units::about_bytes;

/// Descriptors for all but the followers.
const DESCRIPTORS: u64 = 64;
/// Connections opened at once: fewer than wait in a listener's queue.
const OPENING: usize = 64;
/// How long all of them may take to connect, and to get one entry.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,

    /// Followers that idle.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    followers: u32,

    /// Followers that are woken, in a phase of their own.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    woken: u32,

    /// How often they are woken, by an append each.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    wakes: u32,

    /// Bytes of payload of these appends.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = payload_bytes)]
    payload: usize,

    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(args: &Args, at: &Endpoints) -> Outcome {
    let most = args.followers.max(args.woken);
    descriptors(u64::from(most) + DESCRIPTORS)?;
    let mut place = args.place.clone();
    if place.nodes.is_some() {
        // Room for all of them, unless somebody says otherwise. The node keeps some of its descriptors for other things.
        place.set.insert(0, format!("connection.max={}", most + 1000));
        descriptors((u64::from(most) + 1000) * 4 / 3)?;
    }
    let work = async |target: &mut Target| LocalSet::new().run_until(measure(args, target)).await;
    let report = place.measure(at, work).await?;
    args.form.print(&report)
}

async fn measure(args: &Args, target: &Target) -> Outcome<Report> {
    let client = target.client().await?;
    let address = target.address()?;
    let probe = target.probe();
    let mut report = Report::default();
    report.count("followers", u64::from(args.followers));

    // The node's memory without them, and with them.
    let end = client.end(true).await.map_err(|error| stop(&error))?;
    let before = probe.read()?;
    let began = Instant::now();
    let idle = open(&address, args.followers, end).await?;
    let connecting = began.elapsed();
    let after = probe.read()?;
    drop(idle);
    report.number("connect_seconds", connecting.as_secs_f64());
    report.row(
        "idle",
        format!(
            "{} followers, connected in {:.2} s",
            grouped(args.followers.into()),
            connecting.as_secs_f64()
        ),
    );
    // Without leave to ask nobody knows which node they are at; among several the one that grew is.
    let grown = after.nodes.iter().zip(&before.nodes).map(|(after, before)| after.memory - before.memory);
    let grown = grown.max_by(f64::total_cmp);
    let each = grown.map(|grown| grown / f64::from(args.followers));
    report.maybe("node_memory_grown_bytes", grown);
    report.maybe("bytes_per_follower", each);
    match (grown, each) {
        (Some(grown), Some(each)) => report.row(
            "memory",
            format!(
                "the node has {} more, {} each",
                about_bytes(rounded(grown.max(0.0))),
                about_bytes(rounded(each.max(0.0)))
            ),
        ),
        _ => report.row("memory", "not known: --admin says where to ask the node".to_owned()),
    }
    let disk_before = target.disk()?;
    let before = probe.read()?;
    wake(args, &client, &address, &mut report).await?;
    let usage = Usage::between(&before, &probe.read()?);
    usage.tell_each(&mut report, u64::from(args.wakes), "wake");
    let disk_after = if disk_before.is_some() { target.disk()? } else { None };
    disk::tell(&mut report, disk_before, disk_after);
    Ok(report)
}

/// Wakes a crowd, again and again.
async fn wake(args: &Args, client: &Client, address: &str, report: &mut Report) -> Outcome {
    let source = Source::new(Mix::one(args.payload), None, 1).map_err(Stop::failed)?;
    let mut writer = Writer::new(client, &source, 0, 1);
    let mut end = client.end(true).await.map_err(|error| stop(&error))?;
    let crowd = open(address, args.woken, end).await?;
    for _ in 0..args.wakes {
        let next = end + Length::of(args.payload + OVERHEAD);
        {
            let mut round = crowd.crowd.round();
            (round.began, round.end) = (Instant::now(), next);
            round.left = crowd.tasks.len();
        }
        let outcome = async { writer.send().await?.await }.await;
        let appended = outcome.map_err(|error| stop_append(&error))?;
        let in_time = tokio::time::timeout(PATIENCE, crowd.crowd.done.notified()).await;
        if let Some(error) = &crowd.crowd.round().failed {
            return Err(Stop::new(Exit::Unavailable, error.clone()));
        }
        if in_time.is_err() {
            let left = crowd.crowd.round().left;
            let message = format!("{left} followers did not get an entry within {} s", PATIENCE.as_secs());
            return Err(Stop::new(Exit::Unavailable, message));
        }
        // Others may append, too.
        end = appended.end.max(next);
    }
    let round = crowd.crowd.round();
    report.count("woken", u64::from(args.woken));
    report.count("wakes", u64::from(args.wakes));
    report.count("payload_bytes", args.payload as u64);
    round.times.tell(report, "wake_");
    round.last.tell(report, "last_");
    report.row(
        "wakes",
        format!(
            "{} of {} followers by an append of {} bytes each, from the append's begin",
            grouped(args.wakes.into()),
            grouped(args.woken.into()),
            args.payload
        ),
    );
    report.row("each", round.times.words());
    report.row("the last", round.last.words());
    Ok(())
}

/// Followers that wait. Dropped, they go.
struct Waiting {
    crowd: Rc<Crowd>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn open(address: &str, count: u32, end: Offset) -> Outcome<Waiting> {
    let mut waiting = Waiting { crowd: Crowd::new(), tasks: Vec::new() };
    let (mut opening, mut left) = (FuturesUnordered::new(), count);
    let failed = |error: &dyn std::fmt::Display| {
        Stop::new(
            Exit::Unavailable,
            format!(
                "cannot connect {count} followers to {address}: {error} (the node's connection.max and file descriptors bound them)"
            ),
        )
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while left > 0 || !opening.is_empty() {
        while left > 0 && opening.len() < OPENING {
            left -= 1;
            let crowd = waiting.crowd.clone();
            opening.push(async move { Follower::open(address, end, &crowd).await });
        }
        let next = tokio::time::timeout_at(deadline, opening.next()).await;
        match next.map_err(|_| failed(&"not all are welcome in time"))? {
            Some(Ok(follower)) => {
                let task = tokio::task::spawn_local(follower.follow(waiting.crowd.clone()));
                waiting.tasks.push(task.abort_handle());
            }
            Some(Err(error)) => return Err(failed(&error)),
            None => {}
        }
    }
    Ok(waiting)
}

/// Sees to it that this process, and the nodes that it starts, may open `needed` files.
pub(super) fn descriptors(needed: u64) -> Outcome {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        let most = maximum.unwrap_or(0);
        return Err(Stop::failed(format!(
            "that many connections need {needed} file descriptors, and {most} is the most this process may have: raise the hard limit \
             (ulimit -Hn) or ask for fewer"
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|error| {
        Stop::failed(format!("cannot raise the limit of file descriptors to {needed}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_than_there_may_be_are_refused_with_what_to_do() {
        assert!(descriptors(1).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            match descriptors(u64::MAX) {
                Err(Stop::Failure(Exit::Failed, message)) => {
                    assert!(message.contains("ulimit -Hn"), "{message}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
