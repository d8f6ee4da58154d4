//! Turns batches into the bytes of one write group.
//!
//! ```text
//!     batches ─► prefixes, small payloads, suffixes ─► one buffer ─┐
//!              └► large payloads ─────────── by reference ─────────┴─► one write
//! ```
//!
//! Owns:   the buffer, kept between groups.
//! Keeps:  pieces lie in the order of the log; the buffer keeps its memory, not its content.
//! Never:  copies a payload of [`BY_REFERENCE`] bytes or more; knows files.

use std::io::{self, IoSlice};

use loglog_proto::entry::{OVERHEAD, Prefix, encode_into};
use loglog_proto::{Length, Offset};

use crate::vfs::VfsFile;
use crate::writer::{NewBatch, NewEntry};

/// From this size on a payload is written from where it lies.
const BY_REFERENCE: usize = 8 << 10;
/// The buffer gives memory beyond this back after a group.
const BUFFER_KEPT: usize = 4 << 20;

/// Bytes that `entry` takes in the log.
pub(crate) fn entry_bytes(entry: &NewEntry) -> Length {
    Length::of(entry.payload.len() + OVERHEAD)
}

/// Bytes that `batch` takes in the log.
pub(crate) fn batch_bytes(batch: &NewBatch) -> Length {
    Length::of(batch.entries.iter().map(|entry| entry.payload.len() + OVERHEAD).sum())
}

/// The bytes of one write group.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    buffer: Vec<u8>,
    /// Payloads that lie elsewhere: after how many bytes of the buffer, which batch, which entry.
    apart: Vec<(usize, usize, usize)>,
}

impl Frame {
    /// Frames `batches`, replacing what was framed before. Returns the offset behind them.
    pub(crate) fn fill(&mut self, batches: &[NewBatch]) -> Offset {
        self.buffer.clear();
        self.apart.clear();
        let mut end = Offset::ZERO;
        for (b, batch) in batches.iter().enumerate() {
            let mut at = batch.offset;
            for (e, entry) in batch.entries.iter().enumerate() {
                let payload = &entry.payload;
                debug_assert_eq!(
                    crc32c::crc32c(payload),
                    entry.payload_crc,
                    "a payload arrives with its CRC"
                );
                let prefix = Prefix {
                    kind: entry.kind,
                    last_of_batch: e + 1 == batch.entries.len(),
                    payload_len: u32::try_from(payload.len()).expect("payload length within its limit"),
                    term: batch.log_id.term,
                    writer: entry.writer,
                    sequence: entry.sequence,
                };
                if payload.len() < BY_REFERENCE {
                    encode_into(&mut self.buffer, at, &prefix, payload, entry.payload_crc);
                } else {
                    self.buffer.extend_from_slice(&prefix.encode());
                    self.apart.push((self.buffer.len(), b, e));
                    self.buffer.extend_from_slice(&prefix.suffix(at, entry.payload_crc));
                }
                at += entry_bytes(entry);
            }
            end = at;
        }
        end
    }

    /// Writes what was framed from `batches`, the same ones, at `pos`.
    pub(crate) fn write(&self, batches: &[NewBatch], file: &dyn VfsFile, pos: u64) -> io::Result<()> {
        if self.apart.is_empty() {
            return file.write_all_at(&self.buffer, pos);
        }
        let mut slices = Vec::with_capacity(2 * self.apart.len() + 1);
        let mut from = 0;
        for (to, b, e) in &self.apart {
            slices.push(IoSlice::new(&self.buffer[from..*to]));
            slices.push(IoSlice::new(&batches[*b].entries[*e].payload));
            from = *to;
        }
        slices.push(IoSlice::new(&self.buffer[from..]));
        file.write_all_vectored_at(&slices, pos)
    }

    /// Gives back what an exceptionally large group has taken.
    pub(crate) fn settle(&mut self) {
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_KEPT);
        }
    }
}
