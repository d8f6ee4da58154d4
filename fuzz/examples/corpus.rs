//! Writes the corpora in `fuzz/corpus` anew, from real bytes: messages as the golden tests pin them, logs as the writer
//! makes them. Inputs that once crashed are kept under names that begin with `found-` and stay.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use loglog_client::{Compression, PackBuilder, PackOptions};
use loglog_core::batch::{Content, Reference};
use loglog_core::control::{Control, SnapshotContent};
use loglog_fuzz::base;
use loglog_proto::check::{Checked, Verdict};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::frame::LENGTH;
use loglog_proto::manage::{Change, Manage, Managed, MemberStatus, NewMember};
use loglog_proto::peer::{
    Announcement, Copied, Copy, Locate, Located, PeerAccepted, PeerHello, PeerMessage, PeerStanding,
    RaftEntry, RaftKind, RaftMessage, Seek,
};
use loglog_proto::request::{Append, PROTOCOL_VERSION, Read, Request, RequestBody, Upload};
use loglog_proto::response::{
    ActorStatus, Appended, Data, MemberAddress, Response, ResponseBody, Status, Welcome, WireLimits,
};
use loglog_proto::{ClusterId, Index, LogId, NodeId, Offset, RequestId, Sequence, Term, WriterId, crc32c};
use loglog_storage::{LogStart, Membership};

const ID: RequestId = RequestId::new(9);

struct Corpus(PathBuf);

impl Corpus {
    fn of(target: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&dir).expect("made");
        Self(dir)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).expect("written");
    }

    /// A frame, and its content alone.
    fn frame(&self, name: &str, frame: &[u8]) {
        self.put(name, frame);
        self.put(&format!("{name}-content"), &frame[LENGTH..]);
    }
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).expect("not zero")
}

fn cluster() -> ClusterId {
    ClusterId::new(0xabcd).expect("not zero")
}

fn log_id(term: u32, index: u64) -> LogId {
    LogId { term: Term::new(term), index: Index::new(index) }
}

fn requests() {
    let corpus = Corpus::of("requests");
    let append = Append {
        writer: WriterId::new(7),
        previous: None,
        sequence: Sequence::new(1),
        known_end: Some(Offset::new(300)),
        expect_end: None,
        crc: Some(crc32c(b"hello")),
        payload: Some(b"hello"[..].into()),
    };
    let later = Append {
        previous: Some(Sequence::new(1)),
        sequence: Sequence::new(2),
        payload: None,
        ..append.clone()
    };
    let new = NewMember { node: node(4), peer: Some("h:2".into()), client: None };
    let upload = Upload::one(WriterId::new(7), Sequence::new(1), b"hi"[..].into());
    let read = Read { offset: Offset::new(64), limit: 65536, wait_ms: 1000, min_end: Some(Offset::new(9)) };
    let manage = |what| RequestBody::Manage(Box::new(Manage { what, dry_run: true }));
    let bodies = [
        (
            "hello",
            RequestBody::Hello { version: PROTOCOL_VERSION, cluster: Some(cluster()), credentials: None },
        ),
        ("upload", RequestBody::Upload(upload)),
        ("append", RequestBody::Append(append)),
        ("append-later", RequestBody::Append(later)),
        ("read", RequestBody::Read(read)),
        ("end", RequestBody::End { linearizable: true }),
        ("status", RequestBody::Status),
        ("fault", RequestBody::Fault { actor: "consensus".into(), how: "handler".into() }),
        ("list", manage(Change::List)),
        ("trim", manage(Change::Trim(Offset::new(300)))),
        ("add", manage(Change::Add(new.clone()))),
        ("promote", manage(Change::Promote(node(4)))),
        ("remove", manage(Change::Remove(node(4)))),
        ("replace", manage(Change::Replace(new))),
        ("lead", manage(Change::Lead(node(2)))),
        ("check", RequestBody::Check { offset: Offset::new(300) }),
    ];
    let mut all = BytesMut::new();
    for (name, body) in bodies {
        let (mut out, request) = (BytesMut::new(), Request { id: ID, body });
        request.encode(&mut out);
        corpus.frame(name, &out);
        all.extend_from_slice(&out);
    }
    corpus.put("all-in-one-stream", &all);
}

