//! The entry frame: what lies on disk and travels to readers, byte for byte.
//!
//! ```text
//!     at   0        4      8        16         24        end-8     end-4
//!          ┌────────┬──────┬────────┬──────────┬─────────┬─────────┬───────┐
//!          │len,kind│ term │ writer │ sequence │ payload │ length  │ CRC   │
//!          │ u32    │ u32  │ u64    │ u64      │ 0…16MiB │ u32     │ u32   │
//!          └────────┴──────┴────────┴──────────┴─────────┴─────────┴───────┘
//! ```
//!
//! All integers are little-endian. The first u32 holds the payload length in its low 24 bits, the kind in
//! bits 24 to 30 and the flag *last of batch* in bit 31. The CRC-32C runs over the entry's offset in the log (u64),
//! the prefix, the CRC-32C of the payload (u32) and the length (u32): a CRC of a CRC, so that the payload is
//! passed over once.
//!
//! Owns:   encoding, decoding and checking of one entry.
//! Keeps:  all-zero bytes are never an entry (kind 0 is invalid).
//! Never:  interprets a payload.
//!
//! Source: docs/format.md, "Entry".

use crate::ids::{Sequence, WriterId};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::position::{Length, Offset, Term};

/// Bytes before the payload.
pub const PREFIX: usize = 24;
/// Bytes behind the payload.
pub const SUFFIX: usize = 8;
/// Bytes around the payload.
pub const OVERHEAD: usize = PREFIX + SUFFIX;

const LENGTH_MASK: u32 = 0x00ff_ffff;
const LAST_OF_BATCH: u8 = 0x80;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's entry.
    Data,
    /// Raft's: opens a term. Its payload is the leader's wall clock, milliseconds since 1970 as a u64, or empty.
    Noop,
    /// Raft's: a change of membership, a trim, a new segment limit.
    Control,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Noop => 2,
            Self::Control => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Noop),
            3 => Some(Self::Control),
            _ => None,
        }
    }
}

/// The fields in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// What the entry is for.
    pub kind: Kind,
    /// Whether its batch ends with it.
    pub last_of_batch: bool,
    /// Payload bytes, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_len: u32,
    /// The term of its batch.
    pub term: Term,
    /// Who appended it; [`WriterId::NONE`] unless it is data.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More bytes would be needed to tell.
    #[error("entry at offset {at} is cut short: {needed} bytes needed, {found} there")]
    Short {
        /// The entry's offset.
        at: Offset,
        /// Bytes needed from `at` on.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// The kind is none that exists.
    #[error("no entry at offset {at}: kind {code}")]
    Kind {
        /// The entry's offset.
        at: Offset,
        /// The kind found; 0 where nothing was ever written.
        code: u8,
    },
    /// The length behind the payload is not the one before it.
    #[error("entry at offset {at} says length {before} before its payload and {behind} behind it")]
    LengthMismatch {
        /// The entry's offset.
        at: Offset,
        /// Before the payload.
        before: u32,
        /// Behind it.
        behind: u32,
    },
    /// The checksum does not match.
    #[error("entry at offset {at} has CRC {found:08x}, its bytes give {expected:08x}")]
    Crc {
        /// The entry's offset.
        at: Offset,
        /// What the bytes give.
        expected: u32,
        /// What the entry says.
        found: u32,
    },
}

impl Prefix {
    /// Bytes of the whole entry.
    #[must_use]
    pub const fn entry_len(&self) -> Length {
        Length::new(self.payload_len as u64 + OVERHEAD as u64)
    }

    /// The bytes in front of the payload.
    ///
    /// # Panics
    /// If `payload_len` is over the limit: whoever took the payload has checked it.
    #[must_use]
    pub fn encode(&self) -> [u8; PREFIX] {
        assert!(self.payload_len as usize <= PAYLOAD_BYTES_MAX, "payload length within its limit");
        let flag = if self.last_of_batch { LAST_OF_BATCH } else { 0 };
        let head = self.payload_len | u32::from(self.kind.code() | flag) << 24;
        let mut bytes = [0; PREFIX];
        bytes[0..4].copy_from_slice(&head.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.term.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.writer.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.get().to_le_bytes());
        bytes
    }

