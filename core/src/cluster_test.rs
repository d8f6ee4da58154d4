//! Three nodes of the production core, in one thread, from one seed: messages are lost, doubled and reordered, nodes crash
//! with what was not synced, payloads are missing. The logs must agree, and every acknowledged append be there once.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::error::Code;
use loglog_proto::limits::{WRITER_MEMORY, WRITER_SEQUENCES_MAX};
use loglog_proto::peer::{PeerMessage, RaftKind, RaftMessage};
use loglog_proto::{
    ClusterId, Incarnation, Index, Length, LogId, NodeId, Offset, RaftId, Sequence, Term, WriterId,
};
use loglog_storage::{
    LogStart, Mark, Member, Membership, MetaState, NewBatch, NewEntry, RecoveredBatch, RecoveredEntry,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slog::Logger;

use crate::batch::{Content, Reference};
use crate::gate::Want;
use crate::{Answer, Append, Consensus, Recovery, Role, Settings, WriteGroup, Writers};

const NODES: u32 = 3;
const WRITERS: u64 = 3;

fn raft_id(node: u32) -> RaftId {
    RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(7).unwrap())
}

fn payload(writer: u64, sequence: u64) -> Bytes {
    Bytes::from(format!("{writer}:{sequence}"))
}

/// One node: what is on its disk, and the life it leads at the moment.
struct Node {
    id: RaftId,
    consensus: Consensus<u64>,
    meta: MetaState,
    mark: Mark,
    disk: Vec<NewBatch>,
    unsynced: VecDeque<WriteGroup>,
    committed: Offset,
    wants: Vec<Want>,
    ticks_asleep: u32,
}

impl Node {
    fn new(node: u32, seed: u64) -> Self {
        let member = |node| Member {
            id: raft_id(node),
            peer_address: String::new(),
            client_address: format!("n{node}"),
        };
        let meta = MetaState {
            cluster: ClusterId::new(5).unwrap(),
            node: NodeId::new(node).unwrap(),
            incarnation: Incarnation::new(7).unwrap(),
            term: Term::new(1),
            vote: None,
            membership: Membership {
                index: Index::new(1),
                voters: (1..=NODES).map(member).collect(),
                learners: Vec::new(),
            },
            start: LogStart { offset: Offset::ZERO, index: Index::new(2), previous_term: Term::new(1) },
            segment_bytes_max: Length::new(1 << 20),
        };
        let mark = Mark { index: Index::new(1), offset: Offset::ZERO };
        let consensus = Self::recover(&meta, mark, &[], seed);
        Self {
            id: raft_id(node),
            consensus,
            meta,
            mark,
            disk: Vec::new(),
            unsynced: VecDeque::new(),
            committed: Offset::ZERO,
            wants: Vec::new(),
            ticks_asleep: 0,
        }
    }

