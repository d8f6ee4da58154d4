//! A follower that is slow, frozen or far behind costs nobody else more than a bounded amount.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_client::{Client, PipelineOptions};
use loglog_integration_tests::daemon::peak_resident_bytes;
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

const RESUME: Duration = Duration::from_secs(20);
/// A follower that was frozen is wanted back within some seconds.
const CATCH_UP: Duration = Duration::from_secs(200);
/// How long a follower is frozen.
const FROZEN: Duration = Duration::from_secs(10);
/// The client's upload budget: the default of `PipelineOptions::bytes_max`, which `loglog append` leaves as it is.
const BUDGET: u64 = 32 << 20;
/// What `loglog append` takes beside that: 7 MiB read ahead of the pipeline (four chunks of 1 MiB that wait, one being cut, the
/// reader's own and the rest of a line), and about as much again held by slices of chunks that are nearly done with; 16 MiB
/// of encoded frames, for two followers' uploads, 8 MiB each at the most; its connections' buffers; program and runtime, 15 MiB.
const ALLOWANCE: u64 = 48 << 20;

const MIB: f64 = (1 << 20) as f64;

/// `loglog append`, fed with lines as fast as it takes them.
struct Feed {
    child: Child,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Feed {
    fn start(cluster: &Cluster) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loglog"));
        command.args([
            "--endpoints",
            &cluster.clients().join(","),
            "append",
            "--quiet",
            "--timeout",
            "100 s",
        ]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("loglog starts");
        let (mut input, stop) = (child.stdin.take().expect("a pipe"), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rng, mut lines, mut count) = (StdRng::seed_from_u64(1), Vec::new(), 0);
            while lines.len() < 4 << 20 {
                let length = if rng.random_ratio(1, 20) {
                    rng.random_range(16_000..64_000)
                } else {
                    rng.random_range(10..4000)
                };
                lines.extend((0..length).map(|_| rng.random_range(b' '..=b'~')));
                lines.push(b'\n');
                count += 1;
            }
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                input.write_all(&lines).expect("loglog reads");
                written += count;
            }
            written
        });
        Self { child, stop, thread: Some(thread) }
    }

    fn peak(&self) -> u64 {
        peak_resident_bytes(self.child.id())
    }

    /// Ends the input and waits until all of it is in the log; returns how many lines there were.
    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let lines = self.thread.take().expect("a thread").join().expect("loglog reads to the end");
        let mut status = None;
        until("loglog append ends", CATCH_UP, || {
            status = self.child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        assert!(status.expect("it ended").success(), "every line is in the log: {status:?}");
        lines
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_frozen_follower_costs_a_client_neither_appends_nor_memory() {
    let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3).segment_bytes_max("64 MiB");
    let cluster = Cluster::form(layout);
    let (leader, _) = cluster.leader();
    let (follower, term) = (cluster.follower(), cluster.status(leader).unwrap().term);
    let committed = || cluster.status(leader).map_or(0, |it| it.committed);
    let feed = Feed::start(&cluster);
    let (begin, began) = (committed(), Instant::now());
    until("a good many bytes are in the log", RESUME, || committed() > begin + (100 << 20));
    let rate = (committed() - begin) as f64 / MIB / began.elapsed().as_secs_f64();
    println!("all there: {rate:.0} MiB/s, the client's peak {:.1} MiB", feed.peak() as f64 / MIB);

    cluster.freeze(follower);
    let (begin, frozen) = (committed(), Instant::now());
    let (mut end, mut grown, mut longest) = (begin, frozen, Duration::ZERO);
    until("the follower was frozen for long", 10 * FROZEN, || {
        let now = committed();
        if now > end {
            longest = longest.max(grown.elapsed());
            (end, grown) = (now, Instant::now());
        }
        assert!(grown.elapsed() < RESUME, "no append was committed for {:?}", grown.elapsed());
        frozen.elapsed() > FROZEN
    });
    let rate = (end - begin) as f64 / MIB / frozen.elapsed().as_secs_f64();
    let peak = feed.peak();
    println!(
        "node {follower} frozen for {FROZEN:?}: {rate:.0} MiB/s, nothing committed for {longest:?} at the longest; the client's peak {:.1} MiB of {:.0}",
        peak as f64 / MIB,
        (BUDGET + ALLOWANCE) as f64 / MIB
    );
    assert!(peak <= BUDGET + ALLOWANCE, "{peak} bytes");

    cluster.thaw(follower);
    let thawed = Instant::now();
    let lines = feed.finish();
    let end = cluster
        .ids()
        .filter_map(|id| cluster.status(id))
        .map(|it| it.committed)
        .max()
        .expect("a node that answers");
    until("the follower has caught up", CATCH_UP, || {
        cluster.status(follower).is_some_and(|it| it.committed >= end)
    });
    let (end, _) = cluster.converge();
    println!(
        "thawed: {:.0} MiB caught up and all agree after {:?}; {lines} lines, {end} bytes",
        (end.get() - begin) as f64 / MIB,
        thawed.elapsed()
    );
    cluster.assert_identical_files(end);
    steady((Some(leader), term), &cluster);
}

/// The leader and the term must be what they were.
fn steady(before: (Option<u32>, u32), cluster: &Cluster) {
    let now: Vec<_> =
        cluster.ids().filter_map(|id| cluster.status(id)).map(|it| (it.leader, it.term)).collect();
    println!("leader and term before: {before:?}, now {now:?}");
    assert!(now.iter().all(|now| *now == before), "somebody was elected");
}

/// Appends one after the other, and how long each took.
struct Probe {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(runtime: &Runtime, client: &Client) -> Self {
        let (client, stop) = (client.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = runtime.spawn(async move {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                client.append(PROBE).await.expect("an append");
                took.push(began.elapsed());
            }
            took
        });
        Self { stop, task }
    }

    fn finish(self, runtime: &Runtime) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = runtime.block_on(self.task).expect("appends that succeed");
        took.sort();
        let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
        format!(
            "{} appends, p50 {:?}, p99 {:?}, at most {:?}",
            took.len(),
            at(50),
            at(99),
            took[took.len() - 1]
        )
    }
}

