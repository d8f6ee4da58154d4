//! Clocks that are wrong, differ, and jump: the log does not look at them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::loop_fs::has;
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, until};
use loglog_proto::NodeId;
use loglog_proto::manage::Change;
use serde_json::Value;

use crate::cluster::same_logs;

const DEADLINE: Duration = Duration::from_secs(60);
/// More than a year: the records of such a node name another one.
const AHEAD: &str = "+400d";
/// As far the other way.
const BEHIND: &str = "-400d";

/// What makes a process read `FAKETIME`'s clock. [`None`], with a word why, if that is not installed.
fn preload() -> Option<BTreeMap<String, String>> {
    if !has("faketime") {
        println!("skipped: needs `faketime`, which is not installed");
        return None;
    }
    let output = Command::new("faketime").args(["-f", "+0", "env"]).output().expect("faketime runs").stdout;
    let output = String::from_utf8(output).expect("names");
    let library = output.lines().find_map(|it| it.strip_prefix("LD_PRELOAD=")).expect("it preloads");
    // No kernel lets the monotonic clock jump.
    let names = ["FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC", "FAKETIME_NO_CACHE"];
    let mut environment: BTreeMap<_, _> = names.iter().map(|it| ((*it).to_owned(), "1".to_owned())).collect();
    environment.insert("LD_PRELOAD".to_owned(), library.to_owned());
    Some(environment)
}

/// The year of a node's last record.
fn year(cluster: &Cluster, id: u32) -> i32 {
    year_of(cluster.records(id).last().expect("it said something"))
}

fn year_of(record: &Value) -> i32 {
    record["ts"].as_str().unwrap()[..4].parse().unwrap()
}

#[test]
fn clocks_that_differ_and_jump_by_more_than_a_year_change_nothing() {
    let Some(preload) = preload() else { return };
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, AHEAD).unwrap();
    let mut layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3);
    for (id, place) in &mut layout.places {
        place.environment = preload.clone();
        let (name, value) = match id {
            1 => ("FAKETIME", AHEAD),
            2 => ("FAKETIME", BEHIND),
            _ => ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        };
        place.environment.insert(name.to_owned(), value.to_owned());
    }
    let mut cluster = Cluster::form(layout);
    assert!(year(&cluster, 1) > year(&cluster, 2) + 1, "the clocks differ");
    let load = Load::start(cluster.clients(), LoadOptions { writers: 4, in_flight: 32, readers: 3 });
    for jump in [BEHIND, AHEAD, BEHIND, "+0"] {
        // Each leads in its turn, the one whose clock jumps too.
        for leader in 1..=3 {
            let change = Change::Lead(NodeId::new(leader).unwrap());
            until("it leads", DEADLINE, || cluster.manage(&change).is_ok() && cluster.leader().0 == leader);
            load.progress(200, DEADLINE);
        }
        std::fs::write(&clock, jump).unwrap();
        let resumed = load.resumed(Instant::now(), DEADLINE);
        println!(
            "the clock of node 3, which led, jumped to {jump}: appends went on after {:?}",
            resumed.first
        );
    }
    // What it wrote into its log, as leads came and went, shows that the clock jumped while it ran.
    let years: BTreeSet<i32> = cluster.records(3).iter().map(year_of).collect();
    println!("node 3 wrote of the years {years:?}");
    assert!(years.len() > 1, "{years:?}");
    cluster.kill(3);
    std::fs::write(&clock, BEHIND).unwrap();
    cluster.restart(3);
    assert!(year(&cluster, 1) > year(&cluster, 3) + 1, "the clock of node 3 is another one now");
    load.progress(500, DEADLINE);
    let mut finished = load.finish();
    (0..5).for_each(|_| finished.history.fault("clock jump"));
    let (end, took) = cluster.converge();
    let facts = finished.check(same_logs(&cluster, end), &Enough::acks(2000).faults("clock jump", 5));
    println!("converged in {took:?}: {facts}");
}
