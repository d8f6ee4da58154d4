//! Three real nodes: they form one log, and nothing acknowledged is lost, doubled, reordered or changed, whichever of them dies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use loglog_integration_tests::appender::{Appender, check_log, payload};
use loglog_integration_tests::cluster::CLUSTER;
use loglog_integration_tests::history::FinalLog;
use loglog_integration_tests::{Cluster, RawClient, raw, until, within};
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::peer::{
    Announcement, PEER_FRAME_BYTES_MAX, PEER_VERSION, PeerHello, PeerMessage, RaftKind, RaftMessage,
};
use loglog_proto::request::{Append, PROTOCOL_VERSION, Read, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId, Offset, RaftId, Sequence, Term, WriterId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A new leader is wanted within 2 s.
const RESUME: Duration = Duration::from_secs(20);

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_loglogd")
}

fn start() -> Cluster {
    Cluster::start(program(), 3)
}

/// Appends `count` entries, one after the other.
fn append(appender: &mut Appender, writer: u64, count: u64) {
    for _ in 0..count {
        let payload = payload(writer, appender.upcoming().get());
        appender.append(&[payload], RESUME);
    }
}

/// What each node serves, which is the same on all.
pub(crate) fn same_logs(cluster: &Cluster, end: Offset) -> Vec<FinalLog> {
    let logs = cluster.final_logs(end);
    let is_same = |it: &FinalLog| (it.start, &it.log) == (logs[0].start, &logs[0].log);
    assert!(
        logs.len() == cluster.ids().count() && logs.iter().all(is_same),
        "every node serves the same bytes"
    );
    logs
}

/// A client that waits for each of its small appends makes thousands of batches in no time, and few bytes.
#[test]
fn a_node_that_missed_thousands_of_small_batches_comes_back() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let away = cluster.follower();
    cluster.kill(away);
    let (leader, _) = cluster.leader();
    let (mut client, began) = (RawClient::connect(cluster.client(leader)), Instant::now());
    for sequence in 1..=6000 {
        let append = raw::append(sequence, Some(Bytes::from_static(b"7")));
        assert!(matches!(client.ask(RequestBody::Append(append)), ResponseBody::Appended(_)), "{sequence}");
    }
    println!("6,000 appends, one after the other, in {:?}", began.elapsed());
    cluster.restart(away);
    let (end, took) = cluster.converge();
    cluster.assert_identical_files(end);
    println!("caught up in {took:?}");
    // And it counts for the quorum again.
    let other = cluster.ids().find(|id| *id != away && *id != leader).unwrap();
    cluster.kill(other);
    let append = raw::append(6001, Some(Bytes::from_static(b"7")));
    assert!(matches!(client.ask(RequestBody::Append(append)), ResponseBody::Appended(_)));
}

/// All nodes agree, hold the same files, and those hold what was acknowledged. Returns how many entries.
pub(crate) fn check(cluster: &Cluster, appenders: &[Appender]) -> usize {
    let (end, took) = cluster.converge();
    let segments = cluster.assert_identical_files(end);
    let count = check_log(same_logs(cluster, end), appenders);
    println!(
        "converged in {took:?}: {count} entries, {end} bytes, {segments} segments, the same on every node"
    );
    count
}

#[test]
fn s24_a_cluster_forms_only_with_all_its_nodes() {
    let mut cluster = Cluster::prepare(program(), 3);
    cluster.launch(1);
    cluster.launch(2);
    for id in [1, 2] {
        until("it says whom it waits for", Duration::from_secs(50), || {
            cluster.says(id, "still waiting for nodes")
        });
        let missing =
            cluster.records(id).iter().filter_map(|it| it["missing"].as_str().map(str::to_owned)).next_back();
        assert_eq!(missing.as_deref(), Some(cluster.peer(3)));
        assert!(!cluster.says(id, "serving"));
        let served = RawClient::open(cluster.client(id), Duration::from_millis(300));
        assert!(served.is_err(), "nothing is served before the cluster is there");
    }
    cluster.launch(3);
    cluster.all_serve();
    let (leader, took) = cluster.leader();
    println!("node {leader} leads {took:?} after all nodes serve");
    let mut appender = Appender::new(1, cluster.clients());
    append(&mut appender, 1, 20);
    let _ = cluster.converge();
    let incarnations: Vec<String> = cluster.ids().map(|id| cluster.status(id).unwrap().incarnation).collect();
    for is_peaceful in [true, false] {
        for id in cluster.ids() {
            if is_peaceful { cluster.stop(id) } else { cluster.kill(id) }
        }
        for id in cluster.ids() {
            cluster.launch(id);
        }
        cluster.all_serve();
        check(&cluster, std::slice::from_ref(&appender));
        let again: Vec<String> = cluster.ids().map(|id| cluster.status(id).unwrap().incarnation).collect();
        assert_eq!(again, incarnations);
        append(&mut appender, 1, 20);
    }
    check(&cluster, &[appender]);
}

