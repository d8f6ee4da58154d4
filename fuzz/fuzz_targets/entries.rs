//! Entries and segment headers in any bytes, forwards and backwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loglog_fuzz::input::Input;
use loglog_proto::entry::{EntryRef, Prefix, encode_into};
use loglog_proto::header::SegmentHeader;
use loglog_proto::walk::{Entries, last_entry, whole_batches};
use loglog_proto::{Offset, Term};

/// An entry that was read is written the same, and seen from behind it is the same.
fn again(entry: &EntryRef<'_>, bytes: &[u8]) {
    let mut out = Vec::new();
    encode_into(&mut out, entry.offset, &entry.prefix, entry.payload, entry.payload_crc);
    assert_eq!(out, bytes);
    assert_eq!(last_entry(entry.end(), bytes), Ok(Some(*entry)));
    assert!(out.iter().any(|byte| *byte != 0), "zeros are no entry");
}

/// The bytes with the CRC that each entry in them should have: else the fuzzer never gets behind the first.
fn sealed(at: Offset, bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut done = 0;
    while let Ok(prefix) = Prefix::decode(at, &out[done..]) {
        let (begin, end) = (done, done + prefix.entry_len().as_usize());
        if end > out.len() {
            break;
        }
        let crc = crc32c::crc32c(&out[begin + 24..end - 8]);
        let offset = Offset::new(at.get() + begin as u64);
        out[end - 8..end].copy_from_slice(&prefix.suffix(offset, crc));
        done = end;
    }
    out
}

fn walk(at: Offset, bytes: &[u8]) {
    let mut checked = Entries::new(at, bytes);
    let (mut ends, mut term) = (Vec::new(), Term::ZERO);
    while let Ok(Some(entry)) = checked.next_entry() {
        let (from, to) = ((entry.offset - at).as_usize(), (entry.end() - at).as_usize());
        again(&entry, &bytes[from..to]);
        term = entry.prefix.term;
        ends.push(entry);
    }
    let read = bytes.len() - checked.rest().len();
    assert_eq!(checked.at(), Offset::new(at.get() + read as u64));
    // Back again from the last one's end.
    let (mut end, mut rest) = (checked.at(), &bytes[..read]);
    while let Some(entry) = ends.pop() {
        assert_eq!(last_entry(end, rest), Ok(Some(entry)));
        end = entry.offset;
        rest = &rest[..(end - at).as_usize()];
    }
    let mut unchecked = Entries::unchecked(at, bytes);
    while let Ok(Some(entry)) = unchecked.next_entry() {
        assert!(entry.end() > entry.offset);
    }
    assert!(unchecked.at() >= checked.at(), "who looks less sees no less");
    for most in [1, 3, u64::MAX] {
        let whole = whole_batches(at, bytes, term, most);
        assert!(whole.count <= most && whole.end >= at && whole.end <= checked.at());
    }
    let _ = last_entry(Offset::new(at.get() + bytes.len() as u64), bytes);
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    if let Some(at) = input.number(0) {
        // Where a log may reach: nobody has 2^62 bytes.
        let at = Offset::new(at % (1 << 62));
        walk(at, input.0);
        walk(at, &sealed(at, input.0));
    }
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..64]);
    }
    if let Some(header) = bytes.first_chunk::<64>() {
        let mut sealed = *header;
        let crc = crc32c::crc32c(&sealed[..60]);
        sealed[60..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = SegmentHeader::decode(&sealed) {
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }
});
