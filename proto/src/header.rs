//! The segment header: the first 64 bytes of a segment file.
//!
//! ```text
//!     at   0       4         8            16            24           32     36              40         60
//!          ┌───────┬─────────┬────────────┬─────────────┬────────────┬──────┬───────────────┬──────────┬───────┐
//!          │ magic │ version │ cluster id │ base offset │ base index │ term │ previous term │ zeros    │ CRC   │
//!          └───────┴─────────┴────────────┴─────────────┴────────────┴──────┴───────────────┴──────────┴───────┘
//! ```
//!
//! All integers are little-endian; the CRC-32C runs over the first 60 bytes.
//!
//! Owns:   encoding, decoding and checking of one header.
//! Keeps:  a header is a function of the log: nothing node-local, no clock (S35).
//!
//! Source: docs/format.md, "Segment file".

use crate::ids::ClusterId;
use crate::limits::POSITION_MAX;
use crate::position::{Index, Offset, Term};

/// Bytes of a header. Entries follow at once.
pub const HEADER: usize = 64;
/// The first four bytes of a segment file.
pub const MAGIC: [u8; 4] = *b"LgLg";
/// The format's version; another one is refused.
pub const VERSION: u32 = 1;

const CRC_AT: usize = HEADER - 4;

/// Where a segment lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Offset of its first entry.
    pub base_offset: Offset,
    /// Index of its first batch.
    pub base_index: Index,
    /// Term of all its batches: a new term opens a new segment.
    pub term: Term,
    /// Term of the batch before its first.
    pub previous_term: Term,
}

/// Why bytes are no segment header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than [`HEADER`] bytes.
    #[error("segment header is cut short: {found} of {HEADER} bytes")]
    Short {
        /// Bytes there.
        found: usize,
    },
    /// Not a segment file.
    #[error("no segment file: it begins with {found:02x?}")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Written by another version.
    #[error("segment format version {found}; this program reads version {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The checksum does not match.
    #[error("segment header has CRC {found:08x}, its bytes give {expected:08x}")]
    Crc {
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        found: u32,
    },
    /// The cluster id is zero, which none is.
    #[error("segment header has cluster id 0")]
    Cluster,
    /// An offset or index that no log reaches.
    #[error("segment header has position {found}, which no log reaches")]
    Position {
        /// What was found.
        found: u64,
    },
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cluster.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base_index.get().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.term.get().to_le_bytes());
        bytes[36..40].copy_from_slice(&self.previous_term.get().to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the header at the head of `bytes`.
    ///
    /// # Errors
    /// [`HeaderError`] says what does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(HeaderError::Short { found: bytes.len() });
        };
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        let u32_at = |at: usize| {
            let mut field = [0; 4];
            field.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(field)
        };
        let u64_at = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let (expected, found) = (crc32c::crc32c(&bytes[..CRC_AT]), u32_at(CRC_AT));
        if expected != found {
            return Err(HeaderError::Crc { expected, found });
        }
        if u32_at(4) != VERSION {
            return Err(HeaderError::Version { found: u32_at(4) });
        }
        if let Some(found) = [u64_at(16), u64_at(24)].into_iter().find(|found| *found > POSITION_MAX) {
            return Err(HeaderError::Position { found });
        }
        Ok(Self {
            cluster: ClusterId::new(u64_at(8)).ok_or(HeaderError::Cluster)?,
            base_offset: Offset::new(u64_at(16)),
            base_index: Index::new(u64_at(24)),
            term: Term::new(u32_at(32)),
            previous_term: Term::new(u32_at(36)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId::new(0xabcd).unwrap(),
            base_offset: Offset::new(0x1000),
            base_index: Index::new(2),
            term: Term::new(3),
            previous_term: Term::new(1),
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = example().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "4c674c67",
                "01000000",
                "cdab000000000000",
                "0010000000000000",
                "0200000000000000",
                "03000000",
                "01000000",
                "0000000000000000000000000000000000000000",
                "f79f408e"
            )
        );
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = example().encode();
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version { found: 2 }));
    }

    #[test]
    fn a_position_that_no_log_reaches_is_refused() {
        for (offset, index) in [(POSITION_MAX + 1, 2), (0, u64::MAX)] {
            let header = SegmentHeader {
                base_offset: Offset::new(offset),
                base_index: Index::new(index),
                ..example()
            };
            let found = offset.max(index);
            assert_eq!(SegmentHeader::decode(&header.encode()), Err(HeaderError::Position { found }));
        }
    }

    proptest! {
        #[test]
        fn every_header_comes_back(
            cluster in 1u64.., offset in 0..=POSITION_MAX, index in 0..=POSITION_MAX, term in any::<u32>(), previous in any::<u32>(),
        ) {
            let header = SegmentHeader {
                cluster: ClusterId::new(cluster).unwrap(), base_offset: Offset::new(offset),
                base_index: Index::new(index), term: Term::new(term), previous_term: Term::new(previous),
            };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn one_flipped_bit_is_noticed(bit in 0usize..HEADER * 8) {
            let mut bytes = example().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }
    }
}
