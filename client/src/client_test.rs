//! The client against a node in the same process: over real sockets, through crashes, refusals and silence.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use loglog_proto::entry::{Kind, PREFIX};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::{ClusterId, Length, Offset};
use tokio::time::{Instant, timeout};

use crate::testing::node::{Behaviour, FakeNode, numbered};
use crate::{
    AppendError, AppendOptions, Client, Compression, Entry, Error, PackBuilder, PackOptions, PipelineOptions,
};

const SOON: Duration = Duration::from_millis(80);
const LONG: Duration = Duration::from_secs(60);

async fn node() -> FakeNode {
    FakeNode::start(Behaviour::default()).await
}

async fn client(node: &FakeNode) -> Client {
    Client::connect(node.address.as_str()).await.unwrap()
}

/// A client whose appends time out soon.
async fn hasty(node: &FakeNode) -> Client {
    let builder = Client::builder().endpoints(node.address.as_str()).append_timeout(Some(SOON));
    builder.connect().await.unwrap()
}

/// Waits for what another task brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_was_appended_is_read_at_its_offset() {
    let node = node().await;
    let client = client(&node).await;
    let first = client.append("hello").await.unwrap();
    let second = client.append(Bytes::new()).await.unwrap();
    assert_eq!((first.offset, first.end), (Offset::new(32), second.offset));
    let entries: Vec<Entry> = client.entries(..).try_collect().await.unwrap();
    assert_eq!(entries.iter().map(|entry| &entry.payload[..]).collect::<Vec<_>>(), [&b"hello"[..], b""]);
    assert_eq!((entries[0].offset, entries[0].end), (first.offset, first.end));
    let data = client.read(first.offset, Length::new(24)).await.unwrap();
    assert_eq!((data.bytes.len(), data.end), (24, second.end));
    assert_eq!(client.end(true).await.unwrap(), second.end);
    assert_eq!(client.status().await.unwrap().role, "leader");
    let refused = client.fault("consensus", "handler").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal { code: Code::Forbidden, .. })), "{refused}");
}

#[tokio::test]
async fn s27_a_pipeline_survives_crashes_in_order_and_once() {
    let node = FakeNode::start(Behaviour { crash_every: Some(331), ..Behaviour::default() }).await;
    let client = client(&node).await;
    let pipeline = client.pipeline(PipelineOptions { entries_max: 100, ..PipelineOptions::default() });
    let mut tickets = Vec::new();
    for number in 0..3000 {
        tickets.push(pipeline.append(numbered(number)).await.unwrap());
    }
    timeout(LONG, pipeline.flush()).await.unwrap().unwrap();
    let data = node.data();
    assert_eq!(data.len(), tickets.len());
    for ((number, ticket), entry) in (0..).zip(tickets).zip(data) {
        assert_eq!((entry.payload, entry.at), (numbered(number), ticket.await.unwrap()));
    }
    assert!(node.accepted() > 5, "it did crash");
}

#[tokio::test]
async fn a_follower_survives_crashes_without_doubling_or_skipping() {
    let node =
        FakeNode::start(Behaviour { crash_every: Some(37), read_bytes_max: 100, ..Behaviour::default() })
            .await;
    let client = client(&node).await;
    let mut follow = client.follow(Offset::ZERO);
    let pipeline = client.pipeline(PipelineOptions { entries_max: 10, ..PipelineOptions::default() });
    for number in 0..300 {
        let _ticket = pipeline.append(numbered(number)).await.unwrap();
    }
    for number in 0..300 {
        let entry = timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(entry.payload, numbered(number));
    }
}

#[tokio::test]
async fn a_follower_waits_for_more() {
    let node = node().await;
    let client = client(&node).await;
    let mut follow = client.follow(client.end(false).await.unwrap());
    assert!(timeout(SOON, follow.next()).await.is_err(), "there is nothing yet");
    client.append("now").await.unwrap();
    assert_eq!(timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap().payload, "now");
}

