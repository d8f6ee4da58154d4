//! Header: the first 52 bytes of a snapshot.
//!
//! ```text
//!     0      6        8        16       24          32         36        40           48          52
//!     │magic │version │cluster │offset  │last entry │its term  │body CRC │body length │header CRC │ body …
//! ```
//!
//! Keeps:  zeros, as of a file that was never finished, are no header.
//!
//! Source: docs/format.md, "Snapshots of state machines".

use loglog_proto::{ClusterId, Length, Offset, Term, crc32c};

/// Its length.
pub(super) const HEADER: usize = 52;
const MAGIC: &[u8; 6] = b"LLsnap";
const VERSION: u16 = 1;

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whose log the state was made from.
    pub(super) cluster: ClusterId,
    pub(super) place: Place,
    pub(super) body_crc: u32,
    pub(super) body_length: Length,
}

/// Up to where a state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Everything before it is applied.
    pub(super) at: Offset,
    /// The newest entry that was applied, if any: another log, or one that lost it, has another there.
    pub(super) last: Option<Applied>,
}

/// An entry's name for ever: in one term one leader gives out each offset, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) offset: Offset,
    pub(super) term: Term,
}

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Version(u16),
    Damaged(&'static str),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        // Terms begin at 1.
        let (last, term) =
            self.place.last.map_or((0, 0), |applied| (applied.offset.get(), applied.term.get()));
        let mut bytes = [0; HEADER];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cluster.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.place.at.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&last.to_le_bytes());
        bytes[32..36].copy_from_slice(&term.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.body_length.get().to_le_bytes());
        let crc = crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<Self, Wrong> {
        if &bytes[..6] != MAGIC {
            return Err(Wrong::Damaged("it does not begin as a snapshot does"));
        }
        let u32_at = |at| u32::from_le_bytes(*bytes[at..].first_chunk().expect("within the header"));
        let u64_at = |at| u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the header"));
        // A later version may have its checksum elsewhere.
        let version = u16::from_le_bytes([bytes[6], bytes[7]]);
        if version != VERSION {
            return Err(Wrong::Version(version));
        }
        if u32_at(48) != crc32c(&bytes[..48]) {
            return Err(Wrong::Damaged("its header does not match its checksum"));
        }
        let (last, term) = (Offset::new(u64_at(24)), Term::new(u32_at(32)));
        let place = Place {
            at: Offset::new(u64_at(16)),
            last: (term.get() > 0).then_some(Applied { offset: last, term }),
        };
        if place.last.is_some_and(|last| last.offset >= place.at) {
            return Err(Wrong::Damaged("its last entry lies behind its offset"));
        }
        Ok(Self {
            cluster: ClusterId::new(u64_at(8)).ok_or(Wrong::Damaged("it names no cluster"))?,
            place,
            body_crc: u32_at(36),
            body_length: Length::new(u64_at(40)),
        })
    }
}
