//! Log view: what every actor may know of the log without asking anybody.
//!
//! Owns:   the published watermarks, the reader, and how consensus stood last.
//! Keeps:  `committed` never sinks, and never passes what consensus handed out (S16).
//! Never:  decides; consensus publishes, the others look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use loglog_core::{Committed, ConsensusStatus};
use loglog_proto::{Index, Offset};
use loglog_storage::LogReader;

/// Shared by the actors of one node.
#[derive(Debug, Default)]
pub struct LogView {
    committed: AtomicU64,
    committed_index: AtomicU64,
    available: AtomicU64,
    generation: AtomicU64,
    torn_bytes: AtomicU64,
    reader: Mutex<Option<LogReader>>,
    consensus: Mutex<Option<ConsensusStatus>>,
}

impl LogView {
    /// Next byte to be committed, as far as this node knows.
    #[must_use]
    pub fn committed(&self) -> Offset {
        Offset::new(self.committed.load(Ordering::Acquire))
    }

    /// The last batch committed, as far as this node knows.
    #[must_use]
    pub fn committed_index(&self) -> Index {
        Index::new(self.committed_index.load(Ordering::Acquire))
    }

    /// First byte kept.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.reader().map_or(Offset::ZERO, |reader| reader.start())
    }

    /// Reads committed bytes; outlives a restart of the storage group. `None` before the first recovery.
    #[must_use]
    pub fn reader(&self) -> Option<LogReader> {
        lock(&self.reader).clone()
    }

    /// How consensus stood last; `None` while the storage group is down.
    #[must_use]
    pub fn consensus(&self) -> Option<ConsensusStatus> {
        *lock(&self.consensus)
    }

    /// Free bytes for new entries, as the segment writer saw them last.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }

    /// How often the log went through recovery.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Torn bytes cut by those recoveries.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes.load(Ordering::Relaxed)
    }

    /// A recovery has ended.
    pub(crate) fn recovered(&self, generation: u64, reader: LogReader, torn_bytes: u64) {
        *lock(&self.reader) = Some(reader);
        self.generation.store(generation, Ordering::Relaxed);
        self.torn_bytes.fetch_add(torn_bytes, Ordering::Relaxed);
    }

    pub(crate) fn publish_committed(&self, committed: Committed) {
        self.committed.fetch_max(committed.offset.get(), Ordering::AcqRel);
        self.committed_index.fetch_max(committed.index.get(), Ordering::AcqRel);
    }

    pub(crate) fn publish_status(&self, status: ConsensusStatus) {
        *lock(&self.consensus) = Some(status);
    }

    pub(crate) fn publish_available(&self, bytes: u64) {
        self.available.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn publish_down(&self) {
        *lock(&self.consensus) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
