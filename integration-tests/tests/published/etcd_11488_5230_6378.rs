//! etcd 5230, 6378 and 11488: after a crash the write-ahead log ended in a record that was torn, whose pages had come to the disk out of
//! order, or in zeros. Checksums did not match, and the member refused to start for good; with a majority so, the cluster was gone.
//!
//! Here: nodes die with a write group on its way, and of that group's pages any have come to the disk. Each starts by itself and at once, with
//! everything that was acknowledged, says what it has cut and keeps it aside.
//!
//! Fails if a torn tail is taken for corruption (S9), if a tail is judged by its first page or its last, or if what is behind the cut comes back (S5).

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use loglog_integration_tests::cluster::final_log;
use loglog_integration_tests::{Appender, RawClient};
use loglog_proto::entry::{Kind, Prefix, encode_into};
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use loglog_proto::{Length, Offset, Sequence, WriterId, crc32c};

use super::{DEADLINE, files, goes_on, start};
use crate::daemon;
use crate::repair::{check, fill, verify_compare};

const PAGE: usize = 4 << 10;

/// What the disk got of a group that was never synced, and whether a batch at its begin is whole.
type Tail = (&'static str, fn(&mut Vec<u8>), bool);

const TAILS: [Tail; 8] = [
    ("half of it", |group| group.truncate(14_000), true),
    ("a few bytes of it", |group| group.truncate(20), false),
    ("all but its last byte", |group| group.truncate(group.len() - 1), true),
    ("all but its first page", |group| zero(group, 0), false),
    ("all but a page in its midst", |group| zero(group, 3), true),
    ("its first page and its last", |group| (1..6).for_each(|page| zero(group, page)), true),
    ("its last page alone", |group| (0..6).for_each(|page| zero(group, page)), false),
    ("other bytes where it should be", |group| group.fill(0xa5), false),
];

/// A page of the file, which begins with the group's page for short.
fn zero(group: &mut [u8], page: usize) {
    let end = group.len().min((page + 1) * PAGE);
    group[page * PAGE..end].fill(0);
}

/// What a node would write next: batches of one entry, 28 KiB in all, none of which it was ever told to append.
fn group(header: &SegmentHeader, at: Offset) -> Vec<u8> {
    let mut group = Vec::new();
    for sequence in 1..=28u64 {
        let payload = vec![u8::try_from(sequence).unwrap(); 1000];
        let prefix = Prefix {
            kind: Kind::Data,
            last_of_batch: true,
            payload_len: 1000,
            term: header.term,
            writer: WriterId::new(0xdead),
            sequence: Sequence::new(sequence),
        };
        let here = at + Length::of(group.len());
        encode_into(&mut group, here, &prefix, &payload, crc32c(&payload));
    }
    group
}

/// Puts into the node's last file what a power cut might have left of a group behind `end`. `is_cut`: the file ends there.
fn leave_tail(data: &Path, end: Offset, tail: fn(&mut Vec<u8>), is_cut: bool) {
    let last = files(data).into_keys().rfind(|name| name.ends_with(".seg")).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(data.join(last)).unwrap();
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).unwrap();
    let header = SegmentHeader::decode(&header).unwrap();
    assert!(header.base_offset <= end, "the log ends in its last file");
    let mut group = group(&header, end);
    tail(&mut group);
    let at = HEADER as u64 + (end - header.base_offset).get();
    file.write_all_at(&group, at).unwrap();
    if is_cut {
        file.set_len(at + group.len() as u64).unwrap();
    }
}

/// Side files of torn tails.
fn kept_aside(data: &Path) -> usize {
    files(data).keys().filter(|name| name.starts_with("torn-")).count()
}

/// A node alone has nobody to ask: it must know by itself that this is no damage.
#[test]
fn etcd_11488_5230_6378_a_torn_zeroed_or_reordered_tail_keeps_no_node_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (data, options) = (dir.path().join("data"), daemon(&dir));
    let mut node = options.start();
    let mut sequence = 0;
    for (what, tail, has_whole_batch) in TAILS {
        for is_cut in [false, true] {
            let mut client = RawClient::connect(node.address());
            for _ in 0..10 {
                sequence += 1;
                append(&mut client, sequence);
            }
            let end = end_of(&mut client);
            let log = final_log(1, node.address(), end).log;
            node.kill();
            let before = kept_aside(&data);
            leave_tail(&data, end, tail, is_cut);
            let began = Instant::now();
            node = options.start();
            assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
            let mut client = RawClient::connect(node.address());
            let ResponseBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
            assert!(status.torn_bytes > 0, "{what}: {status:?}");
            assert!(kept_aside(&data) > before, "{what}: what was cut is kept aside");
            let now = final_log(1, node.address(), end_of(&mut client)).log;
            assert!(now.starts_with(&log), "{what}: what was acknowledged is there");
            // Whole batches that were never acknowledged may be there, as if their answer had got lost; none without its begin.
            let writes = now[log.len()..].windows(8).any(|it| it == 0xdead_u64.to_le_bytes());
            assert_eq!(writes, has_whole_batch, "{what}");
        }
        println!("{what}: it starts");
    }
    // And nothing of all that comes back.
    let mut client = RawClient::connect(node.address());
    let end = end_of(&mut client);
    let log = final_log(1, node.address(), end).log;
    node.kill();
    let node = options.start();
    assert_eq!(final_log(1, node.address(), end).log, log);
}

/// All three at once, each with another mess at its end.
#[test]
fn etcd_11488_5230_6378_tails_of_all_nodes_at_once_keep_no_cluster_from_starting() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    let messes: Vec<&Tail> = TAILS.iter().filter(|(_, _, has_whole_batch)| !has_whole_batch).collect();
    for round in 0..messes.len() {
        fill(&mut appender, 1, 20, 50_000);
        let (end, _) = cluster.converge();
        for id in cluster.ids() {
            cluster.kill(id);
        }
        for (at, id) in cluster.ids().enumerate() {
            let (_, tail, _) = messes[(round + at) % messes.len()];
            leave_tail(&cluster.data(id), end, *tail, at == 1);
        }
        for id in cluster.ids() {
            cluster.launch(id);
        }
        cluster.all_serve();
        check(&cluster, std::slice::from_ref(&appender));
        for id in cluster.ids() {
            assert!(cluster.status(id).unwrap().torn_bytes > 0, "node {id} has cut something");
        }
    }
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}

fn append(client: &mut RawClient, sequence: u64) {
    client.socket().set_read_timeout(Some(DEADLINE)).unwrap();
    let answer = client.ask(super::append(sequence, format!("entry {sequence}")));
    assert!(matches!(answer, ResponseBody::Appended(_)), "{answer:?}");
}

fn end_of(client: &mut RawClient) -> Offset {
    match client.ask(RequestBody::End { linearizable: true }) {
        ResponseBody::End { end, .. } => end,
        other => panic!("{other:?}"),
    }
}
