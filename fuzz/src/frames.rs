//! A stream of frames, as it comes from a socket.
//!
//! Owns:   cutting it, and what must hold of each message that is read.

use bytes::{Bytes, BytesMut};
use loglog_proto::frame::split;

/// Hands every whole frame of a stream to `each`. No more room is taken than the limit allows.
pub fn each_frame(stream: &[u8], max: usize, each: impl Fn(&Bytes)) {
    let mut buffer = BytesMut::from(stream);
    let frames = loop {
        match split(&mut buffer, max) {
            Ok(Some(frame)) => each(&frame),
            end => break end,
        }
    };
    assert!(frames.is_err() || buffer.capacity() <= 2 * (max + 4) + stream.len(), "room beyond the limit");
}

/// What a message encodes to decodes to the same message; its frame is one frame and no more.
pub fn comes_back<M: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    message: &M,
    max: usize,
    encode: impl Fn(&M, &mut BytesMut),
    decode: impl Fn(&Bytes) -> Result<M, E>,
) {
    let mut out = BytesMut::new();
    encode(message, &mut out);
    let frame = split(&mut out, max).expect("within the limit").expect("whole");
    assert!(out.is_empty(), "one frame");
    assert_eq!(decode(&frame).as_ref().expect("our own message is read"), message);
}
