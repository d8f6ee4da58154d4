//! A connection within the program, spoken to by hand: it is held to what one over a socket is held to.

#![allow(clippy::unwrap_used)]

mod kit;

use std::time::Duration;

use bytes::Bytes;
use loglog_actors::{LocalChannels, Node};
use loglog_proto::error::Code;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use loglog_proto::request::{Append, PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{ClusterId, Offset, RequestId, Sequence, WriterId, crc32c};
use slog::{Discard, Logger, o};

use kit::options;

const DEADLINE: Duration = Duration::from_secs(30);

/// Asks one thing.
async fn ask(channels: &mut LocalChannels, id: u64, body: RequestBody) -> ResponseBody {
    channels.requests.send(vec![Request { id: RequestId::new(id), body }]).unwrap();
    let responses = tokio::time::timeout(DEADLINE, channels.responses.recv()).await.unwrap().unwrap();
    assert_eq!((responses.len(), responses[0].id), (1, RequestId::new(id)));
    responses.into_iter().next().unwrap().body
}

async fn refused(channels: &mut LocalChannels, id: u64, body: RequestBody) -> Code {
    match ask(channels, id, body).await {
        ResponseBody::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn hello(version: u32, cluster: Option<ClusterId>) -> RequestBody {
    RequestBody::Hello { version, cluster, credentials: None }
}

fn append(sequence: u64, payload: &'static [u8]) -> Append {
    Append {
        writer: WriterId::new(7),
        previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
        sequence: Sequence::new(sequence),
        known_end: Some(Offset::ZERO),
        expect_end: None,
        crc: Some(crc32c(payload)),
        payload: Some(Bytes::from_static(payload)),
    }
}

async fn end(channels: &mut LocalChannels) -> Offset {
    match ask(channels, 99, RequestBody::End { linearizable: true }).await {
        ResponseBody::End { end, .. } => end,
        other => panic!("no end: {other:?}"),
    }
}

#[test]
fn s31_a_client_in_the_program_is_believed_no_more_than_any_other() {
    let dir = tempfile::tempdir().unwrap();
    actix_rt::System::new().block_on(async {
        let node = Node::start(options(dir.path(), 1), Logger::root(Discard, o!())).await.unwrap();
        let port = node.local();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = actix_rt::spawn(node.serve(async {
            let _ = stopped.await;
        }));

        // Nobody who has not said hello, nor who means another version or log.
        let mut channels = port.connect().unwrap();
        let early = refused(&mut channels, 1, RequestBody::Append(append(1, b"early"))).await;
        assert_eq!(early, Code::BadRequest);
        assert_eq!(refused(&mut channels, 2, hello(PROTOCOL_VERSION + 1, None)).await, Code::Version);
        let other = hello(PROTOCOL_VERSION, ClusterId::new(1));
        assert_eq!(refused(&mut channels, 3, other).await, Code::WrongCluster);
        let welcome = ask(&mut channels, 4, hello(PROTOCOL_VERSION, None)).await;
        assert!(matches!(welcome, ResponseBody::Welcome(_)), "{welcome:?}");

        // What cannot be, and bytes that are not those that were meant: nothing of it is written.
        let before = end(&mut channels).await;
        let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
        for (bad, code) in [
            (Append { writer: WriterId::NONE, ..append(1, b"x") }, Code::BadRequest),
            (Append { previous: Some(Sequence::new(1)), ..append(1, b"x") }, Code::BadRequest),
            (Append { crc: None, payload: Some(large), ..append(1, b"") }, Code::TooLarge),
            (Append { crc: Some(1), ..append(1, b"x") }, Code::Damaged),
            (append(3, b"out of order"), Code::OutOfOrder),
        ] {
            assert_eq!(refused(&mut channels, 5, RequestBody::Append(bad)).await, code);
        }
        assert_eq!(end(&mut channels).await, before);

        // More in one message than fits into a batch: all of them, in order; and again, each at its place.
        let count = 10_000;
        let mut places = Vec::new();
        for _ in 0..2 {
            let request =
                |id| Request { id: RequestId::new(id), body: RequestBody::Append(append(id, b"payload")) };
            channels.requests.send((1..=count).map(request).collect()).unwrap();
            let mut answers = Vec::new();
            while answers.len() < usize::try_from(count).unwrap() {
                let more = tokio::time::timeout(DEADLINE, channels.responses.recv()).await.unwrap().unwrap();
                answers.extend(more);
            }
            answers.sort_by_key(|answer| answer.id);
            let placed = answers.into_iter().filter_map(|answer| match answer.body {
                ResponseBody::Appended(place) => Some(place),
                // The log remembers the last 4,096 of a writer.
                ResponseBody::Refused(refusal) if refusal.code == Code::UnknownWriter => None,
                other => panic!("{other:?}"),
            });
            places.push(placed.collect::<Vec<_>>());
        }
        assert_eq!(places[0].len(), 10_000);
        assert!(places[0].windows(2).all(|two| two[0].end == two[1].offset));
        assert_eq!(places[1], places[0][10_000 - 4096..]);
        assert_eq!(end(&mut channels).await, places[0][9_999].end, "nothing twice (S28)");

        drop(stop);
        serving.await.unwrap().unwrap();
        assert!(port.connect().is_none(), "it has ended");
        assert!(channels.responses.recv().await.is_none());
    });
}