fn responses() {
    let corpus = Corpus::of("responses");
    let limits = WireLimits {
        payload_bytes_max: 1,
        frame_bytes_max: 2,
        read_bytes_max: 3,
        read_wait_ms_max: 4,
        writer_appends_max: 5,
        connection_bytes_max: 6,
    };
    let welcome = Welcome {
        version: 1,
        cluster: cluster(),
        node: node(1),
        leader: Some(node(1)),
        members: vec![MemberAddress { node: node(1), address: "h:1".into() }],
        limits,
        start: Offset::ZERO,
        end: Offset::new(32),
    };
    let appended = Appended { offset: Offset::new(32), end: Offset::new(69), term: Term::new(2) };
    let data = Data { offset: Offset::new(1), end: Offset::new(3), bytes: b"xy"[..].into() };
    let managed =
        Managed { message: "m".into(), members: vec![MemberStatus::default()], ..Managed::default() };
    let checked = Checked { verdict: Verdict::Repairing, damaged_at: Some(300), ..Checked::default() };
    let status = Status { actors: vec![ActorStatus::default()], leader: Some(3), ..Status::default() };
    let bodies = [
        ("welcome", ResponseBody::Welcome(Box::new(welcome))),
        ("uploaded", ResponseBody::Uploaded),
        ("appended", ResponseBody::Appended(appended)),
        ("data", ResponseBody::Data(data)),
        ("end", ResponseBody::End { start: Offset::ZERO, end: Offset::new(200) }),
        ("status", ResponseBody::Status(Box::new(status))),
        ("injected", ResponseBody::Injected),
        ("managed", ResponseBody::Managed(Box::new(managed))),
        ("checked", ResponseBody::Checked(Box::new(checked))),
        ("conflict", ResponseBody::Refused(Refusal::conflict(Offset::new(1), Offset::new(2)))),
        ("not-leader", ResponseBody::Refused(Refusal::not_leader(Some("h:1".into())))),
        ("busy", ResponseBody::Refused(Refusal::new(Code::Busy, "m"))),
    ];
    for (name, body) in bodies {
        let mut out = BytesMut::new();
        Response { id: ID, body }.encode(&mut out);
        corpus.frame(name, &out);
    }
}

fn peer_messages(contents: &[(&str, bytes::Bytes)]) {
    let corpus = Corpus::of("peer_messages");
    let state = base::genesis(300);
    let member = state.membership.voters[0].clone();
    let announcement = Announcement {
        version: 1,
        cluster: cluster(),
        node: node(2),
        incarnation: state.incarnation,
        is_formed: true,
        segment_bytes_max: state.segment_bytes_max,
    };
    let hello = PeerHello {
        version: 1,
        cluster: cluster(),
        from: member.id,
        to: member.id,
        membership: Index::new(1),
        life: 6,
        address: member.peer_address,
    };
    let raft = |kind, context: bytes::Bytes, entries| {
        PeerMessage::Raft(Box::new(RaftMessage {
            kind,
            from: member.id,
            to: member.id,
            term: Term::new(3),
            log_term: Term::new(2),
            index: Index::new(9),
            commit: Index::new(8),
            commit_term: Term::new(2),
            reject: false,
            reject_hint: Index::new(0),
            context,
            entries,
        }))
    };
    let snapshot = contents.iter().find(|(name, _)| *name == "snapshot").map(|(_, bytes)| bytes.clone());
    let entry = |(_, content): &(&str, bytes::Bytes)| {
        let inline = bytes::Bytes::from_static(b"small payloads");
        RaftEntry { log_id: log_id(3, 10), content: content.clone(), inline }
    };
    let entries: Vec<RaftEntry> = contents.iter().map(entry).collect();
    let (header, bytes) = segments(2).remove(1);
    let header = loglog_proto::header::SegmentHeader::decode(&header).expect("a header");
    let copied = Copied { id: ID, header: Some(header), offset: header.base_offset, bytes: bytes.into() };
    let copy = Copy { id: ID, first: Index::new(4), last: log_id(3, 9), offset: Offset::new(64), limit: 100 };
    let messages = [
        ("announce", PeerMessage::Announce(announcement)),
        ("announced", PeerMessage::Announced(announcement)),
        ("hello", PeerMessage::Hello(hello)),
        ("accepted", PeerMessage::Accepted(PeerAccepted { life: 6, last: log_id(3, 9) })),
        ("raft-append", raft(RaftKind::Append, bytes::Bytes::new(), entries)),
        ("raft-heartbeat", raft(RaftKind::Heartbeat, bytes::Bytes::new(), Vec::new())),
        ("raft-snapshot", raft(RaftKind::Snapshot, snapshot.unwrap_or_default(), Vec::new())),
        ("copy", PeerMessage::Copy(copy)),
        ("copied", PeerMessage::Copied(copied)),
        (
            "standing",
            PeerMessage::Standing(PeerStanding {
                free: 100,
                start: (Offset::new(64), Index::new(4), Term::new(2)),
                is_copying: true,
            }),
        ),
        ("locate", PeerMessage::Locate(Locate { id: ID, index: Index::new(4) })),
        ("located", PeerMessage::Located(Located { id: ID, held: Some(log_id(3, 9)), committed: None })),
        (
            "seek",
            PeerMessage::Seek(Seek { writer: WriterId::new(7), sequence: Sequence::new(1), crc: Some(1) }),
        ),
        ("sought", PeerMessage::Sought(b"hello"[..].into())),
        ("refused", PeerMessage::Refused(Refusal::new(Code::WrongCluster, "m"))),
    ];
    for (name, message) in messages {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        corpus.frame(name, &out);
    }
}

