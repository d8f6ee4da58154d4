//! Nodes of the production core, in one thread, from one seed: messages are lost, doubled and reordered, nodes crash with what was
//! not synced, payloads are missing, the log is trimmed, members come, go and are wiped. The logs must agree, and every
//! acknowledged append be there once.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::error::Code;
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
use crate::consensus::{Order, Place};
use crate::effects::Install;
use crate::gate::Want;
use crate::membership::MemberChange;
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
    install: Option<Install>,
    ticks_asleep: u32,
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
            ticks_asleep: 0,
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

    /// Everything that is not on disk is gone; what was with the writer may have reached it or not.
    fn crash(&mut self, rng: &mut StdRng, seed: u64) {
        while rng.random_bool(0.5) && self.write_next() {}
        self.unsynced.clear();
        self.wants.clear();
        self.install = None;
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

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    acknowledged: usize,
    leaders: usize,
    fetched: u64,
    old_read: u64,
    trims: u64,
    changes: u64,
    installs: u64,
    wiped: u64,
}

struct Cluster {
    rng: StdRng,
    seed: u64,
    nodes: Vec<Node>,
    /// Messages, and in which life of the sender's they were sent.
    network: Vec<(u64, RaftMessage)>,
    /// Nodes that were started again: links to them are accepted anew.
    restarted: Vec<RaftId>,
    /// Nodes that were wiped, until their successors vote; the next incarnation; orders given.
    wiped: Option<RaftId>,
    incarnation: u32,
    orders: Vec<u64>,
    counts: Counts,
    writers: Vec<Writer>,
    /// Which writer asked with this token.
    tokens: HashMap<u64, (usize, u64)>,
    next_token: u64,
    faults: bool,
    /// Whether members change.
    moves: bool,
    /// Whether directions are cut for long, nodes sleep long, crash right behind a save, and what is said of standings comes late or
    /// never.
    nasty: bool,
    cuts: Vec<(RaftId, RaftId)>,
    /// Standings on their way: from, to, what.
    stands: Vec<(RaftId, RaftId, PeerStanding)>,
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
            wiped: None,
            incarnation: FIRST,
            orders: Vec::new(),
            counts: Counts::default(),
            writers,
            tokens: HashMap::new(),
            next_token: 1,
            faults: true,
            moves: false,
            nasty: seed % 2 == 1,
            cuts: Vec::new(),
            stands: Vec::new(),
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
        let cut = self.faults && self.nasty && self.rng.random_bool(0.003);
        let node = &mut self.nodes[at];
        if cut {
            // Crash right behind the save.
            let seed = self.rng.random();
            let mut rng = StdRng::seed_from_u64(seed);
            let id = node.id;
            node.crash(&mut rng, seed);
            self.restarted.push(id);
            for writer in &mut self.writers {
                writer.outstanding = None;
            }
            return;
        }
        node.unsynced.extend(effects.groups);
        let life = node.consensus.status().accepted.life;
        self.network.extend(effects.messages.into_iter().map(|message| (life, message)));
        if let Some(install) = effects.install {
            node.install.get_or_insert(*install);
        }
        self.counts.changes += u64::from(effects.members.is_some());
        if let Some(standing) = effects.standing {
            let from = node.id;
            for other in self.nodes.iter_mut().filter(|other| other.id != from) {
                if self.nasty && self.faults || !self.faults && !self.cuts.is_empty() {
                    self.stands.push((from, other.id, standing));
                } else {
                    other.consensus.stands(from, standing);
                }
            }
        }
        let node = &mut self.nodes[at];
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
            assert!(mark.offset >= node.mark.offset && mark.offset <= node.end(), "s06");
            // It rides unsynced: a crash may find an old one.
            if !self.faults || self.rng.random_bool(0.5) || effects.trim.is_some() {
                node.mark = mark;
            }
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
            self.counts.trims += 1;
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
                (batch.log_id, content)
            });
            let contents = contents.collect();
            node.consensus.fetched(fetch.number, contents);
            self.counts.old_read += 1;
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
        let at = if self.faults { self.rng.random_range(0..self.network.len().min(8)) } else { 0 };
        let (life, message) = self.network.remove(at);
        if self.faults && self.rng.random_bool(0.1) {
            return;
        }
        if self.faults && self.cuts.contains(&(message.from, message.to)) {
            return;
        }
        if self.faults && self.rng.random_bool(0.05) {
            self.network.push((life, message.clone()));
        }
        // Through the wire's own bytes.
        let mut out = bytes::BytesMut::new();
        PeerMessage::Raft(Box::new(message)).encode(&mut out);
        let frame = loglog_proto::frame::split(&mut out, 1 << 26).unwrap().unwrap();
        let PeerMessage::Raft(message) = PeerMessage::decode(&frame).unwrap() else { panic!() };
        let to = self.nodes.iter().position(|node| node.id == message.to);
        if let Some(to) = to.filter(|to| self.nodes[*to].ticks_asleep == 0) {
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
                self.counts.fetched += 1;
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
        let Some(holder) = holder.filter(|_| !(is_late || self.faults && self.rng.random_bool(0.2))) else {
            self.nodes[at].consensus.install_failed();
            return self.turn(at);
        };
        let start = holder.meta.start;
        let disk = holder.disk.iter().filter(|batch| batch.log_id.index <= install.last.index);
        let (disk, seed) = (disk.cloned().collect(), self.rng.random());
        self.nodes[at].install(&install, disk, start, seed);
        self.restarted.push(self.nodes[at].id);
        self.counts.installs += 1;
        for writer in &mut self.writers {
            writer.outstanding = None;
        }
        self.turn(at);
    }

    /// For a look at what went wrong.
    fn tell(&self) {
        for node in &self.nodes {
            let status = node.consensus.status();
            let members = &node.meta.membership;
            let ids = |members: &[Member]| members.iter().map(|it| it.id.to_string()).collect::<Vec<_>>();
            println!(
                "{}: {:?} term {} committed {:?} start {:?} mark {:?} end {} members at {} {:?} {:?}, unsynced {}, wants {}, install {:?}, leader {:?}",
                node.id,
                status.role,
                status.term,
                status.committed,
                node.meta.start,
                node.mark,
                node.end(),
                members.index,
                ids(&members.voters),
                ids(&members.learners),
                node.unsynced.len(),
                node.wants.len(),
                node.install,
                status.leader
            );
        }
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

    /// Members come and go; one of three may be wiped and come back as another.
    fn change_members(&mut self) {
        let Some(at) = self.leader() else { return };
        let membership = self.nodes[at].meta.membership.clone();
        let voters: Vec<RaftId> = membership.voters.iter().map(|it| it.id).collect();
        let learners: Vec<RaftId> = membership.learners.iter().map(|it| it.id).collect();
        if self.wiped.is_some_and(|wiped| !voters.contains(&wiped)) && learners.is_empty() {
            self.wiped = None;
        }
        let fresh = |cluster: &mut Self, node: NodeId| {
            cluster.incarnation += 1;
            let id = RaftId::new(node, Incarnation::new(cluster.incarnation).unwrap());
            let seed = cluster.rng.random();
            cluster.nodes.push(Node::joining(id, seed));
            member(id)
        };
        let change = match self.rng.random_range(0..4) {
            0 if voters.len() + learners.len() < 5 => {
                let node =
                    (1..=9).filter_map(NodeId::new).find(|it| !self.nodes.iter().any(|n| n.id.node() == *it));
                let Some(node) = node else { return };
                MemberChange::Add(fresh(self, node))
            }
            1 if !learners.is_empty() => {
                MemberChange::Promote(learners[self.rng.random_range(0..learners.len())].node())
            }
            2 if voters.len() > 2 && self.wiped.is_none() => {
                MemberChange::Remove(voters[self.rng.random_range(0..voters.len())].node())
            }
            3 if voters.len() > 2
                && self.wiped.is_none()
                && learners.is_empty()
                && !self.is_change_open(membership.index) =>
            {
                let gone = voters[self.rng.random_range(0..voters.len())];
                if gone == self.nodes[at].id {
                    return;
                }
                self.nodes.retain(|node| node.id != gone);
                self.wiped = Some(gone);
                self.counts.wiped += 1;
                for writer in &mut self.writers {
                    writer.outstanding = None;
                }
                return;
            }
            _ => match self.wiped.filter(|wiped| voters.contains(wiped)) {
                Some(gone) => match self.nodes.iter().find(|node| node.id.node() == gone.node()) {
                    Some(successor) => MemberChange::Replace(member(successor.id)),
                    None => MemberChange::Replace(fresh(self, gone.node())),
                },
                None => return,
            },
        };
        let Some(at) = self.leader() else { return };
        self.order(at, Order::Members(change));
    }

    /// Whether any log holds a change of members that may yet come: then nobody is to be wiped.
    fn is_change_open(&self, applied: Index) -> bool {
        let queued =
            |node: &Node| node.unsynced.iter().flat_map(|group| &group.batches).cloned().collect::<Vec<_>>();
        let logs = self.nodes.iter().flat_map(|node| node.disk.iter().cloned().chain(queued(node)));
        logs.filter(|batch| batch.log_id.index > applied).any(|batch| {
            batch.entries[0].kind == Kind::Control && batch.entries[0].payload.first() == Some(&2)
        })
    }

    /// Nodes that are no members any more are switched off, once that is committed.
    fn switch_off(&mut self) {
        let Some(at) = self.leader() else { return };
        let membership = self.nodes[at].meta.membership.clone();
        let index = self.nodes[at].consensus.status().committed.index;
        let is_gone = |node: &Node| {
            let is_member = membership.voters.iter().chain(&membership.learners).any(|it| it.id == node.id);
            let was_member = node.meta.membership.index > Index::ZERO;
            !is_member && was_member && membership.index <= index
        };
        // Only what a node learnt itself is sure: a leader of old may think otherwise.
        self.nodes.retain(|node| !(is_gone(node) && node.consensus.status().place == Place::Gone));
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
            92..97 if self.nodes[at].ticks_asleep == 0 => self.fetch(at),
            97 if self.nasty => match self.rng.random_range(0..4) {
                0 if self.rng.random_bool(0.2) => {
                    // Some directions are cut, for long.
                    self.cuts.clear();
                    if self.rng.random_bool(0.7) {
                        let ids: Vec<RaftId> = self.nodes.iter().map(|n| n.id).collect();
                        let one = ids[self.rng.random_range(0..ids.len())];
                        for id in ids {
                            if id != one {
                                if self.rng.random_bool(0.8) {
                                    self.cuts.push((one, id));
                                }
                                if self.rng.random_bool(0.8) {
                                    self.cuts.push((id, one));
                                }
                            }
                        }
                    }
                }
                1 if self.rng.random_bool(0.1) => self.nodes[at].ticks_asleep = 200,
                _ => {
                    while !self.stands.is_empty() && self.rng.random_bool(0.8) {
                        let which = self.rng.random_range(0..self.stands.len());
                        let (from, to, standing) = self.stands.swap_remove(which);
                        if self.rng.random_bool(0.5) || self.cuts.contains(&(from, to)) {
                            continue;
                        }
                        if let Some(node) = self.nodes.iter_mut().find(|n| n.id == to) {
                            node.consensus.stands(from, standing);
                        }
                    }
                }
            },
            98 => match self.rng.random_range(0..6) {
                0 => self.reconnect(),
                1 if self.nodes[at].ticks_asleep == 0 => self.install(at),
                2 => self.trim(),
                3 | 4 if self.moves => self.change_members(),
                5 => self.switch_off(),
                _ => {}
            },
            99 if self.faults && self.rng.random_bool(0.3) => {
                let seed = self.rng.random();
                let mut rng = StdRng::seed_from_u64(seed);
                // Clients of a node that died learn nothing from it.
                self.nodes[at].crash(&mut rng, seed);
                self.restarted.push(self.nodes[at].id);
                for writer in &mut self.writers {
                    writer.outstanding = None;
                }
            }
            _ => {}
        }
    }
}

