//! Walks over the entries of one segment file.
//!
//! Owns:   a window of the file, the position of the next entry.
//! Keeps:  memory within one window, or one entry where that is larger; both are bounded by the format.
//! Never:  judges: whether an invalid entry is the end, a torn tail or corruption is the caller's to say.

use std::io;

use loglog_proto::entry::{EntryError, EntryRef, PREFIX, Prefix};
use loglog_proto::header::HEADER;
use loglog_proto::{Length, Offset};

use crate::error::to_usize;
use crate::vfs::{VfsFile, read_full_at};

/// Bytes read at once.
const WINDOW: usize = 256 << 10;

/// Where in a segment file with base `base` the byte at `offset` lies.
pub(crate) fn position(base: Offset, offset: Offset) -> u64 {
    (offset - base).get() + HEADER as u64
}

/// What lies at the next position.
pub(crate) enum Step<'a> {
    /// A valid entry; the scanner stands behind it now.
    Entry(EntryRef<'a>),
    /// No valid entry; the scanner stays.
    Invalid(EntryError),
    /// The limit, exactly.
    End,
}

/// Walks forwards from an entry's boundary to a limit.
pub(crate) struct Scanner<'f> {
    file: &'f dyn VfsFile,
    base: Offset,
    at: Offset,
    limit: Offset,
    window: Vec<u8>,
    /// Offset of the window's first byte.
    window_at: Offset,
    /// Bytes of the window that were read.
    filled: usize,
}

impl<'f> Scanner<'f> {
    /// Walks over `file`, whose segment begins at `base`, from `from` to `limit`.
    pub(crate) fn new(file: &'f dyn VfsFile, base: Offset, from: Offset, limit: Offset) -> Self {
        Self { file, base, at: from, limit, window: Vec::new(), window_at: from, filled: 0 }
    }

    /// Offset of the next entry.
    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// The next entry.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        if self.at >= self.limit {
            return Ok(Step::End);
        }
        let prefix = match Prefix::decode(self.at, self.bytes(PREFIX)?) {
            Ok(prefix) => prefix,
            Err(error) => return Ok(Step::Invalid(error)),
        };
        let at = self.at;
        let len = prefix.entry_len().as_usize();
        self.bytes(len)?;
        let head = (at - self.window_at).as_usize();
        let there = &self.window[head..self.filled.min(head + len)];
        match EntryRef::decode(at, there) {
            Ok(entry) => {
                self.at = entry.end();
                Ok(Step::Entry(entry))
            }
            Err(error) => Ok(Step::Invalid(error)),
        }
    }

    /// Up to `n` bytes from the next entry's position on; fewer before the limit or the file's end.
    fn bytes(&mut self, n: usize) -> io::Result<&[u8]> {
        let mut head = (self.at - self.window_at).as_usize();
        if self.filled - head < n {
            self.window.copy_within(head..self.filled, 0);
            self.filled -= head;
            self.window_at = self.at;
            head = 0;
            if self.window.len() < n.max(WINDOW) {
                self.window.resize(n.max(WINDOW), 0);
            }
            let next = self.window_at + Length::of(self.filled);
            let room = ((self.window.len() - self.filled) as u64).min((self.limit - next).get());
            let into = &mut self.window[self.filled..][..to_usize(room)];
            self.filled += read_full_at(self.file, into, position(self.base, next))?;
        }
        Ok(&self.window[head..self.filled.min(head + n)])
    }
}