#[tokio::test]
async fn an_expected_end_holds_or_nothing_is_written() {
    let node = node().await;
    let client = client(&node).await;
    let first = client.append("a").await.unwrap();
    let expecting = |end| AppendOptions { expect_end: Some(end) };
    let second = client.append_with("b", expecting(first.end)).await.unwrap();
    let error = client.append_with("c", expecting(first.end)).await.unwrap_err();
    assert_eq!(error, AppendError::Conflict { expected: first.end, end: second.end });
    assert!(!error.may_have_happened() && !error.is_retryable());

    // What follows a conflict in a pipeline goes on.
    let pipeline = client.pipeline(PipelineOptions::default());
    let refused = pipeline.append_with("d", expecting(first.end)).await.unwrap();
    let taken = pipeline.append("e").await.unwrap();
    assert!(matches!(refused.await, Err(AppendError::Conflict { .. })));
    assert_eq!(taken.await.unwrap().offset, second.end);
    assert!(
        matches!(pipeline.flush().await, Err(AppendError::Conflict { .. })),
        "flush tells the first error"
    );
    pipeline.flush().await.unwrap();
    assert_eq!(node.data().len(), 3);
}

#[tokio::test]
async fn refusals_that_pass_are_tried_again() {
    let node = node().await;
    let client = client(&node).await;
    for code in
        [Code::Busy, Code::DiskFull, Code::Unavailable, Code::Interrupted, Code::TimedOut, Code::NotLeader]
    {
        node.set(|behaviour| behaviour.refuse = Some((5, Refusal::new(code, "not now"))));
        client.append("x").await.unwrap();
    }
    assert_eq!(node.data().len(), 6);
    node.set(|behaviour| behaviour.refuse = Some((1, Refusal::new(Code::TooLarge, "too large"))));
    let error = client.append("x").await.unwrap_err();
    assert!(matches!(error, AppendError::Refused { may_have_happened: false, .. }), "{error}");
}

#[tokio::test]
async fn a_deadline_says_whether_it_may_have_happened() {
    let node = node().await;
    let (patient, hasty) = (client(&node).await, hasty(&node).await);
    node.set(|behaviour| behaviour.commits = false);
    let append = hasty.append("sent");
    let sent = async { until("the append", || node.tail_len() == 1).await };
    let (error, ()) = tokio::join!(append, sent);
    let error = error.unwrap_err();
    assert!(matches!(error, AppendError::TimedOut { .. }) && error.is_retryable(), "{error}");
    assert!(error.may_have_happened() && error.to_string().contains("look for writer"), "{error}");
    node.set(|behaviour| behaviour.commits = true);
    node.commit();
    patient.append("after").await.unwrap();
    assert_eq!(node.data().len(), 2);
}

#[tokio::test]
async fn without_a_node_nothing_is_sent() {
    let mut node = node().await;
    let hasty = hasty(&node).await;
    node.stop().await;
    until("the loss", || hasty.hub_is_lost()).await;
    let error = hasty.append("x").await.unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
    assert!(error.to_string().contains("nothing was written"), "{error}");
    node.resume().await;
    client(&node).await.append("y").await.unwrap();
    assert_eq!(node.data().len(), 1);
}