const PROBE: Bytes = Bytes::from_static(b"how long does this take?");

/// Appends that are larger than those of the load, as fast as may be.
async fn fill(client: &Client, bytes: usize) {
    let pipeline = client.pipeline(PipelineOptions::default());
    let (mut rng, mut appended) = (StdRng::seed_from_u64(5), 0);
    let mut large = vec![0; 1 << 20];
    rng.fill(&mut large[..]);
    let large = Bytes::from(large);
    while appended < bytes {
        let length = rng.random_range(64 << 10..=1 << 20);
        drop(pipeline.append(large.slice(..length)).await.expect("room"));
        appended += length;
    }
    pipeline.flush().await.expect("all is appended");
}

#[test]
fn a_follower_500_mb_behind_catches_up_while_appends_go_on() {
    const BEHIND: usize = 500_000_000;
    let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3).segment_bytes_max("64 MiB");
    let mut cluster = Cluster::form(layout);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(cluster.clients())).unwrap();
    let (leader, _) = cluster.leader();
    let follower = cluster.follower();
    let load = Load::start(cluster.clients(), LoadOptions { writers: 2, in_flight: 4, readers: 0 });
    load.progress(100, RESUME);
    let (probe, began) = (Probe::start(&runtime, &client), Instant::now());
    until("some seconds have passed", RESUME, || began.elapsed() > Duration::from_secs(3));
    println!("before, three nodes up: {}", probe.finish(&runtime));
    cluster.kill(follower);
    let (probe, began) = (Probe::start(&runtime, &client), Instant::now());
    until("some seconds have passed", RESUME, || began.elapsed() > Duration::from_secs(3));
    println!("before, follower {follower} down: {}", probe.finish(&runtime));
    let filling = Instant::now();
    runtime.block_on(fill(&client, BEHIND));
    let standing = |id| cluster.status(id).map(|it| (it.leader, it.term));
    let before = standing(leader).expect("the leader answers");
    println!(
        "500 MB appended in {:?}: {:.0} MB/s",
        filling.elapsed(),
        BEHIND as f64 / 1e6 / filling.elapsed().as_secs_f64()
    );

    let probe = Probe::start(&runtime, &client);
    let (appended, launched) = (load.acknowledged(), Instant::now());
    cluster.restart(follower);
    let (serves, from) = (Instant::now(), cluster.status(follower).expect("it serves").durable);
    let mut to = 0;
    until("the follower has caught up", 3 * RESUME, || {
        let [ours, theirs] = [follower, leader].map(|id| cluster.status(id));
        to = ours.as_ref().map_or(to, |it| it.durable);
        ours.zip(theirs).is_some_and(|(ours, theirs)| ours.committed + 100_000 > theirs.committed)
    });
    let took = serves.elapsed();
    println!("during the catch-up: {}", probe.finish(&runtime));
    println!(
        "{:.0} MB behind caught up in {took:?} ({:.0} MB/s; {:?} since it was started), {} other appends meanwhile",
        (to - from) as f64 / 1e6,
        (to - from) as f64 / 1e6 / took.as_secs_f64(),
        launched.elapsed(),
        load.acknowledged() - appended
    );
    assert!(to - from > BEHIND as u64, "it was that far behind");
    load.progress(100, RESUME);
    let _ = load.finish();
    let (end, _) = cluster.converge();
    cluster.assert_identical_files(end);
    steady(before, &cluster);
}
