//! Check: one segment of a log that is in use, read from its header on, as recovery would read it.
//!
//! ```text
//!     header ─► batch ─► batch ─► … ─► the segment's end, or what is committed of it
//!                          └─ does not hold: let go of the cached pages, read all of it again, and then the rest of the file
//! ```
//!
//! Owns:   the judgement of one segment's committed bytes.
//! Keeps:  damage is told only where two readings find it: one may have come from a bad page of memory, which the disk knows nothing of.
//!         Nothing that a writer may still change is looked at: it ends where the committed bytes do.
//! Never:  writes; believes whoever says that there is damage.

use std::path::PathBuf;

use loglog_proto::header::SegmentHeader;
use loglog_proto::{Index, LogId, Offset};

use crate::error::{IoFailure, Meant};
use crate::meta::Mark;
use crate::reader::{LogReader, ReadError};
use crate::recovery::survey::{Found, read_header};
use crate::recovery::walk::Walker;
use crate::scan::position;
use crate::shared::Segment;
use crate::vfs::{OpenMode, read_full_at};

/// Bytes of the rest read at once.
const REST_CHUNK: usize = 1 << 20;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCheck {
    /// The segment, as the log knows it.
    pub header: SegmentHeader,
    /// Its file.
    pub path: PathBuf,
    /// Its first damaged batch.
    pub damage: Option<DamagedBatch>,
    /// What the first reading found and the second did not: memory is at fault, not the disk.
    pub misread: Option<DamagedBatch>,
    /// Why the rest of a damaged file cannot be read: a repair, which reads all of it, would fail on that, for good (S2).
    pub unreadable: Option<String>,
}

/// A batch that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBatch {
    /// Which, by the segment's header and the batches before it.
    pub log_id: LogId,
    /// Where it begins.
    pub offset: Offset,
    /// What does not hold.
    pub detail: String,
}

impl LogReader {
    /// Reads the segment that holds `offset`, as far as it is `committed`, and checks every batch of it. Takes as long as reading it does.
    ///
    /// # Errors
    /// [`ReadError`]; `BeyondEnd` where nothing committed lies at `offset`.
    pub fn check(&self, offset: Offset, committed: Offset) -> Result<SegmentCheck, ReadError> {
        let segment = self.holding(offset, committed)?;
        let end = segment.end.min(committed);
        // Readers may have been given what lies wrong in memory: from now on they are given what is on the disk.
        self.forget_tail();
        // The file is opened by its name, as recovery would, and not taken from the readers' handles.
        let first = self.look(&segment, end)?;
        let second = match &first {
            Some(_) => self.look(&segment, end)?,
            None => None,
        };
        let misread = first.filter(|_| second.is_none());
        let unreadable = match &second {
            Some(damage) => self.read_rest(&segment, damage.offset)?,
            None => None,
        };
        Ok(SegmentCheck { header: segment.header, path: segment.path, damage: second, misread, unreadable })
    }

    /// The first batch before `end` that does not hold.
    fn look(&self, segment: &Segment, end: Offset) -> Result<Option<DamagedBatch>, ReadError> {
        self.read_through(segment, end).map_err(|failure| match self.is_trimmed(segment) {
            Some(start) => ReadError::Trimmed { start },
            None => failure.into(),
        })
    }

    /// The log's start, where the segment lies before it: it may have been trimmed since the table was looked at.
    fn is_trimmed(&self, segment: &Segment) -> Option<Offset> {
        Some(self.start()).filter(|start| segment.header.base_offset < *start)
    }

    /// Why the file cannot be read from `from` to its end. What it holds there is not judged.
    fn read_rest(&self, segment: &Segment, from: Offset) -> Result<Option<String>, ReadError> {
        let Segment { header, path, .. } = segment;
        let reading = || -> Result<(), IoFailure> {
            let file = self.vfs().open(path, OpenMode::Read).meant("open", path)?;
            let (mut at, mut chunk) = (position(header.base_offset, from), vec![0; REST_CHUNK]);
            loop {
                match read_full_at(&*file, &mut chunk, at).meant("read", path)? {
                    0 => return Ok(()),
                    read => at += read as u64,
                }
            }
        };
        let Err(failure) = reading() else { return Ok(None) };
        match self.is_trimmed(segment) {
            Some(start) => Err(ReadError::Trimmed { start }),
            None => Ok(Some(failure.to_string())),
        }
    }

    fn read_through(&self, segment: &Segment, end: Offset) -> Result<Option<DamagedBatch>, IoFailure> {
        let Segment { header, path, .. } = segment;
        let (len, found) = read_header(self.vfs(), path)?;
        let damaged = |index: Index, offset: Offset, detail: String| {
            Some(DamagedBatch { log_id: LogId { term: header.term, index }, offset, detail })
        };
        let unlike = match found {
            Ok(found) if found == *header => None,
            Ok(_) => Some("its header is another segment's".to_owned()),
            Err(detail) => Some(detail),
        };
        if let Some(detail) = unlike {
            return Ok(damaged(header.base_index, header.base_offset, detail));
        }
        let file = self.vfs().open(path, OpenMode::Read).meant("open", path)?;
        // A mark that is never reached leaves nothing for the walker to collect.
        let nowhere = Mark { index: Index::new(u64::MAX), offset: Offset::new(u64::MAX) };
        let mut walker = Walker::new(nowhere, header.base_index);
        let stop = walker.walk(&*file, &Found { path: path.clone(), header: *header, len, end })?;
        if stop.is_some() {
            // What is read next comes from the disk, where the kernel does as it is asked.
            file.forget_cached();
        }
        Ok(stop.and_then(|stop| damaged(walker.next, walker.end, stop.detail)))
    }
}
