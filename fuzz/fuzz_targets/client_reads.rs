//! What a client makes of log bytes that come in pieces, and of packs in them.
#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_client::{Compression, Offset, Pack, PackBuilder, PackOptions, Splitter};
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
    let (entry, payload) = (Offset::new(7), Bytes::copy_from_slice(payload));
    let checked = Pack::events(entry, &payload);
    let Ok(events) = Pack::events_unchecked(entry, &payload) else {
        assert!(checked.is_err(), "checking more never sees more");
        return;
    };
    let (length, checksums) = (events.len(), events.have_checksums());
    let found: Vec<_> = events.collect();
    assert_eq!(found.len(), length);
    assert!(found.iter().zip(0..).all(|((position, _), number)| position.number == number));
    for compression in [Compression::None, Compression::Lz4] {
        let mut builder = PackBuilder::with(PackOptions { compression, checksums });
        for (_, event) in &found {
            builder.push(event).expect("it was in a pack");
        }
        let again = builder.finish();
        // Blocks may differ, and what has no extras is not written as version 2.
        let one_way = compression == Compression::None && (payload[3] == 1 || payload[11] == 1);
        if one_way && checked.is_ok() {
            assert_eq!(again, payload, "there is one way to write a pack");
        }
        assert!(Pack::events(entry, &again).expect("it was just packed").eq(found.clone()));
    }
    if let Ok(checked) = checked {
        assert!(checked.eq(found));
    }
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