/// Runs appenders, and readers that never see a byte change, while `disturb` does what it does. It is given a way to wait until
/// that many more appends are acknowledged. Then all nodes are up again, and all must be as acknowledged.
fn under_load(
    cluster: &mut Cluster,
    writers: u64,
    window: u64,
    readers: u64,
    disturb: impl FnOnce(&mut Cluster, &dyn Fn(u64) -> Duration),
) -> usize {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let nodes = cluster.clients();
    let appender = |writer| {
        let mut appender = Appender::new(writer, nodes.clone());
        while !stop.load(Ordering::Relaxed) {
            let first = appender.upcoming().get();
            let payloads: Vec<Bytes> = (first..first + window).map(|it| payload(writer, it)).collect();
            appender.append(&payloads, 2 * RESUME);
            count.fetch_add(window, Ordering::Relaxed);
        }
        appender
    };
    let reader = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut seen, mut client): (Vec<u8>, Option<RawClient>) = (Vec::new(), None);
        while !stop.load(Ordering::Relaxed) {
            // From any node, another one every now and then.
            if client.is_none() || rng.random_ratio(1, 20) {
                let node = &nodes[rng.random_range(0..nodes.len())];
                client = RawClient::open(node, Duration::from_millis(500)).ok();
            }
            let offset = Offset::new(seen.len() as u64);
            let read = Read { offset, limit: rng.random_range(1..200_000), wait_ms: 50, min_end: None };
            match client.as_mut().map(|it| it.try_ask(RequestBody::Read(read))) {
                Some(Ok(ResponseBody::Data(data))) => {
                    assert_eq!(data.offset, offset);
                    seen.extend_from_slice(&data.bytes);
                }
                // Behind the others, or just coming back.
                Some(Ok(ResponseBody::Refused(refusal)))
                    if matches!(refusal.code, Code::BeyondEnd | Code::Unavailable) =>
                {
                    client = None;
                }
                Some(Ok(other)) => panic!("not read: {other:?}"),
                Some(Err(_)) | None => client = None,
            }
        }
        seen
    };
    let progress = |more| {
        let wanted = count.load(Ordering::Relaxed) + more;
        until("appends go on", RESUME, || count.load(Ordering::Relaxed) >= wanted)
    };
    let (appenders, seen) = std::thread::scope(|scope| {
        let appenders: Vec<_> = (1..=writers).map(|writer| scope.spawn(move || appender(writer))).collect();
        let readers: Vec<_> = (0..readers).map(|seed| scope.spawn(move || reader(seed))).collect();
        // A panic here must not leave the others running.
        let disturbed =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| disturb(cluster, &progress)));
        stop.store(true, Ordering::Relaxed);
        let appenders: Vec<_> = appenders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let seen: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        if let Err(panic) = disturbed {
            std::panic::resume_unwind(panic);
        }
        let appenders: Vec<Appender> =
            appenders.into_iter().map(|it| it.expect("an appender's end")).collect();
        (appenders, seen.into_iter().map(|it| it.expect("a reader's end")).collect::<Vec<_>>())
    });
    let count = check(cluster, &appenders);
    let log = cluster.log_of(1, cluster.converge().0);
    for seen in seen {
        assert!(log.starts_with(&seen), "a reader saw a prefix of the log");
        println!("a reader saw {} bytes", seen.len());
    }
    count
}

#[test]
fn appends_resume_after_the_leaders_death() {
    let mut cluster = start();
    let count = under_load(&mut cluster, 4, 1, 0, |cluster, progress| {
        for _ in 0..3 {
            progress(200);
            let (leader, _) = cluster.leader();
            cluster.kill(leader);
            println!("node {leader} killed: appends resumed within {:?}", progress(4));
            progress(200);
            let took = cluster.restart(leader);
            println!("node {leader} is back after {took:?}");
        }
        progress(200);
    });
    assert!(count > 1000);
}

