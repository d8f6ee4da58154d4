//! Limits: whatever a client sends or leaves unread, and whatever the system runs out of, memory stays bounded, every
//! request is answered, and the node serves on.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use loglog_integration_tests::{Daemon, RawClient, Tmpfs, raw, until, within};
use loglog_proto::error::Code;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use loglog_proto::request::{Read, Request, RequestBody, Upload};
use loglog_proto::response::{Appended, ResponseBody, Status};
use loglog_proto::{Offset, RequestId, Sequence, WriterId};

use crate::daemon;

/// Ten times what anything here takes, and more.
const DEADLINE: Duration = Duration::from_secs(20);

fn append(sequence: u64, payload: Option<Bytes>) -> RequestBody {
    RequestBody::Append(raw::append(sequence, payload))
}

fn bytes(length: usize) -> Option<Bytes> {
    Some(Bytes::from(vec![7; length]))
}

fn appended(client: &mut RawClient, request: RequestBody) -> Appended {
    match client.ask(request) {
        ResponseBody::Appended(appended) => appended,
        other => panic!("not appended: {other:?}"),
    }
}

fn read(offset: Offset, limit: u64, wait_ms: u64) -> RequestBody {
    RequestBody::Read(Read { offset, limit, wait_ms, min_end: None })
}

fn upload(writer: u64, sequence: u64, payload: Bytes) -> RequestBody {
    let (writer, sequence) = (WriterId::new(writer), Sequence::new(sequence));
    RequestBody::Upload(Upload::one(writer, sequence, payload))
}

