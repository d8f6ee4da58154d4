//! One log, four lives: over TCP, over a Unix socket, inside the program, in memory. All of them do the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use loglog::{
    AppendError, AppendOptions, Client, EntriesOptions, Entry, Error, Length, Log, MemoryLog, Node, Offset,
    PackBuilder, PipelineOptions, ReadOptions, block_on,
};
use loglog_proto::entry::OVERHEAD;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use tokio::runtime::{Builder, Runtime};

use crate::daemon;

/// Ten times what anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// So that a log of some hundred kilobytes has several.
const SEGMENT: &str = "segment.bytes_max=64 KiB";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Everything that a [`Log`] promises. `log` is new, and nobody else's.
async fn conforms<L: Log + std::fmt::Debug>(log: L) {
    let began = Instant::now();
    appends_lie_where_they_are_said_to(&log).await;
    conditions_hold(&log).await;
    pipelines_keep_their_order(&log).await;
    many_append_at_once(&log).await;
    reads_have_bounds(&log).await;
    readers_wait_for_more(&log).await;
    the_tail_is_found(&log).await;
    sizes_have_limits(&log).await;
    events_travel_in_packs(&log).await;
    what_is_trimmed_is_gone(&log).await;
    println!("conforms, after {:?}", began.elapsed());
}

async fn all(log: &impl Log, from: Offset) -> Vec<Entry> {
    log.entries(from..).try_collect().await.unwrap()
}

async fn appends_lie_where_they_are_said_to(log: &impl Log) {
    let before = log.ends(true).await.unwrap();
    assert_eq!(before.start, Offset::ZERO);
    let first = log.append("first").await.unwrap();
    let second = log.append(Vec::new()).await.unwrap();
    assert_eq!((first.offset, first.end), (before.end, second.offset));
    assert_eq!(first.end - first.offset, Length::of(OVERHEAD + 5));
    assert_eq!(log.end(true).await.unwrap(), second.end);
    let entries = all(log, first.offset).await;
    let found: Vec<_> = entries.iter().map(|it| (it.offset, it.end, &it.payload[..])).collect();
    assert_eq!(found, [(first.offset, first.end, &b"first"[..]), (second.offset, second.end, b"")]);
    assert_eq!(entries[0].term, first.term);
    // The bytes themselves: what is on disk is what is on the wire.
    let data = log.read(first.offset, first.end - first.offset).await.unwrap();
    assert_eq!((data.offset, data.bytes.len()), (first.offset, OVERHEAD + 5));
    assert_eq!(&data.bytes[24..29], b"first");
}

