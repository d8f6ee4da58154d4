//! Thirty rounds of dying and freezing nodes under load, with the real client: nothing acknowledged is lost, doubled, moved or changed.

use std::time::{Duration, Instant};

use loglog_integration_tests::{Cluster, Load, LoadOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
    let mut deaths = Vec::new();
    for round in 0..ROUNDS {
        load.progress(rng.random_range(1..1000), RESUME);
        let leader = cluster.leader().0;
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
        if node == leader {
            deaths.push(resumed.first);
        }
        println!(
            "{round:2}: leader {leader}, node {node} {what}: appends went on after {:?}, every writer's after {:?}",
            resumed.first, resumed.all
        );
    }
    load.progress(1000, RESUME);
    let finished = load.finish();
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
    let count = finished.check(&cluster.log_of(1, end), &[]);
    println!(
        "converged in {took:?}: {count} entries, {end} bytes, {segments} segments, the same on every node"
    );
    for (reader, seen) in finished.seen.iter().enumerate() {
        println!("the reader through node {} saw all {} entries, each once", reader + 1, seen.len());
        assert_eq!(seen.len(), count);
    }
}
