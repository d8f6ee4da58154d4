//! Nodes of the production core, in one thread, over a model of a disk: schedules that are written down step by step. Drawn ones are the
//! simulator's, in `integration-tests`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::error::Code;
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::limits::{WRITER_MEMORY, WRITER_SEQUENCES_MAX};
use loglog_proto::peer::{PeerAccepted, PeerMessage, PeerStanding, RaftKind, RaftMessage};
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
use crate::consensus::Order;
use crate::effects::Install;
use crate::gate::Want;
use crate::inline;
use crate::membership::MemberChange;
use crate::old_batches::OldBatch;
use crate::{Answer, Append, Consensus, Recovery, Role, Settings, WriteGroup, Writers};

const NODES: u32 = 3;
const WRITERS: u64 = 3;

/// The incarnation of the nodes that form the cluster; those taken in later count up from here.
const FIRST: u32 = 7;

fn raft_id(node: u32) -> RaftId {
    RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(FIRST).unwrap())
}

fn member(id: RaftId) -> Member {
    Member { id, peer_address: format!("p{id}"), client_address: format!("n{id}") }
}

fn payload(writer: u64, sequence: u64) -> Bytes {
    // Every third one too large to come in the leader's messages.
    let length = if sequence.is_multiple_of(3) { INLINE_BYTES_MAX + 1 } else { 0 };
    Bytes::from(format!("{writer}:{sequence:0length$}"))
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
    install: Option<Install>,
}

impl Node {
    fn new(node: u32, seed: u64) -> Self {
        let voters = (1..=NODES).map(|node| member(raft_id(node))).collect();
        let membership = Membership { index: Index::new(1), voters, learners: Vec::new() };
        Self::begin(raft_id(node), membership, LogStart::GENESIS, seed)
    }

    /// A node that waits to be taken in.
    fn joining(id: RaftId, seed: u64) -> Self {
        let membership = Membership { index: Index::ZERO, voters: Vec::new(), learners: Vec::new() };
        Self::begin(id, membership, LogStart::NOTHING, seed)
    }

    fn begin(id: RaftId, membership: Membership, start: LogStart, seed: u64) -> Self {
        let meta = MetaState {
            cluster: ClusterId::new(5).unwrap(),
            node: id.node(),
            incarnation: id.incarnation(),
            term: start.previous_term,
            vote: None,
            membership,
            start,
            segment_bytes_max: Length::new(1 << 20),
        };
        let mark = start.mark();
        let consensus = Self::recover(&meta, mark, &[], seed);
        Self {
            id,
            consensus,
            meta,
            mark,
            disk: Vec::new(),
            unsynced: VecDeque::new(),
            committed: Offset::ZERO,
            wants: Vec::new(),
            install: None,
        }
    }

    fn recover(meta: &MetaState, mark: Mark, disk: &[NewBatch], seed: u64) -> Consensus<u64> {
        let mut writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, meta.start.offset);
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

    fn write_next(&mut self) -> bool {
        let Some(group) = self.unsynced.pop_front() else { return false };
        if let Some(truncation) = group.truncate {
            assert!(truncation.to >= self.mark.offset, "s05: never below the mark");
            self.disk.retain(|batch| batch.log_id.index < truncation.first_removed);
        }
        for batch in group.batches.iter().cloned() {
            assert_eq!(batch.offset, self.end(), "contiguous on disk");
            self.disk.push(batch);
        }
        true
    }

    /// Where what is on its disk ends.
    fn end(&self) -> Offset {
        end_of(&self.disk).max(self.meta.start.offset)
    }

    /// Takes the place of its log by what another holds (S25).
    fn install(&mut self, install: &Install, disk: Vec<NewBatch>, start: LogStart, seed: u64) {
        self.meta.start = start;
        self.meta.membership = install.content.membership.clone();
        self.mark = Mark { index: install.last.index, offset: install.content.end };
        self.disk = disk;
        self.unsynced.clear();
        self.wants.clear();
        assert_eq!(self.end(), install.content.end, "s25: a snapshot ends where it says");
        self.consensus = Self::recover(&self.meta, self.mark, &self.disk, seed);
    }
}

