//! Write queue: group commit, and which of raft-rs' `Ready`s have reached the disk.
//!
//! ```text
//!     Ready ─► batches ─► waiting ─► one write group at a time ─► synced ─► Ready persisted
//! ```
//!
//! Owns:   the batches between raft-rs and the segment writer, and the order in which they become durable.
//! Keeps:  a `Ready` counts as persisted when every batch that any `Ready` up to it brought is synced (S15).
//! Never:  holds more groups with the writer than it was told.

use std::collections::VecDeque;
use std::sync::Arc;

use loglog_proto::{Index, Length, LogId, Offset};
use loglog_storage::NewBatch;

/// What the segment writer does next: a truncation, if there is one, then one write and one sync for each segment it touches.
#[derive(Debug)]
pub struct WriteGroup {
    /// Goes up by one with each group.
    pub number: u64,
    /// What is to be removed first.
    pub truncate: Option<Truncation>,
    /// In the log's order. Shared, since peers may ask for them until they are synced.
    pub batches: Arc<[NewBatch]>,
}

/// An uncommitted suffix that another leader's log replaces (Raft §5.3; SAFETY S5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The first batch that goes.
    pub first_removed: Index,
    /// The last one that stays, and where it ends.
    pub last: LogId,
    /// Where the log ends then.
    pub to: Offset,
}

/// What has become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// The last batch.
    pub last: LogId,
    /// Where it ends.
    pub end: Offset,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    groups_max: usize,
    group_bytes: Length,
    waiting: VecDeque<Item>,
    /// Of the batches that wait.
    waiting_bytes: Length,
    writing: VecDeque<Writing>,
    /// Number of each `Ready`, and how many items must be done for it.
    readies: VecDeque<(u64, u64)>,
    durable: Durable,
    /// The last batch queued.
    last: Index,
    queued: u64,
    taken: u64,
    done: u64,
    next_group: u64,
}

/// A group that the writer has.
#[derive(Debug)]
struct Writing {
    number: u64,
    batches: Arc<[NewBatch]>,
    /// Once it is synced.
    durable: Durable,
    /// How many items are done then.
    done: u64,
}

#[derive(Debug)]
enum Item {
    Write(NewBatch, Durable),
    Truncate(Truncation),
}

impl WriteQueue {
    /// `durable` is what recovery synced; at most `groups_max` groups are with the writer, closed before they pass `group_bytes`.
    pub(crate) fn new(durable: Durable, groups_max: usize, group_bytes: Length) -> Self {
        assert!(groups_max > 0, "a writer that may hold nothing writes nothing");
        Self {
            groups_max,
            group_bytes,
            waiting: VecDeque::new(),
            waiting_bytes: Length::ZERO,
            writing: VecDeque::new(),
            readies: VecDeque::new(),
            durable,
            last: durable.last.index,
            queued: 0,
            taken: 0,
            done: 0,
            next_group: 1,
        }
    }

    /// Adds a batch that ends at `end`.
    pub(crate) fn push(&mut self, batch: NewBatch, end: Offset) {
        assert_eq!(batch.log_id.index, self.last.next(), "batches are queued in order");
        self.last = batch.log_id.index;
        self.waiting_bytes += end - batch.offset;
        let durable = Durable { last: batch.log_id, end };
        self.add(Item::Write(batch, durable));
    }

    /// Removes a suffix of what was queued before.
    pub(crate) fn truncate(&mut self, truncation: Truncation) {
        assert!(truncation.first_removed <= self.last, "there is something to remove");
        self.last = truncation.last.index;
        self.add(Item::Truncate(truncation));
    }

    fn add(&mut self, item: Item) {
        self.queued += 1;
        self.waiting.push_back(item);
    }

    /// The `Ready` with this number brought everything queued since the one before it.
    pub(crate) fn ready(&mut self, number: u64) {
        self.readies.push_back((number, self.queued));
    }

    /// Whether the writer would take a group now.
    pub(crate) fn has_room(&self) -> bool {
        self.writing.len() < self.groups_max
    }

    /// Log bytes that wait for the writer.
    pub(crate) const fn waiting_bytes(&self) -> Length {
        self.waiting_bytes
    }

    /// Whether the writer has no group.
    pub(crate) fn is_idle(&self) -> bool {
        self.writing.is_empty()
    }

