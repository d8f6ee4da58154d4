//! Generator: a valid history of a made-up log, with all that can happen in one: for the checker's own tests.
//!
//! Owns:   a log in memory, three nodes that know more or less of it, writers whose appends meet every fate, readers, trims.
//! Keeps:  what it records is what a right log would have answered.

use bytes::Bytes;
use loglog_proto::entry::{Kind, Prefix, encode_into};
use loglog_proto::error::Code;
use loglog_proto::response::Appended;
use loglog_proto::walk::Entries;
use loglog_proto::{Length, NodeId, Offset, Sequence, Term, WriterId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::history::{
    Answer, Author, EndSeen, FinalLog, History, OpId, Read, ReadAnswer, Sighting, Tick, Trim, payload,
};

/// A log and what was recorded of it.
pub(super) struct World {
    pub(super) history: History,
    /// All bytes that ever were in it, trimmed or not.
    pub(super) log: Vec<u8>,
    rng: StdRng,
    now: u64,
    term: u32,
    /// Where batches end, each with the start that is known there.
    ends: Vec<(Offset, Offset)>,
    /// By node: which of `ends` it knows.
    nodes: [usize; 3],
    writers: Vec<Writer>,
    /// By reader: up to where it has seen.
    readers: [Offset; 2],
}

struct Writer {
    author: Author,
    last: Option<Sequence>,
}

/// An append that is to be written with the next batch, and what is answered then.
struct Planned {
    op: OpId,
    attempt: usize,
    writer: (WriterId, Sequence),
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Acknowledge,
    /// The answer is lost, and a retry is acknowledged.
    Repeat,
    /// Nothing is ever heard of it.
    Lose,
}

fn node(number: usize) -> NodeId {
    NodeId::new(u32::try_from(number + 1).unwrap()).unwrap()
}

impl World {
    /// A history of so many steps.
    pub(super) fn new(seed: u64, steps: usize, with_trims: bool) -> Self {
        let wire = |writer| Author::Wire { writer: WriterId::new(writer), sequence: Sequence::new(0) };
        let pipeline = |stream| Author::Pipeline { stream, number: 0 };
        let authors = [wire(11), wire(12), wire(13), pipeline(1), pipeline(2)];
        let mut world = Self {
            history: History::new(),
            log: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            term: 0,
            ends: vec![(Offset::ZERO, Offset::ZERO)],
            nodes: [0; 3],
            writers: authors.map(|author| Writer { author, last: None }).into(),
            readers: [Offset::ZERO; 2],
        };
        world.lead();
        for _ in 0..steps {
            match world.rng.random_range(0..20) {
                0 => world.lead(),
                1 if with_trims => world.trim(),
                2..=5 => world.read(),
                6..=8 => world.end(),
                9 => world.see(),
                10 => world.append_where_expected(),
                11 => world.append_elsewhere(),
                12 => world.append_in_vain(),
                _ => world.append_some(),
            }
            let (node, committed) = (world.rng.random_range(0..3), world.ends.len() - 1);
            world.nodes[node] = world.rng.random_range(world.nodes[node]..=committed);
        }
        world.finish();
        world
    }

    fn tick(&mut self) -> Tick {
        self.now += self.rng.random_range(1..4);
        Tick::new(self.now)
    }

    fn offset(&self) -> Offset {
        Offset::new(self.log.len() as u64)
    }

    fn committed(&self) -> (Offset, Offset) {
        self.ends[self.ends.len() - 1]
    }

    fn write(
        &mut self,
        kind: Kind,
        last: bool,
        (writer, sequence): (WriterId, Sequence),
        payload: &[u8],
    ) -> Appended {
        let offset = self.offset();
        let prefix = Prefix {
            kind,
            last_of_batch: last,
            payload_len: u32::try_from(payload.len()).unwrap(),
            term: Term::new(self.term),
            writer,
            sequence,
        };
        encode_into(&mut self.log, offset, &prefix, payload, loglog_proto::crc32c(payload));
        Appended { offset, end: self.offset(), term: Term::new(self.term) }
    }

    fn lead(&mut self) {
        self.term += self.rng.random_range(1..3);
        self.write(Kind::Noop, true, (WriterId::NONE, Sequence::new(0)), b"");
        self.ends.push((self.offset(), self.committed().1));
        self.history.evidence.leader_changes += 1;
        self.history.fault("kill");
    }

    fn trim(&mut self) {
        let (committed, start) = self.committed();
        let asked = Offset::new(self.rng.random_range(0..=committed.get()));
        let invoked = self.tick();
        let base = self.ends.iter().map(|(end, _)| *end).rfind(|end| *end <= asked).unwrap();
        let start = start.max(base);
        if base == start {
            self.write(Kind::Control, true, (WriterId::NONE, Sequence::new(0)), b"trim");
            self.ends.push((self.offset(), start));
        }
        let is_lost = self.rng.random_bool(0.3);
        let answer = (!is_lost).then(|| (self.tick(), start));
        self.history.trims.push(Trim { asked, invoked, answer });
    }

    fn read(&mut self) {
        let number = self.rng.random_range(0..3);
        let (end, start) = self.ends[self.nodes[number]];
        let (node, limit, invoked) = (node(number), self.rng.random_range(1..2000), self.tick());
        let offset = Offset::new(self.rng.random_range(0..=end.get() + 50));
        let answer = if offset > end {
            ReadAnswer::BeyondEnd { end }
        } else if offset < start {
            ReadAnswer::Trimmed { start }
        } else {
            let (from, to) = (offset.get(), end.get().min(offset.get() + limit));
            let bytes = &self.log[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
            ReadAnswer::Data { bytes: Bytes::copy_from_slice(bytes), end }
        };
        let completed = self.tick();
        self.history.reads.push(Read { node, offset, limit, invoked, completed, answer });
    }

    fn end(&mut self) {
        let (number, linearizable, invoked) = (self.rng.random_range(0..3), self.rng.random(), self.tick());
        let before = self.committed();
        if self.rng.random() {
            self.append_some();
        }
        let (end, start) = match (linearizable, self.rng.random()) {
            (true, true) => before,
            (true, false) => self.committed(),
            (false, _) => self.ends[self.nodes[number]],
        };
        let (node, completed) = (node(number), self.tick());
        self.history.ends.push(EndSeen { node, linearizable, start, end, invoked, completed });
    }

    /// A reader sees some more entries.
    fn see(&mut self) {
        let reader = self.rng.random_range(0..2_u8);
        let at = self.tick();
        let from = &mut self.readers[usize::from(reader)];
        let rest = &self.log[usize::try_from(from.get()).unwrap()..];
        let mut walk = Entries::new(*from, rest);
        for _ in 0..self.rng.random_range(1..30) {
            let Some(entry) = walk.next_entry().unwrap() else { break };
            *from = entry.end();
            if entry.prefix.kind == Kind::Data {
                let (reader, op) = (reader.into(), crate::history::op_of(entry.payload));
                self.history.sightings.push(Sighting {
                    reader,
                    offset: entry.offset,
                    end: entry.end(),
                    op,
                    at,
                });
            }
        }
    }

    /// Invokes and sends an append of one of the writers.
    fn send(&mut self, writer: usize, expect_end: Option<Offset>) -> Planned {
        let (invoked, sent) = (self.tick(), self.tick());
        let of = &mut self.writers[writer];
        match &mut of.author {
            Author::Wire { sequence, .. } => *sequence = Sequence::new(sequence.get() + 1),
            Author::Pipeline { number, .. } => *number += 1,
        }
        let (wire, previous) = match of.author {
            Author::Wire { writer, sequence } => ((writer, sequence), Some(of.last)),
            Author::Pipeline { stream, number } => {
                ((WriterId::new(1000 + stream), Sequence::new(number)), None)
            }
        };
        let op = self.history.invoke(of.author, expect_end, invoked);
        let attempt = self.history.sent(op, previous, sent);
        Planned { op, attempt, writer: wire, then: Then::Acknowledge }
    }

    fn answer(&mut self, planned: &Planned, answer: Answer) {
        let at = self.tick();
        self.history.answered(planned.op, planned.attempt, answer, at);
    }

    /// Sends it again under its own name.
    fn again(&mut self, planned: &mut Planned) {
        let previous = self.history.operation(planned.op).attempts[planned.attempt].previous;
        let at = self.tick();
        planned.attempt = self.history.sent(planned.op, previous, at);
    }

    /// A batch of appends, all invoked before any is written, answered in any order.
    fn append_some(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            let writer = self.rng.random_range(0..self.writers.len());
            let mut planned = self.send(writer, None);
            let is_wire = matches!(self.writers[writer].author, Author::Wire { .. });
            if is_wire && self.rng.random_bool(0.1) {
                self.answer(&planned, Answer::Refused(Code::NotLeader));
                self.again(&mut planned);
            }
            let fates = [(Then::Acknowledge, 6), (Then::Repeat, 2), (Then::Lose, 1)];
            planned.then = fates.choose_weighted(&mut self.rng, |it| it.1).unwrap().0;
            if !is_wire && planned.then == Then::Repeat {
                planned.then = Then::Acknowledge;
            }
            self.writers[writer].last = Some(planned.writer.1);
            batch.push(planned);
        }
        self.write_batch(batch);
    }

    fn write_batch(&mut self, batch: Vec<Planned>) {
        let last = batch.len() - 1;
        let mut places = Vec::new();
        for (number, planned) in batch.into_iter().enumerate() {
            let place = self.write(Kind::Data, number == last, planned.writer, &payload(planned.op));
            places.push((planned, place));
        }
        self.ends.push((self.offset(), self.committed().1));
        while !places.is_empty() {
            let (mut planned, place) = places.swap_remove(self.rng.random_range(0..places.len()));
            match planned.then {
                Then::Acknowledge => self.answer(&planned, Answer::Acknowledged(place)),
                Then::Repeat => {
                    self.answer(&planned, Answer::Refused(Code::Interrupted));
                    self.again(&mut planned);
                    self.answer(&planned, Answer::Acknowledged(place));
                    self.again(&mut planned);
                    self.answer(&planned, Answer::Acknowledged(place));
                }
                Then::Lose if self.rng.random() => {
                    self.answer(&planned, Answer::Unknown);
                }
                Then::Lose => {}
            }
        }
    }

    fn append_where_expected(&mut self) {
        let writer = self.rng.random_range(0..3);
        let planned = self.send(writer, Some(self.offset()));
        self.writers[writer].last = Some(planned.writer.1);
        self.write_batch(vec![planned]);
    }

    fn append_elsewhere(&mut self) {
        let end = self.offset();
        let is_behind = self.rng.random();
        let expected = Offset::new(if is_behind { end.get() - 1 } else { end.get() + 1 });
        let writer = self.rng.random_range(0..3);
        let mut planned = self.send(writer, Some(expected));
        if is_behind && self.rng.random() {
            // The first copy is loose, and the second tells all the same.
            self.answer(&planned, Answer::Unknown);
            self.again(&mut planned);
        }
        self.answer(&planned, Answer::Conflict { end });
    }

    fn append_in_vain(&mut self) {
        let writer = self.rng.random_range(0..self.writers.len());
        let planned = self.send(writer, None);
        let codes = [Code::DiskFull, Code::Damaged, Code::OutOfOrder, Code::UnknownWriter];
        let answer = match self.rng.random() {
            true => Answer::Unknown,
            false => Answer::Refused(*codes.choose(&mut self.rng).unwrap()),
        };
        self.answer(&planned, answer);
    }

    fn finish(&mut self) {
        let (end, start) = self.committed();
        // One lags, and has a tail that was never committed.
        let (behind, its_start) = self.ends[self.nodes[2]];
        let slice = |from: Offset, to: Offset| {
            self.log[usize::try_from(from.get()).unwrap()..usize::try_from(to.get()).unwrap()].to_vec()
        };
        let older = self.ends[self.ends.len() / 2].1;
        let mut stale = slice(its_start, behind);
        stale.extend_from_slice(b"never committed");
        let finals =
            [(start, slice(start, end), end), (older, slice(older, end), end), (its_start, stale, behind)];
        for (number, (start, log, committed)) in finals.into_iter().enumerate() {
            self.history.finals.push(FinalLog {
                node: node(number),
                start,
                log: Bytes::from(log),
                committed,
            });
        }
    }

    /// The log's entries as they are.
    pub(super) fn entries(&self) -> Vec<(Prefix, Bytes)> {
        let (mut walk, mut entries) = (Entries::new(Offset::ZERO, &self.log), Vec::new());
        while let Some(entry) = walk.next_entry().unwrap() {
            entries.push((entry.prefix, Bytes::copy_from_slice(entry.payload)));
        }
        entries
    }

    /// Gives all nodes another log, of these entries, each framed as it should be; whoever has read the old one is forgotten.
    pub(super) fn rewrite(&mut self, entries: &[(Prefix, Bytes)]) {
        self.log.clear();
        for (prefix, payload) in entries {
            let prefix = Prefix { payload_len: u32::try_from(payload.len()).unwrap(), ..*prefix };
            let at = self.offset();
            encode_into(&mut self.log, at, &prefix, payload, loglog_proto::crc32c(payload));
        }
        self.everywhere();
    }

    /// Gives all nodes the log as it is now.
    pub(super) fn everywhere(&mut self) {
        let (log, committed) = (Bytes::copy_from_slice(&self.log), self.offset());
        for of in &mut self.history.finals {
            (of.start, of.log, of.committed) = (Offset::ZERO, log.clone(), committed);
        }
        self.history.reads.clear();
        self.history.ends.clear();
        self.history.sightings.clear();
    }

    /// Where each of the log's entries begins.
    pub(super) fn offsets(&self) -> Vec<Offset> {
        let mut at = Offset::ZERO;
        let next = |(prefix, _): (Prefix, Bytes)| {
            let begin = at;
            at += Length::of(prefix.entry_len().as_usize());
            begin
        };
        self.entries().into_iter().map(next).collect()
    }
}