#[tokio::test]
async fn one_shot_appends_travel_together() {
    let node = node().await;
    let client = client(&node).await;
    let appends = (0..500).map(|number| client.append(numbered(number)));
    let places = futures_util::future::try_join_all(appends).await.unwrap();
    assert!(places.is_sorted_by_key(|place| place.offset));
    assert_eq!(node.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_ticket_or_pipeline_stops_nothing() {
    let node = node().await;
    let client = client(&node).await;
    let pipeline = client.pipeline(PipelineOptions::default());
    drop(pipeline.append("a").await.unwrap());
    drop(pipeline);
    until("the append", || node.data().len() == 1).await;
}

#[tokio::test]
async fn the_budget_bounds_what_waits() {
    let node = node().await;
    node.set(|behaviour| behaviour.commits = false);
    let client = client(&node).await;
    let pipeline = client.pipeline(PipelineOptions { bytes_max: 4096, ..PipelineOptions::default() });
    let first = pipeline.append(vec![1; 100_000]).await.unwrap();
    let blocked = timeout(SOON, pipeline.append("no room")).await;
    assert!(blocked.is_err(), "an append larger than the budget takes all of it");
    until("the append", || node.tail_len() == 1).await;
    node.commit();
    first.await.unwrap();
    let _ticket = timeout(LONG, pipeline.append("room")).await.unwrap().unwrap();
}

#[tokio::test]
async fn s28_a_forgotten_writer_goes_on_under_a_new_name() {
    let node = FakeNode::start(Behaviour { memory: Length::new(1000), ..Behaviour::default() }).await;
    let client = client(&node).await;
    let idle = client.pipeline(PipelineOptions::default());
    let first = idle.append("a").await.unwrap().await.unwrap();
    client.append(vec![0; 2000]).await.unwrap();
    let second = idle.append("b").await.unwrap().await.unwrap();
    assert!(second.offset > first.offset);
    let data = node.data();
    assert_ne!(data[0].writer, data[2].writer);
}

#[tokio::test]
async fn the_leader_is_followed() {
    let (other, leader) = (node().await, node().await);
    // In the welcome…
    other.point_to(&leader.address);
    let client = client(&other).await;
    client.append("a").await.unwrap();
    assert_eq!((other.data().len(), leader.data().len()), (0, 1));
    // …and when it changes.
    let refusal = Refusal::not_leader(Some(other.address.clone()));
    leader.set(|behaviour| behaviour.refuse = Some((1, refusal)));
    other.point_to(&other.address);
    // It is another log in truth, whose node does not know the writer: the append goes on there under a new name.
    client.append("b").await.unwrap();
    assert_eq!((other.data().len(), leader.data().len()), (1, 1));
}

#[tokio::test]
async fn the_right_cluster_or_none() {
    let node = node().await;
    let right = Client::builder().endpoints(node.address.as_str()).cluster(ClusterId::new(0xab).unwrap());
    right.connect().await.unwrap();
    let wrong = Client::builder().endpoints(node.address.as_str()).cluster(ClusterId::new(1).unwrap());
    let error = wrong.connect().await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal { code: Code::WrongCluster, .. })), "{error}");
}

