//! Packs: their bytes, what is made of bad ones, and that events come back.

use bytes::Bytes;
use loglog_proto::Offset;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Compression, EventPosition, Events, Pack, PackBuilder, PackError, PackOptions};

const PLAIN: PackOptions = PackOptions { compression: Compression::None, checksums: false };
const SUMS: PackOptions = PackOptions { compression: Compression::None, checksums: true };
const LZ4: PackOptions = PackOptions { compression: Compression::Lz4, checksums: false };
const BOTH: PackOptions = PackOptions { compression: Compression::Lz4, checksums: true };
const ALL: [PackOptions; 4] = [PLAIN, SUMS, LZ4, BOTH];

/// The examples of docs/protocol.md: "hi", "" and 130 times "x", which stand where the gap is.
const GOLDEN_PLAIN: &[u8] = b"LPk\x01\x03\x00\x00\x00\x02hi\x00\x82\x01";
const GOLDEN_SUMS: [&[u8]; 2] = [
    b"LPk\x02\x03\x00\x00\x00\x88\x00\x00\x01\x02hi\x00\x82\x01",
    b"\x9a\xd2\xd6\x53\x7f\xe1\x22\x95\xee\xc1\x78\x84",
];
/// Whole. Another compressor may make other blocks of the same events.
const GOLDEN_LZ4: &[u8] =
    b"LPk\x02\x03\x00\x00\x00\x88\x00\x00\x02\x7f\x02hi\x00\x82\x01x\x01\x00\x68\x60xxxxxx";
const GOLDEN_BOTH: &[u8] =
    b"LPk\x02\x03\x00\x00\x00\x88\x00\x00\x03\x7f\x02hi\x00\x82\x01x\x01\x00\x68\x60xxxxxx\
    \x9a\xd2\xd6\x53\x7f\xe1\x22\x95\xee\xc1\x78\x84";

fn pack(options: PackOptions, events: &[&[u8]]) -> Bytes {
    let mut builder = PackBuilder::with(options);
    for event in events {
        builder.push(event).unwrap();
    }
    let most = builder.byte_len();
    let payload = builder.finish();
    assert!(payload.len() <= most);
    payload
}

fn read(payload: &[u8]) -> Result<Events, PackError> {
    Pack::events(Offset::ZERO, &Bytes::copy_from_slice(payload))
}

fn unchecked(payload: &[u8]) -> Result<Events, PackError> {
    Pack::events_unchecked(Offset::ZERO, &Bytes::copy_from_slice(payload))
}

fn example() -> [&'static [u8]; 3] {
    [b"hi", b"", &[b'x'; 130]]
}

/// A pack of version 2 whose header says these things.
fn says(events: u32, length: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"LPk\x02".to_vec();
    bytes.extend(events.to_le_bytes());
    bytes.extend(&length.to_le_bytes()[..3]);
    bytes.push(flags);
    bytes.extend(body);
    bytes
}

#[test]
fn golden_bytes() {
    let long = [b'x'; 130];
    let plain = [GOLDEN_PLAIN, &long].concat();
    let sums = [GOLDEN_SUMS[0], &long, GOLDEN_SUMS[1]].concat();
    assert_eq!(pack(PLAIN, &example()), plain);
    assert_eq!(pack(SUMS, &example()), sums);
    assert_eq!(pack(LZ4, &example())[..12], GOLDEN_LZ4[..12]);
    assert_eq!(pack(BOTH, &example())[..12], GOLDEN_BOTH[..12]);
    for payload in [&plain, &sums, GOLDEN_LZ4, GOLDEN_BOTH] {
        let events: Vec<_> = read(payload).unwrap().map(|(_, event)| event).collect();
        assert_eq!(events, example(), "{payload:02x?}");
    }
    // The same in the block of another compressor, whose match is longer by one.
    let other = says(3, 136, 2, b"\x7f\x02hi\x00\x82\x01x\x01\x00\x69\x50xxxxx");
    assert!(read(&other).unwrap().map(|(_, event)| event).eq(example()));
}

