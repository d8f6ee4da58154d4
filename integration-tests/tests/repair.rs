//! A node whose log is damaged repairs it from the others, before it votes or leads (S10).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_integration_tests::appender::{Appender, check_log, payload};
use loglog_integration_tests::{Cluster, RawClient, until};
use loglog_proto::header::HEADER;
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::{Sequence, WriterId};
use loglog_storage::verify;

use crate::cluster::same_logs;

const DEADLINE: Duration = Duration::from_secs(30);

fn start() -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3)
}

/// Appends, `window` in flight, until the log has grown by about `bytes`.
pub(crate) fn fill(appender: &mut Appender, writer: u64, window: u64, bytes: u64) {
    let end = |appender: &Appender| appender.acknowledged.last().map_or(0, |last| last.end.get());
    let wanted = end(appender) + bytes;
    while end(appender) < wanted {
        let first = appender.upcoming().get();
        let payloads: Vec<Bytes> = (first..first + window).map(|it| payload(writer, it)).collect();
        appender.append(&payloads, DEADLINE);
    }
}

/// A node's segment files, with their base offsets, in order.
pub(crate) fn segments(cluster: &Cluster, id: u32) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(cluster.data(id))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .map(|path| {
            (u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap(), path.clone())
        })
        .collect();
    found.sort();
    found
}

fn side_files(cluster: &Cluster, id: u32) -> usize {
    let names = std::fs::read_dir(cluster.data(id)).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("lost-")).count()
}

/// Flips a bit.
pub(crate) fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}

/// All nodes agree and hold the same files, which hold what was acknowledged.
pub(crate) fn check(cluster: &Cluster, appenders: &[Appender]) {
    let (end, _) = cluster.converge();
    cluster.assert_identical_files(end);
    check_log(same_logs(cluster, end), appenders);
}

/// Every byte of every node's directory is sound, and all are the same.
pub(crate) fn verify_compare(cluster: &mut Cluster) {
    for id in cluster.ids() {
        cluster.stop(id);
    }
    let dirs = cluster.ids().map(|id| cluster.data(id));
    let verified =
        Command::new(env!("CARGO_BIN_EXE_loglog")).args(["verify", "--compare"]).args(dirs).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
}

pub(crate) fn has_repaired(cluster: &Cluster, id: u32) -> bool {
    cluster.says(id, "the log is damaged") && cluster.says(id, "the log is repaired")
}

