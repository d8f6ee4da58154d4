//! Snapshots of a running node's disk: each is what a crash at that moment would have left, and holds all that was acknowledged before.

use std::process::Command;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::clock::now;
use loglog_integration_tests::cluster::final_log;
use loglog_integration_tests::loop_fs::{Kind, is_possible};
use loglog_integration_tests::{DaemonOptions, Load, LoadOptions, LoopFs, RawClient};
use loglog_proto::Offset;
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use rand::Rng;

use crate::power_cuts::cuts;

const DEADLINE: Duration = Duration::from_secs(60);

fn options(data: &std::path::Path) -> DaemonOptions {
    DaemonOptions::new(env!("CARGO_BIN_EXE_loglogd"), data)
        .set("data.free_min=1 MiB")
        .set("segment.bytes_max=256 KiB")
}

fn end_of(address: &str) -> Offset {
    match RawClient::connect(address).ask(RequestBody::End { linearizable: true }) {
        ResponseBody::End { end, .. } => end,
        other => panic!("a node that is alone knows the end: {other:?}"),
    }
}

#[test]
fn s08_a_snapshot_of_a_running_nodes_disk_holds_all_that_was_acknowledged_before_it() {
    if !is_possible(&["mkfs.xfs", "mkfs.ext4", "dumpe2fs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // On XFS, where a copy of a file takes a moment and shares its blocks, lies the image of the node's ext4.
    let shelf = dir.path().join("shelf");
    std::fs::create_dir(&shelf).unwrap();
    let Some(_xfs) = LoopFs::make(Kind::Xfs, &shelf, 8 << 30) else { return };
    let data = shelf.join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(disk) = LoopFs::make(Kind::Ext4, &data, 1 << 30) else { return };
    let node = options(&data).start();
    let load =
        Load::start(vec![node.address().to_owned()], LoadOptions { writers: 4, in_flight: 100, readers: 1 });
    let mut snapshots = Vec::new();
    for number in 0..cuts(5, 100) {
        load.progress(rand::rng().random_range(1..3000), DEADLINE);
        let (before, began) = (now(), Instant::now());
        let copy = shelf.join(format!("copy-{number}"));
        let image = copy.with_extension("img");
        let status = Command::new("cp").arg("--reflink=always").args([disk.image(), &image]).status();
        assert!(status.expect("cp runs").success(), "XFS copies by reference");
        let took = began.elapsed();
        let header = Command::new("dumpe2fs").arg("-h").arg(&image).output().expect("dumpe2fs runs").stdout;
        let is_crashed = String::from_utf8_lossy(&header).contains("needs_recovery");
        assert!(is_crashed, "the copy was not unmounted: it is what a crash leaves");
        let mounted = LoopFs::of(Kind::Ext4, image, &copy);
        let other = options(&copy).start();
        let log = final_log(1, other.address(), end_of(other.address()));
        println!("snapshot {number}: copied in {took:?}, {} bytes of log recovered", log.log.len());
        snapshots.push((before, log));
        assert_eq!(other.stop().0.code(), Some(0));
        drop(mounted);
    }
    let mut finished = load.finish();
    let log = final_log(1, node.address(), end_of(node.address()));
    let (mut checked, mut beyond) = (0, 0);
    for (before, snapshot) in &snapshots {
        for operation in &finished.history.operations {
            let Some((at, place)) = operation.acknowledged() else { continue };
            let range = place.offset.get() as usize..place.end.get() as usize;
            let is_there = snapshot.log.get(range.clone()) == log.log.get(range);
            if at <= *before {
                assert!(
                    is_there,
                    "{:?} at {} was acknowledged before the snapshot",
                    operation.id, place.offset
                );
                checked += 1;
            } else {
                beyond += u64::from(is_there);
            }
        }
    }
    println!(
        "{checked} entries that were acknowledged before a snapshot are in it, and {beyond} that came later"
    );
    assert!(checked > 1000, "{checked}");
    println!("{}", finished.check(vec![log], &Enough::acks(1000)));
    assert_eq!(node.stop().0.code(), Some(0));
}
