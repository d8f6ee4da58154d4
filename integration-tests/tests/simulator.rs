//! The simulator keeps its word: a seed is a schedule, and on many of them nothing breaks. More of it: `loglog-sim --help`.

use loglog_integration_tests::sim::queue::SECOND;
use loglog_integration_tests::sim::{Counts, Fault, Options, run};

fn options(seed: u64, seconds: u64) -> Options {
    Options { seed, nodes: None, time: seconds * SECOND, dials: Vec::new(), transcript: false }
}

#[test]
fn one_seed_run_twice_prints_the_same_transcript() {
    for seed in [3, 4, 19] {
        let runs = [(); 2].map(|()| run(&Options { transcript: true, ..options(seed, 120) }));
        assert_eq!(runs[0].violation, None, "seed {seed}");
        assert!(runs[0].transcript.len() > 100, "seed {seed}: it tells what happens");
        let differs = runs[0].transcript.iter().zip(&runs[1].transcript).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(runs[0].hash, runs[1].hash, "seed {seed}");
    }
    assert_ne!(run(&options(3, 60)).hash, run(&options(4, 60)).hash, "and another one another");
}

#[test]
fn twenty_seeds_of_faults_break_no_promise() {
    let (mut counts, mut acknowledged) = (Counts::default(), 0);
    for seed in 1000..1020 {
        let report = run(&options(seed, 300));
        assert_eq!(report.violation, None, "again: loglog-sim --seed {seed} --seconds 300");
        counts.merge(&report.counts);
        acknowledged += report.acknowledged;
    }
    println!("{acknowledged} acknowledged, {counts:?}");
    assert!(acknowledged > 10_000, "{acknowledged}");
    // A fault that hardly strikes proves nothing.
    let idle: Vec<_> = Fault::ALL.iter().filter(|fault| counts.of(**fault) < 5).collect();
    assert!(idle.is_empty(), "these took effect less than five times: {idle:?}");
}

#[test]
fn without_faults_everything_is_acknowledged_and_nobody_is_deposed() {
    let dials = Fault::ALL.iter().map(|fault| (*fault, 0.0)).collect();
    let report = run(&Options { dials, ..options(7, 300) });
    assert_eq!(report.violation, None);
    assert_eq!((report.leaders, report.installs, report.mended), (1, 0, 0), "{report:?}");
    assert!(report.acknowledged > 1000, "{}", report.acknowledged);
}
