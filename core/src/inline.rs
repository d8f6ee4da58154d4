//! Inline payloads: small ones travel in the leader's message, behind their references.
//!
//! Owns:   which payloads these are, and their form there: one behind the other, in the batch's order. A leader keeps those of its
//!         last batches, for followers that lag a little.
//! Keeps:  what came inline is what the references name, or counts as nothing (S31); then it comes as all others do.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use loglog_proto::entry::Kind;
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::{LogId, crc32c};
use loglog_storage::NewEntry;

use crate::batch::Reference;

/// A batch's entries that are here, each with its place in the batch, in order.
pub(crate) type Present = Vec<(usize, NewEntry)>;

/// Small payloads that a leader keeps, bytes.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// What each batch of them takes in memory beside.
const RECENT_OVERHEAD: usize = 128;

/// The small payloads of a leader's last batches, in the log's order.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    batches: VecDeque<(LogId, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Adds the batch that ends the log.
    pub(crate) fn push(&mut self, log_id: LogId, entries: &[NewEntry]) {
        let inline = gather(entries);
        if inline.is_empty() {
            return;
        }
        self.bytes += inline.len() + RECENT_OVERHEAD;
        self.batches.push_back((log_id, inline));
        while self.bytes > RECENT_BYTES_MAX
            && let Some((_, oldest)) = self.batches.pop_front()
        {
            self.bytes -= oldest.len() + RECENT_OVERHEAD;
        }
    }

    /// Those of a batch; empty if they are not here.
    pub(crate) fn get(&self, log_id: LogId) -> Bytes {
        let at = self.batches.partition_point(|(it, _)| it.index < log_id.index);
        self.batches.get(at).filter(|(it, _)| *it == log_id).map_or_else(Bytes::new, |(_, it)| it.clone())
    }
}

/// The small payloads of a batch.
pub(crate) fn gather(entries: &[NewEntry]) -> Bytes {
    let small = || {
        let data = entries.iter().filter(|entry| entry.kind == Kind::Data);
        data.map(|entry| &entry.payload).filter(|payload| payload.len() <= INLINE_BYTES_MAX)
    };
    let mut inline = BytesMut::with_capacity(small().map(Bytes::len).sum());
    small().for_each(|payload| inline.extend_from_slice(payload));
    inline.freeze()
}

/// The entries whose payloads came inline. Of small payloads all came, or none; an empty one is always here.
pub(crate) fn scatter(references: &[Reference], inline: &Bytes) -> Present {
    let most = if inline.is_empty() { 0 } else { INLINE_BYTES_MAX };
    let (mut present, mut rest) = (Present::new(), inline.clone());
    for (at, reference) in references.iter().enumerate() {
        let length = reference.payload_len as usize;
        if length > most {
            continue;
        }
        if length > rest.len() || crc32c(&rest[..length]) != reference.payload_crc {
            return Present::new();
        }
        present.push((at, reference.entry(rest.split_to(length))));
    }
    if rest.is_empty() { present } else { Present::new() }
}

/// The whole batch, of what was here and what was brought.
pub(crate) fn merge(present: Present, brought: Vec<NewEntry>) -> Vec<NewEntry> {
    if present.is_empty() {
        return brought;
    }
    let mut merged = Vec::with_capacity(present.len() + brought.len());
    let mut brought = brought.into_iter();
    for (at, entry) in present {
        let before = at - merged.len();
        merged.extend(brought.by_ref().take(before));
        merged.push(entry);
    }
    merged.extend(brought);
    merged
}

#[cfg(test)]
mod tests {
    use loglog_proto::{Index, Sequence, Term, WriterId};
    use proptest::prelude::*;

    use super::*;

    fn batch(lengths: &[usize]) -> Vec<NewEntry> {
        let entry = |(at, length): (usize, &usize)| {
            let payload = Bytes::from(vec![u8::try_from(at % 251).unwrap(); *length]);
            let sequence = Sequence::new(at as u64 + 1);
            let payload_crc = crc32c(&payload);
            NewEntry { kind: Kind::Data, writer: WriterId::new(7), sequence, payload, payload_crc }
        };
        lengths.iter().enumerate().map(entry).collect()
    }

    fn references(batch: &[NewEntry]) -> Vec<Reference> {
        let reference = |entry: &NewEntry| Reference {
            writer: entry.writer,
            sequence: entry.sequence,
            payload_len: u32::try_from(entry.payload.len()).unwrap(),
            payload_crc: entry.payload_crc,
        };
        batch.iter().map(reference).collect()
    }

    proptest! {
        #[test]
        fn what_is_inline_and_what_is_brought_make_the_batch(
            lengths in proptest::collection::vec(prop_oneof![Just(0), 1..600usize, Just(INLINE_BYTES_MAX), Just(INLINE_BYTES_MAX + 1)], 1..40),
        ) {
            let batch = batch(&lengths);
            let present = scatter(&references(&batch), &gather(&batch));
            let (small, large): (Vec<_>, Vec<_>) =
                batch.iter().cloned().partition(|entry| entry.payload.len() <= INLINE_BYTES_MAX);
            prop_assert_eq!(present.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>(), small);
            prop_assert_eq!(merge(present, large), batch);
        }

        #[test]
        fn s31_other_bytes_are_none(at in 0..300usize, bit in 0..8u32) {
            let batch = batch(&[100, 0, 200]);
            let mut inline = gather(&batch).to_vec();
            inline[at] ^= 1 << bit;
            prop_assert_eq!(scatter(&references(&batch), &inline.into()), Present::new());
        }
    }

    #[test]
    fn s31_too_few_or_too_many_bytes_are_none() {
        let batch = batch(&[100, 2000, 1]);
        let (references, inline) = (references(&batch), gather(&batch));
        assert_eq!(scatter(&references, &inline).len(), 2);
        for wrong in [inline.slice(..100), inline.slice(1..), Bytes::from([&inline[..], &[0]].concat())] {
            assert_eq!(scatter(&references, &wrong), Present::new());
        }
        assert_eq!(scatter(&references, &Bytes::new()), Present::new());
    }

    #[test]
    fn an_empty_payload_needs_none() {
        let batch = batch(&[0, 5, 0]);
        let present = scatter(&references(&batch), &Bytes::new());
        assert_eq!(present.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(merge(present, vec![batch[1].clone()]), batch);
    }

    #[test]
    fn the_last_batches_are_kept() {
        let log_id = |index| LogId { term: Term::new(1), index: Index::new(index) };
        let (mut recent, batch) = (Recent::default(), batch(&[INLINE_BYTES_MAX; 1000]));
        let bytes = 1000 * INLINE_BYTES_MAX;
        let cost = bytes + RECENT_OVERHEAD;
        for index in 1..=100 {
            recent.push(log_id(index), &batch);
        }
        recent.push(log_id(101), &[]);
        let kept = (RECENT_BYTES_MAX / cost) as u64;
        let is_kept = |index| recent.get(log_id(index)).len() == bytes;
        assert!((101 - kept..101).all(is_kept));
        assert!(!is_kept(100 - kept) && !is_kept(101) && recent.bytes <= RECENT_BYTES_MAX);
        assert!(recent.get(LogId { term: Term::new(2), ..log_id(100) }).is_empty(), "another's batch");
    }
}
