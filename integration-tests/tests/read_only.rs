//! A file system that becomes read-only, as ext4 does at an error: the node ends and says why, refuses to start, and has lost nothing.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::loop_fs::Kind;
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, until};

use crate::cluster::same_logs;
use crate::power_cuts::disks;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn s02_a_disk_that_becomes_read_only_ends_the_node_and_loses_nothing() {
    let mut cluster = Cluster::laid_out(Layout::new(env!("CARGO_BIN_EXE_loglogd"), 1));
    let Some(disks) = disks(&cluster, &[Kind::Ext4]) else { return };
    let is_read_only = |cluster: &Cluster| {
        let write = std::fs::write(cluster.data(1).join("probe"), "");
        write.is_err_and(|it| it.kind() == ErrorKind::ReadOnlyFilesystem)
    };
    let says = |cluster: &Cluster| {
        let ends = cluster.records(1).into_iter().rfind(|it| it["msg"] == "loglogd ends");
        ends.map_or_else(String::new, |it| it["error"].to_string())
    };
    cluster.restart(1);
    let load = Load::start(cluster.clients(), LoadOptions { writers: 4, in_flight: 32, readers: 1 });
    for _ in 0..3 {
        load.progress(500, DEADLINE);
        disks[&1].fail();
        until("it ends", DEADLINE, || cluster.has_ended(1));
        assert!(is_read_only(&cluster), "the fault took effect");
        println!("while it ran: {}", says(&cluster));
        // Newer kernels tell a sync of it that it has failed, and only the next write why.
        let why = ["Read-only file system", "Input/output error"];
        assert!(why.iter().any(|it| says(&cluster).contains(it)), "it says why it ends");
        assert_eq!(cluster.end(1).code(), Some(1));

        // First with the journal replayed, which needs to write.
        disks[&1].mount_again(&[]);
        disks[&1].mount_again(&["ro"]);
        assert!(is_read_only(&cluster), "the fault took effect");
        cluster.launch(1);
        until("it refuses to start", DEADLINE, || cluster.has_ended(1));
        println!("at the start: {}", says(&cluster));
        assert!(says(&cluster).contains("Read-only"), "it says why it does not start");
        assert_eq!(cluster.end(1).code(), Some(1));

        disks[&1].mount_again(&[]);
        let since = Instant::now();
        cluster.restart(1);
        load.resumed(since, DEADLINE);
    }
    load.progress(500, DEADLINE);
    let mut finished = load.finish();
    (0..3).for_each(|_| finished.history.fault("read-only"));
    let (end, _) = cluster.converge();
    println!("{}", finished.check(same_logs(&cluster, end), &Enough::acks(1500).faults("read-only", 3)));
    drop(disks);
}
