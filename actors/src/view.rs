//! Log view: what every actor may know of the log without asking anybody.
//!
//! Owns:   the published watermarks, the reader, and how consensus stood last.
//! Keeps:  `committed` never sinks, and never passes what consensus handed out (S16).
//! Never:  decides; consensus publishes, the others look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loglog_core::{Committed, ConsensusStatus, PeerProgress};
use loglog_proto::{Index, Offset, RaftId};
use loglog_storage::LogReader;

/// How another member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub id: RaftId,
    /// How far it is behind, where this node leads.
    pub lag: Option<Lag>,
    /// For how long it was not heard; `None` for never, or since our messages to it were lost.
    pub silent: Option<Duration>,
}

/// How far a peer is behind what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The last batch that it surely holds.
    pub matched: Index,
    /// Committed batches that it may lack.
    pub batches: u64,
    /// Their bytes; about as many, where the peer is so far behind that they are no longer in memory.
    pub bytes: u64,
}

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
    peers: Mutex<Vec<PeerStatus>>,
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

    /// How the other members stand, as consensus saw them at its last tick; empty while it is down.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        lock(&self.peers).clone()
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

    pub(crate) fn publish_peers(&self, peers: Vec<PeerStatus>) {
        *lock(&self.peers) = peers;
    }

    pub(crate) fn publish_available(&self, bytes: u64) {
        self.available.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn publish_down(&self) {
        *lock(&self.consensus) = None;
        lock(&self.peers).clear();
    }
}

impl PeerStatus {
    /// What consensus knows of a peer, in bytes and time.
    pub(crate) fn of(peer: PeerProgress, committed: Committed, reader: &LogReader, tick: Duration) -> Self {
        let behind = |matched: Index| {
            let batches = committed.index.get().saturating_sub(matched.get());
            let end = peer.matched_end.unwrap_or_else(|| about(matched, committed, reader));
            Lag { matched, batches, bytes: committed.offset.get().saturating_sub(end.get()) }
        };
        let silent = peer.silent_ticks.and_then(|ticks| u32::try_from(ticks).ok());
        Self { id: peer.id, lag: peer.matched.map(behind), silent: silent.map(|ticks| tick * ticks) }
    }
}

/// Where the batch `index` ends, about: as if all batches of its segment and of those behind it were equally long.
fn about(index: Index, committed: Committed, reader: &LogReader) -> Offset {
    let Some(segment) = reader.segment_of_index(index) else { return reader.start() };
    let (first, base) = (segment.header.base_index.get(), segment.header.base_offset.get());
    let batches = u128::from((committed.index.get() + 1).saturating_sub(first).max(1));
    let bytes = u128::from(committed.offset.get().saturating_sub(base));
    let before = u128::from((index.get() + 1).saturating_sub(first));
    Offset::new(base + u64::try_from(bytes * before / batches).unwrap_or(u64::MAX - base))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