    fn recover(meta: &MetaState, mark: Mark, disk: &[NewBatch], seed: u64) -> Consensus<u64> {
        let mut writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, Offset::ZERO);
        let (mut terms, mut tail) = (Vec::<(Index, Term)>::new(), Vec::new());
        for batch in disk {
            if terms.last().is_none_or(|(_, term)| *term < batch.log_id.term) {
                terms.push((batch.log_id.index, batch.log_id.term));
            }
            let (mut end, mut entries) = (batch.offset, Vec::new());
            for new in &batch.entries {
                let length = Length::of(new.payload.len() + OVERHEAD);
                if new.kind == Kind::Data {
                    writers.record(new.writer, new.sequence, end, length, batch.log_id.term);
                }
                entries.push(RecoveredEntry {
                    kind: new.kind,
                    writer: new.writer,
                    sequence: new.sequence,
                    offset: end,
                    payload_len: u32::try_from(new.payload.len()).unwrap(),
                    payload_crc: new.payload_crc,
                    payload: if new.kind == Kind::Data { Bytes::new() } else { new.payload.clone() },
                });
                end += length;
            }
            if batch.log_id.index > mark.index {
                tail.push(RecoveredBatch { log_id: batch.log_id, offset: batch.offset, end, entries });
            }
        }
        writers.commit(mark.offset);
        let recovery = Recovery { meta: meta.clone(), mark, tail, terms, writers };
        let logger = Logger::root(slog::Discard, slog::o!());
        Consensus::new(Settings::default(), recovery, StdRng::seed_from_u64(seed), &logger)
    }

    /// Everything that is not on disk is gone; what was with the writer may have reached it or not.
    fn crash(&mut self, rng: &mut StdRng, seed: u64) {
        while rng.random_bool(0.5) && self.write_next() {}
        self.unsynced.clear();
        self.wants.clear();
        self.consensus = Self::recover(&self.meta, self.mark, &self.disk, seed);
        self.ticks_asleep = rng.random_range(0..15);
    }

    fn write_next(&mut self) -> bool {
        let Some(group) = self.unsynced.pop_front() else { return false };
        if let Some(truncation) = group.truncate {
            assert!(truncation.to >= self.mark.offset, "s05: never below the mark");
            self.disk.retain(|batch| batch.log_id.index < truncation.first_removed);
        }
        for batch in group.batches {
            assert_eq!(batch.offset, end_of(&self.disk), "contiguous on disk");
            self.disk.push(batch);
        }
        true
    }
}

fn reference(entry: &NewEntry) -> Reference {
    Reference {
        writer: entry.writer,
        sequence: entry.sequence,
        payload_len: u32::try_from(entry.payload.len()).unwrap(),
        payload_crc: entry.payload_crc,
    }
}

fn end_of(disk: &[NewBatch]) -> Offset {
    disk.last().map_or(Offset::ZERO, |batch| {
        let bytes: usize = batch.entries.iter().map(|it| it.payload.len() + OVERHEAD).sum();
        batch.offset + Length::of(bytes)
    })
}

/// A client that appends one at a time and sends again whatever is not settled.
#[derive(Default)]
struct Writer {
    acknowledged: Vec<Offset>,
    outstanding: Option<u64>,
    knows: Offset,
}