#[test]
fn s13_any_actor_of_any_node_may_panic() {
    /// The restarts of a node all of whose `actors` run: one that is down cannot be told to panic.
    fn restarts(cluster: &Cluster, node: u32, actors: &[&str]) -> Option<u64> {
        let status = cluster.status(node)?;
        let runs = |name| status.actors.iter().any(|it| it.name == name && it.state == "running");
        actors.iter().all(|name| runs(*name)).then_some(status.restarts)
    }
    let mut cluster = start();
    under_load(&mut cluster, 4, 8, 1, |cluster, progress| {
        let (leader, _) = cluster.leader();
        let follower = cluster.follower();
        for (node, other) in [(follower, leader), (leader, follower)] {
            let link = format!("peer-link-{other}");
            let actors = ["fetcher", "peer-listener", &link, "upload-buffer", "segment-writer", "consensus"];
            for actor in actors {
                progress(200);
                let (before, _) = within("all of them run", RESUME, || restarts(cluster, node, &actors));
                cluster.inject(node, actor, "handler");
                println!("{actor} of node {node} panicked: 200 more appends within {:?}", progress(200));
                // The others may have carried on without it.
                until("it is restarted", RESUME, || restarts(cluster, node, &actors) > Some(before));
            }
        }
    });
}

#[test]
fn a_follower_that_was_away_for_50_mb_catches_up() {
    let mut cluster = start();
    let follower = cluster.follower();
    let mut appender = Appender::new(1, cluster.clients());
    let large = |_| Bytes::from(vec![b'.'; 100_000]);
    appender.append(&(0..8).map(large).collect::<Vec<_>>(), RESUME);
    cluster.kill(follower);
    let began = Instant::now();
    for _ in 0..63 {
        appender.append(&(0..8).map(large).collect::<Vec<_>>(), RESUME);
    }
    println!("50 MB appended in {:?}", began.elapsed());
    let came_back = Instant::now();
    cluster.restart(follower);
    let (end, _) = cluster.converge();
    println!("the follower has caught up with {end} bytes {:?} after it was started", came_back.elapsed());
    let segments = cluster.assert_identical_files(end);
    assert!(segments > 30 && end.get() > 50_000_000, "{segments} segments, {end}");
}

#[test]
fn a_follower_that_was_away_for_many_small_batches_catches_up() {
    let mut cluster = start();
    let follower = cluster.follower();
    cluster.kill(follower);
    under_load(&mut cluster, 4, 1, 0, |cluster, progress| {
        println!("5,000 appends within {:?}", progress(5000));
        cluster.restart(follower);
        let behind = Instant::now();
        until("the follower has caught up", RESUME, || {
            let [ours, theirs] = [follower, cluster.leader().0].map(|id| cluster.status(id));
            ours.zip(theirs).is_some_and(|(ours, theirs)| ours.committed + 10_000 > theirs.committed)
        });
        println!("the follower has caught up {:?} after it serves, while appends went on", behind.elapsed());
    });
}

/// One connection to a peer port.
pub(crate) struct Stranger(pub(crate) RawClient);

impl Stranger {
    pub(crate) fn at(cluster: &Cluster, id: u32) -> Self {
        Self(RawClient::silent(cluster.peer(id)))
    }

    pub(crate) fn say(&mut self, message: &PeerMessage) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        self.0.send_bytes(&out).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Option<PeerMessage> {
        let frame = self.0.receive_frame().expect("an answer or the end");
        frame.map(|frame| PeerMessage::decode(&frame).expect("a peer's message"))
    }

    /// The refusal that is said; the connection must end after it.
    pub(crate) fn refusal(mut self) -> Refusal {
        let Some(PeerMessage::Refused(refusal)) = self.hear() else { panic!("not refused") };
        assert_eq!(self.hear(), None, "the connection ends");
        refusal
    }
}

pub(crate) fn raft_id(cluster: &Cluster, id: u32) -> RaftId {
    let incarnation = u32::from_str_radix(&cluster.status(id).unwrap().incarnation, 16).unwrap();
    RaftId::new(NodeId::new(id).unwrap(), Incarnation::new(incarnation).unwrap())
}

