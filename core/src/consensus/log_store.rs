//! Log store: what raft-rs may ask of the log, answered from memory.
//!
//! ```text
//!     start            released          last
//!       │ terms only      │  content too   │
//!       ▼                 ▼                ▼
//!     ──┼─────────────────┼────────────────┤
//! ```
//!
//! Owns:   the batches above what is applied (place, term, references), and the term of every older one.
//! Keeps:  indexes and offsets are contiguous; terms never sink.
//! Never:  touches the disk: what is applied and asked for by a far-behind peer is fetched elsewhere (S17).

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::batch::MESSAGE_BATCHES_MAX;
use crate::control::SnapshotContent;
use crate::gate::Held;
use bytes::Bytes;
use loglog_proto::{Index, Length, LogId, Offset, RaftId, Term};
use loglog_storage::{LogStart, Membership, MetaState};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, StorageError};

/// The log as raft-rs sees it.
#[derive(Debug)]
pub(crate) struct LogStore {
    /// Term, vote, commit and membership as they were when the node started: raft-rs asks once.
    initial: RaftState,
    /// The batch before the first that is kept.
    before_first: LogId,
    /// First index of each term, in order.
    terms: Vec<(Index, Term)>,
    /// The batch before `batches`, and where it ends.
    released: LogId,
    released_end: Offset,
    batches: VecDeque<StoredBatch>,
    old: RefCell<OldBatches>,
    /// For snapshots: where the log begins, and who keeps it.
    start: LogStart,
    segment_bytes_max: Length,
    membership: Membership,
}

/// Released batches that a far-behind peer needs: asked for here, read from disk by the shell (S17).
#[derive(Debug, Default)]
struct OldBatches {
    /// What raft-rs was told to wait for.
    wanted: Vec<(Index, GetEntriesContext)>,
    /// From which indexes on something is being read: raft-rs asks for the same with every answer of the peer.
    reading: Vec<Index>,
    /// What was read for it, while raft-rs is told so.
    read: Vec<Entry>,
}

/// A batch above what is applied.
#[derive(Clone, Debug)]
pub(crate) struct StoredBatch {
    pub(crate) entry: Entry,
    pub(crate) end: Offset,
}

/// Where a log stands before its tail is added.
pub(crate) struct Foundation<'a> {
    pub(crate) meta: &'a MetaState,
    pub(crate) commit: Index,
    /// The last applied batch, and where it ends.
    pub(crate) applied: LogId,
    pub(crate) applied_end: Offset,
    /// First index of each term up to `applied`.
    pub(crate) terms: Vec<(Index, Term)>,
}

impl LogStore {
    pub(crate) fn new(foundation: Foundation<'_>) -> Self {
        let Foundation { meta, commit, applied, applied_end, terms } = foundation;
        let conf = conf_state(&meta.membership);
        let hard = HardState {
            term: u64::from(meta.term.get()),
            vote: meta.vote.map_or(0, RaftId::get),
            commit: commit.get(),
            ..HardState::default()
        };
        assert!(terms.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "a later term begins at a later index");
        Self {
            initial: RaftState::new(hard, conf),
            before_first: LogId { term: meta.start.previous_term, index: meta.start.index.previous() },
            terms,
            released: applied,
            released_end: applied_end,
            batches: VecDeque::new(),
            old: RefCell::default(),
            start: meta.start,
            segment_bytes_max: meta.segment_bytes_max,
            membership: meta.membership.clone(),
        }
    }

    /// Who keeps the log from the batch on that is being applied.
    pub(crate) fn set_membership(&mut self, membership: Membership) {
        self.membership = membership;
    }

