//! An entry as it is given to a reader.

use bytes::Bytes;
use loglog_proto::{Offset, Sequence, Term, WriterId};

use crate::pack::{Events, PackError};

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
    /// The events packed into it by a [`PackBuilder`](crate::PackBuilder).
    ///
    /// # Errors
    /// [`PackError`], as where the payload is no pack.
    pub fn events(&self) -> Result<Events<'_>, PackError> {
        crate::pack::Pack::events(self.offset, &self.payload)
    }
}