/// What `meta` keeps, whoever writes it.
fn successor(seed: u64, old: &MetaState, new: &MetaState, what: &str) {
    assert!(new.term >= old.term, "seed {seed}: {what}: term sinks");
    assert!(
        !(new.term == old.term && old.vote.is_some() && new.vote != old.vote),
        "seed {seed}: {what}: revoted"
    );
    assert!(new.start.offset >= old.start.offset, "seed {seed}: {what}: start sinks");
    assert!(new.membership.index >= old.membership.index, "seed {seed}: {what}: membership sinks");
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
    /// Messages, and in which life of the sender's they were sent.
    network: Vec<(u64, RaftMessage)>,
    /// Nodes that were started again: links to them are accepted anew.
    restarted: Vec<RaftId>,
    orders: Vec<u64>,
    writers: Vec<Writer>,
    /// Which writer asked with this token.
    tokens: HashMap<u64, (usize, u64)>,
    next_token: u64,
    /// Whether nobody hears how others stand.
    is_deaf: bool,
    /// A node whose disk is through with nothing.
    hung: Option<usize>,
    /// Every committed byte that any node showed, by offset.
    seen: BTreeMap<Offset, (LogId, Vec<(WriterId, Sequence)>)>,
    leaders: HashMap<Term, RaftId>,
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
            restarted: Vec::new(),
            orders: Vec::new(),
            writers,
            tokens: HashMap::new(),
            next_token: 1,
            is_deaf: false,
            hung: None,
            seen: BTreeMap::new(),
            leaders: HashMap::new(),
            now: 0,
        }
    }

    fn turn(&mut self, at: usize) {
        self.now += 1;
        let node = &mut self.nodes[at];
        let effects = node.consensus.turn(self.now);
        if let Some(meta) = effects.save {
            successor(self.seed, &node.meta, &meta, "save");
            node.meta = *meta;
        }
        node.unsynced.extend(effects.groups);
        let life = node.consensus.status().accepted.life;
        self.network.extend(effects.messages.into_iter().map(|message| (life, message)));
        if let Some(install) = effects.install {
            node.install.get_or_insert(*install);
        }
        if let Some(standing) = effects.standing {
            let from = node.id;
            for other in self.nodes.iter_mut().filter(|other| other.id != from) {
                if !self.is_deaf {
                    other.consensus.stands(from, standing);
                }
            }
        }
        let node = &mut self.nodes[at];
        for want in effects.wants {
            let payloads =
                want.references.iter().map(|it| payload(it.writer.get(), it.sequence.get())).collect();
            node.consensus.payloads(&want, payloads).unwrap();
        }
        if let Some(mark) = effects.mark {
            assert!(mark.offset >= node.mark.offset && mark.offset <= node.end(), "s06");
            node.mark = mark;
        }
        if let Some(meta) = effects.trim {
            let start = meta.start;
            assert!(start.index <= node.consensus.status().committed.index, "s36: never past our own commit");
            node.mark = node.mark.max(start.mark());
            successor(self.seed, &node.meta, &meta, "trim");
            node.meta = *meta;
            node.disk.retain(|batch| batch.offset >= start.offset);
            assert!(
                node.disk.first().is_some_and(|first| first.offset == start.offset),
                "s36: a batch begins there"
            );
        }
        if let Some(committed) = effects.committed {
            assert!(committed.offset <= node.end(), "s16: committed here is durable here");
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
                // With their small payloads or without, as a leader may choose.
                let inline = if batch.log_id.index.get().is_multiple_of(2) {
                    inline::gather(&batch.entries)
                } else {
                    Bytes::new()
                };
                OldBatch { log_id: batch.log_id, content, inline }
            });
            let contents = contents.collect();
            node.consensus.fetched(fetch.number, contents);
        }
        let answers = effects.answers;
        for (token, answer) in answers {
            self.answered(token, answer);
        }
    }

    fn answered(&mut self, token: u64, answer: Answer) {
        if let Some(at) = self.orders.iter().position(|order| *order == token) {
            self.orders.swap_remove(at);
            return;
        }
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
            Answer::Refused(_) | Answer::Uploaded | Answer::End { .. } | Answer::Managed(_) => {}
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
        let (life, message) = self.network.remove(0);
        // Through the wire's own bytes.
        let mut out = bytes::BytesMut::new();
        PeerMessage::Raft(Box::new(message)).encode(&mut out);
        let frame = loglog_proto::frame::split(&mut out, 1 << 26).unwrap().unwrap();
        let PeerMessage::Raft(message) = PeerMessage::decode(&frame).unwrap() else { panic!() };
        let to = self.nodes.iter().position(|node| node.id == message.to);
        if let Some(to) = to {
            self.nodes[to].consensus.step(life, *message).unwrap();
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

    /// Links to a node that was started again are accepted: each other node learns what it holds (S23).
    fn reconnect(&mut self) {
        let Some(peer) = self.restarted.pop() else { return };
        let Some(accepted) =
            self.nodes.iter().find(|it| it.id == peer).map(|it| it.consensus.status().accepted)
        else {
            return;
        };
        for node in self.nodes.iter_mut().filter(|node| node.id != peer) {
            node.consensus.accepted(peer, accepted);
        }
    }

    /// A snapshot is copied from whoever holds its last batch, or it fails.
    fn install(&mut self, at: usize) {
        let Some(install) = self.nodes[at].install.take() else { return };
        let holds = |node: &&Node| {
            node.id != self.nodes[at].id && node.disk.iter().any(|batch| batch.log_id == install.last)
        };
        let holder = self.nodes.iter().find(holds);
        let own = &self.nodes[at];
        // What was brought meanwhile may hold the snapshot's last batch, and more that was acknowledged (Raft §7).
        let holds_it = own.disk.iter().any(|batch| batch.log_id == install.last);
        let is_late = own.mark.index >= install.last.index || holds_it;
        let Some(holder) = holder.filter(|_| !is_late) else {
            self.nodes[at].consensus.install_failed();
            return self.turn(at);
        };
        let start = holder.meta.start;
        let disk = holder.disk.iter().filter(|batch| batch.log_id.index <= install.last.index);
        let (disk, seed) = (disk.cloned().collect(), self.rng.random());
        self.nodes[at].install(&install, disk, start, seed);
        self.restarted.push(self.nodes[at].id);
        for writer in &mut self.writers {
            writer.outstanding = None;
        }
        self.turn(at);
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.consensus.status().role == Role::Leader)
    }

    fn order(&mut self, at: usize, order: Order) {
        let token = self.next_token;
        self.next_token += 1;
        self.orders.push(token);
        self.nodes[at].consensus.manage(token, order, false);
        self.turn(at);
    }

    /// The leader is told to trim, where no writer would be forgotten by it.
    fn trim(&mut self) {
        let Some(at) = self.leader() else { return };
        let last = |writer: &Writer| writer.acknowledged.last().copied().unwrap_or(Offset::ZERO);
        let limit = self.writers.iter().map(last).min().unwrap_or(Offset::ZERO).min(self.nodes[at].committed);
        let node = &self.nodes[at];
        let batches: Vec<_> = node.disk.iter().filter(|batch| batch.offset < limit).collect();
        if batches.len() < 2 {
            return;
        }
        let which = self.rng.random_range(1..batches.len());
        let (before, first) = (batches[which - 1], batches[which]);
        let to =
            LogStart { offset: first.offset, index: first.log_id.index, previous_term: before.log_id.term };
        self.order(at, Order::Trim { asked: to.offset, to });
    }

    fn tick(&mut self, at: usize) {
        self.nodes[at].consensus.tick();
        self.turn(at);
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
            75..92 if self.hung == Some(at) => {}
            75..92 => self.sync(at),
            92..97 => self.fetch(at),
            _ => {}
        }
    }
}