/// Header and entries of each segment of one of the base directories.
fn segments(which: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let files = base::files(which).into_iter().filter(|(name, _)| name.ends_with(".seg"));
    files
        .map(|(_, bytes)| {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(64, |last| last + 1);
            (bytes[..64].to_vec(), bytes[64..used.max(64)].to_vec())
        })
        .collect()
}

fn log_bytes() {
    let (entries, reads) = (Corpus::of("entries"), Corpus::of("client_reads"));
    for which in [1, 2, 4] {
        for (number, (header, bytes)) in segments(which).into_iter().enumerate() {
            entries.put(&format!("header-{which}-{number}"), &header);
            // Offset zero, in the way that a number is read.
            entries.put(&format!("entries-{which}-{number}"), &[&[0, 0], &bytes[..]].concat());
            reads.put(&format!("entries-{which}-{number}"), &[&[30], &bytes[..]].concat());
        }
    }
    for (name, compression, checksums) in [
        ("pack", Compression::None, false),
        ("pack-checksums", Compression::None, true),
        ("pack-lz4", Compression::Lz4, false),
        ("pack-lz4-checksums", Compression::Lz4, true),
    ] {
        let mut pack = PackBuilder::with(PackOptions { compression, checksums });
        for event in [&b"first"[..], b"", &[b'x'; 130]] {
            pack.push(event).expect("small");
        }
        reads.put(name, &[&[30], &pack.finish()[..]].concat());
    }
    reads.put("pack-empty", &[&[30], &PackBuilder::new().finish()[..]].concat());
}

fn log_content() -> Vec<(&'static str, bytes::Bytes)> {
    let corpus = Corpus::of("log_content");
    let state = base::genesis(300);
    let member = state.membership.voters[0].clone();
    let start = LogStart { offset: Offset::new(77), index: Index::new(9), previous_term: Term::new(3) };
    let reference = Reference {
        writer: WriterId::new(7),
        sequence: Sequence::new(1),
        payload_len: 5,
        payload_crc: crc32c(b"hello"),
    };
    let members = Control::Members { voters: vec![member.clone()], learners: Vec::new() };
    let membership = Membership { index: Index::new(5), voters: vec![member], learners: Vec::new() };
    let snapshot = SnapshotContent {
        start,
        end: Offset::new(1000),
        segment_bytes_max: state.segment_bytes_max,
        membership,
    };
    let all = vec![
        ("data", Content::Data(vec![reference; 2]).encode()),
        ("noop", Content::Noop(b"\x01\x02\x03\x04\x05\x06\x07\x08"[..].into()).encode()),
        ("control", Content::Control(Control::Trim(start).encode()).encode()),
        ("trim", Control::Trim(start).encode()),
        ("members", members.encode()),
        ("snapshot", snapshot.encode()),
    ];
    for (name, bytes) in &all {
        corpus.put(name, bytes);
    }
    all
}

