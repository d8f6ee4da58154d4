//! kill -9 at random moments: every acknowledged entry is there once, at its offset, in each writer's order, after retries.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use loglog_client::{Client, EntriesOptions, PipelineOptions};
use loglog_integration_tests::until;
use loglog_proto::Offset;
use loglog_proto::response::Appended;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::daemon;

const WRITERS: u64 = 4;
const KILLS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);

/// A payload that says who wrote it, as the how-manieth.
fn payload(writer: u64, number: u64, rng: &mut StdRng) -> Bytes {
    let mut payload = format!("{writer}:{number}:").into_bytes();
    let length = if rng.random_ratio(1, 50) { 40_000 } else { rng.random_range(0..300) };
    payload.resize(payload.len() + length, b'.');
    Bytes::from(payload)
}

/// Appends through one pipeline, a hundred in flight, until told to stop; returns what was acknowledged.
async fn append(
    address: String,
    writer: u64,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Vec<(u64, Appended)> {
    let client = Client::connect(address.as_str()).await.expect("a node");
    let options = PipelineOptions { entries_max: 100, timeout: None, ..PipelineOptions::default() };
    let pipeline = client.pipeline(options);
    let (mut tickets, mut acknowledged) = (std::collections::VecDeque::new(), Vec::new());
    let mut rng = StdRng::seed_from_u64(writer);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tickets.push_back((number, pipeline.append(payload(writer, number, &mut rng)).await.expect("room")));
        while tickets.len() >= 100 {
            let (number, ticket) = tickets.pop_front().expect("a hundred");
            acknowledged.push((number, ticket.await.expect("retries resolve every outcome")));
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    for (number, ticket) in tickets {
        acknowledged.push((number, ticket.await.expect("retries resolve every outcome")));
    }
    acknowledged
}

#[test]
fn s08_kill_9_loses_doubles_and_reorders_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // One port for all lives of the node, so that clients find it again; nobody else is given it meanwhile.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = daemon(&dir)
        .set("segment.bytes_max=1 MiB")
        .set(&format!("listen.client=127.0.0.1:{port}"))
        .set("log.level=warning,loglogd=info");
    let mut node = options.start();
    let address = format!("127.0.0.1:{port}");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| runtime.spawn(append(address.clone(), writer, Arc::clone(&stop), Arc::clone(&count))))
        .collect();
    // A follower sees a prefix of the log at any time, and never a byte twice.
    let follower = runtime.spawn({
        let (address, stop) = (address.clone(), Arc::clone(&stop));
        async move {
            let client = Client::connect(address.as_str()).await.expect("a node");
            let (mut follow, mut seen) = (client.follow(Offset::ZERO), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                if let Ok(Some(entry)) = tokio::time::timeout(Duration::from_millis(100), follow.next()).await
                {
                    let entry = entry.expect("a follower survives reconnects");
                    seen.push((entry.offset, entry.payload));
                }
            }
            seen
        }
    });

    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut slowest = Duration::ZERO;
    for kill in 0..KILLS {
        let before = count.load(Ordering::Relaxed);
        let wanted = before + rng.random_range(1..4000);
        until("appends go on", DEADLINE, || count.load(Ordering::Relaxed) >= wanted);
        node.kill();
        node = options.start();
        let resumed = count.load(Ordering::Relaxed);
        let took =
            until("appends go on after a restart", DEADLINE, || count.load(Ordering::Relaxed) > resumed);
        slowest = slowest.max(took);
        if kill % 5 == 4 {
            println!("{} kills, {} acknowledged", kill + 1, count.load(Ordering::Relaxed));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> =
        writers.into_iter().map(|writer| runtime.block_on(writer).expect("a writer ends in peace")).collect();
    let followed = runtime.block_on(follower).expect("the follower ends in peace");
    println!("appends went on at most {slowest:?} after the node served again");

    let log = runtime.block_on(async {
        let client = Client::connect(address.as_str()).await.expect("a node");
        let mut entries = client.entries_with(.., EntriesOptions::default());
        let mut log = Vec::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.expect("an entry with a right CRC");
            log.push((entry.offset, entry.payload));
        }
        log
    });
    let mut places = BTreeMap::new();
    let mut next = [0; WRITERS as usize];
    for (offset, payload) in &log {
        let text = std::str::from_utf8(payload).unwrap();
        let (writer, rest) = text.split_once(':').unwrap();
        let (number, _) = rest.split_once(':').unwrap();
        let (writer, number): (usize, u64) = (writer.parse().unwrap(), number.parse().unwrap());
        assert_eq!(number, next[writer], "writer {writer}: once, in order, none left out");
        next[writer] += 1;
        places.insert((writer, number), *offset);
    }
    let mut total = 0;
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        total += acknowledged.len();
        for (number, appended) in acknowledged {
            assert_eq!(places.get(&(writer, *number)), Some(&appended.offset), "where it was acknowledged");
        }
        assert_eq!(
            next[writer],
            acknowledged.len() as u64,
            "what was never acknowledged was retried until it was"
        );
    }
    assert_eq!(followed[..], log[..followed.len()], "a follower saw a prefix of the log");
    let segments = std::fs::read_dir(dir.path().join("data")).unwrap();
    let segments =
        segments.filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|it| it == "seg")).count();
    println!("{total} acknowledged over {KILLS} kills, {segments} segments, {} followed", followed.len());
    assert!(segments > KILLS, "{segments} segments");
    assert!(followed.len() > 1000);
    assert_eq!(node.stop().0.code(), Some(0));
}
