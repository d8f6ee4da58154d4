//! Walking over raw log bytes, entry by entry, forwards and backwards.
//!
//! Owns:   finding where entries begin and end in bytes that somebody read.
//! Never:  reads them itself.

use crate::entry::{EntryError, EntryRef, SUFFIX, len_from_suffix};
use crate::position::Offset;

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
    fn walking_back_over_arbitrary_bytes_never_panics() {
        for fill in [0u8, 1, 0x7f, 0xff] {
            for length in 0..80 {
                let _ = last_entry(Offset::new(40), &vec![fill; length]);
            }
        }
    }
}
