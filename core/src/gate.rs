//! Payload gate: batches from the leader wait here until their payloads are at hand (S32).
//!
//! ```text
//!   append message ─► queue, first in first out ─► all payloads here? ─► raft-rs
//!                                    │ no
//!                                    └─► wanted: from the upload buffer, then from a peer
//! ```
//!
//! Owns:   the order of a leader's append messages, and the payloads that arrived for them.
//! Keeps:  bounded in bytes; a message is stepped only in the turn that found all its payloads.
//! Never:  holds back votes, heartbeats or replies: they do not come here.

use std::collections::{HashMap, VecDeque};

use loglog_proto::peer::{RaftEntry, RaftMessage};
use loglog_proto::{Index, Length, LogId, Offset, Term};
use loglog_storage::NewEntry;

use crate::batch::{Content, Reference};
use crate::inline::{self, Present};

/// Log bytes whose messages may wait.
const GATE_BYTES_MAX: Length = Length::new(64 << 20);
/// Batches that are asked for again at a time.
const WANTED_MAX: usize = 64;

/// What the gate needs to know of the log.
pub(crate) trait Held {
    /// The term of the batch at that index, where there is one.
    fn term_of(&self, index: Index) -> Option<Term>;
    /// Where it ends, where that is known.
    fn end_of(&self, index: Index) -> Option<Offset>;
}

/// Payloads that are missing for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The batch.
    pub log_id: LogId,
    /// Where it will begin.
    pub offset: Offset,
    /// Its log bytes.
    pub log_len: Length,
    /// Its entries whose payloads are missing.
    pub references: Vec<Reference>,
    /// Whether it was committed before its leader sent it: a node that catches up is the only one to wait for it.
    pub is_old: bool,
}

/// What can be done about the message at the head of the queue.
#[derive(Debug)]
pub(crate) enum Pass {
    /// Give it to raft-rs.
    Step(Box<RaftMessage>),
    /// It waits; these are newly wanted.
    Wait(Vec<Want>),
    /// Nothing is queued.
    Empty,
}

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    term: Term,
    queue: VecDeque<Queued>,
    /// How many of them, from the head on, were looked at for payloads that are missing.
    looked_at: usize,
    bytes: Length,
    payloads: Payloads,
}

/// What is here of the batches that queue, and what is not.
#[derive(Debug, Default)]
struct Payloads {
    wanted: HashMap<LogId, Incomplete>,
    arrived: HashMap<LogId, Vec<NewEntry>>,
    /// What came inline, until it was told.
    inline: Vec<Reference>,
}

/// A batch of which some came inline.
#[derive(Debug)]
struct Incomplete {
    want: Want,
    present: Present,
}

#[derive(Debug)]
struct Queued {
    message: RaftMessage,
    length: Length,
    /// Where its last batch will end, once it was looked at and that is known.
    end: Option<Offset>,
}

impl Gate {
    /// Queues an append message. False: it was dropped, too many wait; the leader will send it again.
    pub(crate) fn push(&mut self, message: RaftMessage) -> bool {
        if message.term < self.term {
            return false;
        }
        if message.term > self.term {
            // A new leader: what the old one sent is of no use any more.
            self.clear(message.term);
        }
        let lengths = message
            .entries
            .iter()
            .map(|entry| Content::decode(&entry.content).map_or(Length::ZERO, |it| it.log_len()));
        let length = lengths.fold(Length::ZERO, |sum, it| sum + it);
        if self.bytes + length > GATE_BYTES_MAX && !self.queue.is_empty() {
            return false;
        }
        self.bytes += length;
        self.queue.push_back(Queued { message, length, end: None });
        true
    }

    /// This node leads from this term on: what leaders of old sent is of no use any more.
    pub(crate) fn clear(&mut self, term: Term) {
        *self = Self { term, ..Self::default() };
    }

    /// Whether payloads are wanted for a batch before this index.
    pub(crate) fn waits_below(&self, index: Index) -> bool {
        self.payloads.wanted.keys().any(|log_id| log_id.index < index)
    }