    /// The log begins at `start` from now on, all before which is applied.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn trim(&mut self, start: LogStart) {
        assert!(start.index <= self.last().index.next(), "what is trimmed is held");
        self.start = start;
        self.before_first = LogId { term: start.previous_term, index: start.index.previous() };
        let run = self.terms.partition_point(|(first, _)| *first <= start.index);
        self.terms.drain(..run.saturating_sub(1));
    }

    pub(crate) fn last(&self) -> LogId {
        self.batches.back().map_or(self.released, |batch| log_id(&batch.entry))
    }

    /// Where the next batch begins.
    pub(crate) fn end(&self) -> Offset {
        self.batches.back().map_or(self.released_end, |batch| batch.end)
    }

    /// Adds the next batch, `length` log bytes long; returns where it begins.
    ///
    /// # Panics
    /// If it does not follow the last one: raft-rs and this store would disagree about the log.
    pub(crate) fn push(&mut self, entry: Entry, length: Length) -> Offset {
        let (id, last, begin) = (log_id(&entry), self.last(), self.end());
        assert_eq!(id.index, last.index.next(), "batches are contiguous");
        assert!(id.term >= last.term, "terms never sink");
        if self.terms.last().is_none_or(|(_, term)| *term < id.term) {
            self.terms.push((id.index, id.term));
        }
        self.batches.push_back(StoredBatch { entry, end: begin + length });
        begin
    }

    /// Forgets every batch from `first` on, none of which is applied; returns what is left of the log.
    ///
    /// # Panics
    /// If that would touch what is applied.
    pub(crate) fn truncate(&mut self, first: Index) -> (LogId, Offset) {
        assert!(first > self.released.index, "what is applied is never truncated");
        while self.last().index >= first {
            self.batches.pop_back();
        }
        let last = self.last();
        while self.terms.last().is_some_and(|(begin, _)| *begin > last.index) {
            self.terms.pop();
        }
        (last, self.end())
    }

    /// Where the batch ends; `None` for one that is not in memory.
    pub(crate) fn end_of(&self, index: Index) -> Option<Offset> {
        if index == self.released.index {
            return Some(self.released_end);
        }
        self.batch(index).map(|batch| batch.end)
    }

    /// What a batch above the released ones holds.
    pub(crate) fn content_of(&self, id: LogId) -> Option<Bytes> {
        self.batch(id.index).filter(|batch| log_id(&batch.entry) == id).map(|batch| batch.entry.data.clone())
    }

    /// Lets go of the content up to `index`, which is applied.
    pub(crate) fn release(&mut self, index: Index) {
        while let Some(batch) = self.batches.front() {
            let id = log_id(&batch.entry);
            if id.index > index {
                break;
            }
            (self.released, self.released_end) = (id, batch.end);
            self.batches.pop_front();
        }
    }

    pub(crate) fn term_of(&self, index: Index) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        if index < self.before_first.index || index > self.last().index {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        Some(run.checked_sub(1).map_or(self.before_first.term, |run| self.terms[run].1))
    }

    fn batch(&self, index: Index) -> Option<&StoredBatch> {
        let at = index.get().checked_sub(self.released.index.get() + 1)?;
        self.batches.get(usize::try_from(at).ok()?)
    }
}

/// Batches that are released and wanted again.
impl LogStore {
    /// What the shell is to read, from which index on.
    pub(crate) fn take_wanted(&self) -> Vec<(Index, GetEntriesContext)> {
        std::mem::take(&mut self.old.borrow_mut().wanted)
    }

    /// What was wanted from `first` on was read, or could not be.
    pub(crate) fn end_reading(&self, first: Index) {
        self.old.borrow_mut().reading.retain(|reading| *reading != first);
    }

    /// Holds what was read while raft-rs looks at it.
    pub(crate) fn set_read(&self, entries: Vec<Entry>) {
        self.old.borrow_mut().read = entries;
    }

    fn old_entries(&self, low: u64, high: u64, context: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        let mut old = self.old.borrow_mut();
        if old.read.first().is_some_and(|first| first.index == low) {
            let mut read = std::mem::take(&mut old.read);
            read.retain(|entry| entry.index < high);
            return Ok(read);
        }
        if !context.can_async() {
            return Err(StorageError::Compacted.into());
        }
        let low = Index::new(low);
        if !old.reading.contains(&low) {
            old.reading.push(low);
            old.wanted.push((low, context));
        }
        Err(StorageError::LogTemporarilyUnavailable.into())
    }
}

impl Held for LogStore {
    fn term_of(&self, index: Index) -> Option<Term> {
        self.term_of(index)
    }

    fn end_of(&self, index: Index) -> Option<Offset> {
        self.end_of(index)
    }
}

impl raft::Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last().index.get() + 1, "raft-rs asks for what exists");
        if low <= self.before_first.index.get() {
            return Err(StorageError::Compacted.into());
        }
        if low <= self.released.index.get() {
            return self.old_entries(low, high, context);
        }
        // The size that counts is that of the log, not of the references (S17).
        let (max, mut taken) = (max_size.into().unwrap_or(u64::MAX), 0);
        let mut entries = Vec::new();
        for index in low..high {
            let batch = self.batch(Index::new(index)).expect("every index above the released one is stored");
            let begin = self.end_of(Index::new(index - 1)).expect("so is the one before");
            taken += (batch.end - begin).get();
            if (taken > max && !entries.is_empty()) || entries.len() == MESSAGE_BATCHES_MAX {
                break;
            }
            entries.push(batch.entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(Index::new(index)) {
            Some(term) => Ok(u64::from(term.get())),
            None if index < self.before_first.index.get() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before_first.index.get() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index.get())
    }

    /// All that is applied (S25). What it holds is said; its bytes are copied by whoever needs them.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let (start, end, membership) = (self.start, self.released_end, self.membership.clone());
        if self.released.index < self.before_first.index || membership.index > self.released.index {
            // What is being applied just now is ahead of what a snapshot could end with.
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let metadata = SnapshotMetadata {
            conf_state: Some(conf_state(&membership)).into(),
            index: self.released.index.get(),
            term: u64::from(self.released.term.get()),
            ..SnapshotMetadata::default()
        };
        let segment_bytes_max = self.segment_bytes_max;
        let data = SnapshotContent { start, end, segment_bytes_max, membership }.encode();
        Ok(Snapshot { data, metadata: Some(metadata).into(), ..Snapshot::default() })
    }
}

