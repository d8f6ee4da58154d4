//! The only code that adds bytes to the log, or cuts them off its end.
//!
//! ```text
//!     batches ─► run of one segment, at most G ─► room ─► frame ─► write ─► sync ─► durable ─► tail
//!                                                  │
//!                                                  └─ no room: NoSpace, nothing of the run written
//! ```
//!
//! Owns:   the last segment's file and its write position; the buffer that a group is framed in.
//! Keeps:  everything below `end` is durable; batches are contiguous in offset and index; at most one write group is
//!         not yet synced (S3); a segment file is a function of the log (S35): made when its first batch arrives, cut
//!         to its exact length when the next one is made.
//! Never:  learns what is committed, but for the floor below which nothing is cut; retries after a failure (S2).

mod active;
mod batch;
mod cut;

use std::path::PathBuf;
use std::sync::Arc;

use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{ClusterId, Length, LogId, Offset, Term};

use crate::blocks::{BlockBuffer, blocks_to};
use crate::error::{IoFailure, Meant, to_usize};
use crate::frame::{self, batch_bytes};
use crate::limits::SegmentLimits;
use crate::names;
use crate::scan::position;
use crate::shared::{Segment, Shared};
use crate::spare::Spare;

pub(crate) use self::active::Active;
use self::batch::check;
pub use self::batch::{Durable, NewBatch, NewEntry, WriteError};
pub(crate) use self::cut::cut_file;

/// How far ahead of the write position space is reserved where no zeros are prepared, bytes.
const RESERVE_AHEAD: u64 = 8 << 20;
/// Groups up to this many bytes find zeros where they are written.
const SMALL_GROUP: u64 = 64 << 10;
/// Zeros written at once where none were prepared, bytes.
const ZEROS_AHEAD: u64 = 256 << 10;

/// Why a step did not succeed.
enum StepError {
    Full(PathBuf),
    Failed(IoFailure),
}

impl From<IoFailure> for StepError {
    fn from(failure: IoFailure) -> Self {
        Self::Failed(failure)
    }
}

/// While space is prepared a full disk is no failure.
fn preparing(failure: IoFailure) -> StepError {
    if failure.is_no_space() { StepError::Full(failure.path) } else { StepError::Failed(failure) }
}

/// Writes the log.
#[derive(Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
    cluster: ClusterId,
    /// The last segment; none while the log is empty.
    active: Option<Active>,
    limits: SegmentLimits,
    last: LogId,
    end: Offset,
    /// Nothing below is ever cut: the mark.
    floor: Offset,
    buffer: BlockBuffer,
    /// G; smaller in tests.
    group_bytes_max: Length,
    poison: Option<String>,
}

/// What recovery hands to a new writer.
pub(crate) struct WriterStart {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cluster: ClusterId,
    pub(crate) active: Option<Active>,
    pub(crate) segment_bytes_max: Length,
    pub(crate) floor: Offset,
    pub(crate) group_bytes_max: Length,
}

impl LogWriter {
    pub(crate) fn new(start: WriterStart) -> Self {
        let (last, end) = start.shared.durable();
        assert!(start.floor <= end, "the mark lies within the log");
        Self {
            shared: start.shared,
            cluster: start.cluster,
            active: start.active,
            limits: SegmentLimits::new(start.segment_bytes_max),
            last,
            end,
            floor: start.floor,
            buffer: BlockBuffer::default(),
            group_bytes_max: start.group_bytes_max,
            poison: None,
        }
    }