#[test]
fn s23_a_heartbeat_commits_nothing_beyond_our_end() {
    let mut cluster = Cluster::new(7);
    // A leader that believes more of us than we hold: raft-rs alone would panic on it.
    let heartbeat = RaftMessage {
        commit: Index::new(100),
        ..bare(RaftKind::Heartbeat, raft_id(1), raft_id(2), Term::new(5))
    };
    cluster.nodes[1].consensus.step(1, heartbeat.clone()).unwrap();
    cluster.turn(1);
    let status = cluster.nodes[1].consensus.status();
    assert_eq!(
        (status.term, status.leader, status.committed.index),
        (Term::new(5), Some(raft_id(1)), Index::new(1))
    );
    // And what is not said to us is not heard at all.
    assert!(cluster.nodes[1].consensus.step(1, RaftMessage { to: raft_id(3), ..heartbeat }).is_err());
}

/// A cluster without faults in which all nodes hold all that the leader has committed, and which of them leads.
fn settled() -> (Cluster, usize) {
    let mut cluster = Cluster::new(7);
    for _ in 0..10_000 {
        cluster.step();
        let Some(at) = cluster.leader() else { continue };
        let end = cluster.nodes[at].committed;
        if end > Offset::new(1000)
            && cluster.network.is_empty()
            && cluster.nodes.iter().all(|it| it.end() == end)
        {
            return (cluster, at);
        }
    }
    panic!("it does not settle");
}

