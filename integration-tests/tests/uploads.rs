//! Payloads reach the nodes in every way that clients may choose, wrong ones included: the log is the same everywhere, and holds what
//! the appends say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_integration_tests::appender::{Appender, payload};
use loglog_integration_tests::{Cluster, RawClient, until};
use loglog_proto::error::Code;
use loglog_proto::request::{Append, Part, RequestBody, Upload};
use loglog_proto::response::ResponseBody;
use loglog_proto::{Offset, Sequence, WriterId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::check;

const RESUME: Duration = Duration::from_secs(20);

fn start() -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3)
}

/// A connection to each node.
fn connect(cluster: &Cluster) -> BTreeMap<u32, RawClient> {
    cluster.ids().map(|id| (id, RawClient::connect(cluster.client(id)))).collect()
}

/// Uploads `payload` to one node, which must take it.
fn upload(client: &mut RawClient, writer: u64, sequence: Sequence, payload: Bytes) {
    upload_all(client, writer, sequence, &[payload]);
}

/// The same with many, of which `sequence` is the first.
fn upload_all(client: &mut RawClient, writer: u64, sequence: Sequence, payloads: &[Bytes]) {
    let parts = payloads.iter().map(|payload| Part::of(payload)).collect();
    let upload =
        Upload { writer: WriterId::new(writer), sequence, parts, payloads: payloads.concat().into() };
    match client.ask(RequestBody::Upload(upload)) {
        ResponseBody::Uploaded => {}
        other => panic!("not uploaded: {other:?}"),
    }
}

/// Chance, from a seed that is printed; `LOGLOG_TEST_SEED` repeats it.
fn drawn() -> StdRng {
    let seed = std::env::var("LOGLOG_TEST_SEED").ok().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// As many bytes, but others.
fn others_than(payload: &Bytes) -> Bytes {
    payload.iter().map(|byte| byte ^ 0x55).collect()
}

#[test]
fn s31_files_are_identical_however_payloads_came() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let follower = cluster.follower();
    let mut nodes = connect(&cluster);
    let mut appenders = Vec::new();
    // With the append only; to all before the append, which names them; to all, other bytes to one follower; to the leader only.
    for (writer, to, other_bytes_to) in [
        (1, vec![], None),
        (2, vec![1, 2, 3], None),
        (3, vec![1, 2, 3], Some(follower)),
        (4, vec![leader], None),
    ] {
        let mut appender = Appender::new(writer, cluster.clients()).starting_at(cluster.client(leader));
        appender.without_payload = !to.is_empty();
        let began = Instant::now();
        for _ in 0..300 {
            let sequence = appender.upcoming();
            let payload = payload(writer, sequence.get());
            for id in &to {
                let is_other = other_bytes_to == Some(*id);
                let bytes = if is_other { others_than(&payload) } else { payload.clone() };
                upload(nodes.get_mut(id).unwrap(), writer, sequence, bytes);
            }
            appender.append(&[payload], RESUME);
        }
        println!(
            "300 appends, uploads to {to:?}, other bytes to {other_bytes_to:?}: {:?} each",
            began.elapsed() / 300
        );
        appenders.push(appender);
        assert_eq!(check(&cluster, &appenders), 300 * appenders.len());
    }
    let (mut appender, began) = (Appender::new(5, cluster.clients()), Instant::now());
    for _ in 0..100 {
        let first = appender.upcoming().get();
        appender.append(&(first..first + 64).map(|it| payload(5, it)).collect::<Vec<_>>(), RESUME);
    }
    println!("6,400 appends, 64 in flight, no uploads: {:?} each", began.elapsed() / 6400);
    appenders.push(appender);
    check(&cluster, &appenders);
    assert!(appenders.iter().all(|it| it.retries <= 2), "nothing went wrong but the search for the leader");
}

#[test]
fn s31_uploads_to_any_of_the_nodes_make_the_same_log() {
    let cluster = start();
    let mut rng = drawn();
    let (leader, _) = cluster.leader();
    let mut nodes = connect(&cluster);
    let mut appender = Appender::new(1, cluster.clients()).starting_at(cluster.client(leader));
    let (mut subsets, began) = (BTreeMap::<Vec<u32>, u32>::new(), Instant::now());
    for _ in 0..600 {
        let sequence = appender.upcoming();
        let payload = payload(1, sequence.get());
        let to: Vec<u32> = cluster.ids().filter(|_| rng.random_bool(0.5)).collect();
        for id in &to {
            upload(nodes.get_mut(id).unwrap(), 1, sequence, payload.clone());
        }
        // What the leader holds the append need not bring along, and may.
        appender.without_payload = to.contains(&leader) && rng.random_bool(0.7);
        appender.append(&[payload], RESUME);
        *subsets.entry(to).or_default() += 1;
    }
    println!("600 appends, {:?} each, uploads to {subsets:?}", began.elapsed() / 600);
    assert_eq!(subsets.len(), 8, "every subset of the nodes");
    assert_eq!(check(&cluster, &[appender]), 600);
}

#[test]
fn s33_uploads_of_what_the_leader_brings_are_let_go_of() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let mut nodes = connect(&cluster);
    let mut appender = Appender::new(1, cluster.clients()).starting_at(cluster.client(leader));
    for _ in 0..50 {
        let first = appender.upcoming().get();
        let payloads: Vec<Bytes> = (first..first + 4).map(|it| payload(1, it)).collect();
        for (_, node) in nodes.iter_mut().filter(|(id, _)| **id != leader) {
            for (sequence, payload) in (first..).zip(&payloads) {
                upload(node, 1, Sequence::new(sequence), payload.clone());
            }
        }
        appender.append(&payloads, RESUME);
    }
    let began = Instant::now();
    for id in cluster.ids() {
        // Long before they expire.
        let is_empty = || cluster.status(id).is_some_and(|it| it.upload_bytes == 0);
        until(&format!("node {id} to hold no upload"), Duration::from_secs(10), is_empty);
    }
    println!("nothing is left of 200 uploads to each follower after {:?}", began.elapsed());
}

