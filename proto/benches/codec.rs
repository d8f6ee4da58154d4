//! What messages cost: appends and their acknowledgements, to bytes and back, many behind one another as they travel.
//!
//!     cargo bench -p loglog-proto --bench codec

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{Append, Request, RequestBody};
use loglog_proto::response::{Appended, Response, ResponseBody};
use loglog_proto::{Offset, RequestId, Sequence, Term, WriterId, frame};

/// Messages in a buffer: about what one read of a busy socket gives.
const MESSAGES: u64 = 64;

fn appends(payload: &Bytes) -> Vec<Request> {
    let append = |number: u64| Append {
        writer: WriterId::new(0x1234_5678_9abc_def0),
        previous: (number > 0).then(|| Sequence::new(1_000_000 + number - 1)),
        sequence: Sequence::new(1_000_000 + number),
        known_end: None,
        expect_end: None,
        crc: Some(loglog_proto::crc32c(payload)),
        payload: Some(payload.clone()),
    };
    let request = |number| Request { id: RequestId::new(number), body: RequestBody::Append(append(number)) };
    (0..MESSAGES).map(request).collect()
}

fn acknowledgements() -> Vec<Response> {
    let appended = |number: u64| Appended {
        offset: Offset::new(1_000_000_000 + number * 132),
        end: Offset::new(1_000_000_000 + (number + 1) * 132),
        term: Term::new(7),
    };
    let response =
        |number| Response { id: RequestId::new(number), body: ResponseBody::Appended(appended(number)) };
    (0..MESSAGES).map(response).collect()
}

/// Every message's frame.
fn frames(mut buffer: BytesMut) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || frame::split(&mut buffer, FRAME_BYTES_MAX).expect("whole frames"))
}

fn requests(criterion: &mut Criterion) {
    for length in [100, 1 << 10, 64 << 10] {
        let requests = appends(&Bytes::from(vec![0xa5; length]));
        let mut group = criterion.benchmark_group(format!("append requests, {length} B"));
        group.throughput(Throughput::Elements(MESSAGES));
        let mut out = BytesMut::new();
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                out.clear();
                requests.iter().for_each(|request| request.encode(&mut out));
                black_box(out.len())
            });
        });
        // Without its payload, as it goes out behind one another with payloads that are not copied.
        group.bench_function("encode the head", |bencher| {
            bencher.iter(|| {
                out.clear();
                for request in &requests {
                    black_box(request.encode_head(&mut out).len());
                }
                black_box(out.len())
            });
        });
        let mut encoded = BytesMut::new();
        requests.iter().for_each(|request| request.encode(&mut encoded));
        group.bench_function("decode", |bencher| {
            bencher.iter_batched(
                || encoded.clone(),
                |buffer| {
                    frames(buffer)
                        .map(|frame| Request::decode(&frame).expect("a request"))
                        .for_each(|it| drop(black_box(it)))
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

fn responses(criterion: &mut Criterion) {
    let responses = acknowledgements();
    let mut group = criterion.benchmark_group("append responses");
    group.throughput(Throughput::Elements(MESSAGES));
    let mut out = BytesMut::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            responses.iter().for_each(|response| response.encode(&mut out));
            black_box(out.len())
        });
    });
    let mut encoded = BytesMut::new();
    responses.iter().for_each(|response| response.encode(&mut encoded));
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(
            || encoded.clone(),
            |buffer| {
                frames(buffer)
                    .map(|frame| Response::decode(&frame).expect("a response"))
                    .for_each(|it| drop(black_box(it)))
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, requests, responses);
criterion_main!(benches);