    /// The bytes behind the payload, for an entry at `at` whose payload has the CRC-32C `payload_crc`.
    #[must_use]
    pub fn suffix(&self, at: Offset, payload_crc: u32) -> [u8; SUFFIX] {
        let length = self.payload_len.to_le_bytes();
        let crc = frame_crc(at, &self.encode(), payload_crc, &length);
        let mut bytes = [0; SUFFIX];
        bytes[0..4].copy_from_slice(&length);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the prefix of an entry at `at`; `bytes` begin there and may go on behind it.
    ///
    /// # Errors
    /// [`EntryError::Short`] or [`EntryError::Kind`]. The checksum is not looked at.
    pub fn decode(at: Offset, bytes: &[u8]) -> Result<Self, EntryError> {
        let Some(bytes) = bytes.first_chunk::<PREFIX>() else {
            return Err(EntryError::Short { at, needed: PREFIX, found: bytes.len() });
        };
        let code = bytes[3] & !LAST_OF_BATCH;
        let kind = Kind::from_code(code).ok_or(EntryError::Kind { at, code })?;
        Ok(Self {
            kind,
            last_of_batch: bytes[3] & LAST_OF_BATCH != 0,
            payload_len: le_u32(bytes, 0) & LENGTH_MASK,
            term: Term::new(le_u32(bytes, 4)),
            writer: WriterId::new(le_u64(bytes, 8)),
            sequence: Sequence::new(le_u64(bytes, 16)),
        })
    }
}

/// An entry as it lies in somebody's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Where in the log it begins.
    pub offset: Offset,
    /// Its fields.
    pub prefix: Prefix,
    /// Its content.
    pub payload: &'a [u8],
    /// CRC-32C of the payload. [`EntryRef::decode`] has checked it; [`EntryRef::decode_unchecked`] leaves it at 0.
    pub payload_crc: u32,
}

impl<'a> EntryRef<'a> {
    /// Reads and checks the entry at the head of `bytes`, which lies at `at` in the log.
    ///
    /// # Errors
    /// [`EntryError`] says what does not hold.
    pub fn decode(at: Offset, bytes: &'a [u8]) -> Result<Self, EntryError> {
        let mut entry = Self::decode_unchecked(at, bytes)?;
        let payload_crc = crc32c::crc32c(entry.payload);
        let end = PREFIX + entry.payload.len();
        let expected = frame_crc(at, &bytes[..PREFIX], payload_crc, &bytes[end..end + 4]);
        let found = le_u32(bytes, end + 4);
        if expected != found {
            return Err(EntryError::Crc { at, expected, found });
        }
        entry.payload_crc = payload_crc;
        Ok(entry)
    }

    /// Reads the entry at the head of `bytes` without its checksum: for readers who leave integrity to others.
    ///
    /// # Errors
    /// [`EntryError`], all but [`EntryError::Crc`].
    pub fn decode_unchecked(at: Offset, bytes: &'a [u8]) -> Result<Self, EntryError> {
        let prefix = Prefix::decode(at, bytes)?;
        let needed = prefix.entry_len().as_usize();
        if bytes.len() < needed {
            return Err(EntryError::Short { at, needed, found: bytes.len() });
        }
        let end = needed - SUFFIX;
        let behind = le_u32(bytes, end);
        if behind != prefix.payload_len {
            return Err(EntryError::LengthMismatch { at, before: prefix.payload_len, behind });
        }
        Ok(Self { offset: at, prefix, payload: &bytes[PREFIX..end], payload_crc: 0 })
    }

    /// Bytes of the whole entry.
    #[must_use]
    pub const fn len(&self) -> Length {
        self.prefix.entry_len()
    }

    /// Where the next entry begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.offset + self.len()
    }
}

/// How far before `end` the entry begins whose last [`SUFFIX`] bytes are `suffix`, so that a reader can walk backwards.
/// `None` where the length is over its limit: then no entry ends here.
#[must_use]
pub fn len_from_suffix(suffix: &[u8; SUFFIX]) -> Option<Length> {
    let payload = le_u32(suffix, 0) as usize;
    (payload <= PAYLOAD_BYTES_MAX).then(|| Length::of(payload + OVERHEAD))
}

