//! The judge: sees every committed byte that any node shows, and every answer that a client gets.
//!
//! Owns:   the one log that there may be, pieced together from all nodes; what converging means.
//! Never:  changes anything.

use std::collections::HashMap;

use bytes::Bytes;

use loglog_core::Role;
use loglog_core::consensus::Place;
use loglog_proto::entry::{EntryRef, Kind};
use loglog_proto::header::SegmentHeader;
use loglog_proto::walk::Entries;
use loglog_proto::{Length, NodeId, Offset, RaftId, Sequence, WriterId};

use super::dials::Group;
use super::node::{At, State};
use super::queue::Micros;
use super::world::World;
use crate::checker::{self, Enough};
use crate::history::{Answer, Author, EndSeen, FinalLog, History, OpId, Read, ReadAnswer, Tick, op_of};

struct Op {
    key: (WriterId, Sequence),
    previous: Option<Sequence>,
    has_failed: bool,
}

pub(super) struct Judge {
    pub(super) violation: Option<String>,
    pub(super) nodes_at_start: u64,
    pub(super) operations: u64,
    pub(super) unknown_writers: u64,
    pub(super) heal_max: Micros,
    /// Every byte that was ever committed.
    log: Vec<u8>,
    /// How far it is walked, and whose entry lies where.
    walked: Offset,
    places: HashMap<(WriterId, Sequence), (Offset, Offset)>,
    last_of: HashMap<WriterId, Sequence>,
    ops: HashMap<OpId, Op>,
    keys: HashMap<(WriterId, Sequence), OpId>,
    /// All of it, for the checker.
    pub(super) history: History,
    acknowledged: u64,
    acknowledged_end: Offset,
}

