//! Where entries begin around an offset that is inside one.
//!
//! Entries carry their length at both ends, and their CRC covers their offset: so a place where an entry begins can be
//! recognised from the bytes alone, and from it one can walk back.

use loglog_proto::Offset;
use loglog_proto::entry::EntryRef;
use loglog_proto::walk::last_entry;

/// Where the entry around an offset begins, and where the next one does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    pub(super) before: Offset,
    pub(super) after: Offset,
}

/// The entry that holds `inside`, if `bytes`, which lie at `begin`, hold all of it. `log_end` is a place where one ends.
/// `None` if there is no such entry, as where bytes are damaged.
pub(super) fn surroundings(
    begin: Offset,
    bytes: &[u8],
    inside: Offset,
    log_end: Offset,
) -> Option<Surroundings> {
    let skip = usize::try_from(inside.get().checked_sub(begin.get())?).ok()?;
    // Behind the next entry's begin lies one that is whole, or the end of the log.
    let next = (skip + 1..bytes.len()).find_map(|at| {
        let offset = Offset::new(begin.get() + at as u64);
        EntryRef::decode(offset, &bytes[at..]).is_ok().then_some(offset)
    });
    let after = next.unwrap_or(log_end);
    let until = usize::try_from(after.get().checked_sub(begin.get())?).ok()?;
    let before = last_entry(after, bytes.get(..until)?).ok()??.offset;
    (before < inside).then_some(Surroundings { before, after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::entry::{Kind, Prefix, encode_into};
    use loglog_proto::{Sequence, Term, WriterId};

    /// CRC-32C bit by bit: the binary has no other use for one.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
        })
    }

    /// Entries of these payload lengths from `base` on, and where each begins.
    fn log(base: u64, lengths: &[u32]) -> (Vec<u8>, Vec<u64>) {
        let (mut bytes, mut begins) = (Vec::new(), Vec::new());
        for length in lengths {
            let at = base + bytes.len() as u64;
            begins.push(at);
            let prefix = Prefix {
                kind: Kind::Data,
                last_of_batch: true,
                payload_len: *length,
                term: Term::new(1),
                writer: WriterId::new(1),
                sequence: Sequence::new(at),
            };
            let payload = vec![b'x'; *length as usize];
            encode_into(&mut bytes, Offset::new(at), &prefix, &payload, crc32c(&payload));
        }
        (bytes, begins)
    }

    #[test]
    fn every_offset_inside_an_entry_leads_to_its_ends() {
        let (bytes, mut begins) = log(1000, &[3, 0, 50, 7]);
        let end = 1000 + bytes.len() as u64;
        begins.push(end);
        for pair in begins.windows(2) {
            for inside in pair[0] + 1..pair[1] {
                let found = surroundings(Offset::new(1000), &bytes, Offset::new(inside), Offset::new(end));
                let expected = Surroundings { before: Offset::new(pair[0]), after: Offset::new(pair[1]) };
                assert_eq!(found, Some(expected), "{inside}");
            }
        }
    }

    #[test]
    fn damage_is_not_taken_for_the_inside_of_an_entry() {
        let (mut bytes, begins) = log(0, &[10, 10, 10]);
        let damaged = usize::try_from(begins[1]).unwrap();
        bytes[damaged] ^= 1;
        let end = Offset::new(bytes.len() as u64);
        assert_eq!(surroundings(Offset::ZERO, &bytes, Offset::new(begins[1]), end), None);
        assert_eq!(surroundings(Offset::ZERO, &[0; 100], Offset::new(7), Offset::new(100)), None);
    }
}
