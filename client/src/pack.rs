//! Pack: several events in one entry, which pays the entry's 32 bytes and its round trip once for all of them.
//!
//! ```text
//!     at   0      3         4        8
//!          ┌──────┬─────────┬────────┬─────────┬───────┬─────────┬───────┬─
//!          │ LPk  │ version │ events │ length  │ event │ length  │ event │ …
//!          │      │ 1       │ u32    │ varint  │       │ varint  │       │
//!          └──────┴─────────┴────────┴─────────┴───────┴─────────┴───────┴─
//! ```
//!
//! Integers are little-endian; a varint holds seven bits a byte, lowest first, the top bit set in all but its last, at most four bytes,
//! none of them in vain. Nothing follows the last event. The entry's CRC covers it all.
//!
//! Owns:   the format, and an event's position: its entry's offset and its number in it.
//! Keeps:  bytes are checked whole before the first event is given out; bad ones are an error, never a panic.
//! Never:  knows what an event means.
//!
//! Source: docs/protocol.md, "Packs".

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use loglog_proto::Offset;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;

const MAGIC: [u8; 3] = *b"LPk";
const VERSION: u8 = 1;
const HEADER: usize = 8;
/// Seven bits each hold more than [`PAYLOAD_BYTES_MAX`].
const VARINT_BYTES_MAX: usize = 4;

const _: () = assert!(PAYLOAD_BYTES_MAX < 1 << (7 * VARINT_BYTES_MAX));

/// Packs events into one payload.
#[derive(Clone, Debug)]
pub struct PackBuilder {
    bytes: BytesMut,
    events: u32,
}

/// Reads packs.
#[derive(Clone, Copy, Debug)]
pub struct Pack;

/// The events of one pack, in order, each with its position.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    entry: Offset,
    next: u32,
    events: u32,
    rest: &'a [u8],
}

/// Where an event is in the log. Positions are ordered as their events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The offset of its entry.
    pub entry: Offset,
    /// Its number in the entry, from 0.
    pub number: u32,
}

/// Why bytes are no pack, or an event does not fit into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The payload does not begin as a pack does: perhaps it is a single event.
    #[error("the payload is no pack: it does not begin with 'LPk'")]
    NotAPack,
    /// Made by a later program.
    #[error("pack version {found}; this program reads version {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// An event's length is none, or reaches beyond the payload.
    #[error("event {number} at byte {at} of the pack is cut short or has a bad length")]
    Event {
        /// Its number, from 0.
        number: u32,
        /// Where it begins.
        at: usize,
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
        /// What the pack would have.
        length: usize,
        /// The limit.
        max: usize,
    },
}

impl PackBuilder {
    /// An empty pack.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u32_le(0);
        Self { bytes, events: 0 }
    }

    /// Adds an event. Returns its number in the pack.
    ///
    /// # Errors
    /// [`PackError::Full`]; the pack is unchanged.
    pub fn push(&mut self, event: &[u8]) -> Result<u32, PackError> {
        let (varint, digits) = varint(event.len());
        let length = self.bytes.len().saturating_add(digits).saturating_add(event.len());
        if length > PAYLOAD_BYTES_MAX {
            return Err(PackError::Full { length, max: PAYLOAD_BYTES_MAX });
        }
        self.bytes.put_slice(&varint[..digits]);
        self.bytes.put_slice(event);
        let number = self.events;
        self.events += 1;
        Ok(number)
    }

    /// Events pushed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events as usize
    }

    /// Whether none was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Bytes of the payload so far.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The payload.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.bytes[4..HEADER].copy_from_slice(&self.events.to_le_bytes());
        self.bytes.freeze()
    }
}

