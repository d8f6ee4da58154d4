//! Pack: several events in one entry, which pays the entry's 32 bytes and its round trip once for all of them.
//!
//! ```text
//!     events ──push──► body, sums ──finish──► payload ──append … read──► body, sums ──check──► events
//!                            (compressed here)                (decompressed here)
//! ```
//!
//! [`PackBuilder`] makes packs, [`Pack`] reads them, and so does [`Entry::events`](crate::Entry::events).
//!
//! Both extras are the packer's choice, [`PackOptions`], and neither is on by itself:
//!
//! - **Compression** of all events together, by LZ4.
//! - **A checksum of each event.** The entry has a CRC already, which covers the payload from the append to the read. An event's sum is made when the
//!   event is pushed and checked when events are given out, so it covers what lies before and behind as well: what becomes of the event
//!   in the packer's memory, compression and decompression, and each place to which the pack is copied out of the log. It serves whoever reads
//!   without the entries' checks ([`EntriesOptions::checked`](crate::EntriesOptions::checked)), and it names the one event that has
//!   changed where the entry's CRC can only give up all of them.
//!
//! Whoever reads needs to know nothing of these choices; the pack says it all.
//!
//! Owns:   the format, and an event's position: its entry's offset and its number in it.
//! Keeps:  bytes are checked whole before the first event is given out; bad ones are an error, never a panic, and never take more memory
//!         than the largest entry.
//! Never:  knows what an event means.
//!
//! Source: docs/protocol.md, "Packs".

mod builder;
mod error;
mod events;
mod form;
mod lz4;
#[cfg(test)]
mod pack_test;

use std::fmt;

use loglog_proto::Offset;

pub use builder::PackBuilder;
pub use error::PackError;
pub use events::{Events, Pack};

/// What is done for a pack beyond putting its events together. By default nothing; such packs are read by every version of this library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// How its events are compressed.
    pub compression: Compression,
    /// Whether each event gets a CRC-32C of its own: 4 bytes.
    pub checksums: bool,
}

/// How a pack's events are compressed, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By LZ4, where that makes them smaller; else not at all.
    Lz4,
}

/// Where an event is in the log. Positions are ordered as their events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The offset of its entry.
    pub entry: Offset,
    /// Its number in the entry, from 0.
    pub number: u32,
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entry, self.number)
    }
}
