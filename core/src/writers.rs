//! Writers' table: who appended what last, so that a repeated append is recognised (S27, S28).
//!
//! Owns:   for each writer its last sequences with their places, the uncommitted tail included.
//! Keeps:  what it answers is a function of the log's bytes in the window `[end - memory, end)`: a table that was
//!         rebuilt from the log answers as one that lived through it.
//! Never:  answers a client: [`Consensus`](crate::Consensus) does, once the answer is certain.

use std::collections::{HashMap, VecDeque};

use loglog_proto::error::Refusal;
use loglog_proto::response::Appended;
use loglog_proto::{Length, Offset, Sequence, Term, WriterId};

use crate::append::Append;

/// Everything the table knows.
#[derive(Debug)]
pub struct Writers {
    /// Looked into three times an entry, and written by whoever appends: quick, and seeded.
    writers: HashMap<WriterId, Writer, foldhash::quality::RandomState>,
    /// The uncommitted tail, in log order, so that a truncation can be undone.
    tail: VecDeque<(Offset, WriterId)>,
    /// How far back entries are remembered (D of S27).
    memory: Length,
    /// Sequences remembered for each writer (N of S27).
    sequences_max: usize,
    /// Nothing before it was ever seen: the log's start, or where the rebuild began.
    seen_from: Offset,
    committed: Offset,
    swept_at: Offset,
}

#[derive(Debug, Default)]
struct Writer {
    records: VecDeque<Record>,
    uncommitted: usize,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    sequence: Sequence,
    offset: Offset,
    length: Length,
    term: Term,
}

/// What is to be done with an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is new and in order.
    Go,
    /// It is in the log already; to be answered once it is committed.
    Repeat(Appended),
    /// It is not to be written; to be answered once what it was judged against is committed (S30).
    Refuse(Refusal),
}

impl Writers {
    /// An empty table of a log whose entries before `seen_from` are unknown to it.
    #[must_use]
    pub fn new(memory: Length, sequences_max: usize, seen_from: Offset) -> Self {
        Self {
            writers: HashMap::default(),
            tail: VecDeque::new(),
            memory,
            sequences_max,
            seen_from,
            committed: seen_from,
            swept_at: seen_from,
        }
    }

    /// Decides about `append`, whose entry would begin at `end`, in the order of S28.
    #[must_use]
    pub fn decide(&self, append: &Append, end: Offset) -> Decision {
        let window = self.window(end);
        let records = self.writers.get(&append.writer).map(|writer| &writer.records);
        let last = records.and_then(VecDeque::back).filter(|last| last.offset >= window);
        let Some((records, last)) = records.zip(last) else {
            return match append.known_end {
                // An end beyond ours was learnt elsewhere: it proves nothing about this log.
                Some(known) if known >= window && known <= end => first(append, end),
                _ => Decision::Refuse(Refusal::new(
                    loglog_proto::error::Code::UnknownWriter,
                    "this writer is not in the part of the log that is remembered, and the append names no end \
                     learnt recently enough to prove that it is new",
                )),
            };
        };
        if append.sequence <= last.sequence {
            return match listed(records, append.sequence, self.sequences_max, window) {
                Some(record) => Decision::Repeat(Appended {
                    offset: record.offset,
                    end: record.offset + record.length,
                    term: record.term,
                }),
                None => Decision::Refuse(Refusal::new(
                    loglog_proto::error::Code::UnknownWriter,
                    format!(
                        "sequence {} is not among the writer's remembered ones, the last of which is {}",
                        append.sequence, last.sequence
                    ),
                )),
            };
        }
        if append.previous != Some(last.sequence) {
            return Decision::Refuse(Refusal::out_of_order(Some(last.sequence)));
        }
        expected(append, end)
    }

    /// Notes an entry that was added to the log at `offset`.
    ///
    /// # Panics
    /// If entries are not noted in the log's order.
    pub fn record(
        &mut self,
        writer: WriterId,
        sequence: Sequence,
        offset: Offset,
        length: Length,
        term: Term,
    ) {
        if let Some((last, _)) = self.tail.back() {
            assert!(*last < offset, "entries are noted in the log's order");
        }
        let entry = self.writers.entry(writer).or_default();
        entry.records.push_back(Record { sequence, offset, length, term });
        entry.uncommitted += 1;
        self.tail.push_back((offset, writer));
    }

    /// Forgets what was noted at `end` and behind: it was never proposed, or it was truncated.
    ///
    /// # Panics
    /// If that was committed.
    pub fn roll_back(&mut self, end: Offset) {
        assert!(end >= self.committed, "what is committed is never rolled back");
        while let Some((offset, writer)) = self.tail.back().copied()
            && offset >= end
        {
            self.tail.pop_back();
            if let Some(entry) = self.writers.get_mut(&writer) {
                entry.records.pop_back();
                entry.uncommitted -= 1;
                if entry.records.is_empty() {
                    self.writers.remove(&writer);
                }
            }
        }
    }

    /// Everything before `committed` is in the log for ever: what nobody can ask for any more is let go.
    pub fn commit(&mut self, committed: Offset) {
        assert!(committed >= self.committed, "the committed offset never sinks");
        self.committed = committed;
        while let Some((offset, writer)) = self.tail.front().copied()
            && offset < committed
        {
            self.tail.pop_front();
            if let Some(entry) = self.writers.get_mut(&writer) {
                entry.uncommitted -= 1;
                while entry.records.len() > self.sequences_max + entry.uncommitted {
                    entry.records.pop_front();
                }
            }
        }
        if committed - self.swept_at > Length::new(self.memory.get() / 8) {
            self.sweep();
        }
    }

    /// The log starts at `start` from now on.
    pub fn trim(&mut self, start: Offset) {
        self.seen_from = self.seen_from.max(start);
    }

    /// Writers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writers.len()
    }

    /// Whether no writer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    /// Where the remembered part of a log begins that ends at `end`.
    fn window(&self, end: Offset) -> Offset {
        end.saturating_back(self.memory).max(self.seen_from)
    }

    fn sweep(&mut self) {
        self.swept_at = self.committed;
        // Nothing at or behind the committed end can be truncated, so no later end can reach back further.
        let window = self.window(self.committed);
        self.writers.retain(|_, writer| writer.records.back().is_some_and(|last| last.offset >= window));
    }
}

/// A writer's first append in the remembered part of the log.
fn first(append: &Append, end: Offset) -> Decision {
    if append.previous.is_some() {
        return Decision::Refuse(Refusal::out_of_order(None));
    }
    expected(append, end)
}

fn expected(append: &Append, end: Offset) -> Decision {
    match append.expect_end {
        Some(expected) if expected != end => Decision::Refuse(Refusal::conflict(expected, end)),
        _ => Decision::Go,
    }
}

/// Records before the window are not looked at: a forgotten writer that came back may have begun at a lower sequence again.
fn listed(
    records: &VecDeque<Record>,
    sequence: Sequence,
    sequences_max: usize,
    window: Offset,
) -> Option<Record> {
    let at = records.partition_point(|record| record.offset < window || record.sequence < sequence);
    let record = records.get(at).filter(|record| record.sequence == sequence)?;
    (records.len() - at <= sequences_max).then_some(*record)
}

#[cfg(test)]
#[path = "writers_test.rs"]
mod tests;
