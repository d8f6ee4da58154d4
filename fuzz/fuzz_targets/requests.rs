//! What a node reads from a client: any bytes at all.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_fuzz::frames::{comes_back, each_frame};
use loglog_proto::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use loglog_proto::request::{Request, RequestBody};

fn one(frame: &Bytes) {
    match Request::decode(frame) {
        Ok(request) => {
            if let RequestBody::Append(append) = &request.body {
                let payload = append.payload.as_ref().map_or(0, Bytes::len);
                assert!(payload <= PAYLOAD_BYTES_MAX && payload <= frame.len());
                assert!(append.previous.is_none_or(|previous| previous < append.sequence));
            }
            comes_back(&request, FRAME_BYTES_MAX, Request::encode, Request::decode);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    each_frame(bytes, FRAME_BYTES_MAX, one);
    // And without the length in front, which costs the fuzzer much to get right.
    one(&Bytes::copy_from_slice(bytes));
});
