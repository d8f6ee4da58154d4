//! System calls that fail, write less, or are a process's last: whatever a node was doing, nothing that was acknowledged is lost, and
//! it says what failed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::loop_fs::has;
use loglog_integration_tests::strace::{self, fault};
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, Strace, until};
use rand::Rng;

use crate::cluster::same_logs;

const DEADLINE: Duration = Duration::from_secs(60);
const LOAD: LoadOptions = LoadOptions { writers: 4, in_flight: 50, readers: 1 };

/// A node whose segments are small, so that it opens and seals some all the time.
fn node() -> Cluster {
    Cluster::form(Layout::new(env!("CARGO_BIN_EXE_loglogd"), 1).segment_bytes_max("128 KiB"))
}

fn judge(cluster: &Cluster, load: Load, faults: &[String]) {
    load.progress(500, DEADLINE);
    let mut finished = load.finish();
    for fault in faults {
        finished.history.fault(fault);
    }
    let (end, _) = cluster.converge();
    let enough = faults.iter().fold(Enough::acks(1000), |enough, it| enough.faults(it, 1));
    println!("{}", finished.check(same_logs(cluster, end), &enough));
}

#[test]
fn s02_a_call_that_fails_ends_the_node_and_loses_nothing() {
    if !strace::is_possible() {
        return;
    }
    let calls = [
        ("fdatasync", "error=EIO"),
        ("pwrite64", "error=EIO"),
        ("pwrite64", "error=ENOSPC"),
        ("pwrite64", "retval=0"),
        ("pwritev2", "error=EIO"),
        ("pwritev2", "error=ENOSPC"),
        ("fsync", "error=EIO"),
        ("rename", "error=EIO"),
        ("fallocate", "error=EIO"),
    ];
    let (mut cluster, dir) = (node(), tempfile::tempdir().unwrap());
    let load = Load::start(cluster.clients(), LOAD);
    let mut faults = Vec::new();
    for (call, how) in calls {
        load.progress(200, DEADLINE);
        let when = rand::rng().random_range(1..10).to_string();
        let strace = Strace::attach(cluster.process(1), &fault(call, how, &when), &dir.path().join("seen"));
        until(&format!("{call} {how} ends it"), DEADLINE, || cluster.has_ended(1));
        let injected = strace.injected();
        drop(strace);
        let records = cluster.records(1);
        let reason = records.iter().rfind(|it| it["msg"] == "loglogd ends").map(|it| it["error"].to_string());
        let ended = cluster.end(1);
        assert_eq!(ended.code(), Some(1), "{call} {how}: {ended}");
        assert!(injected > 0, "{call} {how} was injected");
        println!("{call} {how}, the {when}th: {}", reason.expect("it says why it ends"));
        let since = Instant::now();
        cluster.restart(1);
        load.resumed(since, DEADLINE);
        faults.push(format!("{call} {how}"));
    }
    judge(&cluster, load, &faults);
}

#[test]
fn s08_a_kill_at_any_call_loses_nothing() {
    if !strace::is_possible() {
        return;
    }
    let (mut cluster, dir) = (node(), tempfile::tempdir().unwrap());
    let load = Load::start(cluster.clients(), LOAD);
    let mut faults = Vec::new();
    for call in ["fdatasync", "pwrite64", "pwritev2", "fsync", "rename", "fallocate"] {
        for _ in 0..3 {
            load.progress(100, DEADLINE);
            let when = rand::rng().random_range(1..10).to_string();
            let fault = fault(call, "signal=KILL", &when);
            let strace = Strace::attach(cluster.process(1), &fault, &dir.path().join("seen"));
            until(&format!("a kill at {call}"), DEADLINE, || cluster.has_ended(1));
            drop(strace);
            assert_eq!(cluster.end(1).signal(), Some(9), "{call}");
            let since = Instant::now();
            cluster.restart(1);
            load.resumed(since, DEADLINE);
            faults.push(format!("killed at {call}"));
        }
    }
    judge(&cluster, load, &faults);
}

