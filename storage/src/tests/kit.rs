//! What the tests build logs with.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::{
    ClusterId, Incarnation, Index, Length, LogId, NodeId, Offset, RaftId, Sequence, Term, WriterId,
};

use crate::frame::batch_bytes;
use crate::{
    DataDir, LogStart, Member, Membership, MetaState, NewBatch, NewEntry, OpenOptions, Recovered, Vfs,
};

/// A genesis state whose segments close at `limit` bytes.
pub(super) fn genesis(limit: u64) -> MetaState {
    let node = NodeId::new(1).unwrap();
    let incarnation = Incarnation::new(77).unwrap();
    let member = Member {
        id: RaftId::new(node, incarnation),
        peer_address: "127.0.0.1:19195".to_owned(),
        client_address: "127.0.0.1:19194".to_owned(),
    };
    MetaState {
        cluster: ClusterId::new(0xabcd).unwrap(),
        node,
        incarnation,
        term: Term::new(1),
        vote: None,
        membership: Membership { index: Index::new(1), voters: vec![member], learners: vec![] },
        start: LogStart::GENESIS,
        segment_bytes_max: Length::new(limit),
    }
}

/// An entry of `kind` with `payload`.
pub(super) fn entry(kind: Kind, sequence: u64, payload: Vec<u8>) -> NewEntry {
    let payload_crc = crc32c::crc32c(&payload);
    let writer = if kind == Kind::Data { WriterId::new(5) } else { WriterId::NONE };
    NewEntry { kind, writer, sequence: Sequence::new(sequence), payload: Bytes::from(payload), payload_crc }
}

/// A batch of data entries with payloads of these sizes; the bytes depend on place and term.
pub(super) fn batch(term: u32, index: u64, offset: u64, sizes: &[usize]) -> NewBatch {
    let entries = sizes.iter().enumerate().map(|(at, size)| {
        let seed = (u64::from(term) << 40) ^ (index << 8) ^ at as u64;
        let payload = (0..*size)
            .map(|i| (seed.wrapping_mul(31).wrapping_add(i as u64 * 7) >> 1).to_le_bytes()[0])
            .collect();
        entry(Kind::Data, index * 100 + at as u64, payload)
    });
    let log_id = LogId { term: Term::new(term), index: Index::new(index) };
    NewBatch { log_id, offset: Offset::new(offset), entries: entries.collect() }
}

/// Builds batches that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) index: u64,
    pub(super) offset: u64,
}

impl Chain {
    /// The first batch after genesis.
    pub(super) fn new() -> Self {
        Self { index: 2, offset: 0 }
    }

    pub(super) fn next(&mut self, term: u32, sizes: &[usize]) -> NewBatch {
        let batch = batch(term, self.index, self.offset, sizes);
        self.index += 1;
        self.offset += batch_bytes(&batch).get();
        batch
    }
}

/// Locks, forms where needed, opens.
pub(super) fn open(vfs: &Arc<dyn Vfs>, path: &Path, limit: u64) -> (DataDir, Recovered) {
    let dir = DataDir::lock(Arc::clone(vfs), path).unwrap();
    if !dir.is_formed().unwrap() {
        dir.form(&genesis(limit)).unwrap();
    }
    let recovered = dir.open(OpenOptions::default()).unwrap();
    (dir, recovered)
}

/// The bytes of a batch as they lie on the disk.
pub(super) fn framed(batch: &NewBatch) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = batch.offset;
    for (place, entry) in batch.entries.iter().enumerate() {
        let prefix = loglog_proto::entry::Prefix {
            kind: entry.kind,
            last_of_batch: place + 1 == batch.entries.len(),
            payload_len: u32::try_from(entry.payload.len()).unwrap(),
            term: batch.log_id.term,
            writer: entry.writer,
            sequence: entry.sequence,
        };
        loglog_proto::entry::encode_into(&mut out, at, &prefix, &entry.payload, entry.payload_crc);
        at += prefix.entry_len();
    }
    out
}
