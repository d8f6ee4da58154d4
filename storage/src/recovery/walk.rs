//! Walks over the batches of segments, one segment after the other.
//!
//! Owns:   the count of batches; what was found above the mark.
//! Keeps:  a batch counts only when its last entry is there; the mark is where a batch ends, and its index is right.
//! Never:  decides what an invalid entry means.

use bytes::Bytes;
use loglog_proto::entry::{EntryRef, Kind};
use loglog_proto::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use loglog_proto::{Index, LogId, Offset};

use super::survey::Found;
use crate::dir::{RecoveredBatch, RecoveredEntry};
use crate::error::{IoFailure, Meant};
use crate::meta::Mark;
use crate::scan::{Scanner, Step};
use crate::vfs::VfsFile;

/// Where the valid batches end, and why.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// The entry that is not valid, or the end of the file within a batch.
    pub(crate) at: Offset,
    pub(crate) detail: String,
}

/// Collects batches.
#[derive(Debug)]
pub(crate) struct Walker {
    mark: Mark,
    /// Index of the next batch.
    pub(crate) next: Index,
    /// Behind the last whole batch.
    pub(crate) end: Offset,
    /// Whole batches met.
    pub(crate) batches: u64,
    /// Entries in them.
    pub(crate) entries: u64,
    /// Batches above the mark.
    pub(crate) tail: Vec<RecoveredBatch>,
    /// Control batches at or below it.
    pub(crate) controls: Vec<RecoveredBatch>,
}

impl Walker {
    pub(crate) fn new(mark: Mark, first: Index) -> Self {
        Self {
            mark,
            next: first,
            end: Offset::ZERO,
            batches: 0,
            entries: 0,
            tail: Vec::new(),
            controls: Vec::new(),
        }
    }

    /// Walks over all of `segment`, which begins with batch `next`. `None` if it is whole batches to its last byte.
    pub(crate) fn walk(&mut self, file: &dyn VfsFile, segment: &Found) -> Result<Option<Stop>, IoFailure> {
        let base = segment.header.base_offset;
        let mut scanner = Scanner::new(file, base, base, segment.end);
        let mut batch: Vec<RecoveredEntry> = Vec::new();
        self.end = base;
        loop {
            let stop = |at, detail| Ok(Some(Stop { at, detail }));
            match scanner.step().meant("read", &segment.path)? {
                Step::Entry(entry) => {
                    let at = entry.offset;
                    if let Err(detail) = fits(&entry, self.end, &batch, segment) {
                        return stop(at, detail);
                    }
                    let (end, is_last) = (entry.end(), entry.prefix.last_of_batch);
                    batch.push(recovered(&entry));
                    if is_last && let Err(detail) = self.close(segment, std::mem::take(&mut batch), end) {
                        return stop(at, detail);
                    }
                }
                Step::Invalid(error) => return stop(scanner.at(), error.to_string()),
                Step::End if batch.is_empty() => return Ok(None),
                Step::End => return stop(scanner.at(), "the file ends within a batch".to_owned()),
            }
        }
    }

    /// A whole batch.
    fn close(&mut self, segment: &Found, entries: Vec<RecoveredEntry>, end: Offset) -> Result<(), String> {
        let log_id = LogId { term: segment.header.term, index: self.next };
        let count = entries.len() as u64;
        let batch = RecoveredBatch { log_id, offset: self.end, end, entries };
        let Mark { index, offset } = self.mark;
        if batch.offset < offset && offset < end {
            return Err(format!("the mark {offset} lies within batch {log_id}"));
        }
        if (end == offset) != (log_id.index == index) {
            return Err(format!(
                "batch {log_id} ends at {end}; the mark says that batch {index} ends at {offset}"
            ));
        }
        if end > offset {
            self.tail.push(batch);
        } else if batch.entries.iter().any(|entry| entry.kind == Kind::Control) {
            self.controls.push(batch);
        }
        self.end = end;
        self.next = self.next.next();
        self.batches += 1;
        self.entries += count;
        Ok(())
    }
}

/// Whether a valid entry is one that a batch of this segment may hold here.
fn fits(
    entry: &EntryRef<'_>,
    from: Offset,
    before: &[RecoveredEntry],
    segment: &Found,
) -> Result<(), String> {
    let at = entry.offset;
    let (term, expected) = (entry.prefix.term, segment.header.term);
    if term != expected {
        return Err(format!("entry at offset {at} has term {term} in a segment of term {expected}"));
    }
    if entry.prefix.kind != Kind::Data && !(before.is_empty() && entry.prefix.last_of_batch) {
        return Err(format!("entry at offset {at} is Raft's own but no batch of its own"));
    }
    if before.len() >= BATCH_ENTRIES_MAX || (entry.end() - from).get() > BATCH_BYTES_MAX as u64 {
        return Err(format!("entry at offset {at} makes its batch too large"));
    }
    Ok(())
}

fn recovered(entry: &EntryRef<'_>) -> RecoveredEntry {
    let payload = match entry.prefix.kind {
        Kind::Data => Bytes::new(),
        Kind::Noop | Kind::Control => Bytes::copy_from_slice(entry.payload),
    };
    RecoveredEntry {
        kind: entry.prefix.kind,
        writer: entry.prefix.writer,
        sequence: entry.prefix.sequence,
        offset: entry.offset,
        payload_len: entry.prefix.payload_len,
        payload_crc: entry.payload_crc,
        payload,
    }
}
