//! Many nodes after each other in one process, which is this test's alone: what is left of them is counted.

#![allow(clippy::unwrap_used)]

mod kit;

use std::path::Path;
use std::time::{Duration, Instant};

use loglog_actors::{Node, NodeError};
use slog::{Discard, Logger, o};

use kit::options;

const DEADLINE: Duration = Duration::from_secs(30);

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
