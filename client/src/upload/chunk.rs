//! Chunk: some uploads of one writer, encoded once for all lanes.
//!
//! Owns:   their bytes; large payloads as they are, shared with the appends.
//! Keeps:  its buffer holds nothing else, so that what is let go is freed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use loglog_proto::RequestId;
use loglog_proto::request::{Append, Request, RequestBody, Upload};

use crate::connection::{Outbox, VECTORED_FROM};

/// About the most bytes of a chunk, but for a single larger payload.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// What an upload's frame takes beside its payload, at most.
const HEAD_BYTES: usize = 48;
/// What a chunk takes in memory beside its bytes, about.
const CHUNK_COST: usize = 128;

/// Uploads that travel together.
#[derive(Debug)]
pub(super) struct Chunk {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    uploads: u32,
    last: u64,
    settled_below: Arc<AtomicU64>,
}

impl Chunk {
    /// Encodes the payloads of `appends`, none of which may be without.
    pub(super) fn encode<'a>(
        appends: impl Iterator<Item = &'a Append> + Clone,
        ids: &AtomicU64,
        settled_below: &Arc<AtomicU64>,
    ) -> Self {
        let payload = |append: &'a Append| append.payload.as_ref().map_or(0, Bytes::len);
        let copied =
            |append| HEAD_BYTES + Some(payload(append)).filter(|len| *len < VECTORED_FROM).unwrap_or(0);
        let mut outbox = Outbox::with_capacity(appends.clone().map(copied).sum());
        let (mut uploads, mut last) = (0, 0);
        let first = ids.fetch_add(appends.clone().count() as u64, Ordering::Relaxed);
        for append in appends {
            let Append { writer, sequence, crc, .. } = *append;
            let upload =
                Upload { writer, sequence, crc, payload: append.payload.clone().unwrap_or_default() };
            let id = RequestId::new(first + u64::from(uploads));
            outbox.push(&Request { id, body: RequestBody::Upload(upload) });
            uploads += 1;
            last = sequence.get();
        }
        let bytes = outbox.len() + CHUNK_COST;
        Self { pieces: outbox.into_pieces(), bytes, uploads, last, settled_below: settled_below.clone() }
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many uploads it holds.
    pub(super) fn uploads(&self) -> u32 {
        self.uploads
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
