//! What a client reads from a node: any bytes at all.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_fuzz::frames::{comes_back, each_frame};
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::response::Response;

fn one(frame: &Bytes) {
    match Response::decode(frame) {
        Ok(response) => comes_back(&response, usize::MAX, Response::encode, Response::decode),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    each_frame(bytes, FRAME_BYTES_MAX, one);
    one(&Bytes::copy_from_slice(bytes));
});
