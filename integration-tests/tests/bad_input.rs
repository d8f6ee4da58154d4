//! Bad input: a clear error, the connection or process stays sane, nothing is lost.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::Bytes;
use loglog_integration_tests::{Daemon, RawClient, raw, within};
use loglog_proto::error::Code;
use loglog_proto::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use loglog_proto::request::{Append, PROTOCOL_VERSION, Read, RequestBody, Upload};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::{ClusterId, Offset, Sequence, WriterId};

use crate::daemon;

fn append(sequence: u64, payload: impl Into<Bytes>) -> Append {
    raw::append(sequence, Some(payload.into()))
}

fn appended(client: &mut RawClient, append: Append) -> Appended {
    match client.ask(RequestBody::Append(append)) {
        ResponseBody::Appended(appended) => appended,
        other => panic!("not appended: {other:?}"),
    }
}

fn read(offset: u64, limit: u64) -> RequestBody {
    RequestBody::Read(Read { offset: Offset::new(offset), limit, wait_ms: 0, min_end: None })
}

/// The node still serves, and this connection too.
fn still_serves(client: &mut RawClient) {
    assert!(matches!(client.ask(RequestBody::End { linearizable: true }), ResponseBody::End { .. }));
}

fn segments(dir: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_is_no_message_is_refused_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let mut deep = vec![0x93, 0x05, 0x09];
    deep.resize(1 << 20, 0x91);
    let cases: [(&[u8], u64); 6] = [
        (b"", 0),
        (b"no MessagePack at all", 0),
        (b"\x92\x63\x09", 9),
        (b"\x93\x05\x09\xc0", 9),
        (b"\x96\x02\x09\x07\x01\xc0\xc4\x7f", 9),
        (&deep, 9),
    ];
    for (content, id) in cases {
        client.send_frame(content);
        let answer = client.receive().unwrap();
        let ResponseBody::Refused(refusal) = &answer.body else { panic!("{answer:?}") };
        assert_eq!((answer.id.get(), refusal.code), (id, Code::BadRequest), "{refusal}");
        still_serves(&mut client);
    }
}

#[test]
fn an_oversize_frame_is_refused_and_the_connection_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    for length in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).unwrap() + 1] {
        let mut client = RawClient::connect(node.address());
        client.send_bytes(&length.to_be_bytes()).unwrap();
        let answer = client.receive().unwrap();
        assert!(matches!(&answer.body, ResponseBody::Refused(it) if it.code == Code::TooLarge), "{answer:?}");
        assert_eq!(client.receive(), None);
    }
    assert!(node.resident_bytes() < 200 << 20);
    still_serves(&mut RawClient::connect(node.address()));
}

#[test]
fn a_truncated_frame_is_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    client.send_bytes(&[0, 0, 0, 10, 0x99, 3]).unwrap();
    client.finish();
    assert_eq!(client.receive(), None);
    let mut other = RawClient::connect(node.address());
    still_serves(&mut other);
    assert_eq!(appended(&mut other, append(1, "x")).offset, Offset::new(40));
}

#[test]
fn a_connection_begins_with_a_hello_of_this_protocol_and_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("cluster.id=ab").start();
    let hello = |version, cluster| RequestBody::Hello { version, cluster, credentials: None };
    let mut client = RawClient::silent(node.address());
    assert_eq!(client.refused(RequestBody::Status), Code::BadRequest);
    assert_eq!(client.refused(hello(PROTOCOL_VERSION + 1, None)), Code::Version);
    assert_eq!(client.refused(hello(PROTOCOL_VERSION, ClusterId::new(0xcd))), Code::WrongCluster);
    assert!(matches!(client.ask(hello(PROTOCOL_VERSION, ClusterId::new(0xab))), ResponseBody::Welcome(_)));
    still_serves(&mut client);
}