    /// Looks at the head of the queue. While it waits, what is missing for those behind it is wanted too: all of it comes in the
    /// time that one would take.
    pub(crate) fn pass(&mut self, log: &impl Held) -> Pass {
        let Some(head) = self.queue.front() else { return Pass::Empty };
        if log.term_of(head.message.index) != Some(head.message.log_term) {
            // raft-rs will say no to it whatever it brings.
            let mut message = self.pop();
            for entry in message.entries.drain(..) {
                self.payloads.wanted.remove(&entry.log_id);
                self.payloads.arrived.remove(&entry.log_id);
            }
            return Pass::Step(Box::new(message));
        }
        let mut newly = Vec::new();
        if self.look(0, log, &mut newly) {
            return Pass::Step(Box::new(self.pop()));
        }
        for at in self.looked_at.max(1)..self.queue.len() {
            self.look(at, log, &mut newly);
        }
        self.looked_at = self.queue.len();
        Pass::Wait(newly)
    }

    /// Wants what is missing for one message, where its place is known; true if nothing is.
    fn look(&mut self, at: usize, log: &impl Held, newly: &mut Vec<Want>) -> bool {
        let message = &self.queue[at].message;
        let before = LogId { term: message.log_term, index: message.index };
        let mut end = if log.term_of(before.index) == Some(before.term) {
            log.end_of(before.index)
        } else {
            // The leader's log, as the message before this one brings it.
            let previous = at.checked_sub(1).map(|at| &self.queue[at]);
            previous.filter(|it| last_of(&it.message) == before).and_then(|it| it.end)
        };
        let mut is_complete = true;
        for entry in &message.entries {
            if log.term_of(entry.log_id.index) == Some(entry.log_id.term) {
                end = log.end_of(entry.log_id.index);
                continue;
            }
            // What cannot be read was never made by a node of ours; raft-rs' shell refuses it.
            let Ok(content) = Content::decode(&entry.content) else { continue };
            let (begin, log_len) = (end, content.log_len());
            end = begin.map(|begin| begin + log_len);
            let Content::Data(references) = content else { continue };
            let is_old = entry.log_id.index <= message.commit;
            is_complete &= self.payloads.complete(entry, references, (begin, log_len), is_old, newly);
        }
        self.queue[at].end = end;
        is_complete
    }

    /// What was missing of a wanted batch is here. Others are not kept.
    pub(crate) fn arrive(&mut self, want: &Want, entries: Vec<NewEntry>) {
        self.payloads.arrive(want, entries);
    }

    /// The entries that came inline since the last call: nobody will ask for an upload of theirs.
    pub(crate) fn take_inline(&mut self) -> Vec<Reference> {
        std::mem::take(&mut self.payloads.inline)
    }

    /// The entries of a batch that raft-rs has taken.
    pub(crate) fn take(&mut self, log_id: LogId) -> Option<Vec<NewEntry>> {
        self.payloads.arrived.remove(&log_id)
    }

    /// What is still wanted, in the log's order, the first of it.
    pub(crate) fn wanted(&self) -> Vec<Want> {
        let mut wanted: Vec<&Want> = self.payloads.wanted.values().map(|it| &it.want).collect();
        wanted.sort_by_key(|want| want.offset);
        wanted.into_iter().take(WANTED_MAX).cloned().collect()
    }

    fn pop(&mut self) -> RaftMessage {
        let Queued { message, length, .. } = self.queue.pop_front().expect("there is a head");
        self.bytes = Length::new(self.bytes.get() - length.get());
        self.looked_at = self.looked_at.saturating_sub(1);
        message
    }
}