#[test]
fn s10_a_damaged_follower_repairs_itself_and_joins() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 5 << 20);
    let _ = cluster.converge();
    type Harm = fn(&[(u64, PathBuf)], u64);
    let harms: [(&str, Harm); 9] = [
        ("a bit in the middle of a sealed segment", |segments, _| flip(&segments[2].1, 500_000)),
        ("a bit in the last segment below the mark", |segments, end| {
            let (base, path) = segments.iter().rfind(|(base, _)| *base < end).unwrap();
            flip(path, HEADER + usize::try_from(end - base).unwrap() / 2);
        }),
        ("a header", |segments, _| flip(&segments[1].1, 20)),
        ("a whole sealed segment, gone", |segments, _| std::fs::remove_file(&segments[2].1).unwrap()),
        ("the first segment and the next, gone", |segments, _| {
            std::fs::remove_file(&segments[0].1).unwrap();
            std::fs::remove_file(&segments[1].1).unwrap();
        }),
        ("a sealed segment, cut short", |segments, _| {
            std::fs::File::options().write(true).open(&segments[1].1).unwrap().set_len(300_000).unwrap();
        }),
        ("a sealed segment, too long", |segments, _| {
            use std::io::Write;
            let mut file = std::fs::File::options().append(true).open(&segments[1].1).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("the last segment's header and all its entries", |segments, end| {
            let (_, path) = segments.iter().rfind(|(base, _)| *base < end).unwrap();
            std::fs::write(path, vec![0; 1 << 20]).unwrap();
        }),
        ("zeros, headers and bits everywhere", |segments, end| {
            std::fs::write(&segments[0].1, b"nothing of it").unwrap();
            flip(&segments[1].1, 70);
            flip(&segments[2].1, 20);
            std::fs::remove_file(&segments[3].1).unwrap();
            let (_, path) = segments.iter().rfind(|(base, _)| *base < end).unwrap();
            flip(path, HEADER);
        }),
    ];
    for (what, harm) in harms {
        // Something to catch up with, too; and the last segment holds enough.
        fill(&mut appender, 1, 100, 200_000);
        let (end, _) = cluster.converge();
        let follower = cluster.follower();
        cluster.stop(follower);
        let before = side_files(&cluster, follower);
        harm(&segments(&cluster, follower), end.get());
        assert!(!verify(&cluster.data(follower)).unwrap().is_sound(), "{what}");
        fill(&mut appender, 1, 100, 100_000);
        let took = cluster.restart(follower);
        assert!(has_repaired(&cluster, follower), "{what}");
        check(&cluster, std::slice::from_ref(&appender));
        let aside = side_files(&cluster, follower) - before;
        println!("{what}: node {follower} serves after {took:?}, {aside} files kept aside");
        assert!(aside > 0 || what.ends_with("gone"), "{what}");
    }
    verify_compare(&mut cluster);
}

#[test]
fn s10_with_nobody_to_ask_it_waits_and_neither_votes_nor_leads() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 3 << 20);
    let _ = cluster.converge();
    let damaged = cluster.follower();
    let others: Vec<u32> = cluster.ids().filter(|id| *id != damaged).collect();
    for id in cluster.ids() {
        cluster.stop(id);
    }
    flip(&segments(&cluster, damaged)[1].1, 1000);
    let standing = |cluster: &Cluster| {
        let state = verify(&cluster.data(damaged)).unwrap().state.unwrap();
        (state.term, state.vote)
    };
    let before = standing(&cluster);
    cluster.launch(damaged);
    until("it says that it waits", DEADLINE, || cluster.says(damaged, "waiting to repair the log"));
    // One other node is a majority only with the damaged one, which must not help it to lead before it is repaired.
    let began = Instant::now();
    until("it has waited for several elections", DEADLINE, || began.elapsed() > Duration::from_secs(4));
    assert_eq!(standing(&cluster), before, "it votes for nobody, not for itself either");
    assert!(!cluster.says(damaged, "serving") && !cluster.says(damaged, "this node's standing"));
    let told = |cluster: &Cluster| {
        let said = cluster.records(damaged);
        said.iter()
            .filter(|it| it["msg"].as_str().is_some_and(|it| it.starts_with("waiting to repair")))
            .count()
    };
    assert_eq!(told(&cluster), 1, "told once");
    let began = Instant::now();
    cluster.stop(damaged);
    println!("it stopped while it waited within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(standing(&cluster), before);

    cluster.launch(damaged);
    until("it waits again", DEADLINE, || cluster.says(damaged, "waiting to repair the log"));
    // That one cannot lead alone, but it holds what is damaged.
    cluster.launch(others[0]);
    cluster.serves(damaged);
    assert!(has_repaired(&cluster, damaged));
    cluster.serves(others[0]);
    fill(&mut appender, 1, 100, 100_000);
    cluster.restart(others[1]);
    check(&cluster, &[appender]);
    verify_compare(&mut cluster);
}

