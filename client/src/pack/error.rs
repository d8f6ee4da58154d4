//! Why bytes are no pack, or an event does not fit into one.

use super::EventPosition;

/// Why bytes are no pack, or an event does not fit into one. A place `at` in a pack counts the pack's bytes as they are without compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The payload does not begin as a pack does: perhaps it is a single event.
    #[error("the payload is no pack: it does not begin with 'LPk'")]
    NotAPack,
    /// Made by a later program.
    #[error("pack version {found}; this program reads versions 1 and 2")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Made by a later program, or damaged.
    #[error(
        "the pack's flags {found:#04x} are not all known to this program: made by a later one, or damaged"
    )]
    Flags {
        /// The flags found.
        found: u8,
    },
    /// The payload ends within the pack's header, or has no room for its checksums.
    #[error("the pack is cut short: header and checksums alone have {expected} bytes, and there are {found}")]
    Short {
        /// Bytes of header and checksums.
        expected: usize,
        /// The payload's.
        found: usize,
    },
    /// The pack is longer than an entry can be, or would be without compression.
    #[error("the pack has, or says that it has, {length} bytes without compression: over the limit of {max}")]
    TooLong {
        /// What it has, or says.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The events have not the length that the header says.
    #[error("the pack says that its events have {expected} bytes, and there are {found}")]
    Length {
        /// What the header says.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// The compressed events cannot be decompressed to what the header says.
    #[error("the pack's compressed events are damaged: {reason}")]
    Compressed {
        /// What is wrong with them.
        reason: String,
    },
    /// An event's length is none, or reaches beyond the pack.
    #[error("event {number} at byte {at} of the pack is cut short or has a bad length")]
    Event {
        /// Its number, from 0.
        number: u32,
        /// Where it begins.
        at: usize,
    },
    /// An event is not what was pushed.
    #[error(
        "event {} (at {position}, byte {at} of its pack) is not what was packed: its checksum is {computed:08x}, \
         and {stored:08x} was packed with it",
        position.number
    )]
    Checksum {
        /// Where in the log the event is.
        position: EventPosition,
        /// Where in the pack it begins.
        at: usize,
        /// The sum in the pack.
        stored: u32,
        /// The sum of the event as it is.
        computed: u32,
    },
    /// Bytes follow the last event.
    #[error("{bytes} bytes follow the last of the pack's {events} events")]
    Trailing {
        /// How many.
        bytes: usize,
        /// The events.
        events: u32,
    },
    /// The event would make the payload larger than an entry can be.
    #[error(
        "a pack of {length} bytes is over the limit of {max}: finish this one and push the event to the next"
    )]
    Full {
        /// What the pack would have, without compression.
        length: usize,
        /// The limit.
        max: usize,
    },
}