/// How far the leader believes each other node to be.
fn matched(cluster: &mut Cluster, at: usize) -> HashMap<u32, u64> {
    cluster.nodes[at].consensus.manage(0, Order::List, false);
    let answers = cluster.nodes[at].consensus.turn(1).answers;
    let Some((0, Answer::Managed(managed))) = answers.last() else { panic!("{answers:?}") };
    managed.members.iter().map(|it| (it.node, it.matched.unwrap())).collect()
}

#[test]
fn s23_a_leader_believes_a_peer_that_holds_less() {
    let (mut cluster, at) = settled();
    let leader = cluster.nodes[at].id;
    let peer = cluster.nodes.iter().map(|it| it.id).find(|id| *id != leader).unwrap();
    let all = matched(&mut cluster, at)[&peer.node().get()];
    let status = cluster.nodes[at].consensus.status();
    let last = LogId { term: status.term, index: Index::new(3) };
    cluster.nodes[at].consensus.accepted(peer, PeerAccepted { life: 99, last });
    assert_eq!(matched(&mut cluster, at)[&peer.node().get()], 3);
    // What it acknowledged in an earlier life is heard no more, what it acknowledges in this one is.
    let acknowledged =
        RaftMessage { index: Index::new(all), ..bare(RaftKind::AppendResponse, peer, leader, status.term) };
    cluster.nodes[at].consensus.step(98, acknowledged.clone()).unwrap();
    assert_eq!(matched(&mut cluster, at)[&peer.node().get()], 3);
    cluster.nodes[at].consensus.step(99, acknowledged).unwrap();
    assert_eq!(matched(&mut cluster, at)[&peer.node().get()], all);
}

#[test]
fn a_leader_knows_how_far_each_peer_is_and_a_follower_only_when_it_heard_it() {
    let (mut cluster, at) = settled();
    let follower = (at + 1) % 3;
    let peer = cluster.nodes[follower].id;
    let of = |cluster: &Cluster, at: usize, id: RaftId| {
        let peers = cluster.nodes[at].consensus.peers();
        assert_eq!(peers.len(), 2, "itself is not among them");
        peers.into_iter().find(|it| it.id == id).expect("a member")
    };
    let committed = cluster.nodes[at].consensus.status().committed;
    let seen = of(&cluster, at, peer);
    assert_eq!((seen.matched, seen.matched_end), (Some(committed.index), Some(committed.offset)));
    // One that holds less than it did is behind by the rest; where that ends is on disk only.
    cluster.nodes[at]
        .consensus
        .accepted(peer, PeerAccepted { life: 99, last: LogId { term: Term::new(1), index: Index::new(3) } });
    let seen = of(&cluster, at, peer);
    assert_eq!((seen.matched, seen.matched_end), (Some(Index::new(3)), None));
    let leader = cluster.nodes[at].id;
    let seen = of(&cluster, follower, leader);
    assert_eq!((seen.matched, seen.matched_end), (None, None));
    assert!(seen.silent_ticks.is_some());
    cluster.nodes[follower].consensus.unreachable(leader);
    assert_eq!(of(&cluster, follower, leader).silent_ticks, None);
}