impl Payloads {
    /// Whether all payloads of a batch are here. What is missing is wanted, once it is known where the batch will begin.
    fn complete(
        &mut self,
        entry: &RaftEntry,
        mut references: Vec<Reference>,
        (begin, log_len): (Option<Offset>, Length),
        is_old: bool,
        newly: &mut Vec<Want>,
    ) -> bool {
        let log_id = entry.log_id;
        if self.arrived.contains_key(&log_id) {
            return true;
        }
        let waits = self.wanted.get(&log_id);
        if waits.is_some_and(|it| entry.inline.is_empty() || !it.present.is_empty()) {
            return false;
        }
        let present = inline::scatter(&references, &entry.inline);
        if present.len() == references.len() {
            // It may have been wanted since an earlier message that brought less of it.
            self.wanted.remove(&log_id);
            self.arrived.insert(log_id, present.into_iter().map(|(_, entry)| entry).collect());
            self.inline.append(&mut references);
            return true;
        }
        if let Some(offset) = begin
            && !self.wanted.contains_key(&log_id)
        {
            let (mut ats, mut at) = (present.iter().map(|(at, _)| *at).peekable(), 0);
            let is_here = |_: &mut Reference| {
                at += 1;
                ats.next_if_eq(&(at - 1)).is_some()
            };
            self.inline.extend(references.extract_if(.., is_here));
            let want = Want { log_id, offset, log_len, references, is_old };
            newly.push(want.clone());
            self.wanted.insert(log_id, Incomplete { want, present });
        }
        false
    }

    /// Not kept is what another message of the batch, which brought more or less of it, had left out.
    fn arrive(&mut self, want: &Want, entries: Vec<NewEntry>) {
        let is_wanted = |it: &Incomplete| it.want.references == want.references;
        if self.wanted.get(&want.log_id).is_some_and(is_wanted)
            && let Some(Incomplete { present, .. }) = self.wanted.remove(&want.log_id)
        {
            self.arrived.insert(want.log_id, inline::merge(present, entries));
        }
    }
}

