//! Many nodes after each other in one process, which is this test's alone: what is left of them is counted.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use loglog_actors::{Node, NodeError, NodeOptions};
use loglog_proto::{Length, NodeId};
use slog::{Discard, Logger, o};

const DEADLINE: Duration = Duration::from_secs(30);

fn options(dir: &Path, node: u32) -> NodeOptions {
    NodeOptions {
        data_dir: dir.to_owned(),
        cluster: None,
        node: NodeId::new(node).unwrap(),
        listen_client: None,
        listen_unix: None,
        listen_peer: None,
        listen_admin: None,
        cluster_nodes: Vec::new(),
        join: false,
        advertise_client: None,
        advertise_peer: None,
        segment_bytes_max: Length::new(1 << 20),
        upload_bytes_max: 64 << 20,
        connection_bytes_max: 32 << 20,
        connections_max: 5,
        bulk_bytes_per_second: 0,
        free_min: 0,
        accept_loss: false,
        tick: Duration::from_millis(50),
        are_faults_allowed: false,
        config: Vec::new(),
        log_control: None,
        measure: true,
        version: "0",
    }
}

/// One life, on a thread of its own, as a program has it.
fn live(dir: &Path, node: u32) -> Result<(), NodeError> {
    let options = options(dir, node);
    let life = move || {
        actix_rt::System::new().block_on(async {
            Node::start(options, Logger::root(Discard, o!())).await?.serve(async {}).await
        })
    };
    std::thread::spawn(life).join().unwrap()
}

/// Threads and file descriptors of this process.
fn held() -> (usize, usize) {
    let count = |what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("task"), count("fd"))
}

#[test]
fn neither_good_lives_nor_failed_starts_leave_anything_behind() {
    let dir = tempfile::tempdir().unwrap();
    live(dir.path(), 1).unwrap();
    let before = held();
    for _ in 0..10 {
        live(dir.path(), 1).unwrap();
        assert!(matches!(live(dir.path(), 2), Err(NodeError::OtherNode { .. })));
    }
    // Threads that were told to end do so soon.
    let began = Instant::now();
    while held().0 > before.0 || held().1 > before.1 {
        assert!(began.elapsed() < DEADLINE, "{before:?} threads and descriptors have become {:?}", held());
    }
}
