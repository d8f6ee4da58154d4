//! nats-server 7549: single flipped bits in the data files of a minority. A damaged node was elected, left out what it could not read, and
//! the others followed it: hundreds of thousands of acknowledged records were gone from the midst of the log.
//!
//! Here: one bit flips on a follower, which is then made the leader. Whoever reads through it gets every entry; who copies from it is not
//! given the damaged part, but gets it elsewhere; and it mends itself once a reader has told it.
//!
//! Fails if the client serves what it did not check, if a copy is not checked before it is sent and before it is used (S34), or if a
//! damaged node drops or cuts anything (S10).

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use loglog_client::Client;
use loglog_integration_tests::{Appender, Cluster, until};
use loglog_proto::Offset;
use loglog_proto::entry::Kind;
use loglog_proto::header::HEADER;
use loglog_proto::walk::Entries;
use loglog_storage::verify;

use super::{DEADLINE, goes_on, lead, replace, start};
use crate::repair::{fill, flip, has_repaired, segments, verify_compare};

#[test]
fn nats_7549_one_flipped_bit_and_leadership_steered_to_it_lose_nothing() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 4 << 20);
    let (end, _) = cluster.converge();
    let damaged = cluster.follower();
    let (sound, _) = cluster.leader();
    let third = cluster.ids().find(|id| ![damaged, sound].contains(id)).unwrap();

    // While it runs, in a segment that nobody will look at by himself.
    flip(&segments(&cluster, damaged)[1].1, 500_000);
    lead(&cluster, damaged);
    assert!(!verify(&cluster.data(damaged)).unwrap().is_sound());
    let log = cluster.log_of(sound, end);
    let differing = cluster.log_of(damaged, end).iter().zip(&log).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 1, "the bit is flipped in what it serves");
    let entries = entries(&log);
    assert!(entries.len() > 1000, "{}", entries.len());
    fill(&mut appender, 1, 20, 50_000);

    // A node that lost everything has to be given all of the log while that one leads.
    cluster.kill(third);
    cluster.wipe(third);
    cluster.join(third);
    replace(&cluster, third);
    assert_eq!(cluster.leader().0, damaged, "it led all the time");
    assert!(cluster.log_of(third, end) == log, "nothing of the damage was copied, nothing left out");
    fill(&mut appender, 1, 20, 50_000);
    assert!(
        read_all(&cluster, damaged, end).iter().all(|read| *read == entries),
        "who reads through it gets every entry, and no other"
    );
    until("it was told so, and mends itself", DEADLINE, || has_repaired(&cluster, damaged));
    goes_on(&cluster, &mut appender);

    // While it is down, in the last segment; it leads as soon as it is back.
    let (end, _) = cluster.converge();
    let damaged = cluster.follower();
    cluster.kill(damaged);
    let (base, path) = segments(&cluster, damaged).into_iter().rfind(|(base, _)| *base < end.get()).unwrap();
    flip(&path, HEADER + usize::try_from(end.get() - base).unwrap() / 2);
    cluster.restart(damaged);
    assert!(has_repaired(&cluster, damaged));
    lead(&cluster, damaged);
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}

type Entry = (Offset, Bytes);

fn entries(log: &[u8]) -> Vec<Entry> {
    let (mut walk, mut found) = (Entries::new(Offset::ZERO, log), Vec::new());
    while let Some(entry) = walk.next_entry().unwrap() {
        if entry.prefix.kind == Kind::Data {
            found.push((entry.offset, Bytes::copy_from_slice(entry.payload)));
        }
    }
    found
}

/// Every entry before `end`, by the client library, which begins with node `id`: as one who follows, and as one who reads a range.
fn read_all(cluster: &Cluster, id: u32, end: Offset) -> [Vec<Entry>; 2] {
    let mut nodes = vec![cluster.client(id).to_owned()];
    nodes.extend(cluster.ids().filter(|it| *it != id).map(|it| cluster.client(it).to_owned()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = async {
        let client = Client::connect(nodes).await.unwrap();
        let (mut follow, mut seen, mut at) = (client.follow(Offset::ZERO), Vec::new(), Offset::ZERO);
        while at < end {
            let entry = follow.next().await.unwrap().expect("another node has it");
            at = entry.end;
            seen.push((entry.offset, entry.payload));
        }
        let range = client.entries(Offset::ZERO..end).map(|entry| entry.expect("another node has it"));
        [seen, range.map(|entry| (entry.offset, entry.payload)).collect().await]
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), read).await }).expect("it is read")
}