fn run(seed: u64, moves: bool) -> Counts {
    let mut cluster = Cluster::new(seed);
    cluster.moves = moves;
    for _ in 0..if moves { 20_000 } else { 6000 } {
        cluster.step();
    }
    // Heal: everybody is up, nothing is lost; all must converge.
    cluster.faults = false;
    cluster.cuts.clear();
    for node in &mut cluster.nodes {
        node.ticks_asleep = node.ticks_asleep.min(15);
    }
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
            cluster.install(at);
        }
        cluster.reconnect();
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
    // Shown only where the test fails.
    cluster.tell();
    let after: usize = cluster.writers.iter().map(|writer| writer.acknowledged.len()).sum();
    assert!(after > before + 30, "seed {seed}: healed, it makes progress: {before} to {after}");
    let leader = cluster.leader().expect("somebody leads");
    let membership = cluster.nodes[leader].meta.membership.clone();
    let is_member = |id: RaftId| membership.voters.iter().chain(&membership.learners).any(|it| it.id == id);
    let members = cluster.nodes.iter().filter(|node| is_member(node.id));
    let ends: Vec<_> = members.map(|node| (node.id.node().get(), node.committed)).collect();
    assert!(ends.iter().all(|(_, end)| *end == ends[0].1), "seed {seed}: all converge: {ends:?}");
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
    Counts { acknowledged: after, leaders: cluster.leaders.len(), ..cluster.counts }
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
    cluster.faults = false;
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