async fn conditions_hold(log: &impl Log) {
    let end = log.end(true).await.unwrap();
    let at = |end| AppendOptions { expect_end: Some(end) };
    let place = log.append_with("as expected", at(end)).await.unwrap();
    assert_eq!(place.offset, end);
    let error = log.append_with("too late", at(end)).await.unwrap_err();
    assert_eq!(error, AppendError::Conflict { expected: end, end: place.end });
    assert!(!error.may_have_happened());
    // Of many who decide on the same state one wins.
    let end = log.end(true).await.unwrap();
    let contenders = (0..10).map(|it| {
        let log = log.clone();
        async move { log.append_with(format!("contender {it}"), at(end)).await }
    });
    let outcomes = join_all(contenders).await;
    assert_eq!(outcomes.iter().filter(|it| it.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(all(log, end).await.len(), 1);
}

async fn pipelines_keep_their_order(log: &impl Log) {
    let from = log.end(true).await.unwrap();
    let pipeline = log.pipeline(PipelineOptions { entries_max: 100, ..PipelineOptions::default() });
    let mut tickets = Vec::new();
    for number in 0..2000 {
        tickets.push(pipeline.append(format!("{number}")).await.unwrap());
    }
    pipeline.flush().await.unwrap();
    let mut expected = from;
    for (number, ticket) in tickets.into_iter().enumerate() {
        let place = ticket.await.unwrap();
        // An entry of Raft's own may lie between.
        assert!(place.offset >= expected, "{number} lies at {}, before {expected}", place.offset);
        expected = place.end;
    }
    let entries = all(log, from).await;
    assert!(entries.iter().enumerate().all(|(number, it)| it.payload == number.to_string()));
    assert_eq!((entries.len(), entries[1999].end), (2000, expected));
    assert_eq!(entries.iter().map(|it| it.writer).collect::<BTreeSet<_>>().len(), 1);
}

async fn many_append_at_once(log: &impl Log) {
    let from = log.end(true).await.unwrap();
    let appenders = (0..50).map(|writer| {
        let log = log.clone();
        async move {
            let mut places = Vec::new();
            for number in 0..10 {
                let payload = format!("{writer} {number}");
                places.push((log.append(payload.clone()).await.unwrap().offset, payload));
            }
            assert!(places.is_sorted(), "one after the other");
            places
        }
    });
    let mut said: Vec<_> = join_all(appenders).await.into_iter().flatten().collect();
    said.sort();
    let found = all(log, from).await.into_iter();
    let found: Vec<_> =
        found.map(|it| (it.offset, String::from_utf8(it.payload.to_vec()).unwrap())).collect();
    assert_eq!(found, said);
}

async fn reads_have_bounds(log: &impl Log) {
    let places = [log.append("a").await.unwrap(), log.append("b").await.unwrap()];
    let end = places[1].end;
    let count = async |entries: loglog::Entries| entries.try_collect::<Vec<_>>().await.map(|it| it.len());
    assert_eq!(count(log.entries(places[0].offset..places[1].offset)).await.unwrap(), 1);
    assert_eq!(count(log.entries(places[0].offset..=places[1].offset)).await.unwrap(), 2);
    assert_eq!(count(log.entries(end..)).await.unwrap(), 0);
    let inside = places[0].offset + Length::new(3);
    let error = count(log.entries(inside..)).await.unwrap_err();
    assert!(matches!(error, Error::NotAnEntry { offset, .. } if offset == inside), "{error}");
    // One byte, from anywhere.
    let data = log.read(places[0].offset + Length::new(24), Length::new(1)).await.unwrap();
    assert_eq!(&data.bytes[..], b"a");
    let nothing = log.read(end, Length::new(10)).await.unwrap();
    assert_eq!((nothing.bytes.len(), nothing.end), (0, end));
    let beyond = end + Length::new(1);
    let error = log.read(beyond, Length::new(1)).await.unwrap_err();
    assert_eq!(error, Error::BeyondEnd { offset: beyond, end });
    // Pieces of any size make the same entries.
    let whole = all(log, Offset::ZERO).await;
    let chunk = Length::new(1000);
    let pieces = log.entries_with(.., EntriesOptions { chunk, ..EntriesOptions::default() });
    assert_eq!(pieces.try_collect::<Vec<_>>().await.unwrap(), whole);
}

async fn readers_wait_for_more(log: &impl Log) {
    let end = log.end(true).await.unwrap();
    // In vain, for as long as they were told to.
    let began = Instant::now();
    let wait = Duration::from_millis(100);
    let data = log.read_with(ReadOptions { wait, ..ReadOptions::at(end) }).await.unwrap();
    assert!(data.bytes.is_empty() && began.elapsed() >= wait);
    // Many, and each sees what comes.
    let readers = join_all((0..20).map(|_| {
        let log = log.clone();
        async move {
            let mut follow = log.follow(end);
            let mut seen = Vec::new();
            while seen.len() < 3 {
                seen.push(follow.next().await.unwrap().unwrap().payload);
            }
            seen
        }
    }));
    let appends = async {
        for payload in ["x", "y", "z"] {
            log.append(payload).await.unwrap();
        }
    };
    let (seen, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(readers, appends) }).await.unwrap();
    assert!(seen.iter().all(|it| it[..] == ["x", "y", "z"]), "{seen:?}");
    // What was acknowledged is read for sure.
    let place = log.append("mine").await.unwrap();
    let read = ReadOptions { min_end: Some(place.end), wait: DEADLINE, ..ReadOptions::at(place.offset) };
    assert_eq!(log.read_with(read).await.unwrap().bytes.len(), OVERHEAD + 4);
}

async fn the_tail_is_found(log: &impl Log) {
    let mut places = Vec::new();
    for number in 0..5 {
        places.push(log.append(format!("tail {number}")).await.unwrap().offset);
    }
    assert_eq!(log.tail_start(3).await.unwrap(), places[2]);
    assert_eq!(log.tail_start(0).await.unwrap(), log.end(true).await.unwrap());
    assert_eq!(log.tail_start(u64::MAX).await.unwrap(), Offset::ZERO);
}

async fn sizes_have_limits(log: &impl Log) {
    let largest = vec![7; PAYLOAD_BYTES_MAX];
    let place = log.append(largest.clone()).await.unwrap();
    let found = all(log, place.offset).await;
    assert!(found.len() == 1 && found[0].payload == largest);
    let error = log.append(vec![0; PAYLOAD_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }) && !error.may_have_happened(), "{error}");
    // Together they are more than one connection may hold; in order all the same.
    let pipeline = log.pipeline(PipelineOptions::default());
    let mut tickets = Vec::new();
    for number in 0..40_u8 {
        tickets.push(pipeline.append(vec![number; 3 << 20]).await.unwrap());
    }
    let mut last = place.end;
    for ticket in tickets {
        let place = ticket.await.unwrap();
        assert!(place.offset >= last);
        last = place.end;
    }
}