#[test]
fn s02_writes_that_take_nothing_and_space_that_is_not_there_for_a_while_are_survived() {
    if !strace::is_possible() {
        return;
    }
    let (cluster, dir) = (node(), tempfile::tempdir().unwrap());
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(500, DEADLINE);
    let mut faults = Vec::new();
    // A write and sync of no bytes: the rest is written, and synced, one by one. Where there is no space, the node waits for it. Both end by
    // themselves: a call that is under way when strace lets go fails as one that does not exist.
    for (call, how, when) in [("pwritev2", "retval=0", "1..10+3"), ("fallocate", "error=ENOSPC", "1..4")] {
        let strace = Strace::attach(cluster.process(1), &fault(call, how, when), &dir.path().join("seen"));
        until(&format!("{call} {how}, some times"), DEADLINE, || strace.injected() > 3);
        load.resumed(Instant::now(), DEADLINE);
        drop(strace);
        load.resumed(Instant::now(), DEADLINE);
        faults.push(format!("{call} {how}"));
    }
    assert!(cluster.says(1, "the disk is full"), "it says that it waits");
    judge(&cluster, load, &faults);
}

#[test]
fn s08_a_call_that_fails_during_recovery_ends_the_start_and_the_next_one_recovers() {
    if !strace::is_possible() {
        return;
    }
    let (mut cluster, dir) = (node(), tempfile::tempdir().unwrap());
    let load = Load::start(cluster.clients(), LOAD);
    let seen = dir.path().join("seen");
    let mut faults = Vec::new();
    for (call, how) in [("fdatasync", "error=EIO"), ("pwrite64", "error=EIO"), ("fdatasync", "signal=KILL")] {
        for when in ["1", "2", "3"] {
            load.progress(300, DEADLINE);
            cluster.kill(1);
            let fault = fault(call, how, when);
            cluster.launch_under(1, &strace::under(&fault[0], &fault[1], seen.to_str().unwrap()));
            until("it ends", DEADLINE, || cluster.has_ended(1));
            let is_killed = how.starts_with("signal");
            assert!(is_killed || strace::injected(&seen) > 0, "{fault:?}");
            let served = cluster.says(1, "serving");
            let ended = cluster.end(1);
            assert_eq!(
                (ended.code(), ended.signal()),
                if is_killed { (None, Some(9)) } else { (Some(1), None) }
            );
            println!(
                "{call} {how}, the {when}th: {}",
                if served { "served before" } else { "did not serve" }
            );
            let since = Instant::now();
            cluster.restart(1);
            load.resumed(since, DEADLINE);
            faults.push(format!("{call} {how} at the start"));
        }
    }
    judge(&cluster, load, &faults);
}

#[test]
fn s02_a_limit_of_file_sizes_ends_the_node_with_a_word_and_loses_nothing() {
    if !has("prlimit") {
        println!("skipped: needs `prlimit`, which is not installed");
        return;
    }
    let mut cluster = node();
    let load = Load::start(cluster.clients(), LOAD);
    let mut faults = Vec::new();
    // The last one hits its own log, too: there is nowhere left to say anything.
    for limit in [100 << 10, 60 << 10, 1 << 10] {
        load.progress(300, DEADLINE);
        limit_file_size(cluster.process(1), limit);
        until("it ends", DEADLINE, || cluster.has_ended(1));
        let says = cluster.records(1).iter().any(|it| {
            it["msg"] == "loglogd ends"
                && it["error"].as_str().is_some_and(|it| it.contains("File too large"))
        });
        assert_eq!(cluster.end(1).code(), Some(1), "limit {limit}: {:?}", cluster.records(1).last());
        assert!(says || limit == 1 << 10, "limit {limit}: it says what was wrong");
        faults.push(format!("files of {limit} bytes"));
        let since = Instant::now();
        cluster.restart(1);
        load.resumed(since, DEADLINE);
    }
    judge(&cluster, load, &faults);
}

fn limit_file_size(process: u32, bytes: u64) {
    let limit = format!("--fsize={bytes}");
    let status = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    assert!(status.expect("prlimit runs").success());
    let limits =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("limits")).unwrap();
    assert!(limits.lines().any(|it| it.starts_with("Max file size") && it.contains(&bytes.to_string())));
}
