//! Thirty rounds of dying and freezing nodes under load, with the real client: nothing acknowledged is lost, doubled, moved or changed.

use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::{Cluster, Load, LoadOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::same_logs;

/// A new leader is wanted within 2 s.
const RESUME: Duration = Duration::from_secs(20);
const ROUNDS: u32 = 30;

#[test]
fn s01_thirty_rounds_of_kills_and_freezes_lose_double_and_change_nothing() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let seed = std::env::var("LOGLOG_TEST_SEED").ok().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}; LOGLOG_TEST_SEED={seed} chooses the same nodes and faults");
    let mut rng = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let load = Load::start(cluster.clients(), LoadOptions { writers: 8, in_flight: 32, readers: 3 });
    let (mut deaths, mut faults, mut leaders) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        load.progress(rng.random_range(1..1000), RESUME);
        let leader = cluster.leader().0;
        leaders.push(leader);
        let node = if rng.random_bool(0.5) { leader } else { rng.random_range(1..=3) };
        let other = node % 3 + 1;
        let mut since = Instant::now();
        let (what, resumed) = match rng.random_range(0..5) {
            0 | 1 => {
                cluster.kill(node);
                let resumed = load.resumed(since, RESUME);
                cluster.restart(node);
                ("killed", resumed)
            }
            2 | 3 => {
                cluster.freeze(node);
                let resumed = load.resumed(since, RESUME);
                cluster.thaw(node);
                ("frozen", resumed)
            }
            _ => {
                cluster.freeze(other);
                cluster.kill(node);
                cluster.restart(node);
                since = Instant::now();
                cluster.thaw(other);
                ("killed while the next was frozen", load.resumed(since, RESUME))
            }
        };
        faults.push(what);
        if node == leader {
            deaths.push(resumed.first);
        }
        println!(
            "{round:2}: leader {leader}, node {node} {what}: appends went on after {:?}, every writer's after {:?}",
            resumed.first, resumed.all
        );
    }
    load.progress(1000, RESUME);
    let mut finished = load.finish();
    println!("{ROUNDS} rounds in {:?}", began.elapsed());
    deaths.sort();
    if let (Some(longest), Some(median)) = (deaths.last(), deaths.get(deaths.len() / 2)) {
        println!(
            "{} leaders died or froze: appends resumed after {median:?}, at most {longest:?}",
            deaths.len()
        );
    }
    let (end, took) = cluster.converge();
    let segments = cluster.assert_identical_files(end);
    let leader_changes = leaders.windows(2).filter(|it| it[0] != it[1]).count();
    finished.history.evidence.leader_changes = leader_changes as u64;
    for fault in faults {
        finished.history.fault(fault);
    }
    let enough = Enough::acks(1000 * u64::from(ROUNDS) / 3).leader_changes(u64::from(ROUNDS) / 6);
    let facts = finished.check(same_logs(&cluster, end), &enough.faults("killed", 1).faults("frozen", 1));
    println!(
        "converged in {took:?}: {facts}; {end} bytes, {segments} segments, the same on every node; {:?}",
        finished.history.evidence
    );
    for (reader, seen) in (1..).zip(&finished.seen) {
        println!("the reader through node {reader} saw all {seen} entries, each once");
        assert_eq!(*seen as u64, facts.entries);
    }
}
