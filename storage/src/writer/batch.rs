//! What is written, and what comes back.
//!
//! Owns:   batches to be written, the answer, the reasons against.
//! Keeps:  a batch fits behind the one before it, and the format, before a byte of it is written.

use std::path::PathBuf;

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, PAYLOAD_BYTES_MAX};
use loglog_proto::{Length, LogId, Offset, Sequence, Term, WriterId};

use crate::error::IoFailure;

/// An entry to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// What it is for.
    pub kind: Kind,
    /// Who appended it; [`WriterId::NONE`] unless it is data.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
    /// Its content, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
    /// CRC-32C of the payload, checked when the payload came in (S31).
    pub payload_crc: u32,
}

/// A batch to be written.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Its term and index; the index follows that of the batch before.
    pub log_id: LogId,
    /// Where it begins: the end of the batch before.
    pub offset: Offset,
    /// At least one; a noop or control entry is alone.
    pub entries: Vec<NewEntry>,
}

/// How far the log is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The last batch.
    pub last: LogId,
    /// Behind its last byte.
    pub end: Offset,
}

/// Why batches were not written, or not cut.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk filled up while space was prepared: no failed write (S2). Of the batches behind `durable` nothing was
    /// written; they may be tried again.
    #[error("no space for {needed} bytes more in {}", path.display())]
    NoSpace {
        /// Bytes of the write group that found no room.
        needed: Length,
        /// Where.
        path: PathBuf,
        /// How far the log is synced nevertheless.
        durable: Durable,
    },
    /// A write, sync, rename or unlink failed. Final: the writer is poisoned (S2).
    #[error(transparent)]
    Failed(#[from] IoFailure),
    /// An earlier call had failed.
    #[error("the log is closed since an earlier failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
}

/// A batch fits behind the one before it, and the format.
pub(super) fn check(batch: &NewBatch, bytes: Length, last: LogId, end: Offset) {
    let LogId { term, index } = batch.log_id;
    assert_eq!(index, last.index.next(), "batches follow each other without a gap");
    assert!(term >= last.term, "terms never sink: {term} after {}", last.term);
    assert!(term > Term::ZERO, "a batch has a term");
    assert_eq!(batch.offset, end, "a batch begins where the one before it ends");
    assert!(!batch.entries.is_empty(), "a batch has entries");
    assert!(batch.entries.len() <= BATCH_ENTRIES_MAX, "a batch has at most {BATCH_ENTRIES_MAX} entries");
    assert!(bytes.get() <= BATCH_BYTES_MAX as u64, "a batch has at most {BATCH_BYTES_MAX} bytes");
    for entry in &batch.entries {
        assert!(entry.payload.len() <= PAYLOAD_BYTES_MAX, "payload length within its limit");
        assert!(
            entry.kind == Kind::Data || batch.entries.len() == 1,
            "Raft's own entries are batches of their own"
        );
    }
}
