//! What nodes say to each other, and what it costs: payloads come from clients, and strangers get nothing.

use std::time::Duration;

use bytes::Bytes;
use loglog_integration_tests::appender::payload;
use loglog_integration_tests::cluster::CLUSTER;
use loglog_integration_tests::{Appender, Cluster, RawClient, until};
use loglog_proto::error::Code;
use loglog_proto::peer::{PEER_FRAME_BYTES_MAX, PEER_HELLO_BYTES_MAX, PEER_VERSION, PeerHello, PeerMessage};
use loglog_proto::request::{RequestBody, Upload};
use loglog_proto::response::ResponseBody;
use loglog_proto::{Index, Sequence, WriterId};

use crate::cluster::{Stranger, raft_id};

const DEADLINE: Duration = Duration::from_secs(20);

fn start() -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3)
}

fn upload(client: &mut RawClient, writer: u64, sequence: Sequence, payload: Bytes) {
    let crc = Some(loglog_proto::crc32c(&payload));
    let upload = Upload { writer: WriterId::new(writer), sequence, crc, payload };
    let answer = client.ask(RequestBody::Upload(upload));
    assert!(matches!(answer, ResponseBody::Uploaded), "{answer:?}");
}

/// Bytes that all nodes sent to each other, bytes and batches that they fetched.
fn traffic(cluster: &Cluster) -> (u64, u64, u64) {
    let all = cluster.ids().map(|id| cluster.status(id).expect("it answers"));
    all.fold((0, 0, 0), |(sent, fetched, fetches), it| {
        (sent + it.peer_payload_bytes, fetched + it.fetched_bytes, fetches + it.fetches)
    })
}

#[test]
fn a_client_that_uploads_to_all_costs_the_nodes_no_payload_traffic() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let mut appender = Appender::new(1, cluster.clients()).starting_at(cluster.client(leader));
    let mut followers: Vec<RawClient> =
        cluster.ids().filter(|id| *id != leader).map(|id| RawClient::connect(cluster.client(id))).collect();
    let mut payload_bytes = 0;
    for _ in 0..64 {
        let first = appender.upcoming().get();
        let payloads: Vec<Bytes> = (first..first + 64).map(|it| payload(1, it)).collect();
        for (sequence, payload) in (first..).zip(&payloads) {
            for follower in &mut followers {
                upload(follower, 1, Sequence::new(sequence), payload.clone());
            }
            payload_bytes += payload.len() as u64;
        }
        appender.append(&payloads, DEADLINE);
    }
    let _ = cluster.converge();
    let (sent, fetched, fetches) = traffic(&cluster);
    println!("{payload_bytes} payload bytes uploaded to all: {sent} sent between nodes, {fetches} fetches");
    assert!(sent < payload_bytes / 100 && fetched < payload_bytes / 100, "{sent}, {fetched}, {fetches}");

    // Who talks to the leader alone has the nodes carry it, and the leader shows that.
    let mut appender = Appender::new(2, cluster.clients()).starting_at(cluster.client(leader));
    let payloads: Vec<Bytes> = (1..=64).map(|it| payload(2, it)).collect();
    let length: u64 = payloads.iter().map(|it| it.len() as u64).sum();
    appender.append(&payloads, DEADLINE);
    let (end, _) = cluster.converge();
    let (sent_then, fetched_then, fetches_then) = traffic(&cluster);
    let leader = cluster.status(leader).expect("it answers");
    println!(
        "{length} payload bytes to the leader alone: {} sent between nodes, {} by the leader, {} fetches",
        sent_then - sent,
        leader.peer_payload_bytes,
        fetches_then - fetches
    );
    assert!(leader.peer_payload_bytes > 0 && fetches_then > fetches);
    assert_eq!(fetched_then - fetched, 2 * length, "each follower fetched each payload once");
    cluster.assert_identical_files(end);
}

/// A hello to node 1 as node 2 would say it.
fn hello(cluster: &Cluster) -> PeerMessage {
    PeerMessage::Hello(PeerHello {
        version: PEER_VERSION,
        cluster: CLUSTER.parse().unwrap(),
        from: raft_id(cluster, 2),
        to: raft_id(cluster, 1),
        membership: Index::new(1),
        life: 1,
        address: String::new(),
    })
}

#[test]
fn a_stranger_gets_no_room_for_a_large_frame() {
    let cluster = start();
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    for bytes in [PEER_HELLO_BYTES_MAX + 1, PEER_FRAME_BYTES_MAX] {
        let mut stranger = Stranger::at(&cluster, 1);
        stranger.0.send_bytes(&length(bytes)).unwrap();
        let refusal = stranger.refusal();
        assert!(refusal.code == Code::BadRequest && refusal.message.contains("limit of 4096"), "{refusal}");
    }
    let hello = hello(&cluster);
    let mut peer = Stranger::at(&cluster, 1);
    peer.say(&hello);
    assert!(matches!(peer.hear(), Some(PeerMessage::Accepted(_))));
    peer.0.send_frame(&vec![0xc0; PEER_HELLO_BYTES_MAX + 1]);
    let refusal = peer.refusal();
    assert!(!refusal.message.contains("limit"), "a peer's frame is taken whole: {refusal}");
    // Hello and a large frame in one go: the one is judged before the other.
    let mut peer = Stranger::at(&cluster, 1);
    let mut out = bytes::BytesMut::new();
    hello.encode(&mut out);
    out.extend_from_slice(&length(PEER_HELLO_BYTES_MAX + 1));
    peer.0.send_bytes(&out).unwrap();
    assert!(matches!(peer.hear(), Some(PeerMessage::Accepted(_))));
    peer.0.send_bytes(&vec![0xc0; PEER_HELLO_BYTES_MAX + 1]).unwrap();
    let refusal = peer.refusal();
    assert!(!refusal.message.contains("limit"), "{refusal}");
}

#[test]
fn strangers_never_keep_a_peer_out() {
    let cluster = start();
    let hello = hello(&cluster);
    let living = || {
        let actors = cluster.status(1).expect("it answers").actors;
        actors.iter().filter(|it| it.kind == "PeerConnection" && it.state == "running").count()
    };
    until("both peers are linked", DEADLINE, || living() >= 2);
    let mut strangers: Vec<Stranger> = (0..100).map(|_| Stranger::at(&cluster, 1)).collect();
    let mut peer = Stranger::at(&cluster, 1);
    peer.say(&hello);
    assert!(matches!(peer.hear(), Some(PeerMessage::Accepted(_))));
    until("the oldest strangers are gone", DEADLINE, || living() <= 40);
    assert_eq!(strangers[0].hear(), None, "the oldest was closed");
    strangers[99].say(&hello);
    assert!(matches!(strangers[99].hear(), Some(PeerMessage::Accepted(_))), "the newest was not");
    let mut appender = Appender::new(1, cluster.clients());
    appender.append(&[payload(1, 1)], DEADLINE);
    let _ = cluster.converge();
}
