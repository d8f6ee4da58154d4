//! A full disk: appends are refused, reads go on, and service resumes when there is room.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use loglog_integration_tests::{RawClient, Tmpfs, until};
use loglog_proto::error::Code;
use loglog_proto::manage::{Change, Manage};
use loglog_proto::request::{Append, Read, RequestBody};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::{Offset, Sequence, WriterId};

use crate::daemon;

const DEADLINE: Duration = Duration::from_secs(30);

struct Writer {
    client: RawClient,
    last: u64,
}

impl Writer {
    /// Appends 64 KiB; a refused append has the same number when it is tried again.
    fn append(&mut self) -> Result<Appended, Code> {
        let sequence = self.last + 1;
        let append = Append {
            writer: WriterId::new(7),
            previous: (self.last > 0).then(|| Sequence::new(self.last)),
            sequence: Sequence::new(sequence),
            known_end: Some(Offset::ZERO),
            expect_end: None,
            crc: None,
            payload: Some(Bytes::from(vec![u8::try_from(sequence % 251).unwrap(); 64 << 10])),
        };
        match self.client.ask(RequestBody::Append(append)) {
            ResponseBody::Appended(appended) => {
                self.last = sequence;
                Ok(appended)
            }
            ResponseBody::Refused(refusal) => Err(refusal.code),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn s37_a_full_disk_refuses_appends_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "24m") else { return };
    let options = daemon(&dir).set("segment.bytes_max=1 MiB").set("data.free_min=4 MiB");
    let node = options.start();
    let mut writer = Writer { client: RawClient::connect(node.address()), last: 0 };
    let mut places = Vec::new();
    let refused = loop {
        match writer.append() {
            Ok(appended) => places.push(appended.offset),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, Code::DiskFull);
    println!("{} appends of 64 KiB into 24 MiB, then DiskFull", places.len());
    assert!(places.len() > 100, "{}", places.len());

    let mut reader = RawClient::connect(node.address());
    let ResponseBody::Status(status) = reader.ask(RequestBody::Status) else { panic!() };
    assert!(status.disk_full, "{status:?}");
    let read = |client: &mut RawClient, offset: Offset| {
        let read = Read { offset, limit: 64, wait_ms: 0, min_end: None };
        matches!(client.ask(RequestBody::Read(read)), ResponseBody::Data(data) if data.bytes.len() == 64)
    };
    assert!(places.iter().all(|place| read(&mut reader, *place)), "reads go on");

    // Room comes from outside: a larger file system. Nobody has to start anything again.
    let grow = Command::new("mount").args(["-o", "remount,size=48m"]).arg(dir.path()).status();
    assert!(grow.expect("mount runs").success());
    let took = until("appends go on when there is room", DEADLINE, || writer.append().is_ok());
    println!("appends went on {took:?} after there was room");

    // Another program takes everything, reserve and all, between two looks of the node: the group that finds
    // no space waits for it, unharmed.
    let ballast = dir.path().join("ballast");
    let fill = || {
        use std::io::Write;
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 64 << 10]).is_ok() {}
    };
    fill();
    let mut acknowledged = 0;
    let last = until("appends are refused again", DEADLINE, || match writer.append_or_wait() {
        Some(Ok(_)) => {
            acknowledged += 1;
            false
        }
        Some(Err(code)) => {
            assert_eq!(code, Code::DiskFull);
            true
        }
        None => true,
    });
    println!("refused or waiting {last:?} after the disk was filled, {acknowledged} appends later");
    std::fs::remove_file(&ballast).unwrap();
    let mut writer = Writer { client: RawClient::connect(node.address()), last: writer.last };
    until("appends go on once more", DEADLINE, || writer.append().is_ok());
    assert_eq!(node.stop().0.code(), Some(0));

    let node = options.start();
    let mut reader = RawClient::connect(node.address());
    assert!(places.iter().all(|place| read(&mut reader, *place)), "everything is there after a restart");
}

impl Writer {
    /// As [`Writer::append`], but `None` when no answer comes for a while.
    fn append_or_wait(&mut self) -> Option<Result<Appended, Code>> {
        self.client.socket().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.append())).ok()
    }
}

#[test]
fn s36_s37_a_full_disk_is_trimmed_and_takes_appends_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "24m") else { return };
    let options = daemon(&dir).set("segment.bytes_max=1 MiB").set("data.free_min=4 MiB");
    let node = options.start();
    let mut writer = Writer { client: RawClient::connect(node.address()), last: 0 };
    let mut last = Offset::ZERO;
    let refused = loop {
        match writer.append() {
            Ok(appended) => last = appended.offset,
            Err(code) => break code,
        }
    };
    assert_eq!(refused, Code::DiskFull);
    let trim = Manage { what: Change::Trim(last), dry_run: false };
    let ResponseBody::Managed(managed) = writer.client.ask(RequestBody::Manage(Box::new(trim))) else {
        panic!("a full disk can be trimmed")
    };
    assert!(managed.start > 8 << 20 && managed.start <= last.get(), "{managed:?}");
    let took = until("there is room again", DEADLINE, || writer.append().is_ok());
    println!("trimmed to {}, appends went on after {took:?}", managed.start);
    // After a kill, too: what was trimmed stays so.
    node.kill();
    let node = options.start();
    let mut client = RawClient::connect(node.address());
    let ResponseBody::End { start, .. } = client.ask(RequestBody::End { linearizable: true }) else {
        panic!()
    };
    assert_eq!(start.get(), managed.start);
}
