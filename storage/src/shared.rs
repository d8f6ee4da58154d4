//! What writer, keeper and readers of one generation share.
//!
//! Owns:   the table of segments, the spare file, the readers' open files.
//! Keeps:  segments in order, each beginning where the one before ends; the table never holds what is not durable.
//! Never:  does I/O under the table's lock.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use loglog_proto::header::SegmentHeader;
use loglog_proto::{Index, LogId, Offset, Term};

use crate::meta::LogStart;
use crate::spare::Spare;
use crate::tail::Tail;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The most files that readers keep open.
const HANDLES_MAX: usize = 64;

/// One segment of the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Tells apart two files that had the same base offset.
    pub(crate) id: u64,
    pub(crate) header: SegmentHeader,
    /// Behind its last durable batch.
    pub(crate) end: Offset,
    pub(crate) path: PathBuf,
}

/// All segments, in order.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) start: LogStart,
    pub(crate) segments: VecDeque<Segment>,
    /// Last durable batch.
    pub(crate) last: LogId,
}

impl Table {
    pub(crate) fn end(&self) -> Offset {
        self.segments.back().map_or(self.start.offset, |segment| segment.end)
    }

    /// The segment that holds the byte at `offset`.
    pub(crate) fn holding(&self, offset: Offset) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.header.base_offset <= offset);
        self.segments.get(after.checked_sub(1)?).filter(|segment| offset < segment.end)
    }

    /// The segment that holds the batch `index`.
    pub(crate) fn of_index(&self, index: Index) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.header.base_index <= index);
        (index <= self.last.index).then(|| self.segments.get(after.checked_sub(1)?)).flatten()
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index.previous() {
            return Some(self.start.previous_term);
        }
        self.of_index(index).map(|segment| segment.header.term)
    }
}

/// Shared by the parts of one generation.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    table: RwLock<Table>,
    spare: Mutex<Option<Spare>>,
    tail: Mutex<Tail>,
    handles: Mutex<VecDeque<(u64, Arc<dyn VfsFile>)>>,
    next_id: AtomicU64,
    /// Entry bytes after which the next segment closes; the keeper prepares that much.
    segment_bytes: AtomicU64,
    /// The start that lies synced in `meta`: nothing at or behind it is unlinked.
    saved_start: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        mut table: Table,
        (segment_bytes, tail_bytes): (u64, usize),
    ) -> Self {
        let mut next_id = 0;
        for segment in &mut table.segments {
            segment.id = next_id;
            next_id += 1;
        }
        let saved_start = AtomicU64::new(table.start.offset.get());
        Self {
            vfs,
            dir,
            table: RwLock::new(table),
            spare: Mutex::new(None),
            tail: Mutex::new(Tail::new(tail_bytes)),
            handles: Mutex::new(VecDeque::new()),
            next_id: AtomicU64::new(next_id),
            segment_bytes: AtomicU64::new(segment_bytes),
            saved_start,
        }
    }

    // The sections under these locks do not panic half-way, so a poisoned lock guards a sound value.

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spare(&self) -> MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the spare file has reserved; 0 while the keeper works on it.
    pub(crate) fn spare_reserved(&self) -> u64 {
        let spare = self.spare.try_lock();
        spare.ok().and_then(|spare| spare.as_ref().map(|spare| spare.reserved)).unwrap_or(0)
    }

    /// Last durable batch, and where it ends.
    pub(crate) fn durable(&self) -> (LogId, Offset) {
        let table = self.table();
        (table.last, table.end())
    }

    /// A number that no other segment or temporary file of this generation has.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_segment_bytes(&self, bytes: u64) {
        self.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn saved_start(&self) -> Offset {
        Offset::new(self.saved_start.load(Ordering::Acquire))
    }

    pub(crate) fn note_saved_start(&self, start: Offset) {
        self.saved_start.fetch_max(start.get(), Ordering::Release);
    }

    /// The segment's file, to read; kept open for the next reader.
    pub(crate) fn open_to_read(&self, segment: &Segment) -> std::io::Result<Arc<dyn VfsFile>> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = handles.iter().position(|(id, _)| *id == segment.id) {
            let file = Arc::clone(&handles[at].1);
            if at + 1 < handles.len() {
                let entry = handles.remove(at);
                handles.extend(entry);
            }
            return Ok(file);
        }
        let file = self.vfs.open(&segment.path, OpenMode::Read)?;
        if handles.len() == HANDLES_MAX {
            handles.pop_front();
        }
        handles.push_back((segment.id, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes the readers' file of a segment that was unlinked, once its last reader is through.
    pub(crate) fn forget(&self, id: u64) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).retain(|(held, _)| *held != id);
    }
}