async fn events_travel_in_packs(log: &impl Log) {
    let mut pack = PackBuilder::new();
    for event in ["one", "two", "three"] {
        pack.push(event.as_bytes()).unwrap();
    }
    let place = log.append(pack.finish()).await.unwrap();
    let entry = &all(log, place.offset).await[0];
    let events: Vec<_> = entry.events().unwrap().map(|(at, event)| (at.to_string(), event)).collect();
    assert_eq!(events[2].0, format!("{}:2", place.offset));
    assert_eq!(events[2].1, &b"three"[..]);
}

async fn what_is_trimmed_is_gone(log: &impl Log) {
    let before = log.append("the last to stay").await.unwrap().offset;
    let began = Instant::now();
    let start = log.trim(before).await.unwrap();
    assert!(Offset::ZERO < start && start <= before, "{start} of {before}");
    let ends = log.ends(true).await.unwrap();
    assert_eq!(ends.start, start);
    // In a cluster another node than the leader may hear of it a moment later.
    let error = loop {
        match log.read(Offset::ZERO, Length::new(10)).await {
            Ok(_) => assert!(began.elapsed() < DEADLINE, "what was trimmed is still read"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::Trimmed { offset: Offset::ZERO, start });
    let error = log.follow(Offset::ZERO).next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Trimmed { .. }), "{error}");
    let left: Vec<Entry> = log.entries(..).try_collect().await.unwrap();
    assert_eq!(left.last().unwrap().payload, "the last to stay");
    // Twice is once, and it goes on.
    assert_eq!(log.trim(before).await.unwrap(), start);
    let place = log.append("more").await.unwrap();
    assert_eq!(place.offset, ends.end);
}

#[test]
fn over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set(SEGMENT).start();
    let address = node.address().to_owned();
    runtime().block_on(async { conforms(Client::connect(address).await.unwrap()).await });
    assert_eq!(node.stop().0.code(), Some(0));
}

#[test]
fn over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("log.sock");
    let node = daemon(&dir).set(SEGMENT).set(&format!("listen.unix={}", socket.display())).start();
    let endpoint = format!("unix:{}", socket.display());
    runtime().block_on(async { conforms(Client::connect(endpoint).await.unwrap()).await });
    assert_eq!(node.stop().0.code(), Some(0));
}

#[test]
fn inside_the_program() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let builder = Node::builder().data_dir(dir.path()).set("data.free_min", "1 MiB");
        let node = builder.set("segment.bytes_max", "64 KiB").start().await.unwrap();
        conforms(node.log()).await;
        node.shutdown().await.unwrap();
    });
}

#[test]
fn inside_the_program_as_one_of_three() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        // Slow to elect: what is asked of here is a log that nobody disturbs.
        let set = [("segment.bytes_max", "64 KiB"), ("raft.tick", "200 ms")];
        let nodes = crate::embedded::three(dir.path(), &set).await;
        // One that follows: it finds the leader through the network, and reads here.
        let follower = crate::embedded::follower(&nodes).await;
        conforms(follower.log()).await;
        for ended in join_all(nodes.into_iter().map(Node::shutdown)).await {
            ended.unwrap();
        }
    });
}

#[test]
fn in_memory() {
    runtime().block_on(conforms(MemoryLog::new()));
}

/// A program without a runtime waits with `block_on`; the client has a thread of its own.
#[test]
fn without_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let node = block_on(Node::builder().data_dir(dir.path()).set("data.free_min", "1 MiB").start()).unwrap();
    let (inside, memory) = (node.log(), MemoryLog::new());
    for log in [&inside, memory.client()] {
        let place = block_on(log.append("hello")).unwrap();
        let mut follow = log.follow(place.offset);
        assert_eq!(block_on(follow.next()).unwrap().unwrap().payload, "hello");
        let wait = Duration::from_millis(50);
        let read = ReadOptions { wait, ..ReadOptions::at(place.end) };
        assert!(block_on(log.read_with(read)).unwrap().bytes.is_empty());
        assert_eq!(block_on(log.entries(..).try_collect::<Vec<_>>()).unwrap().len(), 1);
    }
    block_on(node.shutdown()).unwrap();
    let error = block_on(inside.end(false)).unwrap_err();
    assert_eq!(error, Error::Ended);
    block_on(memory.append("it lives on")).unwrap();
}