/// One change each, of each kind; see `alter`.
fn directories() {
    const CHANGES: [(&str, &[u8]); 19] = [
        ("whole", &[]),
        ("flip", &[0, 0, 100, 0, 4]),
        ("flip-second", &[0, 1, 100, 0, 4]),
        ("cut", &[1, 0, 90, 0]),
        ("longer", &[2, 0, 20]),
        ("zeros", &[3, 0, 64, 0, 200]),
        ("gone", &[4, 0]),
        ("gone-second", &[4, 1]),
        ("header-index", &[5, 0, 1, 1, 1]),
        ("header-term", &[5, 1, 2, 1, 1]),
        ("entry", &[7, 0, 0x10, 3, 1, 2, 3]),
        ("entry-unfinished", &[7, 0, 0x14, 3, 1, 2, 3]),
        ("entry-far", &[7, 0, 0x20, 3, 1, 2, 3]),
        ("mark-behind-end", &[10, 0, 1, 1, 1, 9, 1, 200]),
        ("slot-start", &[11, 1, 7, 1, 100]),
        ("slot-install", &[11, 0x41, 5, 1, 1, 11, 0, 5]),
        ("raw", &[13, 0, 80, 0, 4, 1, 2, 3, 4]),
        ("copy", &[14, 0, 2, 0, 200]),
        ("junk", &[15, 0, 0, 77, 5, 1, 2, 3, 4, 5]),
    ];
    let (recovery, copies) = (Corpus::of("recovery"), Corpus::of("peer_copies"));
    for (at, (name, change)) in CHANGES.iter().enumerate() {
        for which in [2, 3, 4, 5] {
            if (at + which) % 2 == 0 || at < 2 {
                recovery.put(&format!("{name}-{which}"), &[&[which as u8], *change].concat());
            }
        }
        let which = 2 + (at % 4) as u8;
        let requests = [0, 3, 1, 0, 0, 3, 0, 0, 6, 232, 3, 0, 4, 0, 3];
        let input = [&[which, which, change.len() as u8], *change, &requests, &[15; 15]].concat();
        copies.put(&format!("{name}-{which}"), &input);
        copies
            .put(&format!("{name}-into-empty-{which}"), &[&[0, which, 0], &requests[..], &[15; 15]].concat());
    }
    recovery.put("several", &[2, 0, 0, 100, 0, 4, 10, 0, 1, 1, 1, 9, 1, 200, 4, 1, 7, 2, 0x10, 1, 1]);
}

fn config() {
    let corpus = Corpus::of("config");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for file in ["default.toml", "three-node/1.toml", "join/4.toml"] {
        let text = fs::read_to_string(root.join(file)).expect("there");
        // The fuzzer gets nowhere in long files: without the comments.
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let text: Vec<&str> = lines.collect();
        corpus.put(&file.replace('/', "-"), &[&[0], text.join("\n").as_bytes()].concat());
    }
    let pair = |key: u8, value: &str| {
        let mut bytes = vec![1, key, u8::try_from(value.len()).expect("short")];
        bytes.extend_from_slice(value.as_bytes());
        bytes
    };
    let values = [
        "ab",
        r#"[{id=1,peer="a:1",client="b:2"},{id=7,peer="c:3",client="[::1]:4"}]"#,
        "true",
        "3",
        "/data",
        "1.5 GiB",
        "false",
        "0.0.0.0:1",
        "[::1]:2",
        "127.0.0.1:0",
        "host:1",
        "",
        "16 MiB",
        "1GB",
        "64 MiB",
        "100",
        "0 B",
        "info,raft=warning",
        "json",
        "250 ms",
        "true",
    ];
    for (key, value) in values.iter().enumerate() {
        let key = u8::try_from(key).expect("few");
        corpus.put(&format!("flag-{key}"), &[&[1], &pair(key, value)[..]].concat());
        corpus.put(&format!("variable-{key}"), &[&[9], &pair(key, value)[..]].concat());
    }
}

fn main() {
    requests();
    responses();
    let contents = log_content();
    peer_messages(&contents);
    log_bytes();
    directories();
    config();
}
