//! Each actor panics in turn, under load: connections stay, nothing acknowledged is lost, service resumes, the restart is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_integration_tests::{RawClient, until};
use loglog_proto::entry::{EntryRef, Kind};
use loglog_proto::request::{Append, Read, RequestBody};
use loglog_proto::response::{Appended, ResponseBody, Status};
use loglog_proto::walk::Entries;
use loglog_proto::{Offset, Sequence, WriterId};

use crate::daemon;

/// Ten times the second within which service is to resume.
const DEADLINE: Duration = Duration::from_secs(10);

/// A client that appends on one connection until it is told to stop, and sends again what was refused.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Vec<(u64, Appended)>>,
}

impl Load {
    fn start(address: &str, writer: u64) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (mut client, stopped, count) =
            (RawClient::connect(address), Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut places = Vec::new();
            let mut sequence = 1u64;
            while !stopped.load(Ordering::Relaxed) {
                let append = Append {
                    writer: WriterId::new(writer),
                    previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
                    sequence: Sequence::new(sequence),
                    known_end: Some(Offset::ZERO),
                    expect_end: None,
                    crc: None,
                    payload: Some(Bytes::from(format!("{writer}:{sequence}"))),
                };
                // The connection itself never ends: `ask` panics if it does.
                match client.ask(RequestBody::Append(append)) {
                    ResponseBody::Appended(appended) => {
                        places.push((sequence, appended));
                        count.store(sequence, Ordering::Relaxed);
                        sequence += 1;
                    }
                    ResponseBody::Refused(refusal) => {
                        assert!(refusal.code.is_retryable(), "{refusal}");
                        std::thread::yield_now();
                    }
                    other => panic!("{other:?}"),
                }
            }
            places
        });
        Self { stop, acknowledged, thread }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn stop(self) -> Vec<(u64, Appended)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the connection stayed and every refusal was retryable")
    }
}

fn status(client: &mut RawClient) -> Status {
    match client.ask(RequestBody::Status) {
        ResponseBody::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// Every committed byte.
fn whole_log(client: &mut RawClient) -> Vec<u8> {
    let ResponseBody::End { end, .. } = client.ask(RequestBody::End { linearizable: true }) else { panic!() };
    let mut log = Vec::new();
    while (log.len() as u64) < end.get() {
        let offset = Offset::new(log.len() as u64);
        let read = Read { offset, limit: 1 << 20, wait_ms: 0, min_end: None };
        let ResponseBody::Data(data) = client.ask(RequestBody::Read(read)) else { panic!() };
        assert!(!data.bytes.is_empty());
        log.extend_from_slice(&data.bytes);
    }
    log
}

fn entry_at(log: &[u8], offset: Offset) -> EntryRef<'_> {
    EntryRef::decode(offset, &log[usize::try_from(offset.get()).unwrap()..]).unwrap()
}

#[test]
fn s13_every_actor_may_panic_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").set("segment.bytes_max=64 KiB").start();
    let mut watcher = RawClient::connect(node.address());
    let mut waiting = RawClient::connect(node.address());
    let loads = [Load::start(node.address(), 1), Load::start(node.address(), 2)];

    let actors =
        ["consensus", "segment-writer", "segment-keeper", "upload-buffer", "read-waiters", "listener"];
    // More than eight restarts a minute of one actor, or of the storage group, would stop the node: that is another test.
    let faults = actors.iter().flat_map(|actor| {
        let is_group = ["consensus", "segment-writer", "segment-keeper"].contains(actor);
        let hows: &[&str] = match *actor {
            "consensus" => &["handler", "async", "started"],
            _ if is_group => &["handler", "async"],
            _ => &["handler", "async", "started"],
        };
        hows.iter().map(move |how| (*actor, *how))
    });
    let mut slowest = Duration::ZERO;
    for (actor, how) in faults {
        let before = status(&mut watcher);
        let min_end = Some(Offset::new(before.committed + 4096));
        let wait = Read { offset: Offset::new(before.committed), limit: 100, wait_ms: 30_000, min_end };
        waiting.send(RequestBody::Read(wait)).unwrap();

        let began = Instant::now();
        let fault = RequestBody::Fault { actor: actor.to_owned(), how: how.to_owned() };
        assert_eq!(watcher.ask(fault), ResponseBody::Injected);
        let wanted = if how == "started" { 2 } else { 1 };
        until(&format!("the restart of {actor} ({how}) is counted"), DEADLINE, || {
            status(&mut watcher).restarts >= before.restarts + wanted
        });
        let counts = loads.each_ref().map(Load::acknowledged);
        until(&format!("appends go on after {actor} ({how})"), DEADLINE, || {
            loads.iter().zip(&counts).all(|(load, count)| load.acknowledged() > count + 3)
        });
        let took = began.elapsed();
        let woken = waiting.receive().expect("the connection stayed");
        assert!(matches!(&woken.body, ResponseBody::Data(data) if !data.bytes.is_empty()), "{woken:?}");
        // A new connection is accepted, too.
        assert!(status(&mut RawClient::connect(node.address())).actors.iter().any(|it| it.name == actor));
        println!("{actor:16} {how:8} restarted and serving after {took:?}");
        slowest = slowest.max(took);
    }
    println!("slowest: {slowest:?}");

    // A connection's own panic ends that connection and no other.
    let restarts = status(&mut watcher).restarts;
    let mut doomed = RawClient::connect(node.address());
    doomed.send(RequestBody::Fault { actor: "connection".to_owned(), how: "handler".to_owned() }).unwrap();
    while doomed.receive().is_some() {}
    until("the panic is counted", DEADLINE, || status(&mut watcher).restarts > restarts);

    let acknowledged = loads.map(Load::stop);
    let log = whole_log(&mut watcher);
    let mut walk = Entries::new(Offset::ZERO, &log);
    let mut lasts = [0u64; 2];
    while let Some(entry) = walk.next_entry().unwrap() {
        if entry.prefix.kind == Kind::Data {
            let last = &mut lasts[usize::try_from(entry.prefix.writer.get() - 1).unwrap()];
            assert_eq!(entry.prefix.sequence.get(), *last + 1, "once, in the writer's order");
            *last += 1;
        }
    }
    assert!(walk.rest().is_empty());
    for (writer, places) in (1u64..).zip(&acknowledged) {
        assert!(places.len() > 100, "there was load: {}", places.len());
        for (sequence, appended) in places {
            let entry = entry_at(&log, appended.offset);
            assert_eq!(entry.payload, format!("{writer}:{sequence}").as_bytes());
        }
        println!("writer {writer}: {} acknowledged, all in their places", places.len());
    }
    assert!(status(&mut watcher).generation > 5, "the storage group went through recovery each time");
}