#[test]
fn s31_uploads_of_many_payloads_make_the_same_log() {
    let cluster = start();
    let mut rng = drawn();
    let (leader, _) = cluster.leader();
    let mut nodes = connect(&cluster);
    let mut appender = Appender::new(1, cluster.clients()).starting_at(cluster.client(leader));
    let (mut appended, mut replaced) = (0, 0);
    for _ in 0..150 {
        let (first, count) = (appender.upcoming().get(), rng.random_range(1..40));
        let payloads: Vec<Bytes> = (first..first + count).map(|it| payload(1, it)).collect();
        let to: Vec<u32> = cluster.ids().filter(|_| rng.random_bool(0.7)).collect();
        for id in &to {
            let node = nodes.get_mut(id).unwrap();
            upload_all(node, 1, Sequence::new(first), &payloads);
            // Other bytes for some of them take the place of all; so does what begins before them, of which the first part was appended.
            if *id != leader && rng.random_bool(0.3) {
                let from = rng.random_range(0..payloads.len());
                let others: Vec<Bytes> = payloads[from..].iter().map(others_than).collect();
                upload_all(node, 1, Sequence::new(first + from as u64), &others);
                replaced += 1;
            }
            if *id != leader && first > 1 && rng.random_bool(0.3) {
                let both: Vec<Bytes> = (first - 1..first + count).map(|it| payload(1, it)).collect();
                upload_all(node, 1, Sequence::new(first - 1), &both);
            }
        }
        appender.without_payload = to.contains(&leader) && rng.random_bool(0.7);
        appender.append(&payloads, RESUME);
        appended += payloads.len();
    }
    println!("{appended} appends, {replaced} uploads replaced by other bytes");
    assert!(replaced > 0);
    assert_eq!(check(&cluster, &[appender]), appended);
    let held = |id| cluster.status(id).map(|status| status.upload_bytes);
    let followers = cluster.ids().filter(|id| *id != leader);
    println!("held still: {:?}", followers.map(held).collect::<Vec<_>>());
}

#[test]
fn s31_wrong_bytes_at_any_of_the_nodes_never_reach_the_log() {
    let cluster = start();
    let (leader, _) = cluster.leader();
    let followers: Vec<u32> = cluster.ids().filter(|id| *id != leader).collect();
    let all: Vec<u32> = cluster.ids().collect();
    let mut nodes = connect(&cluster);
    // A client whose bytes do not match the CRC it names is told so, wherever it uploads them.
    for id in &all {
        let mut damaged = Upload::one(WriterId::new(9), Sequence::new(1), Bytes::from_static(b"bytes"));
        damaged.parts[0].crc ^= 1;
        assert_eq!(nodes.get_mut(id).unwrap().refused(RequestBody::Upload(damaged)), Code::Damaged);
    }
    let mut appenders = Vec::new();
    // Who holds other bytes than the append's CRC says, and who the right ones.
    for (writer, wrong, right) in [
        (1, followers.clone(), vec![leader]),
        (2, vec![followers[0]], vec![leader]),
        (3, vec![leader], followers.clone()),
        (4, vec![leader, followers[0]], vec![followers[1]]),
        (5, all.clone(), vec![]),
    ] {
        let mut appender = Appender::new(writer, cluster.clients()).starting_at(cluster.client(leader));
        let (mut accepted, mut damaged) = (0, 0);
        for _ in 0..50 {
            let sequence = appender.upcoming();
            let payload = payload(writer, sequence.get());
            for (ids, bytes) in [(&wrong, others_than(&payload)), (&right, payload.clone())] {
                for id in ids {
                    upload(nodes.get_mut(id).unwrap(), writer, sequence, bytes.clone());
                }
            }
            let before = cluster.status(leader).unwrap().committed;
            let append = Append {
                writer: WriterId::new(writer),
                previous: (sequence.get() > 1).then(|| Sequence::new(sequence.get() - 1)),
                sequence,
                known_end: Some(Offset::ZERO).filter(|_| sequence.get() == 1),
                expect_end: None,
                crc: Some(loglog_proto::crc32c(&payload)),
                payload: None,
            };
            match nodes.get_mut(&leader).unwrap().ask(RequestBody::Append(append)) {
                ResponseBody::Appended(_) => accepted += 1,
                // A leader may look for the right bytes elsewhere, and need not. Then nothing is written, and the sequence is free.
                ResponseBody::Refused(refusal)
                    if refusal.code == Code::Damaged && wrong.contains(&leader) =>
                {
                    damaged += 1;
                    assert!(!refusal.code.may_have_happened());
                    assert_eq!(cluster.status(leader).unwrap().committed, before, "nothing is written");
                }
                other => panic!("wrong bytes at {wrong:?}, right ones at {right:?}: {other:?}"),
            }
            // Either way it is in the log after this, once: a repeat is answered with its place.
            appender.append(&[payload], RESUME);
        }
        println!(
            "wrong bytes at {wrong:?}, right ones at {right:?}: {accepted} of 50 appended, {damaged} refused (Damaged)"
        );
        assert!(!right.is_empty() || accepted == 0, "nobody had the bytes");
        appenders.push(appender);
        assert_eq!(check(&cluster, &appenders), 50 * appenders.len());
    }
}
