//! A model of a node: the log and the rules by which it takes appends (SAFETY S27, S28, S30), and nothing else.
//!
//! Owns:   entries, which of them are committed, answers that wait for a commit.
//! Keeps:  what is committed stays; an answer is given only once what it rests on is committed.
//! Never:  copies the server's code: it is written from the rules, so that the two can be held against each other. It serves the memory log, and
//!         the nodes that the client is tested with.

use std::collections::HashMap;

use bytes::Bytes;
use loglog_proto::entry::OVERHEAD;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::Append;
use loglog_proto::response::Appended;
use loglog_proto::{Length, Offset, Sequence, Term, WriterId};

/// An entry of the model's log.
#[derive(Clone, Debug)]
pub(crate) struct ModelEntry {
    pub(crate) writer: WriterId,
    pub(crate) sequence: Sequence,
    pub(crate) payload: Bytes,
    pub(crate) at: Appended,
}

/// The answer to an append.
pub(crate) type Answer = Result<Appended, Refusal>;

/// A node without sockets. `T` says whom an answer is for.
#[derive(Debug)]
pub(crate) struct ModelNode<T> {
    entries: Vec<ModelEntry>,
    /// For each writer its entries, as indexes.
    writers: HashMap<WriterId, Vec<usize>>,
    committed: usize,
    waiting: Vec<(T, Offset, Answer)>,
    memory: Length,
    sequences_max: usize,
    start: Offset,
    end: Offset,
    term: Term,
}