struct Cluster {
    rng: StdRng,
    seed: u64,
    nodes: Vec<Node>,
    network: Vec<RaftMessage>,
    writers: Vec<Writer>,
    /// Which writer asked with this token.
    tokens: HashMap<u64, (usize, u64)>,
    next_token: u64,
    faults: bool,
    /// Every committed byte that any node showed, by offset.
    seen: BTreeMap<Offset, (LogId, Vec<(WriterId, Sequence)>)>,
    leaders: HashMap<Term, RaftId>,
    fetched: u64,
    old_read: u64,
    now: u64,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = (1..=NODES).map(|node| Node::new(node, rng.random())).collect();
        let writers = (0..WRITERS).map(|_| Writer::default()).collect();
        Self {
            rng,
            seed,
            nodes,
            network: Vec::new(),
            writers,
            tokens: HashMap::new(),
            next_token: 1,
            faults: true,
            seen: BTreeMap::new(),
            leaders: HashMap::new(),
            fetched: 0,
            old_read: 0,
            now: 0,
        }
    }

    fn turn(&mut self, at: usize) {
        self.now += 1;
        let node = &mut self.nodes[at];
        let effects = node.consensus.turn(self.now);
        if let Some(meta) = effects.save {
            node.meta = *meta;
        }
        node.unsynced.extend(effects.groups);
        self.network.extend(effects.messages);
        for want in effects.wants {
            // Most clients have uploaded to every node; some have not.
            if self.faults && self.rng.random_bool(0.3) {
                node.wants.push(want);
            } else {
                let payloads =
                    want.references.iter().map(|it| payload(it.writer.get(), it.sequence.get())).collect();
                node.consensus.payloads(&want, payloads).unwrap();
            }
        }
        if let Some(mark) = effects.mark {
            assert!(mark.offset >= node.mark.offset && mark.offset <= end_of(&node.disk), "s06");
            node.mark = mark;
        }
        if let Some(committed) = effects.committed {
            assert!(committed.offset <= end_of(&node.disk), "s16: committed here is durable here");
            node.committed = node.committed.max(committed.offset);
            for batch in node.disk.iter().filter(|batch| batch.offset < committed.offset) {
                let content = batch.entries.iter().map(|it| (it.writer, it.sequence)).collect::<Vec<_>>();
                let seen = self.seen.entry(batch.offset).or_insert_with(|| (batch.log_id, content.clone()));
                assert_eq!(*seen, (batch.log_id, content), "seed {}: a committed byte changed", self.seed);
            }
        }
        let status = node.consensus.status();
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(node.id);
            assert_eq!(leader, node.id, "seed {}: one leader a term", self.seed);
        }
        for fetch in effects.fetches {
            let range = fetch.first..=fetch.last;
            let read = node.disk.iter().filter(|batch| range.contains(&batch.log_id.index)).take(5);
            let contents = read.map(|batch| {
                let first = &batch.entries[0];
                let content = match first.kind {
                    Kind::Noop => Content::Noop(first.payload.clone()),
                    Kind::Control => Content::Control(first.payload.clone()),
                    Kind::Data => Content::Data(batch.entries.iter().map(reference).collect()),
                };
                (batch.log_id, content)
            });
            let contents = contents.collect();
            node.consensus.fetched(fetch.number, contents);
            self.old_read += 1;
        }
        let answers = effects.answers;
        for (token, answer) in answers {
            self.answered(token, answer);
        }
    }

    fn answered(&mut self, token: u64, answer: Answer) {
        let (writer, sequence) = self.tokens.remove(&token).expect("one answer each");
        let writer = &mut self.writers[writer];
        let is_current = writer.outstanding == Some(token);
        if is_current {
            writer.outstanding = None;
        }
        match answer {
            Answer::Appended(appended) => {
                let at = usize::try_from(sequence - 1).unwrap();
                match writer.acknowledged.get(at) {
                    Some(first) => assert_eq!(*first, appended.offset, "seed {}: two places", self.seed),
                    None => {
                        assert_eq!(writer.acknowledged.len(), at, "one at a time");
                        writer.acknowledged.push(appended.offset);
                    }
                }
            }
            Answer::Refused(refusal) if refusal.code == Code::OutOfOrder => {
                panic!("seed {}: {refusal}: the writer goes one at a time", self.seed)
            }
            Answer::Refused(_) | Answer::Uploaded | Answer::End { .. } => {}
        }
    }

    fn append(&mut self, writer: usize) {
        let state = &mut self.writers[writer];
        if state.outstanding.is_some() && !self.rng.random_bool(0.1) {
            return;
        }
        let sequence = state.acknowledged.len() as u64 + 1;
        let token = self.next_token;
        self.next_token += 1;
        state.outstanding = Some(token);
        self.tokens.insert(token, (writer, sequence));
        let name = writer as u64 + 1;
        let payload = payload(name, sequence);
        let append = Append {
            writer: WriterId::new(name),
            previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
            sequence: Sequence::new(sequence),
            known_end: Some(state.knows),
            expect_end: None,
            payload_crc: loglog_proto::crc32c(&payload),
            payload,
        };
        // The leader if there is one, or anybody, who will refuse.
        let leader = self.nodes.iter().position(|node| node.consensus.status().role == Role::Leader);
        let at = leader
            .filter(|_| self.rng.random_bool(0.9))
            .unwrap_or_else(|| self.rng.random_range(0..self.nodes.len()));
        self.nodes[at].consensus.append(token, append);
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.faults { self.rng.random_range(0..self.network.len().min(8)) } else { 0 };
        let message = self.network.remove(at);
        if self.faults && self.rng.random_bool(0.1) {
            return;
        }
        if self.faults && self.rng.random_bool(0.05) {
            self.network.push(message.clone());
        }
        // Through the wire's own bytes.
        let mut out = bytes::BytesMut::new();
        PeerMessage::Raft(Box::new(message)).encode(&mut out);
        let frame = loglog_proto::frame::split(&mut out, 1 << 26).unwrap().unwrap();
        let PeerMessage::Raft(message) = PeerMessage::decode(&frame).unwrap() else { panic!() };
        let to = usize::try_from(message.to.node().get() - 1).unwrap();
        if self.nodes[to].ticks_asleep == 0 {
            self.nodes[to].consensus.step(*message).unwrap();
            self.turn(to);
        }
    }

    /// Payloads that no client brought come from a node that holds the batch.
    fn fetch(&mut self, at: usize) {
        let Some(want) = self.nodes[at].wants.pop() else { return };
        let holder = self.nodes.iter().flat_map(|node| &node.disk).find(|batch| batch.log_id == want.log_id);
        match holder {
            Some(batch) => {
                assert_eq!(batch.offset, want.offset, "seed {}: Log Matching", self.seed);
                let payloads = batch.entries.iter().map(|entry| entry.payload.clone()).collect();
                self.nodes[at].consensus.payloads(&want, payloads).unwrap();
                self.fetched += 1;
                self.turn(at);
            }
            None => self.nodes[at].wants.push(want),
        }
    }

    fn sync(&mut self, at: usize) {
        let number = self.nodes[at].unsynced.front().map(|group| group.number);
        if let Some(number) = number {
            self.nodes[at].write_next();
            self.nodes[at].consensus.synced(number);
            self.turn(at);
        }
    }

    fn tick(&mut self, at: usize) {
        if self.nodes[at].ticks_asleep > 0 {
            self.nodes[at].ticks_asleep -= 1;
        } else {
            self.nodes[at].consensus.tick();
            self.turn(at);
        }
    }

    fn step(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        match self.rng.random_range(0..100) {
            0..8 => self.tick(at),
            8..20 => {
                let writer = self.rng.random_range(0..self.writers.len());
                self.append(writer);
                self.turn(at);
            }
            20..75 => self.deliver(),
            75..92 if self.nodes[at].ticks_asleep == 0 => self.sync(at),
            92..99 if self.nodes[at].ticks_asleep == 0 => self.fetch(at),
            99 if self.faults && self.rng.random_bool(0.3) => {
                let seed = self.rng.random();
                let mut rng = StdRng::seed_from_u64(seed);
                // Clients of a node that died learn nothing from it.
                self.nodes[at].crash(&mut rng, seed);
                for writer in &mut self.writers {
                    writer.outstanding = None;
                }
            }
            _ => {}
        }
    }
}