#[test]
fn packs_of_none_are_read() {
    assert_eq!(pack(PLAIN, &[]).as_ref(), b"LPk\x01\x00\x00\x00\x00");
    assert_eq!(pack(LZ4, &[]), pack(PLAIN, &[]));
    assert_eq!(pack(SUMS, &[]).as_ref(), b"LPk\x02\x00\x00\x00\x00\x00\x00\x00\x01");
    assert_eq!(pack(BOTH, &[]), pack(SUMS, &[]));
    // One empty block, and a body without extras in version 2: nobody writes them so, but they are in order.
    for payload in [&pack(PLAIN, &[])[..], &pack(SUMS, &[]), &says(0, 0, 2, b"\x00"), &says(0, 0, 0, b"")] {
        assert_eq!(read(payload).unwrap().len(), 0);
    }
    assert_eq!(read(&says(1, 2, 0, b"\x01a")).unwrap().next().unwrap().1, &b"a"[..]);
}

#[test]
fn what_compression_does_not_make_smaller_is_stored_as_it_is() {
    // Four bytes are saved, and the longer header takes them.
    let few: [&[u8]; 2] = [b"abcdefgh", b"abcdefghijklm"];
    assert_eq!(pack(LZ4, &few), pack(PLAIN, &few));
    assert_eq!(pack(BOTH, &few[1..]), pack(SUMS, &few[1..]));
    let repeated: [&[u8]; 2] = [&[b'a'; 40], &[b'a'; 40]];
    assert!(pack(LZ4, &repeated).len() < pack(PLAIN, &repeated).len());
    assert!(pack(BOTH, &repeated).len() < pack(SUMS, &repeated).len());
}

#[test]
fn positions_follow_the_entries() {
    for options in ALL {
        let payload = pack(options, &[b"a", &[b'b'; 99]]);
        let events = Pack::events(Offset::new(96), &payload).unwrap();
        assert_eq!(events.have_checksums(), options.checksums);
        let found: Vec<_> = events.collect();
        assert_eq!(found[1].0, EventPosition { entry: Offset::new(96), number: 1 });
        assert_eq!(found[1].0.to_string(), "96:1");
        assert_eq!((&found[0].1[..], &found[1].1[..]), (&b"a"[..], &[b'b'; 99][..]));
        assert!(found[0].0 < found[1].0);
    }
}

#[test]
fn events_without_compression_are_not_copied() {
    let payload = pack(SUMS, &[b"where it lies"]);
    let event = Pack::events(Offset::ZERO, &payload).unwrap().next().unwrap().1;
    assert_eq!(event.as_ptr(), payload[13..].as_ptr());
}

#[test]
fn bad_bytes_are_named() {
    let long = PAYLOAD_BYTES_MAX;
    let cases: &[(&[u8], PackError)] = &[
        (b"", PackError::NotAPack),
        (b"LPk\x01\x00\x00\x00", PackError::NotAPack),
        (b"LPx\x01\x00\x00\x00\x00", PackError::NotAPack),
        (b"LPk\x00\x00\x00\x00\x00", PackError::Version { found: 0 }),
        (b"LPk\x03\x00\x00\x00\x00", PackError::Version { found: 3 }),
        (b"LPk\x01\x00\x00\x00\x00x", PackError::Trailing { bytes: 1, events: 0 }),
        (b"LPk\x01\x01\x00\x00\x00", PackError::Event { number: 0, at: 8 }),
        (b"LPk\x01\x02\x00\x00\x00\x01a\x02b", PackError::Event { number: 1, at: 10 }),
        (b"LPk\x01\x01\x00\x00\x00\x80\x00", PackError::Event { number: 0, at: 8 }),
        (b"LPk\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", PackError::Event { number: 0, at: 8 }),
        (b"LPk\x02\x00\x00\x00\x00", PackError::Short { expected: 12, found: 8 }),
        (&says(0, 0, 4, b""), PackError::Flags { found: 4 }),
        (&says(0, 0, 0x83, b""), PackError::Flags { found: 0x83 }),
        (&says(2, 0, 1, b"1234567"), PackError::Short { expected: 20, found: 19 }),
        (&says(2, 0, 3, b"1234567"), PackError::Short { expected: 20, found: 19 }),
        (&says(1, 1, 1, b"\x00\x001234"), PackError::Length { expected: 1, found: 2 }),
        (&says(1, 2, 0, b"\x00"), PackError::Length { expected: 2, found: 1 }),
        (&says(1, 1, 1, b"\x011234"), PackError::Event { number: 0, at: 12 }),
        (&says(0, 1, 1, b"x"), PackError::Trailing { bytes: 1, events: 0 }),
        (&says(u32::MAX, 0, 1, b""), PackError::TooLong { length: 12 + 4 * 0xffff_ffff, max: long }),
        (&says(2, 3, 2, b"\x30\x01a\x05"), PackError::Event { number: 1, at: 14 }),
        (&says(0, 0xff_fff4, 2, b"\x00"), PackError::TooLong { length: long + 1, max: long }),
    ];
    for (bytes, error) in cases {
        assert_eq!(read(bytes).unwrap_err(), *error, "{bytes:02x?}");
        assert_eq!(unchecked(bytes).unwrap_err(), *error, "{bytes:02x?}");
    }
    let mut over = vec![0; PAYLOAD_BYTES_MAX + 1];
    over[..8].copy_from_slice(b"LPk\x01\x00\x00\x00\x00");
    assert_eq!(read(&over).unwrap_err(), PackError::TooLong { length: long + 1, max: long });
}

