//! What nodes say to each other, and what it costs: payloads come from clients, and strangers get nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_integration_tests::appender::payload;
use loglog_integration_tests::cluster::CLUSTER;
use loglog_integration_tests::{Appender, Cluster, RawClient, until};
use loglog_proto::entry::Kind;
use loglog_proto::error::Code;
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::peer::{PEER_FRAME_BYTES_MAX, PEER_HELLO_BYTES_MAX, PEER_VERSION, PeerHello, PeerMessage};
use loglog_proto::request::{Append, RequestBody, Upload};
use loglog_proto::response::ResponseBody;
use loglog_proto::walk::Entries;
use loglog_proto::{Index, Offset, Sequence, WriterId, crc32c};

use crate::cluster::{Stranger, raft_id};

const DEADLINE: Duration = Duration::from_secs(20);

fn start() -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3)
}

fn upload(client: &mut RawClient, writer: u64, sequence: Sequence, payload: Bytes) {
    let upload = Upload::one(WriterId::new(writer), sequence, payload);
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
        // The small ones come with the leader's messages, in the same batches.
        for (sequence, payload) in (first..).zip(&payloads).filter(|(_, it)| it.len() > INLINE_BYTES_MAX) {
            for follower in &mut followers {
                upload(follower, 1, Sequence::new(sequence), payload.clone());
            }
        }
        payload_bytes += payloads.iter().map(|it| it.len() as u64).sum::<u64>();
        appender.append(&payloads, DEADLINE);
    }
    let _ = cluster.converge();
    let (sent, fetched, fetches) = traffic(&cluster);
    println!(
        "{payload_bytes} payload bytes, the large ones uploaded to all: {sent} sent between nodes, {fetches} fetches"
    );
    assert!(sent < payload_bytes / 100 && fetched < payload_bytes / 100, "{sent}, {fetched}, {fetches}");

    // Who talks to the leader alone has the nodes fetch what is large, and the leader shows that.
    let mut appender = Appender::new(2, cluster.clients()).starting_at(cluster.client(leader));
    let payloads: Vec<Bytes> = (1..=64).map(|it| payload(2, it)).collect();
    let large = payloads.iter().map(Bytes::len).filter(|length| *length > INLINE_BYTES_MAX);
    let length = large.sum::<usize>() as u64;
    appender.append(&payloads, DEADLINE);
    let (end, _) = cluster.converge();
    let (sent_then, fetched_then, fetches_then) = traffic(&cluster);
    let leader = cluster.status(leader).expect("it answers");
    println!(
        "{length} bytes of large payloads to the leader alone: {} sent between nodes, {} by the leader, {} fetches",
        sent_then - sent,
        leader.peer_payload_bytes,
        fetches_then - fetches
    );
    assert!(leader.peer_payload_bytes > 0 && fetches_then > fetches);
    assert_eq!(fetched_then - fetched, 2 * length, "each follower fetched each large payload once");
    cluster.assert_identical_files(end);
}

#[test]
fn a_frozen_node_holds_up_no_fetch_from_the_leader() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let frozen = cluster.follower();
    let mut appender = Appender::new(1, cluster.clients()).starting_at(cluster.client(leader));
    appender.append(&[payload(1, 1)], DEADLINE);
    cluster.freeze(frozen);
    let began = Instant::now();
    for sequence in 2..=300 {
        appender.append(&[payload(1, sequence)], DEADLINE);
    }
    let took = began.elapsed();
    cluster.thaw(frozen);
    println!("300 appends to the leader alone, one of two followers frozen: {took:?}");
    assert!(took < Duration::from_secs(40));
    let (end, _) = cluster.converge();
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

/// An append whose bytes, if it brings any, are not those it means.
fn append(writer: u64, sequence: u64, means: &Bytes, brings: Option<Bytes>) -> RequestBody {
    RequestBody::Append(Append {
        writer: WriterId::new(writer),
        previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
        sequence: Sequence::new(sequence),
        known_end: Some(Offset::ZERO),
        expect_end: None,
        crc: Some(crc32c(means)),
        payload: brings,
    })
}