/// The last batch that a message brings, or the one it follows.
fn last_of(message: &RaftMessage) -> LogId {
    let before = LogId { term: message.log_term, index: message.index };
    message.entries.last().map_or(before, |entry| entry.log_id)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use loglog_proto::entry::{Kind, OVERHEAD};
    use loglog_proto::limits::INLINE_BYTES_MAX;
    use loglog_proto::peer::RaftKind;
    use loglog_proto::{Incarnation, NodeId, RaftId, Sequence, WriterId, crc32c};

    use super::*;

    /// A log of term 1 with batches 1 to `last`, each 100 bytes, all ends known.
    struct Log(u64);

    impl Held for Log {
        fn term_of(&self, index: Index) -> Option<Term> {
            (index.get() <= self.0).then_some(Term::new(1))
        }
        fn end_of(&self, index: Index) -> Option<Offset> {
            (index.get() <= self.0).then(|| Offset::new(index.get() * 100))
        }
    }

    fn reference() -> Reference {
        Reference { writer: WriterId::new(7), sequence: Sequence::new(1), payload_len: 10, payload_crc: 3 }
    }

    fn append(term: u32, log_term: u32, index: u64, batches: &[u64]) -> RaftMessage {
        let id = |node| RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(1).unwrap());
        let entry = |index: &u64| RaftEntry {
            log_id: LogId { term: Term::new(term), index: Index::new(*index) },
            content: Content::Data(vec![reference()]).encode(),
            inline: Bytes::new(),
        };
        RaftMessage {
            kind: RaftKind::Append,
            from: id(1),
            to: id(2),
            term: Term::new(term),
            log_term: Term::new(log_term),
            index: Index::new(index),
            commit: Index::ZERO,
            commit_term: Term::ZERO,
            reject: false,
            reject_hint: Index::ZERO,
            context: Bytes::new(),
            entries: batches.iter().map(entry).collect(),
        }
    }

    fn entries() -> Vec<NewEntry> {
        let payload = Bytes::from_static(&[0; 10]);
        let it = reference();
        vec![NewEntry { kind: Kind::Data, writer: it.writer, sequence: it.sequence, payload, payload_crc: 3 }]
    }

    fn log_id(term: u32, index: u64) -> LogId {
        LogId { term: Term::new(term), index: Index::new(index) }
    }

    #[test]
    fn s32_a_message_waits_for_all_its_payloads() {
        let (mut gate, log) = (Gate::default(), Log(5));
        assert!(gate.push(append(2, 1, 5, &[6, 7])));
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        let places: Vec<_> = wants.iter().map(|want| (want.log_id.index.get(), want.offset.get())).collect();
        assert_eq!(places, [(6, 500), (7, 500 + 10 + OVERHEAD as u64)]);
        assert!(wants.iter().all(|want| !want.is_old), "its leader waits for it");
        assert!(matches!(gate.pass(&log), Pass::Wait(wants) if wants.is_empty()), "asked for once");
        gate.arrive(&wants[1], entries());
        assert!(matches!(gate.pass(&log), Pass::Wait(_)));
        gate.arrive(&wants[0], entries());
        assert!(matches!(gate.pass(&log), Pass::Step(message) if message.entries.len() == 2));
        assert_eq!(gate.take(log_id(2, 6)).map(|entries| entries.len()), Some(1));
        assert!(gate.take(log_id(2, 6)).is_none());
        assert!(matches!(gate.pass(&log), Pass::Empty));
    }

    #[test]
    fn s32_messages_behind_the_head_want_their_payloads_too() {
        let (mut gate, log) = (Gate::default(), Log(5));
        assert!(gate.push(append(2, 1, 5, &[6])));
        assert!(gate.push(append(2, 2, 6, &[7, 8])));
        assert!(gate.push(append(2, 2, 99, &[100])));
        let length = 10 + OVERHEAD as u64;
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        let places: Vec<_> = wants.iter().map(|want| (want.log_id.index.get(), want.offset.get())).collect();
        assert_eq!(
            places,
            [(6, 500), (7, 500 + length), (8, 500 + 2 * length)],
            "not where the place is unknown"
        );
        assert!(gate.push(append(2, 2, 8, &[9])));
        for want in wants[1..].iter().rev() {
            gate.arrive(want, entries());
        }
        assert!(matches!(gate.pass(&log), Pass::Wait(_)), "first in, first out");
        gate.arrive(&wants[0], entries());
        assert!(matches!(gate.pass(&log), Pass::Step(message) if message.entries.len() == 1));
    }

    #[test]
    fn what_was_committed_before_it_was_sent_is_old() {
        let (mut gate, log) = (Gate::default(), Log(5));
        let mut message = append(2, 1, 5, &[6, 7]);
        message.commit = Index::new(6);
        assert!(gate.push(message));
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        assert_eq!(wants.iter().map(|want| want.is_old).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn s32_what_is_held_already_needs_no_bytes() {
        let (mut gate, log) = (Gate::default(), Log(5));
        let mut message = append(1, 1, 3, &[4, 5]);
        message.term = Term::new(2);
        assert!(gate.push(message));
        assert!(matches!(gate.pass(&log), Pass::Step(_)));
    }

    #[test]
    fn s32_a_mismatch_is_stepped_without_entries() {
        let (mut gate, log) = (Gate::default(), Log(5));
        assert!(gate.push(append(2, 2, 5, &[6])));
        assert!(gate.push(append(2, 2, 9, &[10])));
        for _ in 0..2 {
            assert!(matches!(gate.pass(&log), Pass::Step(message) if message.entries.is_empty()));
        }
    }

    #[test]
    fn s32_a_new_leader_empties_the_gate_and_an_old_one_is_not_heard() {
        let (mut gate, log) = (Gate::default(), Log(5));
        assert!(gate.push(append(2, 1, 5, &[6])));
        assert!(gate.push(append(3, 1, 5, &[6])));
        assert!(!gate.push(append(2, 1, 5, &[6])));
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        assert_eq!(wants[0].log_id, log_id(3, 6));
        gate.arrive(&Want { log_id: log_id(2, 6), ..wants[0].clone() }, entries());
        assert!(matches!(gate.pass(&log), Pass::Wait(_)), "another leader's payloads do not count");
    }

    /// A batch of a small payload, a large one and a small one, and its entries.
    fn mixed(inline: Bytes) -> (RaftMessage, Vec<NewEntry>) {
        let lengths = [10, INLINE_BYTES_MAX + 1, 20];
        let entries = lengths.iter().zip(1..).map(|(length, sequence)| {
            let payload = Bytes::from(vec![1; *length]);
            let (payload_len, payload_crc) = (u32::try_from(*length).unwrap(), crc32c(&payload));
            let sequence = Sequence::new(sequence);
            Reference { sequence, payload_len, payload_crc, ..reference() }.entry(payload)
        });
        let entries: Vec<NewEntry> = entries.collect();
        let references = entries.iter().map(|it| Reference {
            writer: it.writer,
            sequence: it.sequence,
            payload_len: u32::try_from(it.payload.len()).unwrap(),
            payload_crc: it.payload_crc,
        });
        let mut message = append(2, 1, 5, &[6]);
        message.entries[0].content = Content::Data(references.collect()).encode();
        message.entries[0].inline = inline;
        (message, entries)
    }

    fn sequences(references: &[Reference]) -> Vec<u64> {
        references.iter().map(|it| it.sequence.get()).collect()
    }

    #[test]
    fn s32_what_came_inline_is_not_wanted() {
        let (mut gate, log) = (Gate::default(), Log(5));
        let (message, entries) = mixed(Bytes::from_static(&[1; 30]));
        assert!(gate.push(message));
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        assert_eq!(sequences(&wants[0].references), [2]);
        assert_eq!(wants[0].log_len, Length::of(30 + INLINE_BYTES_MAX + 1 + 3 * OVERHEAD));
        assert_eq!(sequences(&gate.take_inline()), [1, 3]);
        gate.arrive(&wants[0], vec![entries[1].clone()]);
        assert!(matches!(gate.pass(&log), Pass::Step(_)));
        assert_eq!(gate.take(log_id(2, 6)), Some(entries));
    }

    #[test]
    fn s32_what_all_came_inline_does_not_wait() {
        let (mut gate, log) = (Gate::default(), Log(5));
        let reference = Reference { payload_crc: crc32c(&[0; 10]), ..reference() };
        let mut message = append(2, 1, 5, &[6]);
        message.entries[0].content = Content::Data(vec![reference]).encode();
        // First without, as a leader does that has it on its disk only; then the same with.
        assert!(gate.push(message.clone()));
        assert!(matches!(gate.pass(&log), Pass::Wait(wants) if wants.len() == 1));
        message.entries[0].inline = Bytes::from_static(&[0; 10]);
        assert!(gate.push(message));
        assert!(matches!(gate.pass(&log), Pass::Wait(wants) if wants.is_empty()));
        assert!(gate.wanted().is_empty());
        assert!(matches!(gate.pass(&log), Pass::Step(_)));
        assert_eq!(gate.take(log_id(2, 6)), Some(vec![reference.entry(Bytes::from_static(&[0; 10]))]));
        assert_eq!(sequences(&gate.take_inline()), [1]);
    }

    #[test]
    fn s31_other_bytes_than_the_leaders_do_not_count_though_they_came_inline() {
        let (mut gate, log) = (Gate::default(), Log(5));
        let (message, entries) = mixed(Bytes::from_static(&[2; 30]));
        assert!(gate.push(message));
        let Pass::Wait(wants) = gate.pass(&log) else { panic!() };
        assert_eq!(sequences(&wants[0].references), [1, 2, 3]);
        // What would have been missing otherwise.
        let less = Want { references: wants[0].references[1..2].to_vec(), ..wants[0].clone() };
        gate.arrive(&less, vec![entries[1].clone()]);
        assert!(matches!(gate.pass(&log), Pass::Wait(_)));
        gate.arrive(&wants[0], entries.clone());
        assert!(matches!(gate.pass(&log), Pass::Step(_)));
        assert_eq!(gate.take(log_id(2, 6)), Some(entries));
    }
}