#[test]
fn s37_no_room_on_a_quorum_refuses_appends() {
    let (mut cluster, at) = settled();
    let others: Vec<RaftId> = (0..3).filter(|it| *it != at).map(|it| cluster.nodes[it].id).collect();
    let full = |cluster: &mut Cluster, peer: RaftId, free: u64| {
        let start = (Offset::ZERO, Index::new(2), Term::new(1));
        cluster.nodes[at].consensus.stands(peer, PeerStanding { free, start, is_copying: false });
    };
    let append = |cluster: &mut Cluster, sequence: u64| {
        let payload = Bytes::from_static(b"x");
        let append = Append {
            writer: WriterId::new(77),
            previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
            sequence: Sequence::new(sequence),
            known_end: Some(cluster.nodes[at].committed),
            expect_end: None,
            payload_crc: loglog_proto::crc32c(&payload),
            payload,
        };
        cluster.nodes[at].consensus.append(0, append);
        let effects = cluster.nodes[at].consensus.turn(1);
        cluster.nodes[at].unsynced.extend(effects.groups);
        // What is queued behind a group that is being written is not decided before that is done.
        cluster.sync(at);
        effects.answers.iter().any(|(_, it)| matches!(it, Answer::Refused(it) if it.code == Code::DiskFull))
    };
    full(&mut cluster, others[0], 1000);
    assert!(!append(&mut cluster, 1), "two of three have room");
    full(&mut cluster, others[1], 1000);
    assert!(append(&mut cluster, 2), "one of three has");
    full(&mut cluster, others[0], u64::MAX);
    assert!(!append(&mut cluster, 2));
}

