//! Walking over raw log bytes, entry by entry, forwards and backwards.
//!
//! Owns:   finding where entries begin and end in bytes that somebody read.
//! Never:  reads them itself.

use crate::entry::{EntryError, EntryRef, SUFFIX, len_from_suffix};
use crate::position::{Offset, Term};

/// Entries from the head of `bytes` on.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    at: Offset,
    bytes: &'a [u8],
    checked: bool,
}

impl<'a> Entries<'a> {
    /// Walks over `bytes`, which lie at `at` in the log and begin with an entry, checking each CRC.
    #[must_use]
    pub const fn new(at: Offset, bytes: &'a [u8]) -> Self {
        Self { at, bytes, checked: true }
    }

    /// The same without looking at checksums.
    #[must_use]
    pub const fn unchecked(at: Offset, bytes: &'a [u8]) -> Self {
        Self { at, bytes, checked: false }
    }

    /// The next entry; `None` where the rest of the bytes hold no whole one.
    ///
    /// # Errors
    /// [`EntryError`], never [`EntryError::Short`].
    pub fn next_entry(&mut self) -> Result<Option<EntryRef<'a>>, EntryError> {
        let decode = if self.checked { EntryRef::decode } else { EntryRef::decode_unchecked };
        match decode(self.at, self.bytes) {
            Ok(entry) => {
                self.at = entry.end();
                self.bytes = &self.bytes[entry.len().as_usize()..];
                Ok(Some(entry))
            }
            Err(EntryError::Short { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the next entry begins.
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.at
    }

    /// The bytes not yet walked over.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The whole batches at the head of raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeBatches {
    /// How many.
    pub count: u64,
    /// Behind the last of them.
    pub end: Offset,
    /// Why the bytes behind them are no further batch; none where they are merely cut short, or were not looked at.
    pub stop: Option<BatchError>,
}

/// Why bytes are no batch of a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// An entry is none.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An entry has another term than its segment.
    #[error("entry at offset {at} has term {found} in a segment of term {expected}")]
    Term {
        /// The entry's offset.
        at: Offset,
        /// The segment's.
        expected: Term,
        /// The entry's.
        found: Term,
    },
}

/// Counts the whole batches of `term`, at most `count_max`, in `bytes`, which lie at `at` in the log and begin with a batch. Every entry
/// of them is checked (S34).
#[must_use]
pub fn whole_batches(at: Offset, bytes: &[u8], term: Term, count_max: u64) -> WholeBatches {
    let mut whole = WholeBatches { count: 0, end: at, stop: None };
    let mut walk = Entries::new(at, bytes);
    while whole.count < count_max {
        match walk.next_entry() {
            Ok(Some(entry)) if entry.prefix.term != term => {
                let (at, found) = (entry.offset, entry.prefix.term);
                whole.stop = Some(BatchError::Term { at, expected: term, found });
                break;
            }
            Ok(Some(entry)) if entry.prefix.last_of_batch => {
                whole.count += 1;
                whole.end = entry.end();
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                whole.stop = Some(error.into());
                break;
            }
        }
    }
    whole
}

/// The last entry in `bytes`, which end at `end` in the log, at an entry's end. `None` where `bytes` do not reach back to its begin.
///
/// # Errors
/// [`EntryError`] where no entry ends at `end`.
pub fn last_entry(end: Offset, bytes: &[u8]) -> Result<Option<EntryRef<'_>>, EntryError> {
    let Some(suffix) = bytes.last_chunk::<SUFFIX>() else { return Ok(None) };
    let length = len_from_suffix(suffix).filter(|length| length.get() <= end.get());
    let Some(length) = length else { return Err(EntryError::Kind { at: end, code: 0 }) };
    let Some(begin) = bytes.len().checked_sub(length.as_usize()) else { return Ok(None) };
    EntryRef::decode(end.saturating_back(length), &bytes[begin..]).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Prefix, encode_into};
    use crate::ids::{Sequence, WriterId};
    use crate::position::Term;

    fn log(base: Offset, payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, payload) in payloads.iter().enumerate() {
            let at = Offset::new(base.get() + out.len() as u64);
            let prefix = Prefix {
                kind: Kind::Data,
                last_of_batch: true,
                payload_len: u32::try_from(payload.len()).unwrap(),
                term: Term::new(1),
                writer: WriterId::new(1),
                sequence: Sequence::new(number as u64),
            };
            encode_into(&mut out, at, &prefix, payload, crc32c::crc32c(payload));
        }
        out
    }

    #[test]
    fn forwards_and_backwards_meet() {
        let base = Offset::new(100);
        let bytes = log(base, &[b"a", b"", b"ccc"]);
        let mut forwards = Vec::new();
        let mut walk = Entries::new(base, &bytes[..bytes.len()]);
        while let Some(entry) = walk.next_entry().unwrap() {
            forwards.push(entry);
        }
        let mut backwards = Vec::new();
        let (mut end, mut rest) = (walk.at(), &bytes[..]);
        while let Some(entry) = last_entry(end, rest).unwrap() {
            backwards.push(entry);
            end = entry.offset;
            rest = &rest[..rest.len() - entry.len().as_usize()];
        }
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.len(), 3);
    }

    #[test]
    fn a_cut_entry_is_left_in_the_rest() {
        let bytes = log(Offset::ZERO, &[b"a", b"bb"]);
        let mut walk = Entries::new(Offset::ZERO, &bytes[..bytes.len() - 1]);
        assert!(walk.next_entry().unwrap().is_some());
        assert!(walk.next_entry().unwrap().is_none());
        assert_eq!(walk.at(), Offset::new(33));
    }

    #[test]
    fn whole_batches_are_counted_and_checked() {
        let base = Offset::new(100);
        let bytes = log(base, &[b"a", b"", b"ccc"]);
        let whole = |bytes: &[u8], term, most| {
            let found = whole_batches(base, bytes, Term::new(term), most);
            (found.count, found.end.get() - 100, found.stop.is_some())
        };
        assert_eq!(whole(&bytes, 1, 9), (3, 100, false));
        assert_eq!(whole(&bytes, 1, 2), (2, 65, false), "no more than wanted");
        assert_eq!(whole(&bytes[..99], 1, 9), (2, 65, false), "what is cut short is not counted");
        assert_eq!(whole(&bytes, 2, 9), (0, 0, true), "another term");
        let mut damaged = bytes;
        damaged[40] ^= 1;
        assert_eq!(whole(&damaged, 1, 9), (1, 33, true));
        assert_eq!(whole(&damaged, 1, 1), (1, 33, false), "what is not wanted is not looked at");
        damaged[3] &= 0x7f;
        assert_eq!(whole(&damaged[..33], 1, 9), (0, 0, true), "the flag is under the checksum");
    }

    #[test]
    fn walking_back_over_arbitrary_bytes_never_panics() {
        for fill in [0u8, 1, 0x7f, 0xff] {
            for length in 0..80 {
                let _ = last_entry(Offset::new(40), &vec![fill; length]);
            }
        }
    }
}
