//! The examples, run as a newcomer runs them: as they stand, and against daemons.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loglog_integration_tests::Cluster;
use loglog_integration_tests::wait::within;

/// They want some seconds.
const DEADLINE: Duration = Duration::from_secs(100);

/// `cargo test` builds the examples, beside the folder of the test's own program.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    path
}

/// Runs an example to its end, which must be a good one. Returns what it printed.
fn run(name: &str, endpoints: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
    let [to_out, to_err] = [&out, &err].map(|path| std::fs::File::create(path).unwrap());
    let mut child = Command::new(program(name))
        .args(endpoints)
        .env_remove("LOGLOG_ENDPOINTS")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(to_out)
        .stderr(to_err)
        .spawn()
        .unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        within(&format!("{name} ends"), DEADLINE, || child.try_wait().unwrap())
    }));
    let Ok((status, took)) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{name} does not end:\n{}{}", read(&out), read(&err));
    };
    let (said, complained) = (read(&out), read(&err));
    println!("{name} took {took:?}:\n{said}");
    assert!(status.success(), "{name} ended with {status}:\n{complained}");
    assert_eq!(complained, "", "{name} has nothing to complain of");
    assert!(said.ends_with("done\n"), "{name} comes to its end");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "{name} leaves nothing behind");
    said
}

fn has(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "'{line}' is missing in:\n{said}");
    }
}

fn key_value_tells(said: &str) {
    has(
        said,
        &[
            "replica 1 reads its own write: Some(\"red\")",
            "replica 2 reads as of now:     Some(\"red\")",
            "without having read the log",
            "what it knows: colour = Some(\"red\")",
            "as of now:     colour = None",
        ],
    );
}

fn work_queue_tells(said: &str) {
    has(
        said,
        &[
            "worker 1 dies half-way",
            "since the one before was silent for too long",
            "recorded as done 12 times",
        ],
    );
}

#[test]
fn key_value() {
    key_value_tells(&run("key_value", None));
}

#[test]
fn work_queue() {
    work_queue_tells(&run("work_queue", None));
}

#[test]
fn audit_trail() {
    let said = run("audit_trail", None);
    has(
        &said,
        &["Lz4: 1000 events", "a reader is stopped: ", "200 events are good", "is not what was packed"],
    );
}

#[test]
fn embedded_cluster() {
    let said = run("embedded_cluster", None);
    has(&said, &["[\"through node 1\", \"through node 2\", \"through node 3\", \"while one is away\"]"]);
}

fn leader_lease_tells(said: &str) {
    has(
        said,
        &[
            "program 1 goes on, and believes that it leads",
            "refused, it is too old",
            "program 1 has learnt that it leads no more",
        ],
    );
}

#[test]
fn leader_lease() {
    leader_lease_tells(&run("leader_lease", None));
}

/// All of them in one log, one after the other and again: each passes over the entries of the others, and goes on from its own.
#[test]
fn examples_on_a_cluster_of_daemons() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let endpoints = cluster.clients().join(",");
    for _ in 0..2 {
        key_value_tells(&run("key_value", Some(&endpoints)));
        work_queue_tells(&run("work_queue", Some(&endpoints)));
        leader_lease_tells(&run("leader_lease", Some(&endpoints)));
    }
    let (end, _) = cluster.converge();
    println!("the log ends at {end}");
}
