//! The client against a cluster in the same process: uploads, failover, reads from any node.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use loglog_proto::response::MemberAddress;
use loglog_proto::{Length, NodeId, Offset};
use tokio::time::{Instant, sleep, timeout};

use crate::testing::cluster::FakeCluster;
use crate::testing::node::{Behaviour, FakeNode, numbered};
use crate::{Client, Entry, PipelineOptions};

const LONG: Duration = Duration::from_secs(30);

/// A client that is given one node only.
async fn client(cluster: &FakeCluster, at: usize) -> Client {
    let builder = Client::builder().endpoints(cluster.nodes[at].address.as_str());
    builder.request_timeout(Duration::from_secs(2)).connect().await.unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Appends numbers through one pipeline and checks that each lies in the log once, in order.
async fn append_all(client: &Client, cluster: &FakeCluster, numbers: std::ops::Range<u32>) {
    let before = cluster.log.data().len();
    let pipeline = client.pipeline(PipelineOptions { entries_max: 100, ..PipelineOptions::default() });
    let mut tickets = Vec::new();
    for number in numbers.clone() {
        tickets.push(pipeline.append(numbered(number)).await.unwrap());
    }
    timeout(LONG, pipeline.flush()).await.unwrap().unwrap();
    let data = cluster.log.data();
    assert_eq!(data.len() - before, tickets.len(), "each once");
    for ((number, ticket), entry) in numbers.zip(tickets).zip(&data[before..]) {
        assert_eq!((&entry.payload, entry.at), (&numbered(number), ticket.await.unwrap()));
    }
}

fn counts(client: &Client, node: u32) -> crate::upload::Counts {
    let counts = client.hub().uploads().counts();
    counts
        .into_iter()
        .find(|(at, _)| *at == NodeId::new(node).unwrap())
        .map(|(_, counts)| counts)
        .unwrap_or_default()
}

#[tokio::test]
async fn payloads_go_to_every_node_at_once_and_once() {
    let cluster = FakeCluster::start().await;
    cluster.nodes[0].set(|behaviour| behaviour.commits = false);
    let client = client(&cluster, 1).await;
    let pipeline = client.pipeline(PipelineOptions::default());
    for number in 0..200 {
        let _ticket = pipeline.append(numbered(number)).await.unwrap();
    }
    // The leader carries it to them.
    let _ticket = pipeline.append("small").await.unwrap();
    let _ticket = pipeline.append(vec![7; 300_000]).await.unwrap();
    for node in &cluster.nodes[1..] {
        until("the uploads", || node.uploads().len() == 201).await;
    }
    assert!(cluster.nodes[0].uploads().is_empty(), "the leader has them with the appends");
    until("the appends", || cluster.nodes[0].tail_len() == 202).await;
    cluster.nodes[0].commit();
    pipeline.flush().await.unwrap();
    for node in &cluster.nodes[1..] {
        for (upload, entry) in
            node.uploads().iter().zip(cluster.log.data().iter().filter(|it| it.payload != "small"))
        {
            assert_eq!((upload.writer, upload.sequence), (entry.writer, entry.sequence));
            assert_eq!(upload.parts, [loglog_proto::request::Part::of(&entry.payload)]);
            assert_eq!(upload.payloads, entry.payload);
        }
    }
}

#[tokio::test]
async fn s27_appends_resume_at_the_next_leader_each_once() {
    let mut cluster = FakeCluster::start().await;
    let client = client(&cluster, 1).await;
    append_all(&client, &cluster, 0..500).await;
    for (round, (old, new)) in [(0, 1), (1, 2), (2, 0), (0, 2)].into_iter().enumerate() {
        // Some lie in the log, not committed, when the leader dies.
        cluster.nodes[old].set(|behaviour| behaviour.commits = false);
        let pipeline = client.pipeline(PipelineOptions { entries_max: 100, ..PipelineOptions::default() });
        let before = cluster.log.data().len();
        let mut tickets = Vec::new();
        for number in 0..300 {
            tickets.push(pipeline.append(numbered(number)).await.unwrap());
        }
        until("appends", || cluster.nodes[old].tail_len() >= 50).await;
        cluster.kill(old, 20 * round).await;
        let died = Instant::now();
        sleep(Duration::from_millis(300)).await;
        cluster.lead(Some(new));
        tickets.remove(0).await.unwrap();
        let took = died.elapsed();
        println!("first acknowledgement {took:?} after the leader's death, of which 300 ms without a leader");
        assert!(took < Duration::from_secs(20), "{took:?}");
        timeout(LONG, pipeline.flush()).await.unwrap().unwrap();
        let data = cluster.log.data();
        assert_eq!(data.len() - before, 300);
        assert!(data[before..].iter().zip(0..).all(|(entry, number)| entry.payload == numbered(number)));
        cluster.nodes[old].set(|behaviour| behaviour.commits = true);
        cluster.nodes[old].resume().await;
    }
}

#[tokio::test]
async fn a_frozen_leader_is_left_once_another_says_that_it_leads() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 0).await;
    append_all(&client, &cluster, 0..10).await;
    cluster.nodes[0].set(|behaviour| behaviour.deaf = true);
    let began = Instant::now();
    let append = client.append("x");
    tokio::pin!(append);
    assert!(timeout(Duration::from_millis(900), &mut append).await.is_err(), "nobody else leads");
    cluster.lead(Some(2));
    timeout(LONG, append).await.unwrap().unwrap();
    println!("went on {:?} after the leader froze, 900 ms of it without another", began.elapsed());
    assert_eq!(cluster.log.data().len(), 11);
}

