//! The events of a pack.
//!
//! Owns:   what is checked of a pack, and its events' iteration.
//! Keeps:  [`Events`] exist only of bytes that were found good from the first to the last, so iterating over them cannot fail.

use std::iter::FusedIterator;

use bytes::Bytes;
use loglog_proto::Offset;

use super::form::{self, Header, PACK_BYTES_MAX, SUM};
use super::{Compression, EventPosition, PackError, lz4};

/// Reads packs.
#[derive(Clone, Copy, Debug)]
pub struct Pack;

/// The events of one pack, in order, each with its position.
///
/// An event is a slice of the payload, or of the pack as it was decompressed, and keeps all of that in memory. Copy what is kept for long.
#[derive(Clone, Debug)]
pub struct Events {
    entry: Offset,
    next: u32,
    events: u32,
    checksums: bool,
    body: Bytes,
    /// Where in the body the next event begins.
    at: usize,
}

impl Pack {
    /// The events of the entry at `entry` with this payload. Where they have checksums these are checked.
    ///
    /// # Errors
    /// [`PackError`]: all of the payload is checked first.
    pub fn events(entry: Offset, payload: &Bytes) -> Result<Events, PackError> {
        Self::read(entry, payload, true)
    }

    /// The same, but the checksums, if there are any, are not looked at. All else is checked.
    ///
    /// # Errors
    /// [`PackError`], though never [`PackError::Checksum`].
    pub fn events_unchecked(entry: Offset, payload: &Bytes) -> Result<Events, PackError> {
        Self::read(entry, payload, false)
    }

    fn read(entry: Offset, payload: &Bytes, checked: bool) -> Result<Events, PackError> {
        let (header, head) = Header::decode(payload)?;
        let checksums = header.options.checksums;
        let sums = if checksums { SUM.saturating_mul(header.events as usize) } else { 0 };
        let frame = head.saturating_add(sums);
        // What it has and what it says: both bound what is done with it.
        let length = payload.len().max(frame.saturating_add(header.length));
        if length > PACK_BYTES_MAX {
            return Err(PackError::TooLong { length, max: PACK_BYTES_MAX });
        }
        if payload.len() < frame {
            return Err(PackError::Short { expected: frame, found: payload.len() });
        }
        let (body, sums) = (payload.slice(head..payload.len() - sums), &payload[payload.len() - sums..]);
        let body = match header.options.compression {
            Compression::Lz4 => Bytes::from(lz4::decompress(&body, header.length)?),
            Compression::None if body.len() == header.length => body,
            Compression::None => {
                return Err(PackError::Length { expected: header.length, found: body.len() });
            }
        };
        let events = Events { entry, next: 0, events: header.events, checksums, body, at: 0 };
        events.check(head, if checked { sums.as_chunks().0 } else { &[] })?;
        Ok(events)
    }
}

impl Events {
    /// Whether each event has a checksum of its own. Who insists on these asks here: a pack without them is as good as any otherwise.
    #[must_use]
    pub const fn have_checksums(&self) -> bool {
        self.checksums
    }

    /// Goes through all of the body, which begins at byte `head` of the pack. Where there are sums to be checked, the first event that is wrong in
    /// either way is named: a changed length makes all behind it look wrong.
    fn check(&self, head: usize, sums: &[[u8; SUM]]) -> Result<(), PackError> {
        let mut at = 0;
        for number in 0..self.events {
            let Some(event) = form::event_at(&self.body, at) else {
                return Err(PackError::Event { number, at: head + at });
            };
            let end = event.end;
            if let Some(stored) = sums.get(number as usize) {
                let (stored, computed) = (u32::from_le_bytes(*stored), form::sum(number, &self.body[event]));
                if computed != stored {
                    let position = EventPosition { entry: self.entry, number };
                    return Err(PackError::Checksum { position, at: head + at, stored, computed });
                }
            }
            at = end;
        }
        match self.body.len() - at {
            0 => Ok(()),
            bytes => Err(PackError::Trailing { bytes, events: self.events }),
        }
    }
}

impl Iterator for Events {
    type Item = (EventPosition, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.events {
            return None;
        }
        let event = form::event_at(&self.body, self.at)?;
        let position = EventPosition { entry: self.entry, number: self.next };
        (self.next, self.at) = (self.next + 1, event.end);
        Some((position, self.body.slice(event)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.events - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events {}

impl FusedIterator for Events {}
