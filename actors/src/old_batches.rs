//! Old batches: what raft-rs needs for a far-behind peer, read from the segments (S17).
//!
//! Owns:   finding a batch by its index: by the segment's header, then by counting.
//! Never:  runs on an actor's thread.

use loglog_core::batch::{Content, Reference};
use loglog_proto::entry::Kind;
use loglog_proto::{Index, LogId};
use loglog_storage::{LogReader, ScanError};

use bytes::Bytes;

/// Log bytes read at a time, beyond the first batch.
const BYTES: u64 = 1 << 20;

/// Batches from `first` on, at most up to `last`, all of one segment.
pub(crate) fn read(
    reader: &LogReader,
    first: Index,
    last: Index,
) -> Result<Vec<(LogId, Content)>, ScanError> {
    let Some(segment) = reader.segment_of_index(first) else { return Ok(Vec::new()) };
    let (term, mut index) = (segment.header.term, segment.header.base_index);
    let (mut batches, mut references, mut own, mut bytes) = (Vec::new(), Vec::new(), None, 0);
    reader.scan(segment.header.base_offset, segment.end, &mut |entry| {
        let is_wanted = index >= first && index <= last && bytes < BYTES;
        if is_wanted {
            bytes += entry.len().get();
            match entry.prefix.kind {
                Kind::Data => references.push(Reference {
                    writer: entry.prefix.writer,
                    sequence: entry.prefix.sequence,
                    payload_len: entry.prefix.payload_len,
                    payload_crc: entry.payload_crc,
                }),
                Kind::Noop => own = Some(Content::Noop(Bytes::copy_from_slice(entry.payload))),
                Kind::Control => own = Some(Content::Control(Bytes::copy_from_slice(entry.payload))),
            }
        }
        if entry.prefix.last_of_batch {
            if is_wanted {
                let content = own.take().unwrap_or_else(|| Content::Data(std::mem::take(&mut references)));
                batches.push((LogId { term, index }, content));
            }
            index = index.next();
        }
    })?;
    Ok(batches)
}