impl<T> ModelNode<T> {
    /// A node that remembers writers for `memory` bytes, and `sequences_max` of each one's appends.
    pub(crate) fn new(memory: Length, sequences_max: usize) -> Self {
        let (entries, writers, waiting) = (Vec::new(), HashMap::new(), Vec::new());
        let (start, end) = (Offset::ZERO, Offset::ZERO);
        Self {
            entries,
            writers,
            committed: 0,
            waiting,
            memory,
            sequences_max,
            start,
            end,
            term: Term::new(1),
        }
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> &[ModelEntry] {
        &self.entries
    }

    /// Committed entries from the `from`th on.
    pub(crate) fn committed_entries(&self, from: usize) -> &[ModelEntry] {
        &self.entries[from..self.committed]
    }

    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    /// Next byte to be written.
    #[cfg(test)]
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Next byte to be committed.
    pub(crate) fn committed(&self) -> Offset {
        self.entries[..self.committed].last().map_or(self.start, |entry| entry.at.end.max(self.start))
    }

    /// Takes an append. Its answer comes from [`ModelNode::answers`], maybe at once.
    pub(crate) fn append(&mut self, whom: T, append: &Append) {
        let payload = append.payload.clone().unwrap_or_default();
        if append.crc.is_some_and(|crc| crc != loglog_proto::crc32c(&payload)) {
            let refusal = Refusal::new(Code::Damaged, "the payload does not match its CRC");
            return self.waiting.push((whom, Offset::ZERO, Err(refusal)));
        }
        match self.decide(append) {
            Ok(None) => {
                let length = Length::of(payload.len() + OVERHEAD);
                let at = self.write(append.writer, append.sequence, payload, length);
                self.waiting.push((whom, at.end, Ok(at)));
            }
            Ok(Some(at)) => self.waiting.push((whom, at.end, Ok(at))),
            Err(refusal) => self.waiting.push((whom, self.end, Err(refusal))),
        }
    }

    /// The order of S28. `None`: go on.
    fn decide(&self, append: &Append) -> Result<Option<Appended>, Refusal> {
        let window = self.end.saturating_back(self.memory).max(self.start);
        let own = self.writers.get(&append.writer).map_or(&[][..], Vec::as_slice);
        let newest = own.iter().rev().take(self.sequences_max).map(|at| &self.entries[*at]);
        let mut remembered = newest.take_while(|entry| entry.at.offset >= window);
        let unknown = || Err(Refusal::new(Code::UnknownWriter, "unknown writer"));
        let last = remembered.clone().next().map(|entry| entry.sequence);
        if last.is_none() && append.known_end.is_none_or(|known| known < window) {
            return unknown();
        }
        if last.is_some_and(|last| append.sequence <= last) {
            let listed = remembered.find(|entry| entry.sequence == append.sequence);
            return listed.map_or_else(unknown, |entry| Ok(Some(entry.at)));
        }
        if append.previous != last {
            return Err(Refusal::out_of_order(last));
        }
        match append.expect_end {
            Some(expected) if expected != self.end => Err(Refusal::conflict(expected, self.end)),
            _ => Ok(None),
        }
    }

    fn write(&mut self, writer: WriterId, sequence: Sequence, payload: Bytes, length: Length) -> Appended {
        let at = Appended { offset: self.end, end: self.end + length, term: self.term };
        self.writers.entry(writer).or_default().push(self.entries.len());
        self.entries.push(ModelEntry { writer, sequence, payload, at });
        self.end = at.end;
        at
    }

    /// Somebody else appends an entry of any length.
    #[cfg(test)]
    pub(crate) fn append_of_another(&mut self, length: Length) {
        self.write(WriterId::new(u64::MAX), Sequence::new(self.entries.len() as u64), Bytes::new(), length);
    }

    /// A new leader opens its term.
    #[cfg(test)]
    pub(crate) fn noop(&mut self) {
        self.begin_term(Bytes::new());
    }

    /// The same, with what the leader says of it.
    pub(crate) fn begin_term(&mut self, payload: Bytes) {
        let sequence = Sequence::new(self.entries.len() as u64);
        let length = Length::of(OVERHEAD + payload.len());
        self.write(WriterId::NONE, sequence, payload, length);
    }

    /// Commits up to `count` more entries.
    pub(crate) fn commit(&mut self, count: usize) {
        self.committed = self.entries.len().min(self.committed + count);
    }

    /// Entries not committed.
    #[cfg(test)]
    pub(crate) fn tail_len(&self) -> usize {
        self.entries.len() - self.committed
    }

    /// The answers that may be given now, in the order of the appends.
    pub(crate) fn answers(&mut self) -> Vec<(T, Answer)> {
        let committed = self.committed();
        let ready = self.waiting.extract_if(.., |(_, rests_on, _)| *rests_on <= committed);
        ready.map(|(whom, _, answer)| (whom, answer)).collect()
    }

    /// Forgets every entry before `before`, but for the entries themselves. Returns where the log starts then.
    pub(crate) fn trim(&mut self, before: Offset) -> Offset {
        self.start = self.start_if_trimmed(before);
        self.start
    }

    /// Where the log would start: where an entry begins, at `before` or before it.
    pub(crate) fn start_if_trimmed(&self, before: Offset) -> Offset {
        let entries = &self.entries[..self.committed];
        let behind = entries.partition_point(|entry| entry.at.end <= before);
        let start = match behind.checked_sub(1) {
            Some(last) => entries[last].at.end,
            None => Offset::ZERO,
        };
        start.max(self.start)
    }

    /// Nobody waits any more for the answers that `who` says.
    pub(crate) fn forget(&mut self, mut who: impl FnMut(&T) -> bool) {
        self.waiting.retain(|(whom, ..)| !who(whom));
    }

    /// The process dies and comes back: answers are lost, of the uncommitted entries the first `kept` have survived.
    #[cfg(test)]
    pub(crate) fn crash(&mut self, kept: usize) {
        self.waiting.clear();
        self.entries.truncate(self.committed + kept);
        for own in self.writers.values_mut() {
            own.retain(|at| *at < self.entries.len());
        }
        self.committed = self.entries.len();
        self.end = self.committed();
        self.term = Term::new(self.term.get() + 1);
    }
}
