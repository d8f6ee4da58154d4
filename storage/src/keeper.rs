//! Work beside the writer's path: zeros for the next segment, and the end of trimmed ones.
//!
//! ```text
//!     prepare_step ─► a MiB of zeros in the spare file ─► sync ─► … ─► the writer takes it when it rolls
//!     trim ─► out of the table ─► unlink
//! ```
//!
//! Owns:   the spare file between two steps; the removal of whole segments before the start.
//! Keeps:  nothing is unlinked that `meta` does not already, durably, say is gone (S36).
//! Never:  touches the active segment (S4), or the last one at all.

use std::path::PathBuf;
use std::sync::Arc;

use loglog_proto::Offset;
use loglog_proto::header::HEADER;

use crate::blocks::{ZEROS_MAX, blocks_to, zeros};
use crate::error::{IoFailure, Meant, to_usize};
use crate::meta::LogStart;
use crate::shared::Shared;
use crate::spare::Spare;

/// Zeros written and synced in one step, bytes.
const STEP: u64 = ZEROS_MAX as u64;

/// How far the next segment's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing to do until the writer takes it.
    Done,
    /// Another step would help.
    More,
}

/// What a trim removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimReport {
    /// Segment files.
    pub segments: usize,
    /// Bytes of log.
    pub bytes: u64,
    /// Where the log begins now.
    pub start: Offset,
}

/// Why the keeper could not go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The disk is full: nothing is prepared ahead for now. No failure.
    #[error("no space to prepare {}", path.display())]
    NoSpace {
        /// The spare file.
        path: PathBuf,
    },
    /// A write, sync or unlink failed. Final (S2).
    #[error(transparent)]
    Failed(#[from] IoFailure),
    /// An earlier call had failed.
    #[error("the keeper is closed since an earlier failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
}

/// Prepares and removes segment files.
#[derive(Debug)]
pub struct SegmentKeeper {
    shared: Arc<Shared>,
    poison: Option<String>,
}

impl SegmentKeeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, poison: None }
    }

    /// Zeroes one further MiB of the next segment's file and syncs it. For an idle disk: the writer, should it roll
    /// just now, waits for the step to end.
    ///
    /// # Errors
    /// [`KeeperError::NoSpace`] is harmless; all others are final.
    pub fn prepare_step(&mut self) -> Result<Prepared, KeeperError> {
        self.alive()?;
        match self.step() {
            Ok(prepared) => Ok(prepared),
            Err(failure) if failure.is_no_space() => Err(KeeperError::NoSpace { path: failure.path }),
            Err(failure) => Err(self.poisoned_by(failure)),
        }
    }

    /// Bytes of the next segment's file that are prepared.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        self.shared.spare_reserved()
    }

    fn step(&mut self) -> Result<Prepared, IoFailure> {
        let mut slot = self.shared.spare();
        let wanted = blocks_to(HEADER as u64 + self.shared.segment_bytes());
        let spare = match &mut *slot {
            Some(spare) => spare,
            none => none.insert(Spare::create(&self.shared)?),
        };
        let left = wanted.saturating_sub(spare.written);
        if left == 0 {
            return Ok(Prepared::Done);
        }
        let n = left.min(STEP);
        // Reserved first, so that a full disk shows there and not in the write.
        spare.reserve(spare.written + n, spare.written + n)?;
        spare.file.write_blocks_at(zeros(to_usize(n)), spare.written).meant("write zeros to", &spare.path)?;
        spare.file.sync_data().meant("sync", &spare.path)?;
        spare.written += n;
        Ok(if n == left { Prepared::Done } else { Prepared::More })
    }

    /// Unlinks all segments before `start`, the base of one that stays. The caller has saved `start` and the mark,
    /// synced, in `meta` (S36).
    ///
    /// # Errors
    /// All final.
    ///
    /// # Panics
    /// If `meta` does not hold `start` yet, or it is no segment's base.
    pub fn trim(&mut self, start: LogStart) -> Result<TrimReport, KeeperError> {
        self.alive()?;
        assert!(start.offset <= self.shared.saved_start(), "meta says first, synced, what will be gone");
        let gone = {
            let mut table = self.shared.table_mut();
            if start.offset <= table.start.offset {
                return Ok(TrimReport { start: table.start.offset, ..TrimReport::default() });
            }
            let first = table.segments.partition_point(|segment| segment.header.base_offset < start.offset);
            let header = table.segments.get(first).expect("the last segment stays").header;
            assert_eq!(header.base_offset, start.offset, "a trim names a segment's base");
            assert_eq!(header.base_index, start.index, "a trim names a segment's first index");
            assert_eq!(header.previous_term, start.previous_term, "a trim names the term before");
            let kept = table.segments.split_off(first);
            table.start = start;
            std::mem::replace(&mut table.segments, kept)
        };
        let mut report = TrimReport { start: start.offset, ..TrimReport::default() };
        for segment in gone {
            let removed = self.shared.vfs.remove(&segment.path).meant("remove", &segment.path);
            removed.map_err(|failure| self.poisoned_by(failure))?;
            self.shared.forget(segment.id);
            report.segments += 1;
            report.bytes += (segment.end - segment.header.base_offset).get();
        }
        let synced = self.shared.vfs.sync_dir(&self.shared.dir).meant("sync", &self.shared.dir);
        synced.map_err(|failure| self.poisoned_by(failure))?;
        Ok(report)
    }

    fn alive(&self) -> Result<(), KeeperError> {
        match &self.poison {
            Some(reason) => Err(KeeperError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn poisoned_by(&mut self, failure: IoFailure) -> KeeperError {
        self.poison.get_or_insert_with(|| failure.to_string());
        failure.into()
    }
}