fn status(client: &mut RawClient) -> Status {
    match client.ask(RequestBody::Status) {
        ResponseBody::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// Requests as one run of bytes.
fn encoded(bodies: impl IntoIterator<Item = RequestBody>) -> BytesMut {
    let mut out = BytesMut::new();
    for (id, body) in (1..).zip(bodies) {
        Request { id: RequestId::new(id), body }.encode(&mut out);
    }
    out
}

/// By how much memory has grown at its peak, MiB.
fn grown(node: &Daemon, before: u64) -> u64 {
    node.peak_resident_bytes().saturating_sub(before) >> 20
}

/// Asks for `value` until it has stayed the same for a while.
fn settled(mut value: impl FnMut() -> usize) -> usize {
    let (mut last, mut since) = (value(), Instant::now());
    until("nothing moves any more", DEADLINE, || {
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    last
}

#[test]
fn reads_sent_at_once_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut writer = RawClient::connect(node.address());
    for sequence in 1..=7 {
        appended(&mut writer, append(sequence, bytes(4 << 20)));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let mut client = RawClient::connect(node.address());
        client.socket().set_read_timeout(Some(DEADLINE)).unwrap();
        let began = Instant::now();
        let reads = (0..6).map(|number| read(Offset::new(number * (4 << 20)), 4 << 20, 0));
        for id in client.send_together(reads).unwrap() {
            let answer = client.receive().expect("the connection stays");
            let ResponseBody::Data(data) = answer.body else { panic!("{answer:?}") };
            assert_eq!((answer.id, data.bytes.len()), (id, 4 << 20));
        }
        slowest = slowest.max(began.elapsed());
    }
    println!("5 times six reads of 4 MiB sent at once, all answered, the slowest six in {slowest:?}");
}

#[test]
fn a_client_that_takes_no_small_replies_is_choked_and_goes_on_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    let before = node.resident_bytes();
    let one = encoded([RequestBody::End { linearizable: false }]);
    let many = one.repeat((1 << 20) / one.len());
    client.socket().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    while sent < 64 << 20 {
        // The rest of a request that was cut off in the middle is sent first.
        match client.socket().write(&many[sent % one.len()..]) {
            Ok(taken) => sent += taken,
            Err(_) => break,
        }
    }
    let grown = grown(&node, before);
    println!(
        "{} KiB of requests taken from a client that reads nothing: memory grew by {grown} MiB",
        sent >> 10
    );
    assert!(sent < 64 << 20, "it is choked");
    assert!(grown < 60, "{grown} MiB");

    // Others do not notice, and once it takes its replies it gets every one of them.
    assert!(status(&mut RawClient::connect(node.address())).committed > 0);
    let (requests, began) = (sent / one.len(), Instant::now());
    for _ in 0..requests {
        let answer = client.receive().expect("the connection stays");
        assert!(matches!(answer.body, ResponseBody::End { .. }), "{answer:?}");
    }
    println!("its {requests} replies came in {:?}", began.elapsed());
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn a_flood_of_small_uploads_costs_bounded_memory() {
    const FLOOD: Duration = Duration::from_secs(2);
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("upload.bytes_max=32 MiB").start();
    let before = node.resident_bytes();
    let payload = Bytes::from(vec![7; 100]);
    let mut sent = 0;
    std::thread::scope(|scope| {
        let floods = [1, 2, 3, 4].map(|writer| {
            let mut client = RawClient::connect(node.address());
            let mut replies = client.socket().try_clone().unwrap();
            scope.spawn(move || std::io::copy(&mut replies, &mut std::io::sink()));
            let many = encoded((1..=8000).map(|sequence| upload(writer, sequence, payload.clone())));
            scope.spawn(move || {
                let (began, mut sent) = (Instant::now(), 0);
                while began.elapsed() < FLOOD {
                    client.send_bytes(&many).unwrap();
                    sent += 8000;
                }
                client.socket().shutdown(std::net::Shutdown::Both).unwrap();
                sent
            })
        });
        sent = floods.into_iter().map(|flood| flood.join().unwrap()).sum::<u64>();
    });
    let grown = grown(&node, before);
    println!("{sent} uploads of 100 bytes in {FLOOD:?}: memory grew by {grown} MiB");
    assert!(sent > 100_000, "{sent}");
    assert!(grown < 150, "{grown} MiB");
    assert!(status(&mut RawClient::connect(node.address())).restarts == 0);
}

#[test]
fn s37_a_node_starts_on_a_full_disk_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "24m") else { return };
    let options = daemon(&dir).set("segment.bytes_max=1 MiB").set("raft.tick=20 ms");
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let node = options.start();
    let mut client = RawClient::connect(node.address());
    let mut last = 0;
    let end = loop {
        match client.ask(append(last + 1, bytes(64 << 10))) {
            ResponseBody::Appended(_) => last += 1,
            ResponseBody::Refused(refusal) => {
                assert_eq!(refusal.code, Code::DiskFull);
                break status(&mut client).committed;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(last > 200, "{last}");
    assert_eq!(node.stop().0.code(), Some(0));

    let mut file = std::fs::File::options().append(true).open(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let began = Instant::now();
    let node = options.start();
    let started = began.elapsed();
    assert!(started < Duration::from_secs(5), "{started:?}");
    let mut client = RawClient::connect(node.address());
    client.socket().set_read_timeout(Some(DEADLINE)).unwrap();
    let answer = client.ask(RequestBody::End { linearizable: false });
    assert!(matches!(answer, ResponseBody::End { end: it, .. } if it.get() >= end), "{answer:?}, {end}");
    for offset in (0..end).step_by(1 << 20) {
        let answer = client.ask(read(Offset::new(offset), 64, 0));
        assert!(matches!(answer, ResponseBody::Data(data) if data.bytes.len() == 64), "at {offset}");
    }

    let asked = Instant::now();
    assert_eq!(client.refused(append(last + 1, bytes(64 << 10))), Code::DiskFull);
    let refused = asked.elapsed();
    let asked = Instant::now();
    match client.ask(RequestBody::End { linearizable: true }) {
        ResponseBody::End { end: it, .. } => assert!(it.get() >= end, "{it} < {end}"),
        ResponseBody::Refused(refusal) => assert_eq!(refusal.code, Code::TimedOut, "{refusal}"),
        other => panic!("{other:?}"),
    }
    println!(
        "{last} appends of 64 KiB, then no space at all: it serves again after {started:?}, refuses an append \
         after {refused:?}, and says after {:?} what the certain end is",
        asked.elapsed()
    );
    std::fs::remove_file(&ballast).unwrap();
    let took = until("appends go on when there is room", DEADLINE, || {
        matches!(client.ask(append(last + 1, bytes(64 << 10))), ResponseBody::Appended(_))
    });
    println!("appends go on {took:?} after there was room");
    assert!(matches!(client.ask(RequestBody::End { linearizable: true }), ResponseBody::End { .. }));
}

#[test]
fn s10_a_loss_is_accepted_at_the_start_and_not_again_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("data.accept_loss=true").set("debug.faults=true").start();
    let mut client = RawClient::connect(node.address());
    for sequence in 1..=10 {
        appended(&mut client, append(sequence, Some(format!("entry {sequence:05}").into())));
    }
    within("all is durable", DEADLINE, || {
        let status = status(&mut client);
        (status.durable == status.committed).then_some(())
    });
    let segment = |path: &std::path::Path| path.extension().is_some_and(|it| it == "seg");
    let mut files = std::fs::read_dir(dir.path().join("data")).unwrap().map(|it| it.unwrap().path());
    let path = files.find(|path| segment(path)).unwrap();
    let mut damaged = std::fs::read(&path).unwrap();
    let at = damaged.windows(11).position(|it| it == b"entry 00005").unwrap();
    damaged[at] ^= 1;
    std::fs::write(&path, &damaged).unwrap();

    let fault = RequestBody::Fault { actor: "consensus".to_owned(), how: "handler".to_owned() };
    assert_eq!(client.ask(fault), ResponseBody::Injected);
    let began = Instant::now();
    let status = node.ended(DEADLINE);
    let said = std::fs::read_to_string(dir.path().join("data.log")).unwrap();
    let end = said.lines().find(|line| line.contains("loglogd ends")).unwrap_or_default();
    println!("ended {:?} after the panic: {end}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    assert!(
        end.contains("data.accept_loss") && end.contains(path.file_name().unwrap().to_str().unwrap()),
        "{end}"
    );
    assert!(!said.contains("ENTRIES ARE LOST"), "{said}");
    let kept = std::fs::read(&path).unwrap();
    let behind = at..at + 5 * (32 + 11);
    assert_eq!(kept[behind.clone()], damaged[behind], "nothing was cut");

    // Without the switch the damage is refused as ever; a whole copy put back is a whole log.
    assert_eq!(daemon(&dir).start_refused().0.code(), Some(1));
    damaged[at] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let node = daemon(&dir).start();
    appended(&mut RawClient::connect(node.address()), append(11, bytes(1)));
}

#[test]
fn connections_that_take_every_descriptor_do_not_end_the_node() {
    const DESCRIPTORS: u32 = 128;
    let dir = tempfile::tempdir().unwrap();
    let options = daemon(&dir).set("segment.bytes_max=64 KiB").descriptors_max(DESCRIPTORS);
    let node = options.start();
    let mut writer = RawClient::connect(node.address());
    appended(&mut writer, append(1, bytes(1)));
    // The next segment's file is there already, and open: so it is when the writer finds nothing else to do.
    let is_prepared = || {
        let mut files = std::fs::read_dir(dir.path().join("data")).unwrap().map(|it| it.unwrap());
        files.any(|it| {
            it.path().extension().is_some_and(|it| it == "tmp")
                && it.metadata().is_ok_and(|it| it.len() > 64 << 10)
        })
    };
    until("the next segment is prepared", DEADLINE, is_prepared);
    let mut watcher = RawClient::connect(node.address());
    let silent: Vec<RawClient> = (0..160).map(|_| RawClient::silent(node.address())).collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", node.id())).map_or(0, Iterator::count);
    let taken = settled(open);

    // Each append fills a segment. Those that find no descriptor for the next one wait, or are refused.
    writer.send_together((2..=20).map(|sequence| append(sequence, bytes(64 << 10)))).unwrap();
    let waits =
        |record: &serde_json::Value| record["msg"].as_str().is_some_and(|it| it.contains("waiting for room"));
    until("the log grows, or waits for a descriptor", DEADLINE, || {
        status(&mut watcher).committed > 19 << 16 || node.records().iter().any(waits)
    });
    drop(silent);
    let mut acknowledged = 0;
    for _ in 2..=20 {
        let answer = writer.receive().expect("the node goes on");
        match answer.body {
            ResponseBody::Appended(_) => acknowledged += 1,
            ResponseBody::Refused(refusal) => assert!(refusal.code.is_retryable(), "{refusal}"),
            other => panic!("{other:?}"),
        }
    }
    let began = Instant::now();
    let status = status(&mut RawClient::connect(node.address()));
    println!(
        "160 silent connections, {DESCRIPTORS} descriptors, {taken} taken; {acknowledged} of 19 appends \
         acknowledged, {} segments; a client is served {:?} after they were dropped",
        status.segments,
        began.elapsed()
    );
    for sequence in acknowledged + 2..=21 {
        appended(&mut writer, append(sequence, bytes(64 << 10)));
    }
    assert_eq!(node.stop().0.code(), Some(0));
    drop(options.start());
}

#[test]
fn unfinished_frames_cost_bounded_memory_and_hold_up_nobody() {
    const FRAME: u32 = 16 << 20;
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("upload.bytes_max=64 MiB").start();

    // Nobody is known before the hello: then only what a hello may need is taken.
    let mut stranger = RawClient::silent(node.address());
    stranger.send_bytes(&(4 << 10 | 1u32).to_be_bytes()).unwrap();
    let answer = stranger.receive().unwrap();
    assert!(matches!(&answer.body, ResponseBody::Refused(it) if it.code == Code::TooLarge), "{answer:?}");
    assert_eq!(stranger.receive(), None);

    let mut client = RawClient::connect(node.address());
    appended(&mut client, append(1, bytes(1)));
    let before = node.resident_bytes();
    let mut partial = FRAME.to_be_bytes().to_vec();
    partial.resize(FRAME as usize - 4096, 7);
    let unfinished: Vec<RawClient> = (0..20)
        .map(|_| {
            let client = RawClient::connect(node.address());
            client.socket().set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let mut lefts = vec![&partial[..]; unfinished.len()];
    let taken = settled(|| {
        for (client, left) in unfinished.iter().zip(&mut lefts) {
            if let Ok(sent) = client.socket().write(left) {
                *left = &left[sent..];
            }
        }
        lefts.iter().map(|left| partial.len() - left.len()).sum::<usize>()
    });
    let grown = grown(&node, before);
    println!("20 unfinished frames of 16 MiB, {} MiB of them taken: memory grew by {grown} MiB", taken >> 20);
    assert!(grown < 150, "{grown} MiB");

    client.socket().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let began = Instant::now();
    appended(&mut client, append(2, bytes(1)));
    let known = began.elapsed();
    appended(&mut RawClient::connect(node.address()), append(3, bytes(1)));
    println!("a client that was there is served after {known:?}, a new one after {:?}", began.elapsed());
}

#[test]
fn a_client_that_sends_no_more_gets_what_it_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut writer = RawClient::connect(node.address());
    let end = appended(&mut writer, append(1, bytes(1 << 20))).end;
    let began = Instant::now();
    for _ in 0..10 {
        let mut client = RawClient::connect(node.address());
        // Every sixth would wait for the log to grow.
        let reads = (0..60u64).map(|number| match number % 6 {
            5 => read(end, 100, 60_000),
            _ => read(Offset::new(number), 64 << 10, 0),
        });
        let mut open = client.send_together(reads).unwrap();
        client.finish();
        let (mut data, mut refused) = (0, 0);
        while let Some(answer) = client.receive() {
            let at = open.iter().position(|id| *id == answer.id).expect("asked for, and not answered yet");
            open.swap_remove(at);
            match answer.body {
                ResponseBody::Data(it) => {
                    assert_eq!(it.bytes.len(), 64 << 10);
                    data += 1;
                }
                ResponseBody::Refused(refusal) => {
                    assert!(refusal.code.is_retryable(), "{refusal}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((data, refused, open.len()), (50, 10, 0));
    }
    let took = began.elapsed();
    println!(
        "10 times 60 reads and then no more sent: 50 answered, 10 that would wait refused, all in {took:?}"
    );
    assert!(took < DEADLINE);
}

#[test]
fn s33_uploads_that_were_appended_make_room_for_others() {
    const ONE: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("upload.bytes_max=32 MiB").start();
    let mut client = RawClient::connect(node.address());
    let began = Instant::now();
    for sequence in 1..=100 {
        let answer = client.ask(upload(7, sequence, Bytes::from(vec![7; ONE])));
        assert_eq!(answer, ResponseBody::Uploaded, "upload {sequence}");
        appended(&mut client, append(sequence, None));
        assert!(status(&mut client).upload_bytes <= 32 << 20);
    }
    println!("100 MiB uploaded and appended, 1 MiB at a time, through 32 MiB in {:?}", began.elapsed());
}

#[test]
fn the_largest_payload_finds_room_in_the_smallest_budgets() {
    for setting in ["upload.bytes_max=16 MiB", "connection.bytes_max=16 MiB"] {
        let dir = tempfile::tempdir().unwrap();
        let node = daemon(&dir).set(setting).start();
        let mut client = RawClient::connect(node.address());
        client.socket().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let began = Instant::now();
        for sequence in 1..=3 {
            appended(&mut client, append(sequence, bytes(PAYLOAD_BYTES_MAX)));
        }
        println!("{setting}: 3 payloads of 16 MiB appended in {:?}", began.elapsed());
        appended(&mut RawClient::connect(node.address()), append(4, bytes(1)));
    }
}
