//! What configs/observability names is there: every metric in a dashboard's or an alert's expression is one of a live node.

use std::collections::BTreeSet;
use std::path::Path;

use loglog_integration_tests::{Cluster, http, within};

const FILES: [&str; 3] = ["grafana-dashboard.json", "alerts.yml", "README.md"];

/// Whatever begins with `loglog_` and is a name.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("loglog_")).map(str::to_owned).collect()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/observability").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_metric_of_dashboard_and_alerts_is_there() {
    let used: BTreeSet<String> = FILES.iter().flat_map(|name| names(&file(name))).collect();
    assert!(used.len() > 20, "{used:?}");
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let admin = cluster.admin(cluster.leader().0);
    let (told, _) = within("a leader with both its peers", std::time::Duration::from_secs(30), || {
        let text = http::get(&admin, "/metrics").body;
        (text.matches("\nloglog_peer_lag_bytes{").count() == 2).then_some(text)
    });
    // Names as they stand at the begin of a sample's line, suffixes included.
    let told: BTreeSet<String> = told.lines().filter(|line| !line.starts_with('#')).flat_map(names).collect();
    let missing: Vec<&String> = used.difference(&told).collect();
    assert!(missing.is_empty(), "no node tells of {missing:?}");
}

#[test]
fn the_dashboard_covers_what_an_operator_asks() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    for metric in [
        "appended_entries_total",
        "append_seconds_bucket",
        "sync_seconds_bucket",
        "write_group_entries_bucket",
        "peer_lag_bytes",
        "leader_changes_total",
        "upload_buffer_bytes",
        "actor_restarts_total",
        "actor_mailbox_depth",
        "disk_free_bytes",
        "torn_bytes_total",
        "repairs_total",
    ] {
        assert!(expressions.iter().any(|it| it.contains(metric)), "{metric} is on no panel");
    }
    let alerts = file("alerts.yml");
    for alert in [
        "NodeDown",
        "NoLeader",
        "FollowerLags",
        "DiskNearlyFull",
        "ActorPanicked",
        "DamageFound",
        "ActorStalled",
        "SyncSlow",
    ] {
        assert!(alerts.contains(&format!("alert: LogLog{alert}\n")), "no alert {alert}");
    }
}
