//! Truncation: what no quorum holds is taken off the end, for good (S5).
//!
//! ```text
//!     out of the table ─► later segments removed, last first ─► cut ─► sync ─► zeros ─► sync
//! ```
//!
//! Owns:   the order of these steps.
//! Keeps:  a crash at any moment leaves a log that ends between the cut and the old end, with no hole in it.
//! Never:  cuts below the floor.

use std::collections::VecDeque;
use std::path::Path;

use loglog_proto::limits::{ENTRY_BYTES_MAX, WRITE_GROUP_BYTES_MAX};
use loglog_proto::{Index, Length, LogId, Offset};

use super::{Active, LogWriter, WriteError};
use crate::blocks::{blocks_to, zeros};
use crate::error::{IoFailure, Meant, to_usize};
use crate::scan::position;
use crate::shared::{Segment, Shared};
use crate::vfs::VfsFile;

/// Zeros written at once, bytes.
const ZEROS_AT_ONCE: u64 = 64 << 10;

/// The most bytes that are cut off a file at once. A file system need not shorten a file atomically: pages may be gone
/// while the old length is still there. Recovery must take what is left of a cut for a torn tail, and not, because a
/// valid entry lies more than a write group behind an invalid one, for corruption (S9). The invalid one may begin up to
/// an entry's length before the cut.
const fn step(group_bytes_max: Length) -> u64 {
    group_bytes_max.get() / 2 - group_bytes_max.get() / 512
}

const _: () = assert!(step(WRITE_GROUP_BYTES_MAX) + ENTRY_BYTES_MAX as u64 <= WRITE_GROUP_BYTES_MAX.get());

impl LogWriter {
    /// Removes all batches from `first_removed` on (S5). `to` is where it began, `last` the batch before it.
    /// On return none of them comes back, whatever happens.
    ///
    /// # Errors
    /// All final.
    ///
    /// # Panics
    /// If that would cut below the mark, or `to` and `last` do not fit the log.
    pub fn truncate(&mut self, first_removed: Index, to: Offset, last: LogId) -> Result<(), WriteError> {
        self.alive()?;
        assert_eq!(first_removed, last.index.next(), "what is removed follows what stays");
        assert!(to >= self.floor, "nothing below the mark is cut: {to} is before {}", self.floor);
        assert!(to <= self.end, "nothing behind the end is cut");
        assert!(last.index <= self.last.index, "the last batch stays or goes, none is added");
        if last.index == self.last.index {
            assert_eq!((last, to), (self.last, self.end), "the last batch is what it was");
            return Ok(());
        }
        assert_eq!(
            self.shared.table().term_at(last.index),
            Some(last.term),
            "the batch that stays is the log's own"
        );
        self.cut(to, last).map_err(|failure| self.poisoned_by(failure))
    }

    fn cut(&mut self, to: Offset, last: LogId) -> Result<(), IoFailure> {
        let old_end = self.end;
        let gone = self.forget_from(to, last);
        self.end = to;
        self.last = last;
        self.limits.truncate(to);
        let Shared { vfs, dir, .. } = &*self.shared;
        for segment in gone.iter().rev() {
            vfs.remove(&segment.path).meant("remove", &segment.path)?;
            // One by one: a gap in the middle would look like corruption.
            vfs.sync_dir(dir).meant("sync", dir)?;
            self.shared.forget(segment.id);
        }
        let now_last = self.shared.table().segments.back().cloned();
        self.shared.tail().clear();
        if !gone.is_empty() {
            self.active = now_last.map(|it| Active::open(&**vfs, it.path, it.header, to)).transpose()?;
        }
        let dead_end = gone.front().map_or(old_end, |segment| segment.header.base_offset);
        if let Some(active) = &mut self.active
            && dead_end > to
        {
            let base = active.header.base_offset;
            let (from, until) = (position(base, to), position(base, dead_end));
            cut_file(&*active.file, &active.path, from, until, self.group_bytes_max)?;
            (active.reserved, active.written) = (until, blocks_to(from));
            active.read_head(from)?;
        }
        self.prepare_for(to);
        Ok(())
    }

    /// Takes everything from `to` on out of the table; returns the segments that go wholly.
    fn forget_from(&self, to: Offset, last: LogId) -> VecDeque<Segment> {
        let mut table = self.shared.table_mut();
        let kept = table.segments.partition_point(|segment| segment.header.base_offset < to);
        let gone = table.segments.split_off(kept);
        if let Some(segment) = table.segments.back_mut() {
            segment.end = segment.end.min(to);
            assert_eq!(segment.end, to, "the cut lies within the log");
        }
        assert_eq!(table.end(), to, "the log ends at the cut");
        table.last = last;
        gone
    }
}

/// Cuts `file` at `from`, durably, then puts zeros where its dead bytes reached, durably (S5).
pub(crate) fn cut_file(
    file: &dyn VfsFile,
    path: &Path,
    from: u64,
    until: u64,
    group_bytes_max: Length,
) -> Result<(), IoFailure> {
    let mut end = until.max(from);
    loop {
        end = end.saturating_sub(step(group_bytes_max)).max(from);
        file.set_len(end).meant("cut", path)?;
        file.sync_all().meant("sync", path)?;
        if end == from {
            break;
        }
    }
    let mut at = from;
    while at < until {
        let n = (until - at).min(ZEROS_AT_ONCE);
        file.write_all_at(zeros(to_usize(n)), at).meant("write zeros to", path)?;
        at += n;
    }
    file.sync_data().meant("sync", path)
}
