//! nats-server 7567: one node lost its power, and with it the end of its log that it had acknowledged but not synced. It came back while
//! those who had the entries were paused, and made a majority with others that had never had them: two histories.
//!
//! What is promised here: a power cut takes nothing that was synced, and only that counts; and a node whose log is short of its mark knows
//! that it is damaged, helps nobody to lead, and waits for one that has the bytes (S9, S10). What is not (docs/reliability.md): that
//! a node notices when its disk loses *synced* bytes above the mark. The mark follows within a tick of idleness.

use std::path::{Path, PathBuf};

use loglog_integration_tests::sim::Fault;
use loglog_integration_tests::{Appender, Cluster, until};
use loglog_proto::Offset;
use loglog_proto::header::HEADER;
use loglog_storage::verify;

use super::{DEADLINE, append_is_not_acknowledged, never, others, simulate, start};
use crate::repair::{check, fill, has_repaired, segments, verify_compare};

/// Three nodes, of which any loses its power, stands still or is cut off, at any time.
///
/// Fails if a follower says that it holds what it has not synced.
#[test]
fn nats_7567_a_power_cut_of_one_and_pauses_of_others_make_no_second_history() {
    use Fault::{CrashInDisk, CrashInRecovery, Partition, Pause, PowerCut};
    simulate(0..10, 3, &[PowerCut, CrashInDisk, CrashInRecovery, Pause, Partition]);
}

/// One node was down. Of the two that went on without it, one comes back with the end of its log lost, below its mark, and meets only the
/// one that never had it.
///
/// Fails if a log that ends short of the mark is taken for a torn one.
#[test]
fn nats_7567_a_node_that_lost_its_tail_makes_no_majority_that_forgets() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 100, 1 << 20);
    type Harm = fn(&Path, u64);
    let harms: [(&str, Harm); 3] = [
        ("its last file is cut short", |path, at| {
            std::fs::File::options().write(true).open(path).unwrap().set_len(at).unwrap();
        }),
        ("its last file ends in zeros", |path, at| {
            let length = std::fs::metadata(path).unwrap().len();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(at).unwrap();
            file.set_len(length).unwrap();
        }),
        ("its last file is gone", |path, _| std::fs::remove_file(path).unwrap()),
    ];
    for (how, harm) in harms {
        let _ = cluster.converge();
        let (lossy, _) = cluster.leader();
        let [behind, whole] = others(&cluster, lossy)[..] else { panic!("three nodes") };
        cluster.kill(behind);
        fill(&mut appender, 1, 50, 200_000);
        let end = appender.acknowledged.last().unwrap().end;
        let marked = || verify(&cluster.data(lossy)).unwrap().mark.is_some_and(|mark| mark.offset >= end);
        until("the mark has followed", DEADLINE, marked);
        cluster.kill(lossy);
        cluster.kill(whole);
        let (base, path) = last_file(&cluster, lossy, end);
        harm(&path, HEADER as u64 + (end.get() - base) / 2);
        assert!(!verify(&cluster.data(lossy)).unwrap().is_sound(), "{how}");
        let standing = |cluster: &Cluster| {
            let state = verify(&cluster.data(lossy)).unwrap().state.unwrap();
            (state.term, state.vote)
        };
        let before = standing(&cluster);

        cluster.launch(lossy);
        cluster.restart(behind);
        until("it knows what it lacks", DEADLINE, || cluster.says(lossy, "waiting to repair the log"));
        let said = append_is_not_acknowledged(&cluster, behind, &appender);
        never("the two of them make a majority", || {
            cluster.says(lossy, "serving") || cluster.status(behind).is_some_and(|it| it.role == "leader")
        });
        assert_eq!(standing(&cluster), before, "it votes for nobody");
        let alone = cluster.status(behind).unwrap().committed;
        assert!(alone < end.get(), "the other one never had it: {alone}");
        println!("{how}: node {lossy} waits, node {behind} answered an append with: {said}");

        cluster.restart(whole);
        cluster.serves(lossy);
        assert!(has_repaired(&cluster, lossy), "{how}");
        fill(&mut appender, 1, 20, 50_000);
        check(&cluster, std::slice::from_ref(&appender));
    }
    verify_compare(&mut cluster);
}

/// The file that holds the last bytes before `end`, and its base.
fn last_file(cluster: &Cluster, id: u32, end: Offset) -> (u64, PathBuf) {
    segments(cluster, id).into_iter().rfind(|(base, _)| *base < end.get()).unwrap()
}