#[test]
fn a_changed_event_is_named_with_its_position_and_both_sums() {
    let mut bytes = pack(SUMS, &[b"first", b"second"]).to_vec();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] = b'5';
    let payload = Bytes::from(bytes);
    let error = Pack::events(Offset::new(77), &payload).unwrap_err();
    let PackError::Checksum { position, at: begin, stored, computed } = error else { panic!("{error}") };
    assert_eq!((position, begin), (EventPosition { entry: Offset::new(77), number: 1 }, at - 1));
    assert_eq!(stored, loglog_proto::crc32c(b"\x01\x00\x00\x00second"));
    assert_eq!(computed, loglog_proto::crc32c(b"\x01\x00\x00\x005econd"));
    assert_eq!(
        error.to_string(),
        format!(
            "event 1 (at 77:1, byte {begin} of its pack) is not what was packed: its checksum is {computed:08x}, \
             and {stored:08x} was packed with it"
        )
    );
    // Who does not want it checked gets what there is.
    let events = Pack::events_unchecked(Offset::new(77), &payload).unwrap();
    assert_eq!(events.last().unwrap().1, &b"5econd"[..]);
}

#[test]
fn zeros_are_no_empty_events_and_events_keep_their_places() {
    let zeros = says(2, 2, 1, &[0; 10]);
    assert!(matches!(read(&zeros), Err(PackError::Checksum { .. })));
    assert_eq!(unchecked(&zeros).unwrap().len(), 2);

    // Both events, and both sums.
    let mut swapped = pack(SUMS, &[b"a", b"b"]).to_vec();
    swapped[12..16].rotate_left(2);
    swapped[16..].rotate_left(4);
    assert!(matches!(read(&swapped), Err(PackError::Checksum { .. })));
    assert!(unchecked(&swapped).unwrap().map(|(_, event)| event).eq([&b"b"[..], b"a"]));
}

#[test]
fn a_full_pack_takes_no_more() {
    for options in ALL {
        let header = if options == PLAIN { 8 } else { 12 };
        let sum = if options.checksums { 4 } else { 0 };
        let event = vec![0; PAYLOAD_BYTES_MAX - header - 4 - sum];
        let mut builder = PackBuilder::with(options);
        assert_eq!(builder.push(&event), Ok(0));
        let full = PackError::Full { length: PAYLOAD_BYTES_MAX + 1 + sum, max: PAYLOAD_BYTES_MAX };
        assert_eq!(builder.push(b""), Err(full));
        assert_eq!((builder.len(), builder.byte_len()), (1, PAYLOAD_BYTES_MAX));
        let payload = builder.finish();
        assert_eq!(payload.len() < PAYLOAD_BYTES_MAX, options.compression == Compression::Lz4);
        assert_eq!(read(&payload).unwrap().map(|(_, event)| event.len()).sum::<usize>(), event.len());
    }
}