    /// The next group, if the writer has room and something waits.
    pub(crate) fn next_group(&mut self) -> Option<WriteGroup> {
        if !self.has_room() || self.waiting.is_empty() {
            return None;
        }
        let (mut truncate, mut batches, mut bytes, mut durable) =
            (None, Vec::new(), Length::ZERO, self.durable);
        while let Some(item) = self.waiting.front() {
            match item {
                Item::Truncate(truncation) => {
                    if truncate.is_some() || !batches.is_empty() {
                        break;
                    }
                    truncate = Some(*truncation);
                    durable = Durable { last: truncation.last, end: truncation.to };
                }
                Item::Write(batch, then) => {
                    bytes += then.end - batch.offset;
                    if bytes > self.group_bytes && !batches.is_empty() {
                        break;
                    }
                    durable = *then;
                }
            }
            if let Some(Item::Write(batch, then)) = self.waiting.pop_front() {
                let length = then.end - batch.offset;
                self.waiting_bytes = Length::new(self.waiting_bytes.get() - length.get());
                batches.push(batch);
            }
            self.taken += 1;
        }
        let number = self.next_group;
        self.next_group += 1;
        let batches: Arc<[NewBatch]> = batches.into();
        self.writing.push_back(Writing { number, batches: Arc::clone(&batches), durable, done: self.taken });
        Some(WriteGroup { number, truncate, batches })
    }

    /// The writer has synced the group with this number.
    ///
    /// # Panics
    /// If it is not the oldest one with the writer: a message of another generation came through (S13).
    pub(crate) fn synced(&mut self, number: u64) {
        let oldest = self.writing.pop_front().expect("the writer syncs what it was given");
        assert_eq!(oldest.number, number, "groups are synced in order");
        (self.durable, self.done) = (oldest.durable, oldest.done);
    }

    /// A batch that is not synced yet.
    pub(crate) fn unsynced(&self, batch: LogId) -> Option<&NewBatch> {
        let waiting = self.waiting.iter().filter_map(|item| match item {
            Item::Write(batch, _) => Some(batch),
            Item::Truncate(_) => None,
        });
        self.writing.iter().flat_map(|group| &*group.batches).chain(waiting).find(|it| it.log_id == batch)
    }

    /// The newest `Ready` that has become persisted since the last call.
    pub(crate) fn persisted(&mut self) -> Option<u64> {
        let mut newest = None;
        while let Some(&(number, needs)) = self.readies.front()
            && needs <= self.done
        {
            newest = Some(number);
            self.readies.pop_front();
        }
        newest
    }

    /// What is synced here.
    pub(crate) const fn durable(&self) -> Durable {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::Term;

    fn durable(index: u64, end: u64) -> Durable {
        Durable { last: LogId { term: Term::new(1), index: Index::new(index) }, end: Offset::new(end) }
    }

    fn push(queue: &mut WriteQueue, index: u64) {
        let log_id = LogId { term: Term::new(1), index: Index::new(index) };
        let offset = Offset::new((index - 2) * 100);
        queue.push(NewBatch { log_id, offset, entries: Vec::new() }, offset + Length::new(100));
    }

    fn queue() -> WriteQueue {
        WriteQueue::new(durable(1, 0), 1, Length::new(250))
    }

    #[test]
    fn what_gathers_during_a_sync_goes_into_one_group() {
        let mut queue = queue();
        push(&mut queue, 2);
        assert_eq!(queue.next_group().unwrap().batches.len(), 1);
        for index in 3..8 {
            push(&mut queue, index);
        }
        assert!(queue.next_group().is_none());
        assert_eq!(queue.waiting_bytes(), Length::new(500));
        queue.synced(1);
        let group = queue.next_group().unwrap();
        assert_eq!((group.number, group.batches.len()), (2, 2));
        assert_eq!(queue.waiting_bytes(), Length::new(300));
        queue.synced(2);
        assert_eq!(queue.durable(), durable(4, 300));
    }

    #[test]
    fn s15_a_ready_without_batches_waits_for_the_earlier_ones() {
        let mut queue = queue();
        queue.ready(1);
        assert_eq!(queue.persisted(), Some(1));
        push(&mut queue, 2);
        queue.ready(2);
        queue.ready(3);
        assert_eq!(queue.persisted(), None);
        let group = queue.next_group().unwrap();
        assert_eq!(queue.persisted(), None);
        queue.synced(group.number);
        assert_eq!(queue.persisted(), Some(3));
    }

    #[test]
    fn s05_a_truncation_comes_before_what_replaces_it() {
        let mut queue = queue();
        for index in 2..5 {
            push(&mut queue, index);
        }
        queue.ready(1);
        let last = LogId { term: Term::new(1), index: Index::new(2) };
        queue.truncate(Truncation { first_removed: Index::new(3), last, to: Offset::new(100) });
        push(&mut queue, 3);
        queue.ready(2);
        let mut groups = Vec::new();
        while let Some(group) = queue.next_group() {
            queue.synced(group.number);
            groups.push((
                group.truncate.is_some(),
                group.batches.len(),
                queue.persisted(),
                queue.durable().end.get(),
            ));
        }
        assert_eq!(groups, [(false, 2, None, 200), (false, 1, Some(1), 300), (true, 1, Some(2), 200)]);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn s13_a_sync_of_another_life_is_no_sync() {
        let mut queue = queue();
        push(&mut queue, 2);
        let group = queue.next_group().unwrap();
        queue.synced(group.number + 1);
    }
}