fn as_usize(offset: Offset) -> usize {
    (offset - Offset::ZERO).as_usize()
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            violation: None,
            nodes_at_start: 0,
            operations: 0,
            unknown_writers: 0,
            heal_max: 0,
            log: Vec::new(),
            walked: Offset::ZERO,
            places: HashMap::new(),
            last_of: HashMap::new(),
            ops: HashMap::new(),
            keys: HashMap::new(),
            history: History::new(),
            acknowledged: 0,
            acknowledged_end: Offset::ZERO,
        }
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) const fn acknowledged_end(&self) -> Offset {
        self.acknowledged_end
    }

    /// A writer begins an append.
    pub(super) fn invoked(
        &mut self,
        now: Micros,
        key: (WriterId, Sequence),
        previous: Option<Sequence>,
        expect_end: Option<Offset>,
    ) -> OpId {
        let author = Author::Wire { writer: key.0, sequence: key.1 };
        let op = self.history.invoke(author, expect_end, Tick::new(now));
        self.ops.insert(op, Op { key, previous, has_failed: false });
        self.keys.insert(key, op);
        op
    }

    /// It is sent; which time it is.
    pub(super) fn sent(&mut self, now: Micros, op: OpId, previous: Option<Sequence>) -> usize {
        self.history.sent(op, Some(previous), Tick::new(now))
    }

    /// A node has answered it. `is_settled`: the writer asks no more.
    pub(super) fn answered(
        &mut self,
        now: Micros,
        op: OpId,
        attempt: usize,
        answer: Answer,
        is_settled: bool,
    ) -> Option<String> {
        self.history.answered(op, attempt, answer, Tick::new(now));
        if is_settled {
            self.operations += 1;
            self.history.completed(op, Tick::new(now));
        }
        let known = self.ops.get_mut(&op)?;
        match answer {
            Answer::Acknowledged(appended) => {
                self.acknowledged += 1;
                self.acknowledged_end = self.acknowledged_end.max(appended.end);
                let said = (appended.offset, appended.end);
                match self.places.get(&known.key) {
                    Some(place) if *place == said => None,
                    place => Some(format!("{op} was acknowledged at {said:?}, and is at {place:?}")),
                }
            }
            Answer::Conflict { .. } => {
                known.has_failed = true;
                self.places.get(&known.key).map(|at| format!("{op} failed for good, and is at {at:?}"))
            }
            Answer::Refused(_) | Answer::Unknown => None,
        }
    }

    pub(super) fn read(&mut self, node: At, read: Read) -> Option<String> {
        self.operations += 1;
        let found = match &read.answer {
            ReadAnswer::Data { bytes, .. } => self.compare(node, read.offset, bytes),
            ReadAnswer::Trimmed { .. } | ReadAnswer::BeyondEnd { .. } => None,
        };
        self.history.reads.push(read);
        found
    }

    /// A node has told an end; for certain, `least` was acknowledged before it was asked.
    pub(super) fn end(&mut self, node: At, seen: EndSeen, least: Offset) -> Option<String> {
        self.operations += 1;
        self.history.ends.push(seen);
        let end = seen.end;
        if as_usize(end) > self.log.len() {
            return Some(format!(
                "node {node} says that the log ends at {end}, {} are committed",
                self.log.len()
            ));
        }
        let is_old = seen.linearizable && end < least;
        is_old.then(|| {
            format!(
                "node {node} says for certain that the log ends at {end}; {least} was acknowledged before"
            )
        })
    }

    /// Bytes that a node shows as committed: they are the log's, or the log's continuation.
    fn compare(&mut self, node: At, offset: Offset, bytes: &[u8]) -> Option<String> {
        let from = as_usize(offset);
        let known = self.log.len().saturating_sub(from).min(bytes.len());
        if from > self.log.len() {
            return Some(format!("node {node} shows bytes at {offset}, the log ends at {}", self.log.len()));
        }
        if self.log[from..from + known] != bytes[..known] {
            let at = (0..known).find(|at| self.log[from + at] != bytes[*at]).unwrap_or(0);
            return Some(format!("node {node} shows another byte at {} than was seen before", from + at));
        }
        self.log.extend_from_slice(&bytes[known..]);
        self.walk()
    }

    fn walk(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.log);
        let mut found = None;
        let mut entries = Entries::new(self.walked, &bytes[as_usize(self.walked)..]);
        while found.is_none() {
            match entries.next_entry() {
                Ok(Some(entry)) => found = self.enter(&entry),
                Ok(None) => break,
                Err(error) => found = Some(format!("the log is damaged at {}: {error}", entries.at())),
            }
        }
        self.walked = entries.at();
        self.log = bytes;
        found
    }

    fn enter(&mut self, entry: &EntryRef<'_>) -> Option<String> {
        if entry.prefix.kind != Kind::Data {
            return None;
        }
        let key = (entry.prefix.writer, entry.prefix.sequence);
        let at = entry.offset;
        let Some(op) = self.keys.get(&key) else { return Some(format!("nobody appended what is at {at}")) };
        let known = &self.ops[op];
        if op_of(entry.payload) != Some(*op) {
            return Some(format!("{op} has other bytes at {at}"));
        }
        if known.has_failed {
            return Some(format!("{op} failed for good, and is at {at}"));
        }
        if let Some(first) = self.places.insert(key, (at, entry.end())) {
            return Some(format!("{op} is in the log twice, at {} and at {at}", first.0));
        }
        if self.last_of.insert(key.0, key.1) != known.previous {
            return Some(format!("{op} at {at} does not follow the one that it names"));
        }
        None
    }
}