fn run(seed: u64) -> (usize, usize, u64, u64) {
    let mut cluster = Cluster::new(seed);
    for _ in 0..6000 {
        cluster.step();
    }
    // Heal: everybody is up, nothing is lost; all must converge.
    cluster.faults = false;
    for writer in &mut cluster.writers {
        writer.outstanding = None;
    }
    let before: usize = cluster.writers.iter().map(|writer| writer.acknowledged.len()).sum();
    for round in 0..4000 {
        for at in 0..cluster.nodes.len() {
            if round % 10 == 0 {
                cluster.tick(at);
            }
            cluster.sync(at);
            cluster.fetch(at);
        }
        for _ in 0..6 {
            cluster.deliver();
        }
        if round % 40 == 0 && round < 3000 {
            for writer in 0..cluster.writers.len() {
                cluster.writers[writer].outstanding = None;
                cluster.append(writer);
            }
            for at in 0..cluster.nodes.len() {
                cluster.turn(at);
            }
        }
    }
    let after: usize = cluster.writers.iter().map(|writer| writer.acknowledged.len()).sum();
    assert!(after > before + 30, "seed {seed}: healed, it makes progress: {before} to {after}");
    let ends: Vec<Offset> = cluster.nodes.iter().map(|node| node.committed).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "seed {seed}: all converge: {ends:?}");
    let mut places = HashMap::new();
    for (offset, (_, content)) in &cluster.seen {
        let mut at = *offset;
        for (writer, sequence) in content {
            if *writer != WriterId::NONE {
                assert!(places.insert((writer.get(), sequence.get()), at).is_none(), "seed {seed}: doubled");
                at += Length::of(payload(writer.get(), sequence.get()).len() + OVERHEAD);
            }
        }
    }
    for (writer, state) in (1u64..).zip(&cluster.writers) {
        for (sequence, offset) in (1u64..).zip(&state.acknowledged) {
            assert_eq!(places.get(&(writer, sequence)), Some(offset), "seed {seed}: acknowledged, and there");
        }
    }
    (after, cluster.leaders.len(), cluster.fetched, cluster.old_read)
}

