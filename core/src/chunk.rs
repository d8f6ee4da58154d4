//! Chunks: raw bytes that a peer sent, checked before anything is done with them (S34).
//!
//! Owns:   what must hold of them.
//! Keeps:  a chunk is whole batches of one segment, none behind the batch that was named, each entry checked by its CRC, its offset
//!         and its term.
//! Never:  asks for them; writes them.

use bytes::Bytes;
use loglog_proto::entry::Prefix;
use loglog_proto::header::SegmentHeader;
use loglog_proto::peer::{Copied, Copy};
use loglog_proto::walk::{Entries, whole_batches};
use loglog_proto::{Index, Length, Offset};

use crate::gate::Want;

/// Checked raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of the segment that they come from.
    pub header: SegmentHeader,
    /// Index of the first batch.
    pub first: Index,
    /// Where it begins.
    pub offset: Offset,
    /// Whole batches, one at least.
    pub bytes: Bytes,
    /// Index of the batch behind them.
    pub next: Index,
}

impl Chunk {
    /// Behind its last byte: where the batch `next` begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.offset + Length::of(self.bytes.len())
    }

    /// Checks that these are whole batches of the segment that they are said to come from, and no more than was asked for (S34).
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check(copy: &Copy, copied: Copied) -> Result<Self, String> {
        let Copied { header, offset, bytes, .. } = copied;
        let Some(header) = header else {
            return Err("bytes that are in no segment yet".to_owned());
        };
        let is_first = copy.first == header.base_index;
        if offset != copy.offset || offset < header.base_offset || is_first != (offset == header.base_offset)
        {
            return Err(format!("bytes at {offset}, of the segment at {}", header.base_offset));
        }
        let wanted = (copy.last.index.get() + 1).saturating_sub(copy.first.get());
        let whole = whole_batches(offset, &bytes, header.term, wanted);
        if let Some(stop) = whole.stop {
            return Err(stop.to_string());
        }
        if whole.count == 0 || whole.end != offset + Length::of(bytes.len()) {
            return Err("not whole batches, or more of them than were asked for".to_owned());
        }
        let next = Index::new(copy.first.get() + whole.count);
        if next > copy.last.index && header.term != copy.last.term {
            return Err(format!("its last batch has term {}, not that of {}", header.term, copy.last));
        }
        Ok(Self { header, first: copy.first, offset, bytes, next })
    }
}

/// The payloads that are missing, from raw bytes, if these are exactly the batch that is wanted (S34).
///
/// # Errors
/// What does not hold, in words.
pub fn payloads(want: &Want, bytes: &Bytes) -> Result<Vec<Bytes>, String> {
    let (mut walk, mut found) = (Entries::new(want.offset, bytes), Vec::new());
    while let Some(entry) = walk.next_entry().map_err(|error| error.to_string())? {
        let Prefix { term, last_of_batch, writer, sequence, payload_len, .. } = entry.prefix;
        if term != want.log_id.term || last_of_batch != walk.rest().is_empty() {
            break;
        }
        let missing = want.references.get(found.len());
        if missing
            .is_some_and(|it| (it.writer, it.sequence, it.payload_len) == (writer, sequence, payload_len))
        {
            found.push(bytes.slice_ref(entry.payload));
        }
    }
    let is_whole = Length::of(bytes.len()) == want.log_len && walk.rest().is_empty();
    if is_whole && found.len() == want.references.len() {
        Ok(found)
    } else {
        Err(format!("the bytes copied are not batch {}", want.log_id))
    }
}

#[cfg(test)]
mod tests {
    use loglog_proto::entry::{Kind, encode_into};
    use loglog_proto::{ClusterId, LogId, RequestId, Sequence, Term, WriterId, crc32c};

    use super::*;
    use crate::batch::Reference;

    /// `count` batches of one entry of 40 bytes, from offset 100 on.
    fn batches(term: u32, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for sequence in 0..count {
            let payload = sequence.to_le_bytes();
            let prefix = Prefix {
                kind: Kind::Data,
                last_of_batch: true,
                payload_len: 8,
                term: Term::new(term),
                writer: WriterId::new(7),
                sequence: Sequence::new(sequence),
            };
            let offset = Offset::new(100 + out.len() as u64);
            encode_into(&mut out, offset, &prefix, &payload, crc32c(&payload));
        }
        out
    }

