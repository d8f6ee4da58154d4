//! An entry as it is given to a reader.

use bytes::Bytes;
use loglog_proto::{Offset, Sequence, Term, WriterId};

use crate::pack::{Events, Pack, PackError};

/// A data entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its first byte in the log.
    pub offset: Offset,
    /// The byte behind it: where to read on.
    pub end: Offset,
    /// Its term.
    pub term: Term,
    /// Who appended it.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
    /// Its content: a slice of what one read returned, which is kept in memory for as long. Copy what is kept for long.
    pub payload: Bytes,
}

impl Entry {
    /// The events packed into it by a [`PackBuilder`](crate::PackBuilder). Where they have checksums these are checked.
    ///
    /// # Errors
    /// [`PackError`], as where the payload is no pack.
    pub fn events(&self) -> Result<Events, PackError> {
        Pack::events(self.offset, &self.payload)
    }

    /// The same, but the events' checksums, if there are any, are not looked at.
    ///
    /// # Errors
    /// As [`Entry::events`], though never [`PackError::Checksum`].
    pub fn events_unchecked(&self) -> Result<Events, PackError> {
        Pack::events_unchecked(self.offset, &self.payload)
    }
}