#[test]
fn s22_a_stranger_at_the_peer_port_is_refused_and_told_why() {
    let cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    append(&mut appender, 1, 5);
    let id: ClusterId = CLUSTER.parse().unwrap();
    let (own, friend) = (raft_id(&cluster, 1), raft_id(&cluster, 2));
    let hello = PeerHello {
        version: PEER_VERSION,
        cluster: id,
        from: friend,
        to: own,
        membership: Index::new(1),
        life: 1,
        address: String::new(),
    };
    let wrong = Incarnation::new(friend.incarnation().get() ^ 1).unwrap_or(Incarnation::new(2).unwrap());
    let cases = [
        (PeerHello { cluster: ClusterId::new(5).unwrap(), ..hello.clone() }, Code::WrongCluster, "cluster"),
        (PeerHello { version: PEER_VERSION + 1, ..hello.clone() }, Code::Version, "version"),
        (
            PeerHello { from: RaftId::new(NodeId::new(9).unwrap(), wrong), ..hello.clone() },
            Code::NotMember,
            "no member",
        ),
        (
            PeerHello { from: RaftId::new(friend.node(), wrong), ..hello.clone() },
            Code::NotMember,
            "no member",
        ),
        (PeerHello { to: RaftId::new(own.node(), wrong), ..hello.clone() }, Code::WrongNode, "this is node"),
        (PeerHello { from: own, ..hello.clone() }, Code::NotMember, "no member"),
    ];
    for (hello, code, says) in cases {
        let mut stranger = Stranger::at(&cluster, 1);
        stranger.say(&PeerMessage::Hello(hello.clone()));
        let refusal = stranger.refusal();
        assert!(refusal.code == code && refusal.message.contains(says), "{hello:?}: {refusal}");
    }
    let announcement = Announcement {
        version: PEER_VERSION,
        cluster: id,
        node: friend.node(),
        incarnation: wrong,
        is_formed: false,
        segment_bytes_max: Length::new(1 << 20),
    };
    for (announcement, code) in [
        (announcement, Code::NotMember),
        (Announcement { node: own.node(), ..announcement }, Code::WrongNode),
        (Announcement { node: NodeId::new(4).unwrap(), ..announcement }, Code::NotMember),
    ] {
        let mut stranger = Stranger::at(&cluster, 1);
        stranger.say(&PeerMessage::Announce(announcement));
        assert_eq!(stranger.refusal().code, code, "{announcement:?}");
    }
    let heartbeat = |from| RaftMessage {
        kind: RaftKind::Heartbeat,
        from,
        to: own,
        term: Term::new(u32::MAX),
        log_term: Term::ZERO,
        index: Index::ZERO,
        commit: Index::new(u64::MAX),
        commit_term: Term::ZERO,
        reject: false,
        reject_hint: Index::ZERO,
        context: Bytes::new(),
        entries: Vec::new(),
    };
    // Nobody is heard before the handshake, and on a link only for himself.
    let mut stranger = Stranger::at(&cluster, 1);
    stranger.say(&PeerMessage::Raft(Box::new(heartbeat(friend))));
    assert_eq!(stranger.refusal().code, Code::BadRequest);
    let mut stranger = Stranger::at(&cluster, 1);
    stranger.say(&PeerMessage::Hello(hello));
    assert!(matches!(stranger.hear(), Some(PeerMessage::Accepted(_))));
    stranger.say(&PeerMessage::Raft(Box::new(heartbeat(raft_id(&cluster, 3)))));
    assert_eq!(stranger.refusal().code, Code::WrongNode);
    for (garbage, says) in [
        (&b"\0\0\0\x15GET / HTTP/1.1, please"[..], ""),
        (&u32::try_from(PEER_FRAME_BYTES_MAX + 1).unwrap().to_be_bytes(), "limit"),
        (&u32::MAX.to_be_bytes(), "limit"),
        (b"\0\0\0\0", ""),
    ] {
        let mut stranger = Stranger::at(&cluster, 1);
        stranger.0.send_bytes(garbage).unwrap();
        let refusal = stranger.refusal();
        assert!(refusal.code == Code::BadRequest && refusal.message.contains(says), "{garbage:?}: {refusal}");
    }
    let mut client = RawClient::silent(cluster.peer(1));
    let hello = RequestBody::Hello { version: PROTOCOL_VERSION, cluster: None, credentials: None };
    client.send(hello).unwrap();
    let refusal = Stranger(client).refusal();
    assert!(refusal.message.contains("for nodes, not for clients"), "{refusal}");

    let mut peer = Stranger(RawClient::silent(cluster.client(1)));
    peer.say(&PeerMessage::Hello(PeerHello {
        version: PEER_VERSION,
        cluster: id,
        from: friend,
        to: own,
        membership: Index::new(1),
        life: 1,
        address: String::new(),
    }));
    let Some(PeerMessage::Refused(refusal)) = peer.hear() else { panic!("not refused") };
    println!("a peer at the client port is told: {refusal}");
    assert_eq!(refusal.code, Code::BadRequest);

    append(&mut appender, 1, 5);
    check(&cluster, &[appender]);
    for id in cluster.ids() {
        let status = cluster.status(id).unwrap();
        assert_eq!((status.restarts, status.term), (0, cluster.status(1).unwrap().term), "{status:?}");
    }
}