fn sum(runs: impl Iterator<Item = Counts>) -> Counts {
    runs.fold(Counts::default(), |sum, it| Counts {
        acknowledged: sum.acknowledged + it.acknowledged,
        leaders: sum.leaders + it.leaders,
        fetched: sum.fetched + it.fetched,
        old_read: sum.old_read + it.old_read,
        trims: sum.trims + it.trims,
        changes: sum.changes + it.changes,
        installs: sum.installs + it.installs,
        wiped: sum.wiped + it.wiped,
    })
}

#[test]
fn s32_three_nodes_agree_through_loss_reordering_crashes_and_missing_payloads() {
    let all = sum((0..100).map(|seed| run(seed, false)));
    println!("all seeds: {all:?}");
    let Counts { acknowledged, leaders, fetched, old_read, trims, .. } = all;
    assert!(acknowledged > 4000 && leaders > 80 && fetched > 100 && old_read > 20 && trims > 20, "{all:?}");
}

#[test]
fn s26_members_come_go_and_are_wiped_and_nothing_is_lost() {
    let all = sum((0..60).map(|seed| run(seed, true)));
    println!("all seeds: {all:?}");
    let Counts { acknowledged, changes, installs, wiped, trims, .. } = all;
    assert!(acknowledged > 4000 && changes > 60 && installs > 20 && wiped > 5 && trims > 20, "{all:?}");
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
    let (ida, idl, idf) = (cluster.nodes[a].id, cluster.nodes[l].id, cluster.nodes[f].id);
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
    cluster.cuts.push((ida, idl));
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
