//! Turns batches into the bytes of one write group.
//!
//! ```text
//!     what lies in the last block already, batches ─► prefixes, payloads, suffixes, zeros to the end of a block ─► one write
//! ```
//!
//! Owns:   the buffer of the group at hand.
//! Keeps:  entries lie in it in the order of the log, as they will lie on the disk.
//! Never:  knows files.

use loglog_proto::entry::{OVERHEAD, Prefix, encode_into};
use loglog_proto::{Length, Offset};

use crate::blocks::BlockBuffer;
use crate::error::to_usize;
use crate::writer::{NewBatch, NewEntry};

/// Bytes that `entry` takes in the log.
pub(crate) fn entry_bytes(entry: &NewEntry) -> Length {
    Length::of(entry.payload.len() + OVERHEAD)
}

/// Bytes that `batch` takes in the log.
pub(crate) fn batch_bytes(batch: &NewBatch) -> Length {
    Length::of(batch.entries.iter().map(|entry| entry.payload.len() + OVERHEAD).sum())
}

/// Frames `batches`, of so many `bytes`, in `buffer` behind `head`, what the block holds in which they begin. Returns the offset behind them.
pub(crate) fn fill(buffer: &mut BlockBuffer, head: &[u8], batches: &[NewBatch], bytes: Length) -> Offset {
    buffer.empty_for(head.len() + to_usize(bytes.get()));
    let out = buffer.memory();
    out.extend_from_slice(head);
    let mut end = Offset::ZERO;
    for batch in batches {
        let mut at = batch.offset;
        for (e, entry) in batch.entries.iter().enumerate() {
            let payload = &entry.payload;
            debug_assert_eq!(crc32c::crc32c(payload), entry.payload_crc, "a payload arrives with its CRC");
            let prefix = Prefix {
                kind: entry.kind,
                last_of_batch: e + 1 == batch.entries.len(),
                payload_len: u32::try_from(payload.len()).expect("payload length within its limit"),
                term: batch.log_id.term,
                writer: entry.writer,
                sequence: entry.sequence,
            };
            encode_into(out, at, &prefix, payload, entry.payload_crc);
            at += entry_bytes(entry);
        }
        end = at;
    }
    end
}
