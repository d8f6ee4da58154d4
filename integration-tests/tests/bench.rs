//! `loglog bench`, each of what it measures, briefly and against real nodes: that the figures are there and make sense, and that nothing
//! is left behind.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use loglog_integration_tests::daemon::signal;
use loglog_integration_tests::{until, within};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon;

/// A node's start, what is measured, and its end.
const DEADLINE: Duration = Duration::from_secs(120);
const BRIEF: [&str; 4] = ["--duration", "300 ms", "--warmup", "50 ms"];
const SET: [&str; 2] = ["--set", "data.free_min=1 MiB"];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loglog"));
    command.arg("bench").args(args).env_remove("LOGLOG_ENDPOINTS").stdin(Stdio::null());
    command
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a bench with its data in a folder that must be empty again afterwards, with no process that has to do with it. Returns its JSON.
fn measured(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = command(args).args(["--json", "--data"]).arg(dir.path()).output().unwrap();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
    println!("{args:?}: {out}");
    nothing_is_left(&dir);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn nothing_is_left(dir: &TempDir) {
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes(dir.path()), Vec::<u32>::new());
}

/// Nodes that have their data below `dir`.
fn processes(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Whatever ends meanwhile has no command line.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if said(&line).contains(&format!("data.dir={dir}")) {
            found.push(id);
        }
    }
    found
}

fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or_else(|| panic!("no {name} in {of:#}"))
}

fn positive(of: &Value, names: &[&str]) {
    for name in names {
        assert!(number(of, name) > 0.0, "{name} in {of:#}");
    }
}

/// What is told of each of the bench's own nodes and of its disk.
fn tells_of_nodes(of: &Value, nodes: u32, each: &str) {
    for node in 1..=nodes {
        positive(of, &[&format!("node{node}_cpu_us_per_{each}"), &format!("node{node}_peak_bytes")]);
    }
    positive(of, &[&format!("client_cpu_us_per_{each}")]);
    positive(of, &["disk_sync_before_us", "disk_sync_after_us", "disk_before_mb_per_s"]);
    assert_eq!(number(of, "leader_sent_bytes") > 0.0, nodes > 1, "{of:#}");
}

#[test]
fn append_on_one_node_is_verified() {
    let found = measured(&[&["append", "--nodes", "1"][..], &BRIEF, &SET].concat());
    positive(&found, &["entries", "entries_per_s", "mb_per_s", "p50_us", "p99_us", "max_us"]);
    assert_eq!(found["verified"], found["acknowledged"], "{found:#}");
    assert_eq!((number(&found, "errors"), number(&found, "log_bytes_missing")), (0.0, 0.0));
    assert_eq!(number(&found, "latency_every"), 16.0);
    tells_of_nodes(&found, 1, "entry");
}

#[test]
fn append_on_three_nodes_in_packs_of_a_mix_by_several_writers() {
    let load = ["--payload", "10:1,1 KiB:1", "--pack", "20", "--in-flight", "8"];
    let writers = ["append", "--nodes", "3", "--connections", "2", "--writers", "2"];
    let found = measured(&[&writers[..], &load, &BRIEF, &SET].concat());
    assert_eq!(found["verified"], found["acknowledged"], "{found:#}");
    assert_eq!(number(&found, "events_per_s").round(), (20.0 * number(&found, "entries_per_s")).round());
    assert_eq!(number(&found, "latency_every"), 1.0);
    tells_of_nodes(&found, 3, "entry");
}

#[test]
fn append_at_a_rate_sends_what_is_due() {
    let rate = ["append", "--nodes", "1", "--rate", "500", "--verify", "ends"];
    let found = measured(&[&rate[..], &BRIEF, &SET].concat());
    // However slow the machine: each that was due is counted.
    let due = number(&found, "acknowledged") + number(&found, "unsent");
    assert!((150.0..=180.0).contains(&due), "{found:#}");
    assert_eq!(number(&found, "verified"), 2.0);
}

#[test]
fn read_raw_and_by_entries_beside_the_limit_of_the_machine() {
    let fill = ["read", "--nodes", "1", "--fill", "8 MiB", "--rounds", "1"];
    let raw = measured(&[&fill[..], &["--connections", "2", "--limit", "100 KiB"], &SET].concat());
    positive(&raw, &["mb_per_s", "sendfile_mb_per_s", "ratio"]);
    assert!(number(&raw, "bytes") >= f64::from(8 << 20), "{raw:#}");
    assert!(raw["entries_per_s"].is_null());
    tells_of_nodes(&raw, 1, "mib");
    let entries = measured(&[&fill[..], &["--entries", "--payload", "100"], &SET].concat());
    positive(&entries, &["mb_per_s", "entries_per_s", "ratio"]);
    tells_of_nodes(&entries, 1, "entry");
}

#[test]
fn tail_on_one_node_and_on_three() {
    for nodes in ["1", "3"] {
        let found = measured(&[&["tail", "--nodes", nodes][..], &BRIEF, &SET].concat());
        positive(&found, &["entries", "append_p50_us", "append_p99_us", "leader_p50_us", "leader_ratio"]);
        assert_eq!(found["follower_ratio"].is_null(), nodes == "1", "{found:#}");
        if nodes == "3" {
            positive(&found, &["follower_p50_us", "follower_p99_us"]);
        }
    }
}

