//! Chunk: some payloads of one writer in one upload, encoded once for all lanes.
//!
//! Owns:   their bytes; large payloads as they are, shared with the appends.
//! Keeps:  its buffer holds nothing else, so that what is let go is freed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use loglog_proto::RequestId;
use loglog_proto::request::{Append, Part};

use crate::connection::{Outbox, VECTORED_FROM};

/// About the most bytes of a chunk, but for a single larger payload.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// What an upload's frame takes beside its parts and payloads, at most.
const HEAD_BYTES: usize = 48;
/// What a chunk takes in memory beside its bytes, about.
const CHUNK_COST: usize = 128;

/// An upload.
#[derive(Debug)]
pub(super) struct Chunk {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    payloads: u64,
    last: u64,
    settled_below: Arc<AtomicU64>,
}

impl Chunk {
    /// Encodes the payloads of `appends` as one upload. None of them may be without, and their sequences follow each other.
    pub(super) fn encode<'a>(
        appends: impl Iterator<Item = &'a Append> + Clone,
        ids: &AtomicU64,
        settled_below: &Arc<AtomicU64>,
    ) -> Self {
        let contents = appends.clone().filter_map(|append| append.payload.as_ref());
        let part = |append: &Append| {
            let payload = append.payload.as_deref().unwrap_or_default();
            // The pipeline has summed all of them.
            append.crc.map_or_else(|| Part::of(payload), |crc| Part::summed(payload, crc))
        };
        let parts: Vec<Part> = appends.clone().map(part).collect();
        let copied: usize = contents.clone().map(Bytes::len).filter(|len| *len < VECTORED_FROM).sum();
        let mut outbox = Outbox::with_capacity(HEAD_BYTES + size_of::<Part>() * parts.len() + copied);
        let mut last = 0;
        if let Some(Append { writer, sequence, .. }) = appends.clone().next() {
            let id = RequestId::new(ids.fetch_add(1, Ordering::Relaxed));
            outbox.push_upload(id, (*writer, *sequence), &parts, contents);
            last = sequence.get() + parts.len() as u64 - 1;
        }
        let (bytes, payloads) = (outbox.len() + CHUNK_COST, parts.len() as u64);
        Self { pieces: outbox.into_pieces(), bytes, payloads, last, settled_below: settled_below.clone() }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many payloads it holds.
    pub(super) fn payloads(&self) -> u64 {
        self.payloads
    }

    /// Its bytes, as they are written.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.pieces.iter().cloned()
    }

    /// Whether all of its appends have their outcome, so that nobody needs it any more.
    pub(super) fn is_settled(&self) -> bool {
        self.last < self.settled_below.load(Ordering::Relaxed)
    }
}