#[tokio::test]
async fn a_unix_socket_does_as_well() {
    let node = node().await;
    let path = std::env::temp_dir().join(format!("loglog-client-test-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let address = node.address.clone();
    let relay = tokio::spawn(async move {
        let (mut here, _) = listener.accept().await.unwrap();
        let mut there = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    });
    let client = Client::connect(format!("unix:{}", path.display())).await.unwrap();
    client.append("x").await.unwrap();
    assert_eq!(node.data().len(), 1);
    relay.abort();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn who_cannot_be_reached_is_named() {
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert_eq!(Client::connect("").await.unwrap_err(), Error::NoEndpoint);
    assert!(matches!(Client::connect("nowhere").await.unwrap_err(), Error::Endpoint { .. }));
}

#[tokio::test]
async fn silence_is_noticed() {
    let node = node().await;
    let client =
        Client::builder().endpoints(node.address.as_str()).request_timeout(SOON).connect().await.unwrap();
    client.append("a").await.unwrap();
    node.set(|behaviour| behaviour.silent = true);
    let error = client.end(false).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    // The append notices that the connection is dead, and goes through once there is a node that talks.
    let append = client.append("b");
    tokio::pin!(append);
    assert!(timeout(SOON * 3, &mut append).await.is_err());
    node.set(|behaviour| behaviour.silent = false);
    timeout(LONG, append).await.unwrap().unwrap();
    assert_eq!(node.data().len(), 2);
}

#[tokio::test]
async fn large_payloads_come_back_whole() {
    let node = FakeNode::start(Behaviour { read_bytes_max: 1 << 20, ..Behaviour::default() }).await;
    let client = client(&node).await;
    let payloads: Vec<Vec<u8>> =
        [0, 4095, 4096, 70_000, 5 << 20, 10, 3 << 20].iter().map(|len| vec![7; *len]).collect();
    for payload in &payloads {
        client.append(payload.clone()).await.unwrap();
    }
    let entries: Vec<Entry> = client.entries(..).try_collect().await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.payload.to_vec()).collect::<Vec<_>>(), payloads);
    let error = client.append(vec![0; 1 << 24]).await.unwrap_err();
    assert_eq!(error, AppendError::TooLarge { length: 1 << 24, max: (1 << 24) - 1 });
}

#[tokio::test]
async fn the_tail_is_found_from_the_end() {
    let node = FakeNode::start(Behaviour { read_bytes_max: 100_000, ..Behaviour::default() }).await;
    let client = client(&node).await;
    let mut places = Vec::new();
    for number in 0..40_usize {
        places.push(client.append(vec![1; number * number * 500]).await.unwrap());
        if number == 30 {
            // The noop of a new term is walked over.
            node.crash(0);
        }
    }
    let end = client.end(false).await.unwrap();
    assert_eq!(client.tail_start(0).await.unwrap(), end);
    for count in [1, 2, 9, 10, 11, 39, 40] {
        assert_eq!(
            client.tail_start(count).await.unwrap(),
            places[40 - usize::try_from(count).unwrap()].offset
        );
    }
    assert_eq!(client.tail_start(41).await.unwrap(), Offset::ZERO);
}

#[tokio::test]
async fn ranges_begin_and_end_where_asked() {
    let node = node().await;
    let client = client(&node).await;
    let mut places = Vec::new();
    for number in 0..5 {
        places.push(client.append(numbered(number)).await.unwrap());
    }
    let some: Vec<Entry> = client.entries(places[1].offset..places[3].offset).try_collect().await.unwrap();
    assert_eq!(
        some.iter().map(|entry| entry.offset).collect::<Vec<_>>(),
        [places[1].offset, places[2].offset]
    );
    let inside: Vec<_> = client.entries(places[1].offset + Length::new(3)..).collect().await;
    assert!(matches!(&inside[..], [Err(Error::NotAnEntry { .. })]), "{inside:?}");
    let beyond =
        client.entries(places[4].offset..places[4].end + Length::new(9)).try_collect::<Vec<_>>().await;
    assert_eq!(
        beyond.unwrap_err(),
        Error::BeyondEnd { offset: places[4].end + Length::new(9), end: places[4].end }
    );
    // Bytes in a payload that could begin an entry, which would reach beyond the log's end.
    let fake = [&[0xff, 0xff, 0x00, Kind::Data as u8][..], &[0; 60]].concat();
    let place = client.append(fake).await.unwrap();
    let inside: Vec<_> = client.entries(place.offset + Length::of(PREFIX)..).collect().await;
    assert!(matches!(&inside[..], [Err(Error::NotAnEntry { .. })]), "{inside:?}");
    places.push(place);
    node.trim();
    let trimmed = client.entries(places[1].offset..).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(trimmed, Error::Trimmed { offset: places[1].offset, start: places[5].end });
    assert!(matches!(client.follow(Offset::ZERO).next().await, Some(Err(Error::Trimmed { .. }))));
}

#[tokio::test]
async fn packed_events_come_back_with_positions() {
    let node = node().await;
    let client = client(&node).await;
    let options = PackOptions { compression: Compression::Lz4, checksums: true };
    for mut pack in [PackBuilder::new(), PackBuilder::with(options)] {
        pack.push(b"one").unwrap();
        pack.push(&[b'2'; 200]).unwrap();
        let place = client.append(pack.finish()).await.unwrap();
        let entries: Vec<Entry> = client.entries(place.offset..).try_collect().await.unwrap();
        let (position, event) = entries[0].events().unwrap().nth(1).unwrap();
        assert_eq!((position.entry, position.number, &event[..]), (place.offset, 1, &[b'2'; 200][..]));
        assert_eq!(entries[0].events_unchecked().unwrap().len(), 2);
    }
}
