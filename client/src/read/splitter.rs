//! Splitter: makes entries of raw bytes that come in pieces cut anywhere.
//!
//! Owns:   the head of an entry whose rest has not come yet.
//! Keeps:  a payload is a slice of the piece it came in; only an entry cut by the end of a piece is copied.
//! Never:  reads.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use loglog_proto::entry::{EntryError, EntryRef, Kind, PREFIX, Prefix};
use loglog_proto::walk;
use loglog_proto::{Length, Offset};

use super::Entry;

/// Splits a run of bytes that begins with an entry.
#[derive(Debug)]
pub struct Splitter {
    /// Where the next entry begins.
    at: Offset,
    /// Its bytes that have come.
    head: BytesMut,
    checked: bool,
}

impl Splitter {
    /// Nothing yet; bytes from `at` on are to come.
    #[must_use]
    pub fn new(at: Offset, checked: bool) -> Self {
        Self { at, head: BytesMut::new(), checked }
    }

    /// Where the next entry begins.
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.at
    }

    /// The next byte wanted.
    #[must_use]
    pub fn wanted(&self) -> Offset {
        self.at + Length::of(self.head.len())
    }

    /// Takes the bytes at [`Splitter::wanted`] and adds the data entries that are whole now to `out`.
    ///
    /// # Errors
    /// What is no entry.
    pub fn feed(&mut self, mut bytes: Bytes, out: &mut VecDeque<Entry>) -> Result<(), EntryError> {
        while !self.head.is_empty() && !bytes.is_empty() {
            let needed = self.needed()?;
            let missing = (needed - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes.split_to(missing));
            if self.head.len() == self.needed()? {
                let whole = self.head.split().freeze();
                let mut walk = self.walk(&whole);
                let entry = walk.next_entry()?;
                self.at = walk.at();
                out.extend(entry.and_then(|entry| data(&whole, entry)));
            }
        }
        let mut walk = self.walk(&bytes);
        while let Some(entry) = walk.next_entry()? {
            out.extend(data(&bytes, entry));
        }
        self.at = walk.at();
        self.head.extend_from_slice(walk.rest());
        Ok(())
    }

    /// Bytes were damaged: begins again behind the last entry that was whole, which is the last of `out`, if that is not empty.
    pub(crate) fn restart(&mut self, out: &VecDeque<Entry>) {
        self.at = out.back().map_or(self.at, |entry| entry.end.max(self.at));
        self.head.clear();
    }

    /// Bytes that the head must have before more can be said about it.
    fn needed(&self) -> Result<usize, EntryError> {
        if self.head.len() < PREFIX {
            return Ok(PREFIX);
        }
        Ok(Prefix::decode(self.at, &self.head)?.entry_len().as_usize())
    }

    fn walk<'a>(&self, bytes: &'a [u8]) -> walk::Entries<'a> {
        if self.checked {
            walk::Entries::new(self.at, bytes)
        } else {
            walk::Entries::unchecked(self.at, bytes)
        }
    }
}

fn data(whole: &Bytes, entry: EntryRef<'_>) -> Option<Entry> {
    (entry.prefix.kind == Kind::Data).then(|| Entry {
        offset: entry.offset,
        end: entry.end(),
        term: entry.prefix.term,
        writer: entry.prefix.writer,
        sequence: entry.prefix.sequence,
        payload: whole.slice_ref(entry.payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::raw::RawLog;
    use proptest::prelude::*;

    #[test]
    fn after_damage_it_begins_again_behind_what_was_whole() {
        let mut log = RawLog::new(Offset::ZERO);
        for payload in [&b"abc"[..], b"defg", b"hi"] {
            log.data(payload);
        }
        let bytes = log.bytes();
        for at in 0..bytes.len() {
            for piece in 1..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 4;
                let (mut splitter, mut out) = (Splitter::new(Offset::ZERO, true), VecDeque::new());
                let pieces = damaged.chunks(piece).map(Bytes::copy_from_slice);
                let _ = pieces.into_iter().try_for_each(|piece| splitter.feed(piece, &mut out));
                splitter.restart(&out);
                let from = usize::try_from(splitter.wanted().get()).unwrap();
                splitter.feed(bytes.slice(from..), &mut out).unwrap();
                let payloads: Vec<&[u8]> = out.iter().map(|entry| &entry.payload[..]).collect();
                assert_eq!(payloads, [&b"abc"[..], b"defg", b"hi"], "byte {at}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_an_error_and_can_be_left_unseen() {
        let mut log = RawLog::new(Offset::ZERO);
        log.data(b"abc");
        let mut bytes = log.bytes().to_vec();
        bytes[PREFIX] ^= 1;
        for checked in [true, false] {
            let result =
                Splitter::new(Offset::ZERO, checked).feed(Bytes::from(bytes.clone()), &mut VecDeque::new());
            assert_eq!(result.is_err(), checked);
        }
    }

    proptest! {
        #[test]
        fn pieces_cut_anywhere_give_the_same_entries(
            base in 0u64..1 << 40,
            payloads in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..12),
            cuts in proptest::collection::vec(1usize..200, 1..40),
        ) {
            let mut log = RawLog::new(Offset::new(base));
            for (is_data, payload) in &payloads {
                if *is_data { log.data(payload) } else { log.noop() };
            }
            let mut rest = log.bytes();
            let (mut splitter, mut out) = (Splitter::new(Offset::new(base), true), VecDeque::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let wanted = splitter.wanted();
                prop_assert_eq!(wanted, Offset::new(base) + Length::of(log.bytes().len() - rest.len()));
                splitter.feed(rest.split_to((*cut).min(rest.len())), &mut out).unwrap();
            }
            let found: Vec<_> = out.iter().map(|entry| entry.payload.to_vec()).collect();
            let given: Vec<_> = payloads.into_iter().filter(|(is_data, _)| *is_data).map(|(_, payload)| payload).collect();
            prop_assert_eq!(found, given);
            prop_assert_eq!(splitter.at(), log.end());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let mut splitter = Splitter::new(Offset::ZERO, false);
            for piece in bytes.chunks(cut) {
                if splitter.feed(Bytes::copy_from_slice(piece), &mut VecDeque::new()).is_err() { break; }
            }
        }
    }
}
