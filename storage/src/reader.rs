//! Reads the log while others write it.
//!
//! ```text
//!     read(offset, max, committed) ─► bytes of one segment, never beyond `committed`
//!     scan(from, to)               ─► entries, checked
//! ```
//!
//! Owns:   nothing; a clone is as good as the original.
//! Keeps:  no byte at or beyond `committed`, none before the start, none that is not durable.
//! Never:  checks what `read` returns: integrity is the client's business.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::entry::{EntryError, EntryRef};
use loglog_proto::header::SegmentHeader;
use loglog_proto::{Index, LogId, Offset, Term};

use crate::error::{IoFailure, Meant, to_usize};
use crate::scan::{Scanner, Step, position};
use crate::shared::{Segment, Shared};
use crate::vfs::{Vfs, VfsFile, read_exact_at};

/// Reads the log.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// A segment, as its header and the table say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its header.
    pub header: SegmentHeader,
    /// Behind its last durable batch.
    pub end: Offset,
    /// Whether another one follows. (The last one may be full already.)
    pub sealed: bool,
    /// Its file.
    pub path: PathBuf,
}

/// Where bytes of the log lie, for calls that copy from file to socket.
#[derive(Clone, Debug)]
pub struct Located {
    /// The segment's file; it stays readable, whatever becomes of its name.
    pub file: Arc<dyn VfsFile>,
    /// Position of the first byte in the file.
    pub position: u64,
    /// Bytes there, at most what was asked for.
    pub len: usize,
}