#[tokio::test]
async fn a_hung_follower_costs_neither_memory_nor_latency() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 0).await;
    append_all(&client, &cluster, 0..10).await;
    until("the lanes", || counts(&client, 3).connections == 1).await;
    cluster.nodes[2].set(|behaviour| behaviour.deaf = true);
    let bytes_max = 4 << 20;
    let pipeline = client.pipeline(PipelineOptions { bytes_max, ..PipelineOptions::default() });
    // Far more than sockets and budget hold.
    for _ in 0..1500 {
        let _ticket = timeout(LONG, pipeline.append(vec![7; 50_000])).await.unwrap().unwrap();
    }
    timeout(LONG, pipeline.flush()).await.unwrap().unwrap();
    let hung = counts(&client, 3);
    println!("hung follower: {hung:?}");
    assert!(hung.held_max <= bytes_max, "{hung:?}");
    assert!(hung.skipped > 0, "{hung:?}");
    // Acknowledged: what the socket has not begun to take is let go.
    assert!(hung.held <= (256 << 10) + 60_000, "{hung:?}");
    let mut took = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        client.append("x").await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    println!("appends beside a hung follower: median {:?}, longest {:?}", took[100], took[199]);
    assert!(took[100] < Duration::from_millis(50), "{:?}", took[100]);
    assert_eq!(cluster.log.data().len(), 1710);
    // The other one gets what it always got.
    assert!(counts(&client, 2).taken > hung.taken, "{:?}", counts(&client, 2));
}

#[tokio::test]
async fn a_follower_that_comes_back_gets_uploads_again() {
    let mut cluster = FakeCluster::start().await;
    let client = client(&cluster, 0).await;
    append_all(&client, &cluster, 0..100).await;
    until("the uploads", || !cluster.nodes[2].uploads().is_empty()).await;
    cluster.kill(2, 0).await;
    append_all(&client, &cluster, 0..100).await;
    cluster.nodes[2].resume().await;
    until("the lane", || counts(&client, 3).connections == 2).await;
    let before = cluster.nodes[2].uploads().len();
    // An append may be over before its upload was sent, and then it is not: so hold it.
    cluster.nodes[0].set(|behaviour| behaviour.commits = false);
    let (append, uploaded) = tokio::join!(client.append(numbered(7)), async {
        until("an upload", || cluster.nodes[2].uploads().len() > before).await;
        cluster.nodes[0].commit();
        cluster.nodes[2].uploads().pop().unwrap()
    });
    append.unwrap();
    assert_eq!(uploaded.payloads, numbered(7));
}

#[tokio::test]
async fn reads_see_what_was_acknowledged_on_a_node_that_lags() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 1).await;
    let lags_at = client.end(false).await.unwrap();
    cluster.nodes[1].lag_at(Some(lags_at));
    cluster.nodes[2].lag_at(Some(lags_at));
    let mut follow = client.follow(lags_at);
    let place = client.append("a").await.unwrap();
    // Beyond both followers' ends: the leader is found in the end.
    let data = timeout(LONG, client.read(place.offset, Length::new(100))).await.unwrap().unwrap();
    assert_eq!(data.end, place.end);
    assert_eq!(timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap().payload, "a");
    // What another client knows: this one asks the leader before it says that there is nothing.
    let other = self::client(&cluster, 2).await;
    let entries: Vec<Entry> = other.entries(Offset::ZERO..place.end).try_collect().await.unwrap();
    assert_eq!(entries.len(), 1);
    let third = self::client(&cluster, 2).await;
    assert!(third.read(place.end, Length::new(1)).await.unwrap().bytes.is_empty());
    // And waits while it lags.
    cluster.nodes[1].lag_at(None);
    cluster.nodes[2].lag_at(None);
    assert_eq!(client.end(true).await.unwrap(), place.end);
}