#[test]
fn s10_it_repairs_itself_while_appends_go_on() {
    let mut cluster = start();
    let (stop, grown) = (AtomicBool::new(false), AtomicU64::new(0));
    let nodes = cluster.clients();
    let appenders: Vec<Appender> = std::thread::scope(|scope| {
        let appender = |writer| {
            let (stop, grown, nodes) = (&stop, &grown, nodes.clone());
            scope.spawn(move || {
                let mut appender = Appender::new(writer, nodes);
                while !stop.load(Ordering::Relaxed) {
                    fill(&mut appender, writer, 20, 10_000);
                    grown.fetch_max(appender.acknowledged.last().unwrap().end.get(), Ordering::Relaxed);
                }
                appender
            })
        };
        let threads: Vec<_> = (1..=2).map(appender).collect();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let more = |bytes: u64| {
                let wanted = grown.load(Ordering::Relaxed) + bytes;
                until("appends go on", DEADLINE, || grown.load(Ordering::Relaxed) >= wanted);
            };
            more(4 << 20);
            for is_killed in [true, false] {
                let follower = cluster.follower();
                if is_killed {
                    cluster.kill(follower)
                } else {
                    cluster.stop(follower)
                }
                let files = segments(&cluster, follower);
                flip(&files[1].1, 400_000);
                std::fs::remove_file(&files[2].1).unwrap();
                more(1 << 20);
                let took = cluster.restart(follower);
                assert!(has_repaired(&cluster, follower));
                println!("node {follower} repaired itself and serves after {took:?}, while appends went on");
                more(1 << 20);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let appenders = threads.into_iter().map(|it| it.join().expect("an appender's end")).collect();
        worked.unwrap();
        appenders
    });
    check(&cluster, &appenders);
    verify_compare(&mut cluster);
}

#[test]
fn s10_a_restart_in_place_that_finds_damage_repairs_it_too() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 3 << 20);
    let (end, _) = cluster.converge();
    let follower = cluster.follower();
    let whole = cluster.log_of(follower, end);
    flip(&segments(&cluster, follower)[1].1, 1000);
    cluster.inject(follower, "segment-writer", "handler");
    until("it is repaired", DEADLINE, || has_repaired(&cluster, follower));
    fill(&mut appender, 1, 100, 100_000);
    let generation = || cluster.status(follower).map(|status| status.generation);
    until("the same process, another life of its storage", DEADLINE, || generation() == Some(2));
    check(&cluster, std::slice::from_ref(&appender));

    // With nobody to ask it goes on serving what it has, and can be stopped.
    let others: Vec<u32> = cluster.ids().filter(|id| *id != follower).collect();
    for id in &others {
        cluster.stop(*id);
    }
    flip(&segments(&cluster, follower)[0].1, 2000);
    cluster.inject(follower, "segment-writer", "handler");
    until("it waits", DEADLINE, || cluster.says(follower, "waiting to repair the log"));
    let served = cluster.log_of(follower, end);
    let differing = served.iter().zip(&whole).filter(|(a, b)| a != b).count();
    assert!(served.len() == whole.len() && differing <= 1, "reads go on; who reads checks CRCs");
    assert_ne!(cluster.status(follower).unwrap().role, "leader");
    let began = Instant::now();
    cluster.stop(follower);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.all_serve();
    assert!(has_repaired(&cluster, follower));
    check(&cluster, &[appender]);
    verify_compare(&mut cluster);
}

#[test]
fn s10_what_the_others_disproved_is_cut() {
    let mut cluster = start();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 100, 100_000);
    let (end, _) = cluster.converge();
    let (leader, _) = cluster.leader();
    let others: Vec<u32> = cluster.ids().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.freeze(*id);
    }
    // Several segments that nobody else ever holds.
    let mut client = RawClient::connect(cluster.client(leader));
    for sequence in 1..=50 {
        let append = Append {
            writer: WriterId::new(99),
            previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
            sequence: Sequence::new(sequence),
            known_end: Some(end),
            expect_end: None,
            crc: None,
            payload: Some(Bytes::from(vec![b'x'; 100_000])),
        };
        client.send(RequestBody::Append(append)).unwrap();
    }
    let uncommitted = |cluster: &Cluster| {
        segments(cluster, leader).into_iter().filter(|(base, _)| *base > end.get()).collect::<Vec<_>>()
    };
    until("the leader has written it", DEADLINE, || uncommitted(&cluster).len() >= 2);
    cluster.kill(leader);
    for id in &others {
        cluster.thaw(*id);
    }
    fill(&mut appender, 1, 50, 50_000);
    flip(&uncommitted(&cluster)[0].1, 1000);
    let took = cluster.restart(leader);
    assert!(has_repaired(&cluster, leader));
    assert!(cluster.says(leader, "cut what the other nodes have proved"));
    println!("node {leader} cut what was never committed and serves after {took:?}");
    fill(&mut appender, 1, 50, 50_000);
    check(&cluster, &[appender]);
    verify_compare(&mut cluster);
}
