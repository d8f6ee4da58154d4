//! Feed: one pipeline's way to the lanes.
//!
//! Owns:   how far the pipeline has uploaded, and how far its appends have their outcome.
//! Keeps:  an append is uploaded when it is sent for the first time, never again, and only if the leader does not carry it to the nodes
//!         by itself.
//! Never:  waits, or holds a payload itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loglog_proto::Sequence;
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::request::Append;
use tokio::sync::watch;

use super::Lanes;
use super::chunk::{CHUNK_BYTES, Chunk};
use crate::pipeline::state::Attempt;

/// The most bytes that wait for one node, whatever the pipeline's budget.
const LANE_BYTES_MAX: usize = 16 << 20;

/// One pipeline's way to the lanes.
#[derive(Debug)]
pub(crate) struct Feed {
    lanes: watch::Receiver<Lanes>,
    ids: Arc<AtomicU64>,
    /// The most bytes that may wait for one node.
    limit: usize,
    /// Which of the pipeline's writers.
    generation: u32,
    uploaded: u64,
    /// Every append of this writer below this has its outcome.
    settled_below: Arc<AtomicU64>,
}

/// Chunks that are cut and not yet handed to the lanes.
pub(crate) struct Cut(Vec<Arc<Chunk>>);

fn payload_len(append: &Append) -> usize {
    append.payload.as_ref().map_or(0, bytes::Bytes::len)
}

/// Smaller ones come to the nodes with their leader's messages.
fn is_for_uploads(append: &Append) -> bool {
    payload_len(append) > INLINE_BYTES_MAX
}

impl Feed {
    pub(super) fn new(lanes: watch::Receiver<Lanes>, ids: Arc<AtomicU64>, budget: usize) -> Self {
        // All that is in flight may be offered at once: a lane that takes less of it has the nodes carry the rest to each other. What
        // has its outcome is let go, so a slow node never leaves lying more than is in flight; the lanes share the chunks.
        let limit = budget.min(LANE_BYTES_MAX);
        Self { lanes, ids, limit, generation: 0, uploaded: 0, settled_below: Arc::default() }
    }

    /// Cuts what is new among the appends that are about to be sent.
    pub(crate) fn cut(&mut self, sends: &[(Attempt, Append)]) -> Cut {
        let mut chunks = Vec::new();
        let Some((Attempt { generation, .. }, _)) = sends.first() else { return Cut(chunks) };
        if *generation != self.generation {
            // Under the old name nothing will be appended any more.
            self.settled_below.store(u64::MAX, Ordering::Relaxed);
            (self.generation, self.uploaded, self.settled_below) = (*generation, 0, Arc::default());
        }
        let new = sends.partition_point(|(attempt, _)| attempt.sequence.get() <= self.uploaded);
        let Some((newest, _)) = sends[new..].last() else { return Cut(chunks) };
        self.uploaded = newest.sequence.get();
        if !self.lanes.borrow().iter().any(|lane| lane.takes()) {
            return Cut(chunks);
        }
        let most = CHUNK_BYTES.min(self.limit);
        let mut rest = &sends[new..];
        while let Some(at) = rest.iter().position(|(_, append)| is_for_uploads(append)) {
            rest = &rest[at..];
            let (mut bytes, first) = (0, rest[0].1.sequence.get());
            let fits = rest.iter().zip(first..).take_while(|((_, append), sequence)| {
                bytes += payload_len(append) + size_of::<Append>();
                bytes <= most && append.sequence.get() == *sequence && is_for_uploads(append)
            });
            let (chunk, others) = rest.split_at(fits.count().max(1));
            let appends = chunk.iter().map(|(_, append)| append);
            chunks.push(Arc::new(Chunk::encode(appends, &self.ids, &self.settled_below)));
            rest = others;
        }
        Cut(chunks)
    }

    /// Hands chunks to all lanes. Those that have no room do without.
    pub(crate) fn offer(&self, Cut(chunks): Cut) {
        if !chunks.is_empty() {
            for lane in self.lanes.borrow().iter() {
                lane.offer(&chunks, self.limit);
            }
        }
    }

    /// `oldest` is the first append without an outcome, of the pipeline's `generation`th writer.
    pub(crate) fn settle(&self, generation: u32, oldest: Option<Sequence>) {
        let below = match oldest {
            Some(oldest) if generation == self.generation => oldest.get(),
            _ => self.uploaded + 1,
        };
        if self.settled_below.swap(below, Ordering::Relaxed) != below {
            self.lanes.borrow().iter().for_each(|lane| lane.let_go());
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.settled_below.store(u64::MAX, Ordering::Relaxed);
        self.lanes.borrow().iter().for_each(|lane| lane.let_go());
    }
}
