//! Disks that freeze: writes and syncs to them do not return until they thaw.

use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::loop_fs::Kind;
use loglog_integration_tests::{Appender, Cluster, Layout, Load, LoadOptions, until};

use crate::cluster::{check, same_logs};
use crate::power_cuts::disks;
use crate::repair::fill;

const DEADLINE: Duration = Duration::from_secs(60);
/// A new leader is wanted after some 2 s, most of which its predecessor takes to know that its disk hangs.
const RESUME: Duration = Duration::from_secs(20);
/// How long nothing must be acknowledged, or others must go on.
const FROZEN: Duration = Duration::from_secs(2);

fn judge(cluster: &Cluster, load: Load, kind: &str) {
    load.progress(500, DEADLINE);
    let mut finished = load.finish();
    finished.history.fault(kind);
    let (end, took) = cluster.converge();
    let facts = finished.check(same_logs(cluster, end), &Enough::acks(1000).faults(kind, 1));
    println!("converged in {took:?}: {facts}");
}

#[test]
fn s01_a_node_whose_disk_is_frozen_acknowledges_nothing_and_goes_on_when_it_thaws() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let mut cluster = Cluster::laid_out(Layout::new(env!("CARGO_BIN_EXE_loglogd"), 1));
        let Some(disks) = disks(&cluster, &[kind]) else { return };
        cluster.restart(1);
        let load = Load::start(cluster.clients(), LoadOptions { writers: 4, in_flight: 32, readers: 1 });
        load.progress(500, DEADLINE);
        let frozen = disks[&1].freeze();
        let mut last = (load.acknowledged(), Instant::now());
        // What was synced before may be answered still.
        until("nothing more is acknowledged", DEADLINE, || {
            let acknowledged = load.acknowledged();
            if acknowledged != last.0 {
                last = (acknowledged, Instant::now());
            }
            last.1.elapsed() > FROZEN
        });
        assert_eq!(load.acknowledged(), last.0);
        let since = Instant::now();
        drop(frozen);
        println!("{kind:?}: appends went on {:?} after the thaw", load.resumed(since, DEADLINE).first);
        judge(&cluster, load, "frozen disk");
        drop(disks);
    }
}

#[test]
fn s01_a_leader_whose_disk_is_frozen_does_not_hold_up_the_others() {
    let mut cluster = Cluster::laid_out(Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3));
    let Some(disks) = disks(&cluster, &[Kind::Ext4, Kind::Xfs, Kind::Ext4]) else { return };
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.all_serve();
    let load = Load::start(cluster.clients(), LoadOptions { writers: 4, in_flight: 32, readers: 3 });
    load.progress(500, DEADLINE);
    let (leader, _) = cluster.leader();
    let frozen = disks[&leader].freeze();
    let since = Instant::now();
    let resumed = load.resumed(since, RESUME);
    println!(
        "the disk of node {leader}, which led, froze: appends went on after {:?}, everybody's after {:?}",
        resumed.first, resumed.all
    );
    let until_then = Instant::now() + FROZEN;
    while Instant::now() < until_then {
        load.resumed(Instant::now(), RESUME);
    }
    assert_ne!(cluster.leader().0, leader, "another leads");
    drop(frozen);
    judge(&cluster, load, "frozen disk");
    drop(disks);
}

/// Its last payloads came with their appends, so no other node was given them by a client.
#[test]
fn s01_s34_what_only_a_leader_with_a_frozen_disk_has_is_given_to_the_others_from_memory() {
    let mut cluster = Cluster::laid_out(Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3));
    let Some(disks) = disks(&cluster, &[Kind::Ext4, Kind::Xfs, Kind::Ext4]) else { return };
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.all_serve();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 50, 1 << 20);
    let (leader, _) = cluster.leader();
    let frozen = disks[&leader].freeze();
    let since = Instant::now();
    fill(&mut appender, 1, 50, 1 << 20);
    println!("the disk of node {leader}, which led, froze: a MiB was appended after {:?}", since.elapsed());
    assert_ne!(cluster.leader().0, leader, "another leads");
    drop(frozen);
    assert!(check(&cluster, &[appender]) > 100);
    drop(disks);
}