#[test]
fn follow_tells_what_a_follower_costs_and_wakes_them_all() {
    let crowd = ["follow", "--nodes", "1", "--followers", "200", "--woken", "50", "--wakes", "7"];
    let found = measured(&[&crowd[..], &SET].concat());
    positive(&found, &["wake_p50_us", "wake_p99_us", "wake_max_us", "last_p50_us"]);
    assert_eq!((number(&found, "followers"), number(&found, "woken")), (200.0, 50.0));
    assert!(found["bytes_per_follower"].is_number(), "{found:#}");
    tells_of_nodes(&found, 1, "wake");
    assert!(number(&found, "wake_p50_us") <= number(&found, "last_max_us"));
}

#[test]
fn scale_has_both_ways() {
    let rounds = ["scale", "--nodes", "1", "--connections", "30", "--rounds", "1", "--duration", "200 ms"];
    let found = measured(&[&rounds[..], &SET].concat());
    positive(&found, &["one_per_s", "many_per_s", "ratio", "one_p50_us", "many_p50_us"]);
    positive(&found, &["one_client_cpu_us_per_entry", "many_nodes_cpu_us_per_entry"]);
}

#[test]
fn recovery_after_either_end() {
    for (flags, how) in [(&[][..], "term"), (&["--kill"][..], "kill")] {
        let sizes = ["recovery", "--sizes", "4 MiB,8 MiB", "--starts", "2", "--duration", "100 ms"];
        let found = measured(&[&sizes[..], flags, &SET].concat());
        let found = found.as_array().unwrap();
        assert_eq!(found.len(), 2, "one for each size");
        for (one, size) in found.iter().zip([4_u32 << 20, 8 << 20]) {
            positive(
                one,
                &["start_ms", "start_max_ms", "empty_per_s", "full_per_s", "ratio", "node1_peak_bytes"],
            );
            assert!(number(one, "log_bytes") >= f64::from(size), "{one:#}");
            assert_eq!(one["ended_by"], how);
        }
    }
}

#[test]
fn a_node_that_runs_already_is_measured_and_both_forms_have_the_same_fields() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let run = |form: &str| {
        let mut command = command(&["append", "--endpoints", node.address(), "--admin", node.admin()]);
        let output = command.args(BRIEF).arg(form).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
        said(&output.stdout)
    };
    let json: Value = serde_json::from_str(&run("--json")).unwrap();
    positive(&json, &["entries_per_s", "node1_cpu_us_per_entry", "node1_peak_bytes", "verified"]);
    assert!(json["disk_sync_before_us"].is_null(), "nobody said where it writes");
    let csv = run("--csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    let mut names: Vec<&str> = lines[0].split(',').collect();
    assert_eq!(names.len(), lines[1].split(',').count());
    names.sort_unstable();
    assert_eq!(names, json.as_object().unwrap().keys().collect::<Vec<_>>());
    assert_eq!(node.stop().0.code(), Some(0));
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    for name in ["INT", "TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = command(&["append", "--nodes", "3", "--duration", "10 min", "--data"])
            .arg(dir.path())
            .args(SET)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("three nodes run", DEADLINE, || processes(dir.path()).len() == 3);
        signal(bench.id(), name);
        let (status, took) = within("the bench ends", DEADLINE, || bench.try_wait().unwrap());
        println!("SIG{name}: {status} after {took:?}");
        assert_eq!(status.code(), Some(1));
        nothing_is_left(&dir);
    }
}

#[test]
fn what_cannot_be_done_is_told_with_what_to_do() {
    let code = |output: Output| (output.status.code(), said(&output.stderr));
    // Nobody listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = command(&["append", "--endpoints", &port.to_string()]).output().unwrap();
    let (status, words) = code(nobody);
    assert_eq!(status, Some(5), "{words}");
    assert!(words.contains("--nodes 1"), "{words}");
    for (flags, why) in [
        (&["append", "--payload", "100:0"][..], "weight"),
        (&["append", "--payload", "100:1,5"], "no weight"),
        (&["append", "--rate", "0"], "appends a second"),
        (&["append", "--json", "--csv"], "cannot be used with"),
        (&["append", "--pack", "100000", "--payload", "1 KiB"], "larger than an entry"),
        (&["append", "--set", "segment.bytes_max=1 MiB"], "--nodes"),
        (&["append", "--nodes", "0"], "1..=7"),
        (&["read", "--limit", "5 MiB"], "a read takes"),
        (&["recovery", "--sizes", "5"], "a unit is missing"),
    ] {
        let (status, words) = code(command(flags).output().unwrap());
        assert_eq!(status, Some(2), "{flags:?}: {words}");
        assert!(words.contains(why), "{flags:?}: {words}");
    }
    let (status, words) = code(command(&["recovery", "--sizes", "9999999 GiB"]).output().unwrap());
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("free") && words.contains("--data"), "{words}");
    let absent = command(&["append", "--nodes", "1", "--data", "/nowhere/at/all"]).output().unwrap();
    let (status, words) = code(absent);
    assert_eq!(status, Some(1));
    assert!(words.contains("--data"), "{words}");
    // What a node says when it does not start is passed on.
    let dir = tempfile::tempdir().unwrap();
    let set = ["append", "--nodes", "1", "--set", "segment.bytes_mx=1 MiB", "--data"];
    let (status, words) = code(command(&set).arg(dir.path()).output().unwrap());
    assert_eq!(status, Some(2));
    assert!(words.contains("segment.bytes_mx"), "{words}");
    nothing_is_left(&dir);
}