impl World {
    /// A node says that its log is committed up to there: these bytes are compared.
    pub(super) fn judge_committed(&mut self, at: At, committed: Offset) {
        let Some(life) = self.nodes[at].life() else { return };
        if committed > life.writer.end() {
            return self.violate(format!("node {at} commits {committed}, which is not on its disk"));
        }
        let mut from = life.judged.max(life.reader.start());
        life.judged = committed;
        while from < committed {
            let bytes = self.bytes_of(at, from, committed);
            if bytes.is_none() && self.nodes[at].is_power_failing {
                return self.fail(at, "cannot read");
            }
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
                return self.violate(format!("node {at} cannot read what it has committed, at {from}"));
            };
            if let Some(violation) = self.judge.compare(at, from, &bytes) {
                return self.violate(violation);
            }
            from += Length::of(bytes.len());
        }
    }

    pub(super) fn judge_trim(&mut self, at: At, start: Offset) {
        if start > self.operator.trimmed {
            self.violate(format!("node {at} trimmed to {start}, asked for was {}", self.operator.trimmed));
        }
    }

    /// Whoever is a member leads or follows, has all, and nothing is left to do.
    pub(super) fn is_converged(&mut self) -> Result<(), String> {
        let mut leader = None;
        for at in 0..self.nodes.len() {
            if let Some(life) = self.nodes[at].life()
                && life.core.status().role == Role::Leader
                && leader.is_none_or(|(_, term)| life.core.status().term > term)
            {
                leader = Some((at, life.core.status().term));
            }
        }
        let Some((leader, _)) = leader else { return Err(format!("nobody leads: {}", self.describe())) };
        let life = self.nodes[leader].life().expect("it leads");
        let (end, membership) = (life.core.status().committed.offset, life.meta.state().membership.clone());
        let ids: Vec<RaftId> = membership.voters.iter().chain(&membership.learners).map(|it| it.id).collect();
        for id in ids {
            let Some(at) = self.by_id.get(&id).copied() else { return Err(format!("nobody knows {id}")) };
            let committed = self.committed(at);
            if committed != Some(end) {
                let is_wiped = self.nodes[at].is_gone();
                return Err(format!(
                    "node {at} has committed {committed:?}, the leader {end} (wiped: {is_wiped}): {}",
                    self.describe()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn describe(&mut self) -> String {
        let mut words = String::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let how = match &mut node.state {
                State::Up(life) => {
                    let status = life.core.status();
                    let lacks = if status.place == Place::Voter { "" } else { ", no voter" };
                    format!(
                        "{:?}{lacks} in term {} with {} durable, {} committed, members of {}",
                        status.role,
                        status.term,
                        status.durable,
                        status.committed.offset,
                        life.meta.state().membership.index
                    )
                }
                State::Mending(_) => "mends".to_owned(),
                State::Down => "down".to_owned(),
                State::Gone => continue,
            };
            words += &format!("[{at} {}] {how}; ", node.id);
        }
        words
    }

    /// Every live log from its start to its committed end against the one log.
    pub(super) fn compare_logs(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            if let Some(committed) = self.committed(at) {
                self.nodes[at].life().expect("it has committed").judged = Offset::ZERO;
                self.judge_committed(at, committed);
            }
        }
        self.judge.violation.take().map_or(Ok(()), Err)?;
        self.compare_segments()
    }

    /// The history is whole: every log as it is left, and the one log that all of them were parts of.
    pub(super) fn final_check(&mut self) -> Result<(), String> {
        self.compare_logs()?;
        for at in 0..self.nodes.len() {
            let node = self.nodes[at].node();
            let Some(committed) = self.committed(at) else { continue };
            let Some(life) = self.nodes[at].life() else { continue };
            let start = life.reader.start();
            let (mut from, mut log) = (start, Vec::new());
            while let Some(bytes) = self.bytes_of(at, from, committed).filter(|bytes| !bytes.is_empty()) {
                from += Length::of(bytes.len());
                log.extend_from_slice(&bytes);
            }
            let log = Bytes::from(log);
            self.judge.history.finals.push(FinalLog { node, start, log, committed });
        }
        // And the one log that all of them are parts of, whatever was trimmed since.
        let log = Bytes::from(std::mem::take(&mut self.judge.log));
        let committed = Offset::ZERO + Length::of(log.len());
        let node = NodeId::new(u32::MAX).expect("not 0");
        self.judge.history.finals.push(FinalLog { node, start: Offset::ZERO, log, committed });
        self.judge.history.evidence.leader_changes = self.leaders.len() as u64;
        for (fault, count) in &self.counts.0 {
            if fault.group() == Group::Stroke {
                self.judge.history.evidence.faults.insert(fault.name().to_owned(), *count);
            }
        }
        // Whether enough was seen, the report says: it counts an hour or does not.
        let verdict = checker::check(&self.judge.history, &Enough::default());
        if verdict.is_pass() { Ok(()) } else { Err(format!("the checker says: {verdict}")) }
    }

    /// Sealed segments are the same files on every node (S35). Those that are committed, that is: a removed node keeps for ever what it had
    /// beyond that.
    fn compare_segments(&mut self) -> Result<(), String> {
        let mut known: HashMap<Offset, (At, SegmentHeader, Offset)> = HashMap::new();
        for at in 0..self.nodes.len() {
            let Some(committed) = self.committed(at) else { continue };
            let Some(life) = self.nodes[at].life() else { continue };
            let segments = life.reader.segments().into_iter();
            for segment in segments.filter(|segment| segment.sealed && segment.end <= committed) {
                let base = segment.header.base_offset;
                let (other, header, end) = *known.entry(base).or_insert((at, segment.header, segment.end));
                if (header, end) != (segment.header, segment.end) {
                    return Err(format!(
                        "the segment at {base} is another on node {at} than on {other}: {:?} to {}, {header:?} to {end}",
                        segment.header, segment.end
                    ));
                }
            }
        }
        Ok(())
    }
}