#[test]
fn s26_a_leader_hands_over_to_a_voter_that_has_the_log() {
    let mut cluster = Cluster::new(7);
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
fn a_leader_whose_disk_hangs_is_followed_by_one_whose_disk_does_not() {
    let (mut cluster, at) = settled();
    let end = cluster.nodes[at].committed;
    cluster.hung = Some(at);
    for _ in 0..20_000 {
        cluster.step();
        if cluster.leader().is_some_and(|now| now != at && cluster.nodes[now].committed > end) {
            assert!(cluster.leaders.len() < 5, "it hands over, and there is no fight: {:?}", cluster.leaders);
            return;
        }
    }
    panic!("nothing is committed while the leader's disk hangs");
}

#[test]
fn s37_a_full_leader_is_followed_by_one_that_has_room() {
    let (mut cluster, at) = settled();
    let end = cluster.nodes[at].committed;
    cluster.nodes[at].consensus.set_available(Settings::default().free_min);
    for _ in 0..20_000 {
        cluster.step();
        if cluster.leader().is_some_and(|now| now != at && cluster.nodes[now].committed > end) {
            return;
        }
    }
    panic!("nothing is committed while the leader's disk is full");
}

/// Steps of the others, as long as one is away.
fn without(cluster: &mut Cluster, away: usize, steps: usize) {
    let id = cluster.nodes[away].id;
    for _ in 0..steps {
        cluster.step();
        cluster.network.retain(|(_, message)| message.from != id && message.to != id);
    }
}

#[test]
fn a_leader_whose_disk_is_needed_leads_on_however_long_it_hangs_or_is_full() {
    for is_full in [false, true] {
        let (mut cluster, at) = settled();
        let away = (at + 1) % 3;
        without(&mut cluster, away, 2000);
        let leaders = cluster.leaders.len();
        if is_full {
            cluster.nodes[at].consensus.set_available(Settings::default().free_min);
        } else {
            cluster.hung = Some(at);
        }
        without(&mut cluster, away, 5000);
        assert_eq!((cluster.leader(), cluster.leaders.len()), (Some(at), leaders), "full: {is_full}");
    }
}

#[test]
fn s37_a_full_leader_leads_on_where_nobody_has_room() {
    let (mut cluster, at) = settled();
    cluster.is_deaf = true;
    let start = (Offset::ZERO, Index::new(2), Term::new(1));
    let peers = (0..3).filter(|it| *it != at).map(|it| cluster.nodes[it].id).collect::<Vec<_>>();
    for peer in peers {
        let standing = PeerStanding { free: 1000, start, is_copying: false };
        cluster.nodes[at].consensus.stands(peer, standing);
    }
    cluster.nodes[at].consensus.set_available(Settings::default().free_min);
    let (mut end, leaders) = (Offset::ZERO, cluster.leaders.len());
    for step in 0..5000 {
        cluster.step();
        if step == 1000 {
            // What was on its way is through.
            end = cluster.nodes[at].committed;
        }
    }
    assert_eq!((cluster.leader(), cluster.leaders.len()), (Some(at), leaders));
    assert_eq!(cluster.nodes[at].committed, end);
}

/// A message of this kind from another node to `to`.
fn bare(kind: RaftKind, from: RaftId, to: RaftId, term: Term) -> RaftMessage {
    RaftMessage {
        kind,
        from,
        to,
        term,
        log_term: Term::ZERO,
        index: Index::ZERO,
        commit: Index::ZERO,
        commit_term: Term::ZERO,
        reject: false,
        reject_hint: Index::ZERO,
        context: Bytes::new(),
        entries: Vec::new(),
    }
}

#[test]
fn s19_what_no_node_of_ours_says_is_not_heard() {
    let (mut cluster, at) = settled();
    let (follower, leader) = ((at + 1) % 3, cluster.nodes[at].id);
    let (peer, term) = (cluster.nodes[follower].id, cluster.nodes[at].consensus.status().term);
    let asked = bare(RaftKind::ReadIndex, peer, leader, term);
    assert!(cluster.nodes[at].consensus.step(1, asked).is_err(), "raft-rs looks for its context unasked");
    let old = bare(RaftKind::Heartbeat, leader, peer, Term::ZERO);
    assert!(cluster.nodes[follower].consensus.step(1, old).is_err(), "raft-rs takes term 0 for its own");
    // Numbers that nobody reaches.
    for kind in [
        RaftKind::AppendResponse,
        RaftKind::TransferLeader,
        RaftKind::TimeoutNow,
        RaftKind::ReadIndexResponse,
        RaftKind::HeartbeatResponse,
        RaftKind::SnapshotStatus,
    ] {
        let huge = Index::new(u64::MAX);
        let message =
            RaftMessage { index: huge, commit: huge, reject_hint: huge, ..bare(kind, peer, leader, term) };
        let life = cluster.nodes[follower].consensus.status().accepted.life;
        let _ = cluster.nodes[at].consensus.step(life, message);
        cluster.turn(at);
    }
}

#[test]
fn s36_a_start_that_is_no_place_in_our_log_is_not_followed() {
    let (mut cluster, at) = settled();
    let (follower, peer) = ((at + 1) % 3, cluster.nodes[at].id);
    let start = (Offset::new(u64::MAX / 2), Index::new(3), Term::new(1));
    let standing = PeerStanding { free: 1 << 40, start, is_copying: false };
    cluster.nodes[follower].consensus.stands(peer, standing);
    assert!(cluster.nodes[follower].consensus.turn(1).trim.is_none());
}

/// A snapshot that was given up by the leader, and was installed all the same: is the whole log copied again?
#[test]
fn s25_a_peer_that_joins_our_log_is_not_sent_another_snapshot() {
    let (mut cluster, at) = settled();
    cluster.trim();
    for _ in 0..300 {
        for n in 0..3 {
            cluster.sync(n);
        }
        cluster.deliver();
    }
    let start = cluster.nodes[at].meta.start;
    assert!(start.index > Index::new(2), "trimmed: {start:?}");
    // Another node begins with nothing.
    let id = RaftId::new(NodeId::new(9).unwrap(), Incarnation::new(9).unwrap());
    cluster.order(at, Order::Members(MemberChange::Add(member(id))));
    cluster.nodes.push(Node::joining(id, 5));
    for round in 0..300 {
        if round % 10 == 0 {
            for n in 0..4 {
                cluster.tick(n);
            }
        }
        for n in 0..3 {
            cluster.sync(n);
        }
        for _ in 0..6 {
            cluster.deliver();
        }
        if cluster.nodes[3].install.is_some() {
            break;
        }
    }
    assert!(cluster.nodes[3].install.is_some(), "a snapshot came");
    // The log grows; the link flaps while it copies (life the same, nothing held yet).
    for _ in 0..5 {
        for writer in 0..3 {
            cluster.writers[writer].outstanding = None;
            cluster.append(writer);
        }
        for n in 0..3 {
            cluster.turn(n);
        }
        for _ in 0..100 {
            for n in 0..3 {
                cluster.sync(n);
            }
            cluster.deliver();
        }
    }
    let nothing = cluster.nodes[3].consensus.status().accepted;
    cluster.nodes[at].consensus.accepted(id, nothing);
    cluster.turn(at);
    for round in 0..100 {
        if round % 10 == 0 {
            cluster.tick(at);
        }
        for _ in 0..6 {
            cluster.deliver();
        }
        for n in 0..3 {
            cluster.sync(n);
        }
    }
    // The first one is in place.
    cluster.install(3);
    while !cluster.restarted.is_empty() {
        cluster.reconnect();
    }
    cluster.turn(at);
    let mut again = false;
    for round in 0..200 {
        if round % 10 == 0 {
            for n in 0..4 {
                cluster.tick(n);
            }
        }
        for _ in 0..6 {
            cluster.deliver();
        }
        for n in 0..4 {
            cluster.sync(n);
            cluster.fetch(n);
        }
        again |= cluster.nodes[3].install.is_some();
    }
    assert!(!again, "the whole log is copied again: {:?}", cluster.nodes[3].install);
}

#[test]
fn s25_an_install_never_drops_what_was_acknowledged_meanwhile() {
    let (mut cluster, a) = settled();
    let (l, f) = ((a + 1) % 3, (a + 2) % 3);
    let (ida, idf) = (cluster.nodes[a].id, cluster.nodes[f].id);
    for writer in &mut cluster.writers {
        writer.outstanding = None;
    }
    let run = |cluster: &mut Cluster, up: &[usize], cut: &[(RaftId, RaftId)], rounds: usize| {
        for round in 0..rounds {
            for at in up {
                if round % 10 == 0 {
                    cluster.tick(*at);
                }
                cluster.sync(*at);
                cluster.fetch(*at);
            }
            for _ in 0..6 {
                if let Some((_, m)) = cluster.network.first()
                    && (cut.contains(&(m.from, m.to)) || !up.iter().any(|at| cluster.nodes[*at].id == m.to))
                {
                    cluster.network.remove(0);
                    continue;
                }
                cluster.deliver();
            }
        }
    };
    let append = |cluster: &mut Cluster, at: usize| {
        for writer in 0..3 {
            cluster.writers[writer].outstanding = None;
            cluster.append(writer);
        }
        cluster.turn(at);
    };
    // F is away; A and L go on; A trims.
    append(&mut cluster, a);
    run(&mut cluster, &[a, l], &[], 30);
    append(&mut cluster, a);
    run(&mut cluster, &[a, l], &[], 30);
    // Nobody hears how others stand from now on: it is said once a second only.
    cluster.is_deaf = true;
    // The last batch that L knows to be committed; A trims up to there, L takes the entry and never hears that it is committed.
    let batches = &cluster.nodes[a].disk;
    let last = batches.len() - 1;
    let (before, first) = (&batches[last - 1], &batches[last]);
    let to = LogStart { offset: first.offset, index: first.log_id.index, previous_term: before.log_id.term };
    cluster.order(a, Order::Trim { asked: to.offset, to });
    for _ in 0..20 {
        cluster.sync(a);
        cluster.sync(l);
        if cluster.nodes[a].meta.start == to {
            break;
        }
        cluster.deliver();
    }
    cluster.network.clear();
    assert_eq!(cluster.nodes[a].meta.start, to, "A has trimmed");
    assert!(cluster.nodes[l].meta.start != to, "L has not");
    // F is back; A sends it a snapshot. L hears nothing.
    run(&mut cluster, &[a, f], &[], 40);
    let install = cluster.nodes[f].install.clone().expect("a snapshot for F");
    // A crashes. L leads, with F; it appends to F, whose copy goes on.
    cluster.network.clear();
    for _ in 0..3000 {
        run(&mut cluster, &[l, f], &[], 1);
        for at in [l, f] {
            cluster.tick(at);
        }
        if cluster.nodes[l].consensus.status().role == Role::Leader {
            break;
        }
    }
    assert_eq!(cluster.nodes[l].consensus.status().role, Role::Leader);
    // From now on what L says is heard until F holds all of it; that it is committed F does not hear.
    for round in 0..400 {
        if round % 10 == 0 {
            cluster.tick(l);
        }
        cluster.sync(l);
        cluster.sync(f);
        cluster.fetch(f);
        if round == 3 {
            append(&mut cluster, l);
        }
        let Some((_, m)) = cluster.network.first().cloned() else { continue };
        let silent = m.to == ida || (m.to == idf && m.commit >= install.last.index);
        if silent {
            cluster.network.remove(0);
        } else {
            cluster.deliver();
        }
    }
    let committed = cluster.nodes[l].committed;
    // L crashes; F puts the snapshot in place, copied from A, which is back.
    assert!(cluster.nodes[f].mark.index < install.last.index, "what finish_install looks at");
    assert!(cluster.nodes[f].end() >= committed, "F holds what was acknowledged");
    cluster.install(f);
    assert!(cluster.nodes[f].end() >= committed, "acknowledged entries are on L alone now");
}