#[tokio::test]
async fn reads_move_on_from_a_node_that_is_slow_or_gone() {
    let mut cluster = FakeCluster::start().await;
    let client = client(&cluster, 1).await;
    client.append("a").await.unwrap();
    cluster.nodes[1].set(|behaviour| behaviour.silent = true);
    let began = Instant::now();
    assert!(!client.read(Offset::ZERO, Length::new(100)).await.unwrap().bytes.is_empty());
    println!("another node answered after {:?}", began.elapsed());
    cluster.kill(0, 0).await;
    // Without any leader.
    assert!(!client.read(Offset::ZERO, Length::new(100)).await.unwrap().bytes.is_empty());
    cluster.lead(None);
    let error = client.end(true).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("knows no leader"), "{error}");
}

#[tokio::test]
async fn any_endpoint_leads_to_all() {
    let mut cluster = FakeCluster::start().await;
    let client = client(&cluster, 2).await;
    client.append("a").await.unwrap();
    // The only one that was given dies, and the client knows the others.
    cluster.kill(2, 0).await;
    client.append("b").await.unwrap();
    assert!(!client.read(Offset::ZERO, Length::new(100)).await.unwrap().bytes.is_empty());
    // One of those given is dead at the beginning.
    let all = Client::connect(cluster.addresses()).await.unwrap();
    all.append("c").await.unwrap();
    assert_eq!(cluster.log.data().len(), 3);
}

/// Appends until the lanes are as `wanted`: nothing else makes a client ask who the members are.
async fn append_until(client: &Client, what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !wanted() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        client.append("x").await.unwrap();
    }
}

/// An append that is held until `node` has its upload.
async fn upload_to(client: &Client, cluster: &FakeCluster, node: &FakeNode) {
    let before = node.uploads().len();
    cluster.nodes[0].set(|behaviour| behaviour.commits = false);
    let (append, ()) = tokio::join!(client.append(numbered(7)), async {
        until("an upload", || node.uploads().len() > before).await;
        cluster.nodes[0].commit();
    });
    append.unwrap();
    cluster.nodes[0].set(|behaviour| behaviour.commits = true);
}

#[tokio::test]
async fn uploads_follow_the_members() {
    let cluster = FakeCluster::start().await;
    let builder = Client::builder().endpoints(cluster.addresses()).refresh(Duration::from_millis(20));
    let client = builder.connect().await.unwrap();
    append_all(&client, &cluster, 0..10).await;
    let id = |node| NodeId::new(node).unwrap();

    // One more.
    let fourth = FakeNode::of(cluster.log.clone(), id(4), Behaviour::default()).await;
    append_until(&client, "the fourth lane", || counts(&client, 4).connections == 1).await;
    upload_to(&client, &cluster, &fourth).await;

    // One less, which does not know yet and goes on to say that it is a member.
    cluster.log.leave(id(3));
    let has_lane = |node| client.hub().uploads().counts().iter().any(|(at, _)| *at == id(node));
    append_until(&client, "the end of the third lane", || !has_lane(3)).await;
    upload_to(&client, &cluster, &fourth).await;
    let before = cluster.nodes[2].uploads().len();
    upload_to(&client, &cluster, &fourth).await;
    assert_eq!(cluster.nodes[2].uploads().len(), before);

    // The same one elsewhere.
    let moved = FakeNode::of(cluster.log.clone(), id(4), Behaviour::default()).await;
    append_until(&client, "the lane to the new place", || moved.accepted() == 1).await;
    upload_to(&client, &cluster, &moved).await;
    let before = fourth.uploads().len();
    upload_to(&client, &cluster, &moved).await;
    assert_eq!(fourth.uploads().len(), before);
    append_all(&client, &cluster, 0..100).await;
}

#[tokio::test]
async fn a_lone_node_may_get_company() {
    let cluster = FakeCluster::start().await;
    let id = |node| NodeId::new(node).unwrap();
    (2..=3).for_each(|node| cluster.log.leave(id(node)));
    let builder = Client::builder().endpoints(cluster.nodes[0].address.as_str());
    let client = builder.refresh(Duration::from_millis(20)).connect().await.unwrap();
    append_all(&client, &cluster, 0..10).await;
    assert!(client.hub().uploads().counts().is_empty() && !client.hub().has_choice());
    cluster.log.join(MemberAddress { node: id(2), address: cluster.nodes[1].address.clone() });
    append_until(&client, "the lane", || counts(&client, 2).connections == 1).await;
    upload_to(&client, &cluster, &cluster.nodes[1]).await;
    assert!(client.hub().has_choice());
}
