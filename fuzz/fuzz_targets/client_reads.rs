//! What a client makes of log bytes that come in pieces, and of packs in them.
#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_client::{Offset, Pack, PackBuilder, Splitter};
use loglog_fuzz::input::Input;

/// The payloads found, and whether all bytes were entries.
fn split(bytes: &[u8], piece: usize, checked: bool) -> (Vec<Bytes>, bool) {
    let (mut splitter, mut out) = (Splitter::new(Offset::ZERO, checked), VecDeque::new());
    let mut fed = 0;
    for piece in bytes.chunks(piece) {
        assert_eq!(splitter.wanted(), Offset::new(fed));
        if splitter.feed(Bytes::copy_from_slice(piece), &mut out).is_err() {
            return (out.into_iter().map(|entry| entry.payload).collect(), false);
        }
        fed += piece.len() as u64;
        assert!(splitter.at() <= splitter.wanted());
    }
    (out.into_iter().map(|entry| entry.payload).collect(), true)
}

fn pack(payload: &[u8]) {
    let Ok(events) = Pack::events(Offset::new(7), payload) else { return };
    let (length, mut builder) = (events.len(), PackBuilder::new());
    let mut seen = 0;
    for (position, event) in events {
        assert_eq!(position.number, seen);
        seen += 1;
        builder.push(event).expect("it was in a pack");
    }
    assert_eq!(seen as usize, length);
    assert_eq!(builder.finish(), payload, "there is one way to write a pack");
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Some(piece) = input.u8() else { return };
    let bytes = input.0;
    for checked in [true, false] {
        let (whole, all) = split(bytes, bytes.len().max(1), checked);
        let (pieces, all_in_pieces) = split(bytes, usize::from(piece) + 1, checked);
        assert_eq!(all, all_in_pieces, "it does not matter how the bytes came");
        assert_eq!(whole, pieces);
        whole.iter().for_each(|payload| pack(payload));
    }
    pack(bytes);
});
