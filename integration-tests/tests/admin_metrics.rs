//! What `/metrics` says, to strict readers, and whether it is true.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use loglog_integration_tests::http::{get, get_json};
use loglog_integration_tests::openmetrics::Exposition;
use loglog_integration_tests::{Cluster, RawClient, until};

use crate::admin_kit::append;

const DEADLINE: Duration = Duration::from_secs(30);

fn scrape(admin: &str) -> (String, Exposition) {
    let reply = get(admin, "/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let read = Exposition::parse(&reply.body).unwrap_or_else(|problem| panic!("{problem}\n{}", reply.body));
    (reply.body, read)
}

fn number(metrics: &Exposition, name: &str) -> f64 {
    metrics.value(name, &[]).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_strict_reader_takes_the_metrics_of_every_node_and_they_are_true() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let (leader, _) = cluster.leader();
    let mut client = RawClient::connect(cluster.client(leader));
    // With the entry that opened the term.
    append(&mut client, 1);
    let _ = cluster.converge();
    let (_, before) = scrape(&cluster.admin(leader));
    for sequence in 2..=301 {
        append(&mut client, sequence);
    }
    let (end, _) = cluster.converge();
    let mut names = Vec::new();
    for id in cluster.ids() {
        let admin = cluster.admin(id);
        let (text, metrics) = scrape(&admin);
        println!("node {id}: {} families, {} bytes", metrics.families.len(), text.len());
        assert_eq!(number(&metrics, "loglog_committed_offset"), end.get() as f64);
        assert_eq!(number(&metrics, "loglog_durable_offset"), end.get() as f64);
        assert_eq!(number(&metrics, "loglog_is_leader"), f64::from(u8::from(id == leader)));
        assert_eq!(metrics.value("loglog_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
        assert!(number(&metrics, "loglog_sync_seconds_count") > 0.0);
        assert!(number(&metrics, "process_cpu_seconds_total") > 0.0);
        let (memory, peak) = ("process_resident_memory_bytes", "process_resident_memory_peak_bytes");
        assert!(number(&metrics, peak) >= number(&metrics, memory), "{text}");
        let families: Vec<String> = metrics.families.keys().cloned().collect();
        if names.is_empty() {
            names = families;
        } else {
            assert_eq!(names, families, "every node has the same metrics, whatever it does");
        }
        read_with_python(&text);
    }
    for name in EXPECTED {
        assert!(names.iter().any(|own| own == name), "no {name} among {names:?}");
    }
    let (_, after) = scrape(&cluster.admin(leader));
    let appended =
        number(&after, "loglog_appended_entries_total") - number(&before, "loglog_appended_entries_total");
    assert_eq!(appended, 300.0);
    let timed =
        number(&after, "loglog_append_seconds_count") - number(&before, "loglog_append_seconds_count");
    assert_eq!(timed, 300.0, "each append is timed");
    let sent =
        number(&after, "loglog_peer_sent_bytes_total") - number(&before, "loglog_peer_sent_bytes_total");
    assert!(sent > 2.0 * 300.0 * 24.0, "two peers, a reference of 24 bytes for each append: {sent}");
    let bytes =
        number(&after, "loglog_appended_bytes_total") - number(&before, "loglog_appended_bytes_total");
    assert_eq!(bytes, 300.0 * 132.0, "a frame of 32 bytes and a payload of 100");
    for peer in cluster.ids().filter(|id| *id != leader) {
        let labels = [("peer", &peer.to_string()[..])];
        assert_eq!(after.value("loglog_peer_connected", &labels), Some(1.0));
        assert_eq!(after.value("loglog_peer_lag_batches", &labels), Some(0.0));
    }
}

/// As docs/admin.md lists them; dashboards and alerts go by these names.
const EXPECTED: &[&str] = &[
    "loglog_append_seconds",
    "loglog_sync_seconds",
    "loglog_write_group_bytes",
    "loglog_write_group_entries",
    "loglog_appended_entries",
    "loglog_appended_bytes",
    "loglog_committed_offset",
    "loglog_durable_offset",
    "loglog_start_offset",
    "loglog_term",
    "loglog_is_leader",
    "loglog_leader_changes",
    "loglog_peer_lag_batches",
    "loglog_peer_lag_bytes",
    "loglog_peer_connected",
    "loglog_upload_buffer_bytes",
    "loglog_fetches",
    "loglog_fetched_bytes",
    "loglog_peer_payload_bytes",
    "loglog_peer_sent_bytes",
    "loglog_connections",
    "loglog_waiting_reads",
    "loglog_actor_restarts",
    "loglog_actor_panics",
    "loglog_actor_mailbox_depth",
    "loglog_actor_stalled",
    "loglog_actor_handled",
    "loglog_torn_bytes",
    "loglog_repairs",
    "loglog_damage_found",
    "loglog_disk_free_bytes",
    "loglog_log_records_dropped",
    "loglog_build",
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "process_resident_memory_peak_bytes",
];

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/admin.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let is_metric = |name: &&str| name.starts_with("loglog_") || name.starts_with("process_");
    let mut listed: Vec<String> = rows.filter(is_metric).map(str::to_owned).collect();
    let suffixes = ["_total", "_info"];
    for name in &mut listed {
        let bare = name.split('{').next().unwrap_or_default();
        let bare = suffixes.iter().find_map(|suffix| bare.strip_suffix(suffix)).unwrap_or(bare);
        *name = bare.to_owned();
    }
    listed.sort();
    let mut expected: Vec<String> = EXPECTED.iter().map(|name| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn a_client_that_comes_and_goes_leaves_one_series_that_never_falls() {
    let dir = tempfile::tempdir().unwrap();
    let node = crate::daemon(&dir).start();
    let handled =
        |metrics: &Exposition| metrics.value("loglog_actor_handled_total", &[("actor", "connection")]);
    let mut last = 0.0;
    for _ in 0..5 {
        drop(RawClient::connect(node.address()));
        until("the connection is gone", DEADLINE, || {
            get_json(node.admin(), "/api/actors?kind=Connection")["actors"].as_array().unwrap().is_empty()
        });
        let (_, metrics) = scrape(node.admin());
        let now = handled(&metrics).unwrap_or(0.0);
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    let (_, metrics) = scrape(node.admin());
    let series = &metrics.families["loglog_actor_handled"].samples;
    assert_eq!(series.iter().filter(|(_, labels, _)| labels["actor"].starts_with("connection")).count(), 1);
}

/// The same with the parser that Prometheus' own client library brings, where there is one.
fn read_with_python(text: &str) {
    let has_parser =
        Command::new("python3").args(["-c", "import prometheus_client.openmetrics.parser"]).output();
    if !has_parser.is_ok_and(|output| output.status.success()) {
        println!(
            "not read by the second parser: needs python3 with prometheus_client (pip install prometheus_client)"
        );
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration-tests/openmetrics.py");
    let mut python = Command::new("python3");
    python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    println!(
        "the second parser reads families and samples: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
}
