//! nats-server 4410: a disk was full, a snapshot of the metadata was written short, and at the next start a node that could not read it took
//! its streams for orphans and deleted them.
//!
//! Here a full disk refuses appends and loses nothing: not while it is full, not when the node is killed and started on it, and when there
//! is room appends go on.
//!
//! Fails if anything that is needed is replaced in place, or written short and believed (S2, S6), or if a node that finds no room tidies up (S37).

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use loglog_integration_tests::cluster::final_log;
use loglog_integration_tests::{Appender, Cluster, Layout, RawClient, Tmpfs, until};
use loglog_proto::Offset;
use loglog_proto::error::Code;
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use loglog_storage::verify;

use super::{DEADLINE, files, goes_on, lead};
use crate::daemon;
use crate::repair::{fill, verify_compare};

fn append(client: &mut RawClient, sequence: u64) -> Result<Offset, Code> {
    let payload = vec![u8::try_from(sequence % 251).unwrap(); 16 << 10];
    match client.ask(super::append(sequence, payload)) {
        ResponseBody::Appended(appended) => Ok(appended.end),
        ResponseBody::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

/// A disk without room above the reserve. Segments, their order and their bytes stay as they are, and so does what was acknowledged.
#[test]
fn nats_4410_a_full_disk_refuses_appends_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, roomy) = (dir.path().join("data"), daemon(&dir).set("segment.bytes_max=256 KiB"));
    let node = roomy.start();
    let mut client = RawClient::connect(node.address());
    let mut end = Offset::ZERO;
    for sequence in 1..=50 {
        end = append(&mut client, sequence).unwrap();
    }
    let log = final_log(1, node.address(), end).log;
    node.kill();
    let segments = || files(&data).into_keys().filter(|name| name.ends_with(".seg")).collect::<Vec<_>>();
    let before = segments();
    assert!(before.len() > 2, "{before:?}");

    // More than any disk has.
    let full = roomy.clone().set("data.free_min=1048576 GiB");
    for start in 1..=3 {
        let node = full.start();
        let mut client = RawClient::connect(node.address());
        until("appends are refused", DEADLINE, || append(&mut client, 51) == Err(Code::DiskFull));
        let ResponseBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
        assert!(status.disk_full, "{status:?}");
        assert!(final_log(1, node.address(), end).log == log, "start {start}: all of it is served");
        if start == 2 {
            assert_eq!(node.stop().0.code(), Some(0));
        } else {
            node.kill();
        }
        let left = segments();
        assert!(before.iter().all(|name| left.contains(name)), "start {start}: {before:?}, then {left:?}");
        assert!(verify(&data).unwrap().is_sound(), "start {start}");
    }
    let node = roomy.start();
    let mut client = RawClient::connect(node.address());
    append(&mut client, 51).unwrap();
    assert!(final_log(1, node.address(), end).log == log);
}

/// The disk of one of three, a real one, is filled to its last byte while appends go on; the node is killed and started on it.
#[test]
fn nats_4410_a_really_full_disk_of_one_of_three_deletes_nothing_anywhere() {
    let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3);
    let mut cluster = Cluster::laid_out(layout);
    let full = 2;
    let data = cluster.data(full);
    std::fs::create_dir(&data).unwrap();
    let Some(_mount) = Tmpfs::mount(&data, "12m") else { return };
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.all_serve();
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 100, 2 << 20);
    let (end, _) = cluster.converge();
    let log = cluster.log_of(full, end);
    // The worst of the three: it hands over to one that has room.
    lead(&cluster, full);
    let ballast = fill_up(&data);
    fill(&mut appender, 1, 50, 12 << 20);
    until("it knows", DEADLINE, || cluster.status(full).is_none_or(|it| it.disk_full));
    for _ in 0..2 {
        let before = files(&data);
        cluster.kill(full);
        cluster.launch(full);
        fill(&mut appender, 1, 50, 100_000);
        until("it serves what it has", DEADLINE, || {
            RawClient::open(cluster.client(full), Duration::from_secs(1)).is_ok()
        });
        assert!(cluster.log_of(full, end) == log, "all that it had");
        let left = files(&data);
        let lost: Vec<_> =
            before.keys().filter(|it| it.ends_with(".seg") && !left.contains_key(*it)).collect();
        assert!(lost.is_empty(), "it deleted {lost:?}");
    }
    std::fs::remove_file(ballast).unwrap();
    let grow = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&data).status();
    assert!(grow.expect("mount runs").success());
    if cluster.status(full).is_none() {
        cluster.restart(full);
    }
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}

/// Writes until there is no room for another byte.
fn fill_up(dir: &Path) -> std::path::PathBuf {
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    ballast
}