#[test]
fn an_actor_that_panics_again_and_again_stops_the_node_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let mut client = RawClient::connect(node.address());
    for _ in 0..40 {
        let fault = RequestBody::Fault { actor: "upload-buffer".to_owned(), how: "handler".to_owned() };
        if client.send(fault).is_err() || client.receive().is_none() {
            break;
        }
    }
    let log = dir.path().join("data.log");
    let status = node.ended(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("upload-buffer panicked too often: injected fault"), "{said}");
}

#[test]
fn an_actor_that_is_stuck_is_noticed_from_outside_and_the_node_serves_on_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let mut client = RawClient::connect(node.address());
    let too_long = RequestBody::Fault { actor: "consensus".to_owned(), how: "stall:60001".to_owned() };
    assert!(matches!(client.ask(too_long), ResponseBody::Refused(_)), "bounded");
    let fault = RequestBody::Fault { actor: "consensus".to_owned(), how: "stall:8000".to_owned() };
    let began = Instant::now();
    assert_eq!(client.ask(fault), ResponseBody::Injected);
    let stuck = || {
        let stuck = node.records().into_iter().filter(|it| it["msg"] == "an actor is stuck");
        stuck.filter(|it| it["actor"] == "consensus").collect::<Vec<_>>()
    };
    until("the stall is logged", DEADLINE, || !stuck().is_empty());
    let noticed = began.elapsed();
    assert!(noticed >= Duration::from_secs(5), "a stall is five seconds without progress, not {noticed:?}");
    assert_eq!(stuck()[0]["in"], "Fault", "in what it is stuck");
    println!("noticed after {noticed:?}");

    // It answers only once it is over.
    let after = status(&mut client);
    assert!(began.elapsed() >= Duration::from_secs(8), "the thread was blocked: {:?}", began.elapsed());
    assert_eq!(after.restarts, 0, "a stuck actor is not ended");
    assert_eq!(stuck().len(), 1, "logged once");
}

#[test]
fn a_node_is_stopped_though_a_member_of_its_storage_group_hangs_and_another_has_panicked() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let mut client = RawClient::connect(node.address());
    let mut inject = |actor: &str, how: &str| {
        let fault = RequestBody::Fault { actor: actor.to_owned(), how: how.to_owned() };
        assert_eq!(client.ask(fault), ResponseBody::Injected);
    };
    inject("segment-writer", "stall:60000");
    inject("consensus", "handler");
    let began = Instant::now();
    // It waits for the one that hangs, and is asked to stop meanwhile.
    let (status, _) = node.stop();
    let took = began.elapsed();
    println!("ended after {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(50), "not when the disk is pleased to answer: {took:?}");
}