#[test]
fn s22_a_wiped_node_is_refused_and_the_others_serve_on() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    append(&mut appender, 1, 20);
    let wiped = cluster.follower();
    cluster.kill(wiped);
    cluster.wipe(wiped);
    cluster.launch(wiped);
    append(&mut appender, 1, 20);
    let status = cluster.ended(wiped);
    assert_eq!(status.code(), Some(1));
    let said =
        cluster.records(wiped).iter().filter_map(|it| it["error"].as_str().map(str::to_owned)).next_back();
    let said = said.expect("it says why");
    println!("the wiped node says: {said}");
    assert!(said.contains("incarnation") && said.contains("directory was lost"), "{said}");
    let told = cluster.ids().filter(|id| cluster.is_up(*id) && cluster.says(*id, "refused a peer")).count();
    assert!(told > 0, "who refused it says so too");
    append(&mut appender, 1, 20);
}

#[test]
fn a_follower_names_the_leader() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let follower = cluster.follower();
    let mut client = RawClient::connect(cluster.client(follower));
    let append = Append {
        writer: WriterId::new(7),
        previous: None,
        sequence: Sequence::new(1),
        known_end: Some(Offset::ZERO),
        expect_end: None,
        crc: None,
        payload: Some(Bytes::from_static(b"payload")),
    };
    let ResponseBody::Refused(refusal) = client.ask(RequestBody::Append(append.clone())) else { panic!() };
    assert_eq!(
        (refusal.code, &refusal.detail),
        (Code::NotLeader, &Detail::Text(cluster.client(leader).to_owned()))
    );
    assert_eq!(client.refused(RequestBody::End { linearizable: true }), Code::NotLeader);
    let mut client = RawClient::connect(cluster.client(leader));
    let ResponseBody::Appended(_) = client.ask(RequestBody::Append(append)) else { panic!() };
}

#[test]
fn s01_without_a_majority_nothing_is_acknowledged_and_reads_go_on() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    append(&mut appender, 1, 20);
    let (end, _) = cluster.converge();
    let (leader, _) = cluster.leader();
    let others: Vec<u32> = cluster.ids().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.kill(*id);
    }
    let mut client = RawClient::connect(cluster.client(leader));
    let unsure = |sequence| {
        RequestBody::Append(Append {
            writer: WriterId::new(1),
            previous: Some(Sequence::new(sequence - 1)),
            sequence: Sequence::new(sequence),
            known_end: None,
            expect_end: None,
            crc: None,
            payload: Some(payload(1, sequence)),
        })
    };
    let began = Instant::now();
    let code = client.refused(unsure(21));
    println!("without a majority an append was answered {code} after {:?}", began.elapsed());
    assert!(code == Code::Interrupted && code.may_have_happened(), "{code}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let began = Instant::now();
    let code = client.refused(unsure(21));
    println!("and the next one {code} after {:?}", began.elapsed());
    assert!(code == Code::NotLeader && !code.may_have_happened(), "{code}");
    assert_eq!(client.refused(RequestBody::End { linearizable: true }), Code::NotLeader);
    assert_eq!(check_log(cluster.final_logs(end), std::slice::from_ref(&appender)), 20);
    let read = Read { offset: end, limit: 100, wait_ms: 100, min_end: None };
    let ResponseBody::Data(data) = client.ask(RequestBody::Read(read)) else { panic!() };
    assert!(data.bytes.is_empty() && data.end == end, "what is not committed is not read: {data:?}");

    // One of them comes back: that is a majority, and the open outcome resolves under the same sequence.
    cluster.restart(others[0]);
    let (_, took) = within("appends go on", RESUME, || {
        append(&mut appender, 1, 5);
        Some(())
    });
    println!("one node back: appends resumed within {took:?}");
    cluster.restart(others[1]);
    assert_eq!(check(&cluster, &[appender]), 25);
}