/// Why bytes were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are no longer here.
    #[error("trimmed: the log starts at offset {start}")]
    Trimmed {
        /// First byte kept.
        start: Offset,
    },
    /// They are not here yet.
    #[error("beyond the end of the log at offset {end}")]
    BeyondEnd {
        /// Behind the last byte that may be read.
        end: Offset,
    },
    /// The disk does not give them.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// As for a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bytes are no entry: damage, or `from` was no entry's boundary.
    #[error("{}: {error}", path.display())]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where in the log.
        offset: Offset,
        /// What does not hold.
        error: EntryError,
    },
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn vfs(&self) -> &dyn Vfs {
        &*self.shared.vfs
    }

    /// The segment in which the committed byte at `offset` lies.
    pub(crate) fn holding(&self, offset: Offset, committed: Offset) -> Result<Segment, ReadError> {
        match self.find(offset, 1, committed)? {
            Some((segment, _)) => Ok(segment),
            None => Err(ReadError::BeyondEnd { end: offset }),
        }
    }

    /// First byte kept. What was trimmed before it may be there for a moment yet, until its files are gone.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.shared.saved_start()
    }

    /// Behind the last durable byte of this node; what of it is committed, the caller knows.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.shared.table().end()
    }

    /// The last durable batch of this node.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.shared.table().last
    }

    /// Bytes from `offset` on: of one segment, at most `max`, none at or beyond `committed`. Empty at `committed`.
    ///
    /// # Errors
    /// [`ReadError`]; `BeyondEnd` where `offset` is beyond what is committed, or not durable here.
    pub fn read(&self, offset: Offset, max: usize, committed: Offset) -> Result<Bytes, ReadError> {
        let Some((segment, len)) = self.find(offset, max, committed)? else { return Ok(Bytes::new()) };
        if let Some(bytes) = self.in_memory(offset, len, usize::MAX) {
            return Ok(bytes);
        }
        let file = self.open(&segment, offset)?;
        let mut bytes = vec![0; len];
        let pos = position(segment.header.base_offset, offset);
        read_exact_at(&*file, &mut bytes, pos).meant("read", &segment.path)?;
        Ok(bytes.into())
    }

    /// As [`LogReader::read`], but only what is in memory: `None` where the disk would have to be asked, or more than `copied_max` bytes
    /// be copied.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn read_from_memory(
        &self,
        offset: Offset,
        max: usize,
        committed: Offset,
        copied_max: usize,
    ) -> Result<Option<Bytes>, ReadError> {
        match self.find(offset, max, committed)? {
            Some((_, len)) => Ok(self.in_memory(offset, len, copied_max)),
            None => Ok(Some(Bytes::new())),
        }
    }

    pub(crate) fn forget_tail(&self) {
        self.shared.tail().clear();
    }

    /// Bytes that still lie in memory. What is copied is so without the lock, which the writer and the network's thread want, too.
    fn in_memory(&self, offset: Offset, len: usize, copied_max: usize) -> Option<Bytes> {
        let found = self.shared.tail().find(offset, len);
        found?.bytes(copied_max)
    }

    /// As [`LogReader::read`], but says where the bytes lie. `None` where there are none yet.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn locate(
        &self,
        offset: Offset,
        max: usize,
        committed: Offset,
    ) -> Result<Option<Located>, ReadError> {
        let Some((segment, len)) = self.find(offset, max, committed)? else { return Ok(None) };
        let file = self.open(&segment, offset)?;
        Ok(Some(Located { file, position: position(segment.header.base_offset, offset), len }))
    }

    fn find(
        &self,
        offset: Offset,
        max: usize,
        committed: Offset,
    ) -> Result<Option<(Segment, usize)>, ReadError> {
        let table = self.shared.table();
        let end = committed.min(table.end());
        if offset < table.start.offset {
            return Err(ReadError::Trimmed { start: table.start.offset });
        }
        if offset > end {
            return Err(ReadError::BeyondEnd { end });
        }
        if offset == end {
            return Ok(None);
        }
        let segment = table.holding(offset).expect("the segments cover the log");
        let there = (segment.end.min(end) - offset).get();
        Ok(Some((segment.clone(), to_usize(there.min(max as u64)))))
    }

    /// Opens a segment's file; it may have been trimmed since the table was read.
    fn open(&self, segment: &Segment, offset: Offset) -> Result<Arc<dyn VfsFile>, ReadError> {
        let opened = self.shared.open_to_read(segment);
        if opened.is_err() {
            let start = self.start();
            if offset < start {
                return Err(ReadError::Trimmed { start });
            }
        }
        Ok(opened.meant("open", &segment.path)?)
    }

    /// All segments, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let table = self.shared.table();
        let count = table.segments.len();
        table.segments.iter().enumerate().map(|(at, segment)| info(segment, at + 1 < count)).collect()
    }

    /// The segment that holds the batch `index`; its base index says how many batches to count.
    #[must_use]
    pub fn segment_of_index(&self, index: Index) -> Option<SegmentInfo> {
        let table = self.shared.table();
        let last = table.segments.back()?.id;
        table.of_index(index).map(|segment| info(segment, segment.id != last))
    }

    /// The base of the segment in which `offset` lies or, behind the end, of the last one.
    #[must_use]
    pub fn segment_base_at_or_before(&self, offset: Offset) -> Option<Offset> {
        let table = self.shared.table();
        let after = table.segments.partition_point(|segment| segment.header.base_offset <= offset);
        after.checked_sub(1).map(|at| table.segments[at].header.base_offset)
    }

    /// The term of the batch `index`, from the headers alone. Known from the one before the first kept to the last.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.shared.table().term_at(index)
    }

    /// Whether the log holds this very batch: then it holds what any log that does holds before it (Raft §5.3).
    #[must_use]
    pub fn holds(&self, batch: LogId) -> bool {
        batch.index <= self.last().index && self.term_at(batch.index) == Some(batch.term)
    }

    /// Visits all entries from `from`, an entry's boundary, to `to`, checking each. An entry that begins before `to`
    /// is visited wholly.
    ///
    /// # Errors
    /// [`ScanError`]; entries before the damage have been visited.
    pub fn scan(
        &self,
        from: Offset,
        to: Offset,
        visit: &mut dyn FnMut(&EntryRef<'_>),
    ) -> Result<(), ScanError> {
        let mut at = from;
        while at < to {
            let Some((segment, _)) = self.find(at, usize::MAX, self.end())? else {
                return Err(ReadError::BeyondEnd { end: at }.into());
            };
            let file = self.open(&segment, at)?;
            let mut scanner = Scanner::new(&*file, segment.header.base_offset, at, segment.end);
            while scanner.at() < to {
                match scanner.step().meant("read", &segment.path).map_err(ReadError::Io)? {
                    Step::Entry(entry) => visit(&entry),
                    Step::Invalid(error) => {
                        let offset = scanner.at();
                        return Err(ScanError::Corrupt { path: segment.path, offset, error });
                    }
                    Step::End => break,
                }
            }
            at = scanner.at();
        }
        Ok(())
    }
}

fn info(segment: &Segment, sealed: bool) -> SegmentInfo {
    SegmentInfo { header: segment.header, end: segment.end, sealed, path: segment.path.clone() }
}
