//! The power goes off after every operation of a workload, and again during the recovery from it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::workload::{Interrupted, Model, reopen};
use crate::OpenError;
use crate::vfs::{Fault, OpKind, SimVfs, Survival};

const STEPS: u32 = 60;

/// Runs the workload until its power goes off after `operations`. None if it ends before.
fn interrupted(seed: u64, operations: u64) -> Option<(SimVfs, Model)> {
    let sim = SimVfs::new();
    let mut model = Model::new(seed);
    sim.power_off_after(operations);
    match model.run(&sim, STEPS) {
        Ok(()) => None,
        Err(Interrupted) => Some((sim, model)),
    }
}

/// Says where it was when it panicked.
fn at(what: &str, seed: u64, operations: u64, survival: Survival, check: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(check)) {
        eprintln!("{what}: seed {seed}, power off after {operations} operations, survival {survival:?}");
        resume_unwind(panic);
    }
}

fn rng(seed: u64, operations: u64, survival: Survival) -> StdRng {
    StdRng::seed_from_u64(seed ^ operations << 16 ^ (survival as u64) << 56)
}

#[test]
fn s01_s11_every_power_cut_keeps_what_was_acknowledged() {
    let begun = Instant::now();
    let mut cuts = 0;
    for seed in 0..8 {
        for operations in 0.. {
            let Some((sim, model)) = interrupted(seed, operations) else { break };
            for survival in Survival::ALL {
                cuts += 1;
                at("first cut", seed, operations, survival, || {
                    let sim = sim.fork();
                    sim.power_cut(survival, &mut rng(seed, operations, survival));
                    model.check_after_crash(&sim);
                });
            }
            at("killed", seed, operations, Survival::All, || {
                let sim = sim.fork();
                sim.kill();
                sim.power_off_after(u64::MAX);
                model.check_after_crash(&sim);
            });
        }
    }
    println!("{cuts} power cuts in {:?}", begun.elapsed());
    assert!(cuts >= 10_000, "{cuts} power cuts");
}

#[test]
fn s08_a_second_power_cut_during_recovery_changes_nothing() {
    let begun = Instant::now();
    let mut cuts = 0;
    for seed in 100..106 {
        for operations in (5 + seed % 7..).step_by(31) {
            let Some((sim, model)) = interrupted(seed, operations) else { break };
            for (killed, survival) in
                Survival::ALL.map(|s| (false, s)).into_iter().chain([(true, Survival::All)])
            {
                let first = sim.fork();
                if killed {
                    first.kill();
                    first.power_off_after(u64::MAX);
                } else {
                    first.power_cut(survival, &mut rng(seed, operations, survival));
                }
                for within in 0.. {
                    let second = first.fork();
                    second.power_off_after(within);
                    match reopen(&second) {
                        Ok(_) => break,
                        Err(OpenError::Io(_)) => {}
                        Err(other) => panic!("seed {seed}, {operations}, {survival:?}: {other}"),
                    }
                    cuts += 1;
                    at("second cut", seed, operations * 1000 + within, survival, || {
                        let again = Survival::ALL[usize::try_from((within + operations) % 4).unwrap()];
                        second.power_cut(again, &mut rng(seed, within, again));
                        model.check_after_crash(&second);
                    });
                }
            }
        }
    }
    println!("{cuts} power cuts during recovery in {:?}", begun.elapsed());
    assert!(cuts >= 5_000, "{cuts} power cuts during recovery");
}

#[test]
fn s02_s08_a_failed_sync_is_final_and_recovery_trusts_no_page_cache() {
    let mut failures = 0;
    for seed in 200..212 {
        for sync in 0.. {
            let sim = SimVfs::new();
            let mut model = Model::new(seed);
            sim.inject(OpKind::Sync, sync, Fault::Fail);
            if model.run(&sim, STEPS).is_ok() {
                break;
            }
            failures += 1;
            at("failed sync", seed, sync, Survival::None, || {
                sim.kill();
                model.check_after_crash(&sim);
            });
        }
    }
    println!("{failures} failed syncs");
    assert!(failures >= 500, "{failures} failed syncs");
}