/// Appends a whole entry to `out`. `at` is where it will lie in the log.
pub fn encode_into(out: &mut Vec<u8>, at: Offset, prefix: &Prefix, payload: &[u8], payload_crc: u32) {
    debug_assert_eq!(prefix.payload_len as usize, payload.len());
    out.extend_from_slice(&prefix.encode());
    out.extend_from_slice(payload);
    out.extend_from_slice(&prefix.suffix(at, payload_crc));
}

fn frame_crc(at: Offset, prefix: &[u8], payload_crc: u32, length: &[u8]) -> u32 {
    let mut covered = [0; 8 + PREFIX + 4 + 4];
    covered[..8].copy_from_slice(&at.get().to_le_bytes());
    covered[8..8 + PREFIX].copy_from_slice(prefix);
    covered[8 + PREFIX..12 + PREFIX].copy_from_slice(&payload_crc.to_le_bytes());
    covered[12 + PREFIX..].copy_from_slice(length);
    crc32c::crc32c(&covered)
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> (Offset, Prefix, &'static [u8]) {
        let prefix = Prefix {
            kind: Kind::Data,
            last_of_batch: true,
            payload_len: 5,
            term: Term::new(7),
            writer: WriterId::new(0x1122_3344_5566_7788),
            sequence: Sequence::new(9),
        };
        (Offset::new(4096), prefix, b"hello")
    }

    fn encoded(at: Offset, prefix: &Prefix, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_into(&mut out, at, prefix, payload, crc32c::crc32c(payload));
        out
    }

    #[test]
    fn golden_bytes() {
        let (at, prefix, payload) = example();
        let hex: String = encoded(at, &prefix, payload).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "05000081",
                "07000000",
                "8877665544332211",
                "0900000000000000",
                "68656c6c6f",
                "05000000",
                "b759c52a"
            )
        );
    }

    #[test]
    fn zeros_are_no_entry() {
        let error = EntryRef::decode(Offset::ZERO, &[0; 64]).unwrap_err();
        assert_eq!(error, EntryError::Kind { at: Offset::ZERO, code: 0 });
    }

    #[test]
    fn an_entry_is_valid_only_at_its_own_offset() {
        let (at, prefix, payload) = example();
        let bytes = encoded(at, &prefix, payload);
        assert!(EntryRef::decode(at, &bytes).is_ok());
        assert!(matches!(EntryRef::decode(Offset::new(0), &bytes), Err(EntryError::Crc { .. })));
    }

    proptest! {
        #[test]
        fn every_entry_comes_back(
            at in any::<u64>(), code in 1u8..=3, last in any::<bool>(), term in any::<u32>(),
            writer in any::<u64>(), sequence in any::<u64>(), payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let at = Offset::new(at);
            let prefix = Prefix {
                kind: Kind::from_code(code).unwrap(), last_of_batch: last,
                payload_len: u32::try_from(payload.len()).unwrap(), term: Term::new(term),
                writer: WriterId::new(writer), sequence: Sequence::new(sequence),
            };
            let bytes = encoded(at, &prefix, &payload);
            let entry = EntryRef::decode(at, &bytes).unwrap();
            prop_assert_eq!(entry.prefix, prefix);
            prop_assert_eq!(entry.payload, &payload[..]);
            let suffix = bytes.last_chunk::<SUFFIX>().unwrap();
            prop_assert_eq!(len_from_suffix(suffix), Some(Length::of(bytes.len())));
        }

        #[test]
        fn arbitrary_bytes_never_panic(at in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EntryRef::decode(Offset::new(at), &bytes);
        }

        #[test]
        fn one_flipped_bit_is_noticed(bit in 0usize..(37 * 8)) {
            let (at, prefix, payload) = example();
            let mut bytes = encoded(at, &prefix, payload);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(EntryRef::decode(at, &bytes).is_err());
        }
    }
}