#[test]
fn payloads_of_every_legal_size_are_taken_and_no_larger_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let empty = appended(&mut client, append(1, ""));
    assert_eq!(empty.end.get() - empty.offset.get(), 32);
    let largest = appended(&mut client, append(2, vec![7; PAYLOAD_BYTES_MAX]));
    assert_eq!(largest.end.get() - largest.offset.get(), PAYLOAD_BYTES_MAX as u64 + 32);
    let too_large = append(3, vec![7; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(client.refused(RequestBody::Append(too_large)), Code::TooLarge);
    assert_eq!(appended(&mut client, append(3, "next")).offset, largest.end);
}

#[test]
fn s31_a_damaged_payload_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let damaged = Append { crc: Some(1), ..append(1, "payload") };
    assert_eq!(client.refused(RequestBody::Append(damaged.clone())), Code::Damaged);
    let upload = |crc| {
        let mut upload = Upload::one(WriterId::new(7), Sequence::new(1), Bytes::from_static(b"payload"));
        upload.parts[0].crc = crc;
        RequestBody::Upload(upload)
    };
    assert_eq!(client.refused(upload(2)), Code::Damaged);
    let crc = loglog_proto::crc32c(b"payload");
    assert_eq!(client.ask(upload(crc)), ResponseBody::Uploaded);
    // The append's own copy is damaged, the uploaded one is whole.
    let whole = Append { crc: Some(crc), ..append(1, "damaged") };
    let at = appended(&mut client, whole).offset.get();
    let ResponseBody::Data(data) = client.ask(read(at + 24, 7)) else { panic!() };
    assert_eq!(&data.bytes[..], b"payload");
    let by_reference = Append { payload: None, crc: None, ..append(2, "") };
    assert_eq!(client.refused(RequestBody::Append(by_reference)), Code::NotUploaded);
}

#[test]
fn reads_outside_the_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let end = appended(&mut client, append(1, "x")).end.get();
    assert_eq!(client.refused(read(end + 1, 100)), Code::BeyondEnd);
    assert_eq!(client.refused(read(u64::MAX, 100)), Code::BeyondEnd);
    assert_eq!(client.refused(read(0, 0)), Code::BadRequest);
    let min_end = RequestBody::Read(Read {
        offset: Offset::ZERO,
        limit: 10,
        wait_ms: 20,
        min_end: Some(Offset::new(end + 1)),
    });
    assert_eq!(client.refused(min_end), Code::TimedOut);
    let ResponseBody::Data(data) = client.ask(read(1, u64::MAX)) else { panic!() };
    assert_eq!(data.bytes.len() as u64, end - 1);
}

#[test]
fn a_client_that_never_reads_its_replies_costs_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut writer = RawClient::connect(node.address());
    for sequence in 1..=8 {
        appended(&mut writer, append(sequence, vec![1; 8 << 20]));
    }
    let before = node.resident_bytes();
    let mut greedy: Vec<RawClient> = (0..4).map(|_| RawClient::connect(node.address())).collect();
    for client in &mut greedy {
        client.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        for _ in 0..3000 {
            // Once the node chokes the connection, the socket is full and this fails.
            if client.send(read(0, 4 << 20)).is_err() {
                break;
            }
        }
    }
    still_serves(&mut writer);
    let grown = node.resident_bytes().saturating_sub(before) >> 20;
    println!("12,000 reads of 4 MiB asked for and none taken: memory grew by {grown} MiB");
    assert!(grown < 150, "{grown} MiB");
}

#[test]
fn a_second_daemon_on_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(dir.path().to_str().unwrap()), "{said}");
    assert!(said.to_lowercase().contains("another"), "{said}");
    still_serves(&mut RawClient::connect(node.address()));
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(daemon(&dir).set("cluster.id=ab").start().stop().0.code(), Some(0));
    for (setting, names) in [("cluster.id=cd", "00000000000000ab"), ("node.id=2", "node 1")] {
        let (status, said) = daemon(&dir).set(setting).start_refused();
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(names), "{said}");
    }
    drop(daemon(&dir).set("cluster.id=ab").start());
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (status, said) = daemon(&dir).set(&format!("listen.client={address}")).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&address.to_string()) && said.contains("listen.client"), "{said}");
}

#[test]
fn a_bad_key_or_unit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (setting, names) in [
        ("segment.bytes_mx=1 MiB", "segment.bytes_max"),
        ("segment.bytes_max=64", "64 B"),
        ("raft.tick=100 parsecs", "raft.tick"),
    ] {
        let (status, said) = daemon(&dir).set(setting).start_refused();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(names), "{said}");
    }
}

#[test]
fn a_corrupt_header_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(daemon(&dir).start());
    let path = &segments(&dir)[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(path.file_name().unwrap().to_str().unwrap()), "{said}");
}