#[test]
fn s23_a_heartbeat_commits_nothing_beyond_our_end() {
    let mut cluster = Cluster::new(7);
    // A leader that believes more of us than we hold: raft-rs alone would panic on it.
    let heartbeat = RaftMessage {
        kind: RaftKind::Heartbeat,
        from: raft_id(1),
        to: raft_id(2),
        term: Term::new(5),
        log_term: Term::ZERO,
        index: Index::ZERO,
        commit: Index::new(100),
        commit_term: Term::ZERO,
        reject: false,
        reject_hint: Index::ZERO,
        context: Bytes::new(),
        entries: Vec::new(),
    };
    cluster.nodes[1].consensus.step(heartbeat.clone()).unwrap();
    cluster.turn(1);
    let status = cluster.nodes[1].consensus.status();
    assert_eq!(
        (status.term, status.leader, status.committed.index),
        (Term::new(5), Some(raft_id(1)), Index::new(1))
    );
    // And what no member says, or not to us, is not heard at all.
    for stranger in
        [RaftMessage { from: raft_id(9), ..heartbeat.clone() }, RaftMessage { to: raft_id(3), ..heartbeat }]
    {
        assert!(cluster.nodes[1].consensus.step(stranger).is_err());
    }
}

#[test]
fn s26_a_leader_hands_over_to_a_voter_that_has_the_log() {
    let mut cluster = Cluster::new(7);
    cluster.faults = false;
    let leader = |cluster: &Cluster| {
        cluster.nodes.iter().position(|node| node.consensus.status().role == Role::Leader)
    };
    let mut first = None;
    for step in 0..20_000 {
        cluster.step();
        match first {
            None if step > 5000 => {
                first = leader(&cluster);
                if let Some(at) = first {
                    cluster.nodes[at].consensus.hand_over();
                    cluster.turn(at);
                }
            }
            Some(at) if leader(&cluster).is_some_and(|now| now != at) => return,
            _ => {}
        }
    }
    panic!("{first:?} leads for ever");
}

#[test]
fn s32_three_nodes_agree_through_loss_reordering_crashes_and_missing_payloads() {
    let (mut acknowledged, mut leaders, mut fetched, mut old_read) = (0, 0, 0, 0);
    for seed in 0..100 {
        let (a, l, f, o) = run(seed);
        acknowledged += a;
        leaders += l;
        fetched += f;
        old_read += o;
    }
    println!(
        "100 seeds: {acknowledged} acknowledged, {leaders} terms with a leader, {fetched} batches' payloads fetched, {old_read} reads of old batches"
    );
    assert!(
        acknowledged > 4000 && leaders > 80 && fetched > 100 && old_read > 20,
        "{acknowledged} {leaders} {fetched} {old_read}"
    );
}
