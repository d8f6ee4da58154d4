//! etcd 14370: a cluster of one node answered while its write-ahead log was still on its way to the disk, since with one member an
//! entry was committed the moment it was proposed. Who pulled the plug then had lost what was acknowledged.
//!
//! Fails if a node counts itself towards the quorum before its own sync (S1), or answers before that.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loglog_integration_tests::sim::Fault;
use loglog_integration_tests::{DaemonOptions, RawClient};
use loglog_proto::response::ResponseBody;

use super::simulate;
use crate::daemon;

/// One node, whose power fails again and again: at any moment, between any two effects, in the middle of writes and syncs, and in the
/// recovery from that. What was acknowledged was synced, so it is there.
#[test]
fn etcd_14370_nothing_is_acknowledged_before_its_sync_by_a_node_alone() {
    use Fault::{CrashAtEffect, CrashInDisk, CrashInRecovery, PowerCut};
    simulate(0..8, 1, &[PowerCut, CrashAtEffect, CrashInDisk, CrashInRecovery]);
}

/// How long each sync is held up before it begins.
const DELAY: Duration = Duration::from_millis(150);

/// The same of a real process: each of its syncs is held up, and no answer overtakes them.
#[test]
fn etcd_14370_a_real_process_answers_no_sooner_than_its_sync_begins() {
    let dir = tempfile::tempdir().unwrap();
    let Some(options) = with_slow_syncs(daemon(&dir), dir.path()) else { return };
    let node = options.start();
    let mut client = RawClient::connect(node.address());
    let mut took = Vec::new();
    for sequence in 1..=10 {
        let began = Instant::now();
        let answer = client.ask(super::append(sequence, sequence.to_string()));
        assert!(matches!(answer, ResponseBody::Appended(_)), "{answer:?}");
        took.push(began.elapsed());
    }
    println!("syncs held up by {DELAY:?}: appends took {took:?}");
    assert!(took.iter().all(|took| *took >= DELAY), "an answer overtook its sync: {took:?}");
}

/// Runs the program under `strace`, which needs no root's powers but may be missing or not allowed.
fn with_slow_syncs(options: DaemonOptions, dir: &std::path::Path) -> Option<DaemonOptions> {
    // A write that syncs is one call, where the system has it.
    let inject = format!("inject=fdatasync,pwritev2:delay_enter={}", DELAY.as_micros());
    let traced =
        ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,pwritev2", "-e", &inject, "--"];
    // Whether it works here at all.
    let tried =
        Command::new("strace").args(traced).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: needs `strace`, and that it may trace its own children");
        return None;
    }
    // The process is the program's own: -D makes strace its grandchild.
    let script = dir.join("slow-syncs");
    let program = options.program.display().to_string();
    let text = format!("#!/bin/sh\nexec strace {} '{program}' \"$@\"\n", traced.join(" "));
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(DaemonOptions { program: script, ..options })
}