#[test]
fn s09_a_corrupt_entry_below_the_mark_is_refused_and_its_place_named() {
    let dir = tempfile::tempdir().unwrap();
    let places = fill(daemon(&dir).start());
    let path = segments(&dir)[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let at = places[5].get();
    bytes[usize::try_from(64 + at + 30).unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&at.to_string()) && said.contains("data.accept_loss"), "{said}");

    // Told to accept the loss, the node keeps what lies before it, and keeps the rest aside.
    let node = daemon(&dir).set("data.accept_loss=true").start();
    assert!(node.records().iter().any(|record| record["msg"].as_str().is_some_and(|it| it.contains("LOST"))));
    let mut client = RawClient::connect(node.address());
    let ResponseBody::Data(data) = client.ask(read(places[4].get(), 10)) else { panic!() };
    assert_eq!(data.bytes.len(), 10);
    let aside = std::fs::read_dir(dir.path().join("data")).unwrap().map(|it| it.unwrap().path());
    let aside = aside.filter(|path| path.extension().is_some_and(|it| it == "bak")).count();
    assert!(aside > 0);
}

#[test]
fn s10_damage_in_a_sealed_segment_is_refused_or_accepted_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let places = fill(daemon(&dir).start());
    // A restart opens a new term, and with it a new segment; once an append there is acknowledged, the mark lies in it.
    let node = daemon(&dir).start();
    appended(&mut RawClient::connect(node.address()), append(21, "entry 21".to_owned()));
    assert_eq!(node.stop().0.code(), Some(0));
    let path = segments(&dir)[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let at = places[5].get();
    bytes[usize::try_from(64 + at + 30).unwrap()] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&at.to_string()) && said.contains("data.accept_loss"), "{said}");

    // Nothing behind it is given up: readers get the bytes as they are, and their CRCs tell.
    let node = daemon(&dir).set("data.accept_loss=true").start();
    let mut client = RawClient::connect(node.address());
    let answer = client.ask(read(places[19].get(), 32 + 8));
    let ResponseBody::Data(data) = &answer else { panic!("{answer:?}") };
    assert_eq!(&data.bytes[24..32], b"entry 20");
    drop(node);
    std::fs::write(&path, &whole).unwrap();
    fill(daemon(&dir).start());
}

#[test]
fn s09_a_torn_tail_above_the_mark_is_cut_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let end = appended(&mut client, append(1, "whole")).end;
    node.kill();
    let path = segments(&dir)[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = usize::try_from(64 + end.get()).unwrap();
    bytes[at..at + 20].copy_from_slice(b"\x05\x00\x00\x81half an entry...");
    std::fs::write(&path, bytes).unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let ResponseBody::Status(status) = client.ask(RequestBody::Status) else { panic!() };
    assert!(status.torn_bytes > 0, "{status:?}");
    assert!(node.records().iter().any(|record| record["msg"].as_str().is_some_and(|it| it.contains("torn"))));
    assert!(
        matches!(client.ask(RequestBody::Append(append(1, "whole"))), ResponseBody::Appended(it) if it.end == end)
    );
}

#[test]
fn s07_foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fill(daemon(&dir).start());
    for name in ["notes.txt", "backup.seg.old", "zzzz.seg"] {
        std::fs::write(data.join(name), "mine").unwrap();
    }
    fill(daemon(&dir).start());
    for name in ["notes.txt", "backup.seg.old", "zzzz.seg"] {
        assert_eq!(std::fs::read(data.join(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // A file where the directory should be: refused for everybody, root included.
    std::fs::write(&data, "a file").unwrap();
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    std::fs::remove_file(&data).unwrap();

    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(data.join("probe"), "").is_ok() {
        std::fs::remove_file(data.join("probe")).unwrap();
        println!("skipped: this user may write into a read-only directory");
        return;
    }
    let (status, said) = daemon(&dir).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(data.to_str().unwrap()), "{said}");
}

#[test]
fn faults_are_not_injected_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let fault = RequestBody::Fault { actor: "consensus".into(), how: "handler".into() };
    assert_eq!(RawClient::connect(node.address()).refused(fault), Code::Forbidden);
}

/// Appends a few entries and stops the node; returns their places.
fn fill(node: Daemon) -> Vec<Offset> {
    let mut client = RawClient::connect(node.address());
    let places =
        (1..=20).map(|sequence| appended(&mut client, append(sequence, format!("entry {sequence}"))).offset);
    let places = places.collect();
    // Repeats are answered before the entry that opens this term is committed; this is not.
    still_serves(&mut client);
    let settled =
        |status: &ResponseBody| matches!(status, ResponseBody::Status(it) if it.durable == it.committed);
    within("all is durable", Duration::from_secs(30), || {
        Some(client.ask(RequestBody::Status)).filter(|status| settled(status))
    });
    assert_eq!(node.stop().0.code(), Some(0));
    places
}