#[test]
fn s31_a_leader_without_the_right_bytes_gets_them_from_a_follower() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let mut clients: Vec<(u32, RawClient)> =
        cluster.ids().map(|id| (id, RawClient::connect(cluster.client(id)))).collect();
    let wrong = Bytes::from_static(b"not what was meant");
    let mut expected = Vec::new();
    for (writer, at_leader, brings) in [
        // Other bytes uploaded to it; none; damaged on the way with the append; both.
        (1, Some(wrong.clone()), None),
        (2, None, None),
        (3, None, Some(wrong.clone())),
        (4, Some(wrong.clone()), Some(wrong.clone())),
    ] {
        let right = Bytes::from(format!("what writer {writer} means"));
        for (id, client) in &mut clients {
            let bytes = if *id == leader { at_leader.clone() } else { Some(right.clone()) };
            if let Some(bytes) = bytes {
                upload(client, writer, Sequence::new(1), bytes);
            }
        }
        let began = Instant::now();
        // What comes behind it waits for it instead of being out of order.
        let behind = (2..=5).map(|sequence| (sequence, Bytes::from(format!("{writer}, then {sequence}"))));
        let behind: Vec<(u64, Bytes)> = behind.collect();
        let first = append(writer, 1, &right, brings);
        let rest = behind.iter().map(|(sequence, it)| append(writer, *sequence, it, Some(it.clone())));
        let (_, client) = clients.iter_mut().find(|(id, _)| *id == leader).unwrap();
        let ids = client.send_together(std::iter::once(first).chain(rest)).unwrap();
        for _ in &ids {
            let answer = client.receive().expect("an answer");
            assert!(matches!(answer.body, ResponseBody::Appended(_)), "writer {writer}: {answer:?}");
        }
        println!(
            "writer {writer}: five appends, the first one's payload at the followers: {:?}",
            began.elapsed()
        );
        expected
            .extend(std::iter::once((writer, right)).chain(behind.into_iter().map(|(_, it)| (writer, it))));
    }
    let (end, _) = cluster.converge();
    cluster.assert_identical_files(end);
    let log = cluster.log_of(leader, end);
    let (mut walk, mut found) = (Entries::new(Offset::ZERO, &log), Vec::new());
    while let Some(entry) = walk.next_entry().unwrap() {
        if entry.prefix.kind == Kind::Data {
            found.push((entry.prefix.writer.get(), Bytes::copy_from_slice(entry.payload)));
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn s31_what_nobody_has_is_refused_soon_holds_nobody_up_and_writes_nothing() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let (right, wrong) = (Bytes::from_static(b"what was meant"), Bytes::from_static(b"what came"));
    for id in cluster.ids() {
        upload(&mut RawClient::connect(cluster.client(id)), 1, Sequence::new(1), wrong.clone());
    }
    let mut client = RawClient::connect(cluster.client(leader));
    // The leader's own entry, which opens its term, lies before this one.
    assert!(matches!(client.ask(append(9, 1, &right, Some(right.clone()))), ResponseBody::Appended(_)));
    let (before, _) = cluster.converge();
    for brings in [None, Some(wrong.clone())] {
        let began = Instant::now();
        assert_eq!(client.refused(append(1, 1, &right, brings)), Code::Damaged);
        println!("damaged everywhere: told after {:?}", began.elapsed());
    }
    assert_eq!(client.refused(append(2, 1, &right, None)), Code::NotUploaded);
    assert_eq!(cluster.converge().0, before, "nothing was written");

    // A follower that does not answer makes the search last; nobody else waits for it.
    let frozen = cluster.follower();
    cluster.freeze(frozen);
    let began = Instant::now();
    let mut searching = RawClient::connect(cluster.client(leader));
    searching.send(append(3, 1, &right, None)).unwrap();
    searching.send(append(3, 2, &right, Some(right.clone()))).unwrap();
    let mut other = RawClient::connect(cluster.client(leader));
    for sequence in 1..=10 {
        let answer = other.ask(append(4, sequence, &right, Some(right.clone())));
        assert!(matches!(answer, ResponseBody::Appended(_)), "{answer:?}");
    }
    println!("ten appends of another writer meanwhile: {:?}", began.elapsed());
    let mut codes = Vec::new();
    for _ in 0..2 {
        let ResponseBody::Refused(refusal) = searching.receive().unwrap().body else { panic!("not refused") };
        codes.push(refusal.code);
    }
    let took = began.elapsed();
    println!("refused after {took:?}: {codes:?}");
    // Nobody has written for this writer yet, so what stood behind it names an entry that is not there.
    codes.sort_by_key(|code| code.number());
    assert!(codes.contains(&Code::NotUploaded) && took >= Duration::from_millis(500), "{codes:?}, {took:?}");
    cluster.thaw(frozen);
    let (end, _) = cluster.converge();
    cluster.assert_identical_files(end);
}