fn conf_state(membership: &Membership) -> ConfState {
    let ids = |members: &[loglog_storage::Member]| members.iter().map(|member| member.id.get()).collect();
    ConfState { voters: ids(&membership.voters), learners: ids(&membership.learners), ..ConfState::default() }
}

/// # Panics
/// If the term does not fit the 32 bits it has on disk: four billion elections are a broken node.
pub(crate) fn log_id(entry: &Entry) -> LogId {
    LogId { term: term(entry.term), index: Index::new(entry.index) }
}

/// # Panics
/// As [`log_id`].
pub(crate) fn term(raw: u64) -> Term {
    Term::new(u32::try_from(raw).expect("terms fit 32 bits"))
}

#[cfg(test)]
mod tests {
    use loglog_proto::{ClusterId, Incarnation, NodeId};
    use raft::Storage;

    use super::*;

    /// A log that starts at index 5 (term 2 before it), applied up to index 7, with term 3 from index 6 on.
    fn store() -> LogStore {
        let meta = MetaState {
            cluster: ClusterId::new(1).unwrap(),
            node: NodeId::new(1).unwrap(),
            incarnation: Incarnation::new(1).unwrap(),
            term: Term::new(3),
            vote: None,
            membership: Membership { index: Index::new(1), voters: Vec::new(), learners: Vec::new() },
            start: LogStart { offset: Offset::new(100), index: Index::new(5), previous_term: Term::new(2) },
            segment_bytes_max: Length::new(1 << 20),
        };
        let applied = LogId { term: Term::new(3), index: Index::new(7) };
        let terms = vec![(Index::new(6), Term::new(3))];
        let foundation =
            Foundation { meta: &meta, commit: applied.index, applied, applied_end: Offset::new(400), terms };
        LogStore::new(foundation)
    }

    fn push(store: &mut LogStore, term: u64, length: u64) -> Offset {
        let index = store.last().index.get() + 1;
        store.push(Entry { index, term, ..Entry::default() }, Length::new(length))
    }

    #[test]
    fn terms_are_known_from_the_batch_before_the_first_on() {
        let mut store = store();
        push(&mut store, 4, 100);
        let terms: Vec<Option<u32>> =
            (3..10).map(|at| store.term_of(Index::new(at)).map(Term::get)).collect();
        assert_eq!(terms, [None, Some(2), Some(2), Some(3), Some(3), Some(4), None]);
        assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (5, 8));
    }

    #[test]
    fn no_message_gets_more_batches_than_a_peer_hears() {
        let mut store = store();
        for _ in 0..2 * MESSAGE_BATCHES_MAX {
            push(&mut store, 3, 33);
        }
        let high = store.last_index().unwrap() + 1;
        let entries = store.entries(8, high, 1 << 20, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(entries.len(), MESSAGE_BATCHES_MAX);
        // What is not synced yet comes on top, bounded in bytes: references alone have more than 32 an entry.
        const { assert!(MESSAGE_BATCHES_MAX + (1 << 20) / 40 <= loglog_proto::peer::RAFT_ENTRIES_MAX) };
    }

    #[test]
    fn s17_the_size_that_counts_is_that_of_the_log() {
        let mut store = store();
        for _ in 0..3 {
            push(&mut store, 3, 1000);
        }
        let taken = |max: u64| store.entries(8, 11, max, GetEntriesContext::empty(false)).unwrap().len();
        assert_eq!([taken(0), taken(1000), taken(1999), taken(2000), taken(u64::MAX)], [1, 1, 1, 2, 3]);
    }

    #[test]
    fn what_is_released_keeps_its_term_and_its_end() {
        let mut store = store();
        assert_eq!(push(&mut store, 3, 50), Offset::new(400));
        push(&mut store, 3, 50);
        store.release(Index::new(8));
        assert_eq!(store.end_of(Index::new(8)), Some(Offset::new(450)));
        assert_eq!((store.end_of(Index::new(7)), store.end()), (None, Offset::new(500)));
        assert_eq!(store.term_of(Index::new(7)), Some(Term::new(3)));
        assert!(store.entries(8, 10, None, GetEntriesContext::empty(false)).is_err());
        assert!(store.take_wanted().is_empty(), "s17: only for those who can wait");
        assert!(store.entries(8, 10, None, GetEntriesContext::empty(true)).is_err());
        assert_eq!(store.take_wanted()[0].0, Index::new(8));
        assert!(store.entries(8, 10, None, GetEntriesContext::empty(true)).is_err());
        assert!(store.take_wanted().is_empty(), "it is being read");
        store.end_reading(Index::new(8));
        store.set_read(vec![Entry { index: 8, term: 3, ..Entry::default() }]);
        assert_eq!(store.entries(8, 10, None, GetEntriesContext::empty(true)).unwrap().len(), 1);
        assert_eq!(store.entries(9, 10, None, GetEntriesContext::empty(false)).unwrap().len(), 1);
    }

    #[test]
    #[should_panic(expected = "contiguous")]
    fn a_gap_is_a_broken_promise() {
        store().push(Entry { index: 9, term: 3, ..Entry::default() }, Length::new(1));
    }
}
