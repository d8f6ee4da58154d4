//! Form: the bytes of a pack.
//!
//! ```text
//!     version 1      at   0      3         4        8
//!                         ┌──────┬─────────┬────────┬────────┬───────┬────────┬───────┬─
//!                         │ LPk  │ version │ events │ length │ event │ length │ event │ …
//!                         │      │ 1       │ u32    │ varint │       │ varint │       │
//!                         └──────┴─────────┴────────┴────────┴───────┴────────┴───────┴─
//!     version 2      at   0      3         4        8         11      12
//!                         ┌──────┬─────────┬────────┬─────────┬───────┬───────────────────────┬─────┬─────┬─
//!                         │ LPk  │ version │ events │ length  │ flags │ body: lengths, events │ sum │ sum │ …
//!                         │      │ 2       │ u32    │ u24     │ u8    │                       │ u32 │ u32 │
//!                         └──────┴─────────┴────────┴─────────┴───────┴───────────────────────┴─────┴─────┴─
//!     flags  1: a sum for each event, else none      2: the body is one LZ4 block      length  of the body before compression
//! ```
//!
//! Integers are little-endian; a varint holds seven bits a byte, lowest first, the top bit set in all but its last, at most four bytes,
//! none of them in vain. Nothing follows the last event in the body, nor the last sum.
//!
//! A sum is the CRC-32C of the event's number, as a u32, and its bytes: with the number, zeros are no empty event, and events that have changed
//! places are found. Sums lie together behind the body: between the events they would break the matches that compression lives by.
//!
//! Source: docs/protocol.md, "Packs".

use std::ops::Range;

use bytes::BufMut;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use loglog_proto::{crc32c, crc32c_append};

use super::{Compression, PackError, PackOptions};

const MAGIC: [u8; 3] = *b"LPk";
const HEADER_1: usize = 8;
const CHECKSUMS: u8 = 1;
const LZ4: u8 = 2;
/// Seven bits each hold more than [`PAYLOAD_BYTES_MAX`].
const VARINT_BYTES_MAX: usize = 4;

/// Bytes of an event's sum.
pub(super) const SUM: usize = 4;

/// The longer of the two headers, bytes.
pub(super) const HEADER_2: usize = 12;

/// The longest pack without compression, bytes: what an entry holds. Then whatever is not worth compressing can be stored as it is, a full pack is full
/// whatever its events are, and nobody needs more memory to decompress an entry than for the largest one.
pub(super) const PACK_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

const _: () = assert!(PACK_BYTES_MAX < 1 << (7 * VARINT_BYTES_MAX));
// Its length field says no more.
const _: () = assert!(PACK_BYTES_MAX < 1 << 24);

/// What a pack says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) events: u32,
    pub(super) options: PackOptions,
    /// Bytes of the body before compression.
    pub(super) length: usize,
}

impl Header {
    /// Bytes of the header of a pack with these options: nothing needs version 2 but they.
    pub(super) fn bytes(options: PackOptions) -> usize {
        if options == PackOptions::default() { HEADER_1 } else { HEADER_2 }
    }

    pub(super) fn encode(&self, mut out: impl BufMut) {
        let flags = if self.options.checksums { CHECKSUMS } else { 0 }
            | match self.options.compression {
                Compression::None => 0,
                Compression::Lz4 => LZ4,
            };
        out.put_slice(&MAGIC);
        out.put_u8(if flags == 0 { 1 } else { 2 });
        out.put_u32_le(self.events);
        if flags != 0 {
            out.put_uint_le(self.length as u64, 3);
            out.put_u8(flags);
        }
    }

    /// The header, and how many bytes of the payload it has.
    pub(super) fn decode(payload: &[u8]) -> Result<(Self, usize), PackError> {
        let Some(head) = payload.first_chunk::<HEADER_1>().filter(|head| head[..3] == MAGIC) else {
            return Err(PackError::NotAPack);
        };
        let (version, events) = (head[3], u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let (bytes, length, flags) = match version {
            1 => (HEADER_1, payload.len() - HEADER_1, 0),
            2 => {
                let Some(head) = payload.first_chunk::<HEADER_2>() else {
                    return Err(PackError::Short { expected: HEADER_2, found: payload.len() });
                };
                let length = u32::from_le_bytes([head[8], head[9], head[10], 0]) as usize;
                (HEADER_2, length, head[11])
            }
            found => return Err(PackError::Version { found }),
        };
        if flags & !(CHECKSUMS | LZ4) != 0 {
            return Err(PackError::Flags { found: flags });
        }
        let compression = if flags & LZ4 == 0 { Compression::None } else { Compression::Lz4 };
        let options = PackOptions { compression, checksums: flags & CHECKSUMS != 0 };
        Ok((Self { events, options, length }, bytes))
    }
}

/// Where the event is in the body that begins, with its length, at `at`; `None` where none does.
pub(super) fn event_at(body: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, digits) = read_varint(body.get(at..)?)?;
    let event = at + digits..at + digits + length;
    (event.end <= body.len()).then_some(event)
}

/// Bytes of an event of `length` bytes in a body.
pub(super) fn event_bytes(length: usize) -> usize {
    length.saturating_add(varint(length).1)
}

/// Writes the event: [`event_bytes`].
pub(super) fn encode_event(event: &[u8], mut out: impl BufMut) {
    let (varint, digits) = varint(event.len());
    out.put_slice(&varint[..digits]);
    out.put_slice(event);
}

/// An event's checksum.
pub(super) fn sum(number: u32, event: &[u8]) -> u32 {
    crc32c_append(crc32c(&number.to_le_bytes()), event)
}

#[expect(clippy::cast_possible_truncation, reason = "takes seven bits at a time")]
const fn varint(mut value: usize) -> ([u8; 10], usize) {
    let (mut bytes, mut digits) = ([0; 10], 0);
    loop {
        let digit = value as u8 & 0x7f;
        value >>= 7;
        bytes[digits] = digit | if value > 0 { 0x80 } else { 0 };
        digits += 1;
        if value == 0 {
            return (bytes, digits);
        }
    }
}

/// The value, and how many bytes it has.
fn read_varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // A last digit of zero would be another way to write the same.
            return (at == 0 || *byte != 0).then_some((value, at + 1));
        }
    }
    None
}