#[test]
fn a_full_pack_of_noise_is_still_an_entry() {
    let (mut state, mut event) = (1_u64, vec![0; PAYLOAD_BYTES_MAX - 12 - 4 - 4]);
    for byte in &mut event {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = state.to_le_bytes()[7];
    }
    for options in [LZ4, BOTH] {
        let payload = pack(options, &[&event]);
        assert!(payload.len() > event.len() && payload.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(read(&payload).unwrap().next().unwrap().1, event);
    }
}

#[test]
fn blocks_that_are_not_what_they_say_are_errors() {
    let compressed: &[(u32, &[u8])] = &[
        (0, b""),                                                 // no block at all
        (5, b"\x30\x02hi"),                                       // one byte less
        (2, b"\x30\x02hi"),                                       // one more
        (5, b"\x40\x02hi"),                                       // a literal that is not there
        (30, b"\x1fa\x00\x00\x00\x50xxxxx"),                      // a match at distance 0
        (30, b"\x1fa\x02\x00\x00\x50xxxxx"),                      // a match from before the begin
        (30, b"\x1fa\x01"),                                       // cut within a distance
        (30, b"\x1fa\x01\x00"),                                   // cut within a length
        (20, b"\x1fa\x01\x00\x00"),                               // nothing behind the match
        (1000, b"\x1fa\x01\x00\xff\xff\xff\xff\xff\xff\x00\x00"), // a longer match than there is room for
    ];
    for (length, block) in compressed {
        let error = read(&says(1, *length, 2, block)).unwrap_err();
        assert!(matches!(error, PackError::Compressed { .. }), "{block:02x?}: {error}");
    }
}

#[test]
fn a_few_bytes_that_say_much_take_no_memory() {
    let error = read(&says(1, 0xff_fff3, 2, &[0xff; 1000])).unwrap_err();
    assert_eq!(error, PackError::Compressed { reason: "1000 bytes cannot become 16777203".to_owned() });
    // And what grows most is no more than what an entry holds, and is let through.
    let payload = pack(LZ4, &[&vec![0; PAYLOAD_BYTES_MAX - 16]]);
    assert!(payload.len() < 70_000, "{}", payload.len());
    assert!(read(&payload).is_ok());
}

fn any_options() -> impl Strategy<Value = PackOptions> {
    proptest::sample::select(ALL.to_vec())
}

/// Events, some of which are like one another.
fn any_events() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let event = prop_oneof![vec(any::<u8>(), 0..300), vec(0u8..2, 0..300)];
    vec(event, 0..20)
}

/// What must hold whatever the bytes are.
fn never_worse(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (checked, unchecked) = (read(bytes), unchecked(bytes));
    match (checked, unchecked) {
        (Ok(checked), Ok(unchecked)) => {
            let (len, events) = (checked.len(), checked.collect::<Vec<_>>());
            prop_assert_eq!(len, events.len());
            prop_assert!(unchecked.eq(events));
        }
        (Err(PackError::Checksum { stored, computed, .. }), unchecked) => {
            prop_assert_ne!(stored, computed);
            let looked = matches!(unchecked, Err(PackError::Checksum { .. }));
            prop_assert!(!looked, "sums were checked unasked");
        }
        (Err(checked), Err(unchecked)) => prop_assert_eq!(checked, unchecked),
        (checked, unchecked) => prop_assert!(false, "{:?}, unchecked {:?}", checked, unchecked),
    }
    Ok(())
}

proptest! {
    #[test]
    fn events_come_back(options in any_options(), events in any_events()) {
        let slices: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        let payload = pack(options, &slices);
        let found = read(&payload).unwrap();
        prop_assert_eq!(found.len(), events.len());
        prop_assert!(found.map(|(_, event)| event).eq(events));
        never_worse(&payload)?;
    }

    #[test]
    fn any_bytes_never_panic(version in 0u8..4, events in 0u32..5, length in 0u32..200, flags in 0u8..5, body in vec(any::<u8>(), 0..60)) {
        let mut bytes = says(events, length, flags, &body);
        never_worse(&bytes)?;
        never_worse(&bytes[..bytes.len().min(13)])?;
        bytes[3] = version;
        never_worse(&bytes)?;
        never_worse(&body)?;
    }

    #[test]
    fn cut_or_changed_packs_never_panic(options in any_options(), events in any_events(), cut in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), to in any::<u8>()) {
        let slices: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        let payload = pack(options, &slices);
        let mut bytes = payload.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        never_worse(&bytes)?;
        bytes.truncate(cut.index(bytes.len()));
        never_worse(&bytes)?;
        // A pack that lacks its end is never taken for one.
        prop_assert!(read(&payload[..bytes.len()]).is_err());
    }

    #[test]
    fn no_flip_of_a_bit_goes_unnoticed(compression in proptest::sample::select(vec![Compression::None, Compression::Lz4]), event in vec(0u8..4, 0..100), bit in any::<proptest::sample::Index>()) {
        let payload = pack(PackOptions { compression, checksums: true }, &[&event]);
        let mut bytes = payload.to_vec();
        let bit = bit.index(8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        // In a block a changed distance may well lead to the same bytes.
        if let Ok(mut found) = read(&bytes) {
            prop_assert_eq!(compression, Compression::Lz4);
            prop_assert_eq!(found.next().unwrap().1, event);
        }
    }
}