impl Default for PackBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl Pack {
    /// The events of the entry at `entry` with this payload.
    ///
    /// # Errors
    /// [`PackError`]: all of the payload is checked first.
    pub fn events(entry: Offset, payload: &[u8]) -> Result<Events<'_>, PackError> {
        let Some((header, rest)) =
            payload.split_at_checked(HEADER).filter(|(header, _)| header[..3] == MAGIC)
        else {
            return Err(PackError::NotAPack);
        };
        if header[3] != VERSION {
            return Err(PackError::Version { found: header[3] });
        }
        let mut count = [0; 4];
        count.copy_from_slice(&header[4..]);
        let events = Events { entry, next: 0, events: u32::from_le_bytes(count), rest };
        let mut walk = events.clone();
        while walk.next < walk.events {
            let bad = PackError::Event { number: walk.next, at: payload.len() - walk.rest.len() };
            walk.next().ok_or(bad)?;
        }
        match walk.rest.len() {
            0 => Ok(events),
            bytes => Err(PackError::Trailing { bytes, events: events.events }),
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = (EventPosition, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.events {
            return None;
        }
        let (length, rest) = split_varint(self.rest)?;
        let (event, rest) = rest.split_at_checked(length)?;
        let position = EventPosition { entry: self.entry, number: self.next };
        (self.next, self.rest) = (self.next + 1, rest);
        Some((position, event))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.events - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entry, self.number)
    }
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

fn split_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // A last digit of zero would be another way to write the same.
            return (at == 0 || *byte != 0).then_some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(events: &[&[u8]]) -> Bytes {
        let mut builder = PackBuilder::new();
        for event in events {
            builder.push(event).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn golden_bytes() {
        let long = [b'x'; 130];
        let payload = pack(&[b"hi", b"", &long]);
        let head = b"LPk\x01\x03\x00\x00\x00\x02hi\x00\x82\x01";
        assert_eq!(&payload[..head.len()], head);
        assert_eq!(&payload[head.len()..], long);
        assert_eq!(pack(&[]).as_ref(), b"LPk\x01\x00\x00\x00\x00");
    }

    #[test]
    fn positions_follow_the_entries() {
        let payload = pack(&[b"a", b"b"]);
        let found: Vec<_> = Pack::events(Offset::new(96), &payload).unwrap().collect();
        assert_eq!(found[1], (EventPosition { entry: Offset::new(96), number: 1 }, &b"b"[..]));
        assert_eq!(found[1].0.to_string(), "96:1");
        assert!(found[0].0 < found[1].0);
    }

    #[test]
    fn bad_bytes_are_named() {
        let cases: &[(&[u8], PackError)] = &[
            (b"", PackError::NotAPack),
            (b"LPk\x01\x00\x00\x00", PackError::NotAPack),
            (b"LPx\x01\x00\x00\x00\x00", PackError::NotAPack),
            (b"LPk\x02\x00\x00\x00\x00", PackError::Version { found: 2 }),
            (b"LPk\x01\x00\x00\x00\x00x", PackError::Trailing { bytes: 1, events: 0 }),
            (b"LPk\x01\x01\x00\x00\x00", PackError::Event { number: 0, at: 8 }),
            (b"LPk\x01\x02\x00\x00\x00\x01a\x02b", PackError::Event { number: 1, at: 10 }),
            (b"LPk\x01\x01\x00\x00\x00\x80\x00", PackError::Event { number: 0, at: 8 }),
            (b"LPk\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", PackError::Event { number: 0, at: 8 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(Pack::events(Offset::ZERO, bytes).unwrap_err(), *error, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_full_pack_takes_no_more() {
        let mut builder = PackBuilder::new();
        let event = vec![0; PAYLOAD_BYTES_MAX - HEADER - 4];
        assert_eq!(builder.push(&event), Ok(0));
        assert!(matches!(builder.push(b""), Err(PackError::Full { .. })));
        assert_eq!((builder.len(), builder.byte_len()), (1, PAYLOAD_BYTES_MAX));
        assert_eq!(Pack::events(Offset::ZERO, &builder.finish()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn events_come_back(events in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let slices: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
            let payload = pack(&slices);
            let found = Pack::events(Offset::ZERO, &payload).unwrap();
            prop_assert_eq!(found.len(), events.len());
            prop_assert!(found.map(|(_, event)| event.to_vec()).eq(events));
        }

        #[test]
        fn cut_or_changed_packs_never_panic(cut in 0usize..40, at in 0usize..40, to in any::<u8>()) {
            let payload = pack(&[b"first", b"", b"third event, longer"]);
            let mut bytes = payload.to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            bytes.truncate(cut);
            if let Ok(events) = Pack::events(Offset::ZERO, &bytes) {
                prop_assert_eq!(events.len(), events.count());
            }
        }
    }
}