    #[test]
    fn s34_a_chunk_is_checked_by_header_crc_term_and_batch_count() {
        let header = SegmentHeader {
            cluster: ClusterId::new(5).unwrap(),
            base_offset: Offset::new(60),
            base_index: Index::new(8),
            term: Term::new(3),
            previous_term: Term::new(2),
        };
        let last = LogId { term: Term::new(3), index: Index::new(11) };
        let copy =
            Copy { id: RequestId::new(1), first: Index::new(9), last, offset: Offset::new(100), limit: 1 };
        let checked = |copy: Copy, header, offset, bytes: Vec<u8>| {
            let copied = Copied {
                id: copy.id,
                header: Some(header),
                offset: Offset::new(offset),
                bytes: Bytes::from(bytes),
            };
            Chunk::check(&copy, copied)
        };
        let chunk = checked(copy, header, 100, batches(3, 2)).unwrap();
        assert_eq!((chunk.next, chunk.end()), (Index::new(11), Offset::new(180)));
        assert_eq!(
            checked(copy, header, 100, batches(3, 3)).unwrap().next,
            Index::new(12),
            "the last one too"
        );
        let mut damaged = batches(3, 2);
        damaged[30] ^= 1;
        let first = SegmentHeader { base_index: Index::new(9), base_offset: Offset::new(100), ..header };
        assert!(checked(copy, first, 100, batches(3, 2)).is_ok());
        let other_last = Copy { last: LogId { term: Term::new(4), index: Index::new(11) }, ..copy };
        assert!(checked(other_last, header, 100, batches(3, 2)).is_ok(), "it does not reach that one");
        for (copy, header, offset, bytes) in [
            (copy, header, 140, batches(3, 2)),
            (copy, header, 100, batches(2, 2)),
            (copy, header, 100, batches(3, 4)),
            (copy, header, 100, batches(3, 2)[..79].to_vec()),
            (copy, header, 100, Vec::new()),
            (copy, header, 100, damaged),
            (other_last, header, 100, batches(3, 3)),
            (copy, SegmentHeader { base_offset: Offset::new(100), ..header }, 100, batches(3, 2)),
            (copy, SegmentHeader { base_offset: Offset::new(140), ..header }, 100, batches(3, 2)),
        ] {
            assert!(checked(copy, header, offset, bytes).is_err());
        }
    }

    /// A batch of two entries at offset 100, in term 3.
    fn batch_of(term: u32, sequences: &[u64]) -> Bytes {
        let mut out = Vec::new();
        for (at, sequence) in sequences.iter().enumerate() {
            let payload = sequence.to_le_bytes();
            let prefix = Prefix {
                kind: Kind::Data,
                last_of_batch: at + 1 == sequences.len(),
                payload_len: 8,
                term: Term::new(term),
                writer: WriterId::new(7),
                sequence: Sequence::new(*sequence),
            };
            let offset = Offset::new(100 + out.len() as u64);
            encode_into(&mut out, offset, &prefix, &payload, crc32c(&payload));
        }
        Bytes::from(out)
    }

    fn want() -> Want {
        let reference = |sequence: u64| Reference {
            writer: WriterId::new(7),
            sequence: Sequence::new(sequence),
            payload_len: 8,
            payload_crc: crc32c(&sequence.to_le_bytes()),
        };
        let log_id = LogId { term: Term::new(3), index: Index::new(9) };
        let (references, log_len) = (vec![reference(1), reference(2)], Length::new(80));
        Want { log_id, offset: Offset::new(100), log_len, references, is_old: false }
    }

    #[test]
    fn s34_what_is_copied_must_be_exactly_the_batch() {
        let good = batch_of(3, &[1, 2]);
        assert_eq!(payloads(&want(), &good).unwrap()[1], 2u64.to_le_bytes()[..]);
        let mut damaged = good.to_vec();
        damaged[30] ^= 1;
        let missing = |at: usize| Want { references: vec![want().references[at]], ..want() };
        assert_eq!(payloads(&missing(1), &good).unwrap(), [&2u64.to_le_bytes()[..]]);
        assert_eq!(payloads(&missing(0), &good).unwrap(), [&1u64.to_le_bytes()[..]]);
        let elsewhere = Want { offset: Offset::new(140), ..want() };
        for (want, bytes) in [
            (want(), good.slice(..good.len() - 1)),
            (want(), Bytes::from([&good[..], &[0]].concat())),
            (want(), Bytes::from(damaged)),
            (want(), batch_of(2, &[1, 2])),
            (want(), batch_of(3, &[1])),
            (want(), batch_of(3, &[1, 2, 3])),
            (want(), Bytes::new()),
            (elsewhere, good.clone()),
        ] {
            assert!(payloads(&want, &bytes).is_err(), "{} bytes", bytes.len());
        }
    }
}
