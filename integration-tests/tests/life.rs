//! A node's life: start, serve, stop in peace, start again.

use std::time::Duration;

use bytes::Bytes;
use loglog_integration_tests::{RawClient, raw};
use loglog_proto::Offset;
use loglog_proto::request::{Read, RequestBody};
use loglog_proto::response::ResponseBody;

use crate::daemon;

fn append(sequence: u64, payload: &'static [u8]) -> RequestBody {
    RequestBody::Append(raw::append(sequence, Some(Bytes::from_static(payload))))
}

fn read(offset: Offset, wait_ms: u64) -> RequestBody {
    RequestBody::Read(Read { offset, limit: 1 << 20, wait_ms, min_end: None })
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    for sequence in 1..=200 {
        client.send(append(sequence, b"in flight")).unwrap();
    }
    let mut reader = RawClient::connect(node.address());
    let min_end = Some(Offset::new(1 << 40));
    reader
        .send(RequestBody::Read(Read { offset: Offset::ZERO, limit: 1, wait_ms: 60_000, min_end }))
        .unwrap();
    let first = client.receive().unwrap();
    assert!(matches!(first.body, ResponseBody::Appended(_)), "{first:?}");
    let (status, took) = node.stop();
    println!("stopped after {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(50));
    let mut ends = vec![first.body];
    ends.extend(std::iter::from_fn(|| client.receive().map(|response| response.body)));
    let answered = ends.len();

    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    for (sequence, was) in (1..).zip(&ends) {
        assert_eq!(&client.ask(append(sequence, b"in flight")), was, "a repeat has the first answer");
    }
    println!("{answered} of 200 were answered before the end");
}

#[test]
fn a_read_at_the_end_waits_for_more() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let (mut writer, mut reader) = (RawClient::connect(node.address()), RawClient::connect(node.address()));
    let ResponseBody::Appended(first) = writer.ask(append(1, b"one")) else { panic!() };
    let id = reader.send(read(first.end, 60_000)).unwrap();
    let ResponseBody::Appended(second) = writer.ask(append(2, b"two")) else { panic!() };
    let woken = reader.receive().unwrap();
    let ResponseBody::Data(data) = woken.body else { panic!("{woken:?}") };
    assert_eq!((woken.id, data.offset, data.end), (id, first.end, second.end));
    assert_eq!(&data.bytes[24..27], b"two");

    let ResponseBody::Data(nothing) = reader.ask(read(second.end, 50)) else { panic!() };
    assert_eq!((nothing.offset, nothing.bytes.len()), (second.end, 0));
}

#[test]
fn a_node_started_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let options = daemon(&dir).set("segment.bytes_max=64 KiB");
    let node = options.start();
    let mut client = RawClient::connect(node.address());
    let ResponseBody::Appended(first) = client.ask(append(1, b"before")) else { panic!() };
    node.kill();
    let node = options.start();
    let mut client = RawClient::connect(node.address());
    let ResponseBody::Appended(second) = client.ask(append(2, b"after")) else { panic!() };
    assert!(second.offset > first.end && second.term > first.term);
    let ResponseBody::Data(data) = client.ask(read(first.offset, 0)) else { panic!() };
    assert_eq!(&data.bytes[24..30], b"before");
}

#[test]
fn s22_an_incarnation_is_one_life_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let identity = || {
        let node = daemon(&dir).start();
        let ResponseBody::Status(status) = RawClient::connect(node.address()).ask(RequestBody::Status) else {
            panic!()
        };
        assert_eq!(node.stop().0.code(), Some(0));
        (status.cluster, status.incarnation)
    };
    let first = identity();
    assert_eq!(identity(), first, "a restart is the same life");
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let wiped = identity();
    assert!(wiped.0 != first.0 && wiped.1 != first.1, "a wiped directory never comes back as what it was");
}
