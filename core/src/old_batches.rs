//! Old batches: what raft-rs needs for a far-behind peer, read from the segments (S17).
//!
//! Owns:   finding a batch by its index: where the last read ended, else by the segment's header and counting.
//! Never:  waits for anything but the disk: a shell calls it where that may take its time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use loglog_proto::entry::Kind;
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::{Index, Length, LogId, Offset};
use loglog_storage::{LogReader, ScanError};

use crate::batch::{Content, MESSAGE_BATCHES_MAX, Reference};

/// Log bytes read at a time, beyond the first batch.
const BYTES: u64 = 1 << 20;
/// Reads whose ends are remembered: more than there are peers.
const PLACES_MAX: usize = 32;

/// A batch that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldBatch {
    /// Which.
    pub log_id: LogId,
    /// What it holds.
    pub content: Content,
    /// Its small payloads, as they travel.
    pub inline: Bytes,
}

/// Where reads ended: the next batch and its offset. What is read is committed, so it stays where it is.
#[derive(Debug, Default)]
pub struct Places(Mutex<VecDeque<(Index, Offset)>>);

impl Places {
    fn of(&self, index: Index) -> Option<Offset> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().find(|(at, _)| *at == index).map(|(_, offset)| *offset)
    }

    fn remember(&self, index: Index, offset: Offset) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.push_back((index, offset));
        if places.len() > PLACES_MAX {
            places.pop_front();
        }
    }
}

/// Batches from `first` on, at most up to `last`, all of one segment. None where they are no longer here.
///
/// # Errors
/// Those of reading.
pub fn read(
    reader: &LogReader,
    places: &Places,
    first: Index,
    last: Index,
) -> Result<Vec<OldBatch>, ScanError> {
    let Some(segment) = reader.segment_of_index(first) else { return Ok(Vec::new()) };
    let term = segment.header.term;
    let (mut index, mut at) = match places.of(first) {
        Some(offset) => (first, offset),
        None => (segment.header.base_index, segment.header.base_offset),
    };
    let (mut batches, mut references, mut own, mut bytes) = (Vec::new(), Vec::new(), None, 0);
    let mut inline = BytesMut::new();
    let mut next = None;
    while bytes < BYTES && batches.len() < MESSAGE_BATCHES_MAX && index <= last && at < segment.end {
        reader.scan(at, (at + Length::new(BYTES)).min(segment.end), &mut |entry| {
            let has_room = bytes < BYTES && batches.len() < MESSAGE_BATCHES_MAX;
            let is_wanted = index >= first && index <= last && has_room;
            if is_wanted {
                bytes += entry.len().get();
                match entry.prefix.kind {
                    Kind::Data => {
                        references.push(Reference {
                            writer: entry.prefix.writer,
                            sequence: entry.prefix.sequence,
                            payload_len: entry.prefix.payload_len,
                            payload_crc: entry.payload_crc,
                        });
                        if entry.payload.len() <= INLINE_BYTES_MAX {
                            inline.extend_from_slice(entry.payload);
                        }
                    }
                    Kind::Noop => own = Some(Content::Noop(Bytes::copy_from_slice(entry.payload))),
                    Kind::Control => own = Some(Content::Control(Bytes::copy_from_slice(entry.payload))),
                }
            }
            if entry.prefix.last_of_batch {
                if is_wanted {
                    let content =
                        own.take().unwrap_or_else(|| Content::Data(std::mem::take(&mut references)));
                    let (log_id, inline) = (LogId { term, index }, inline.split().freeze());
                    batches.push(OldBatch { log_id, content, inline });
                    next = Some((index.next(), entry.end()));
                }
                index = index.next();
            }
            at = entry.end();
        })?;
    }
    if let Some((index, offset)) = next {
        places.remember(index, offset);
    }
    Ok(batches)
}