    /// Where the next batch begins. All before it is durable.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The last batch.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.last
    }

    /// How far the log is synced.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable { last: self.last, end: self.end }
    }

    /// Nothing below `floor`, a committed offset, may be cut from now on. It never sinks.
    pub fn set_floor(&mut self, floor: Offset) {
        assert!(floor <= self.end, "what is committed here is durable here");
        self.floor = self.floor.max(floor);
    }

    /// The log says, in the control entry that ends at `from`, that segments beginning there or later close at
    /// `limit` bytes (S35). To be called for each such entry as it is written, and after recovery for those in
    /// [`crate::Recovered::controls`] and [`crate::Recovered::tail`], in the log's order.
    pub fn change_segment_limit(&mut self, from: Offset, limit: Length) {
        self.limits.change(from, limit);
        self.prepare_for(self.end);
    }

    /// Bytes that new entries may still take: what the disk has, and what is reserved ahead.
    #[must_use]
    pub fn available(&self) -> u64 {
        let free = self.shared.vfs.free_bytes(&self.shared.dir).unwrap_or(0);
        let ahead = self.active.as_ref().map_or(0, |active| {
            active.reserved.saturating_sub(position(active.header.base_offset, self.end))
        });
        free.saturating_add(ahead).saturating_add(self.shared.spare_reserved())
    }

    /// Writes and syncs `batches`, which follow the last one. On return all are durable; none is committed by it.
    ///
    /// Each run within one segment, at most G bytes, is one write group: one write, one sync (S3).
    ///
    /// # Errors
    /// [`WriteError::NoSpace`] says how far it got; the rest may be tried again. All others are final.
    ///
    /// # Panics
    /// If a batch does not follow the one before it, or breaks a limit of the format.
    pub fn write(&mut self, batches: &[NewBatch]) -> Result<Durable, WriteError> {
        self.alive()?;
        let mut rest = batches;
        while let Some(first) = rest.first() {
            let base = self.segment_for(first.log_id.term);
            let (count, bytes) = self.run(rest, base.unwrap_or(self.end));
            let (run, behind) = rest.split_at(count);
            match self.write_run(run, bytes, base.is_none()) {
                Ok(()) => {}
                Err(StepError::Full(path)) => {
                    return Err(WriteError::NoSpace { needed: bytes, path, durable: self.durable() });
                }
                Err(StepError::Failed(failure)) => return Err(self.poisoned_by(failure)),
            }
            rest = behind;
        }
        Ok(self.durable())
    }

    /// Base of the segment to which a batch of `term` goes; none where it opens a new one.
    fn segment_for(&self, term: Term) -> Option<Offset> {
        let header = &self.active.as_ref()?.header;
        let base = header.base_offset;
        (header.term == term && self.end - base < self.limits.at(base)).then_some(base)
    }

    /// How many of `batches` make one write group in the segment with `base`, and their bytes.
    fn run(&self, batches: &[NewBatch], base: Offset) -> (usize, Length) {
        let limit = self.limits.at(base);
        let term = batches[0].log_id.term;
        let (mut end, mut last, mut count) = (self.end, self.last, 0);
        for batch in batches {
            let bytes = batch_bytes(batch);
            check(batch, bytes, last, end);
            let closed = count > 0 && (end - base >= limit || batch.log_id.term != term);
            if closed || (count > 0 && end + bytes - self.end > self.group_bytes_max) {
                break;
            }
            end += bytes;
            last = batch.log_id;
            count += 1;
        }
        (count, end - self.end)
    }

    fn write_run(&mut self, run: &[NewBatch], bytes: Length, opens: bool) -> Result<(), StepError> {
        if opens {
            let header = SegmentHeader {
                cluster: self.cluster,
                base_offset: self.end,
                base_index: run[0].log_id.index,
                term: run[0].log_id.term,
                previous_term: self.last.term,
            };
            self.roll(header, bytes)?;
        } else {
            self.make_room(bytes)?;
        }
        let active = self.active.as_mut().expect("a segment is open");
        let (mut buffer, head) = (std::mem::take(&mut self.buffer), active.head.len());
        let end = frame::fill(&mut buffer, &active.head, run, bytes);
        assert_eq!(end, self.end + bytes, "the group was framed as it was measured");
        active.write(&mut buffer, position(active.header.base_offset, self.end))?;
        let begin = self.end;
        self.end = end;
        self.last = run[run.len() - 1].log_id;
        let mut table = self.shared.table_mut();
        table.last = self.last;
        table.segments.back_mut().expect("a segment is open").end = end;
        drop(table);
        let free = self.shared.tail().push(begin, buffer, head, to_usize(bytes.get()));
        self.buffer = free.unwrap_or_default();
        Ok(())
    }

    /// Reserves room for `bytes` more in the active segment.
    fn make_room(&mut self, bytes: Length) -> Result<(), StepError> {
        let active = self.active.as_mut().expect("a segment is open");
        let base = active.header.base_offset;
        let needed = blocks_to(position(base, self.end + bytes));
        let full = blocks_to(HEADER as u64 + self.limits.at(base).get());
        active.reserve(needed, (needed + RESERVE_AHEAD).min(full)).map_err(preparing)?;
        // Many small groups to come: each would pay for the file system's note that a block is in use now.
        if bytes.get() <= SMALL_GROUP {
            active.write_zeros(needed, ZEROS_AHEAD).map_err(preparing)?
        }
        Ok(())
    }

    /// Opens the segment that `header` describes (S4), with room for `bytes`, and seals the one before.
    ///
    /// Commit point: the return of the directory's sync. Before it the log ends where it ended.
    fn roll(&mut self, header: SegmentHeader, bytes: Length) -> Result<(), StepError> {
        let prepared = self.shared.spare().take();
        let mut spare = match prepared {
            Some(spare) => spare,
            None => Spare::create(&self.shared).map_err(preparing)?,
        };
        let needed = blocks_to(HEADER as u64 + bytes.get());
        let full = blocks_to(HEADER as u64 + self.limits.at(header.base_offset).get());
        if let Err(failure) = spare.reserve(needed, (needed + RESERVE_AHEAD).min(full)) {
            *self.shared.spare() = Some(spare);
            return Err(preparing(failure));
        }
        self.buffer.empty_for(HEADER);
        self.buffer.memory().extend_from_slice(&header.encode());
        self.buffer.fill_block();
        let written = spare.file.write_blocks_at(self.buffer.bytes(), 0);
        let written = written.meant("write the header of", &spare.path);
        if let Err(failure) = written {
            let error = preparing(failure);
            if matches!(error, StepError::Full(_)) {
                *self.shared.spare() = Some(spare);
            }
            return Err(error);
        }
        spare.file.sync_data().meant("sync", &spare.path)?;
        self.seal()?;
        let path = self.shared.dir.join(names::segment(header.base_offset));
        self.shared.vfs.rename(&spare.path, &path).meant("rename to", &path)?;
        self.shared.vfs.sync_dir(&self.shared.dir).meant("sync", &self.shared.dir)?;
        let id = self.shared.fresh_id();
        let segment = Segment { id, header, end: header.base_offset, path: path.clone() };
        self.shared.table_mut().segments.push_back(segment);
        let (file, reserved, written) = (spare.file, spare.reserved, spare.written);
        self.active = Some(Active { file, path, header, reserved, written, head: header.encode().to_vec() });
        self.settle_limits();
        self.prepare_for(header.base_offset);
        Ok(())
    }

    /// Cuts the active segment to its exact length, durably: from now on it never changes.
    fn seal(&mut self) -> Result<(), StepError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let exact = position(active.header.base_offset, self.end);
        if active.reserved > exact {
            active.file.set_len(exact).meant("cut to its length", &active.path)?;
            active.file.sync_all().meant("sync", &active.path)?;
            active.reserved = exact;
        }
        Ok(())
    }

    /// No cut reopens a segment before the one that holds the floor: older limits are over.
    fn settle_limits(&mut self) {
        let table = self.shared.table();
        let after = table.segments.partition_point(|segment| segment.header.base_offset <= self.floor);
        if let Some(at) = after.checked_sub(1) {
            self.limits.settle(table.segments[at].header.base_offset);
        }
    }

    /// Tells the keeper how large the segment after the one that begins at `base`, or there, will be.
    fn prepare_for(&self, base: Offset) {
        self.shared.set_segment_bytes(self.limits.at(base.max(self.end)).get());
    }

    fn alive(&self) -> Result<(), WriteError> {
        match &self.poison {
            Some(reason) => Err(WriteError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn poisoned_by(&mut self, failure: IoFailure) -> WriteError {
        self.poison.get_or_insert_with(|| failure.to_string());
        failure.into()
    }
}
