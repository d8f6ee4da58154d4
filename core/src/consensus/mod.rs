//! Consensus: orders appends into the one log. The only code that names raft-rs.
//!
//! ```text
//!   append ─► queue ─► decide, propose ─► raft-rs ─► write group ─► synced ─► raft-rs ─► committed ─► answers
//! ```
//!
//! Owns:   the Raft state machine, the appends that wait for their place or their commit, the writers' table.
//! Keeps:  a batch's offset is fixed in the turn that proposes it, behind all of Raft's own entries (S21);
//!         what is answered or handed to readers ends at the last committed batch that raft-rs delivered (S16).
//! Never:  reads a clock, an RNG of its own, a file or a socket: the shell calls in and carries out the [`Effects`].

mod hand_over;
mod log_store;
mod manage;
mod messages;
mod peers;
mod propose;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::error::Refusal;
use loglog_proto::limits::BATCH_BYTES;
use loglog_proto::peer::{PeerAccepted, PeerStanding, RaftMessage};
use loglog_proto::response::Appended;
use loglog_proto::{Index, Length, LogId, Offset, RaftId, Sequence, Term, WriterId};
use loglog_storage::{LogStart, Mark, MetaState, NewBatch, NewEntry, RecoveredBatch};
use raft::eraftpb::{Entry, EntryType};
use raft::{GetEntriesContext, RawNode, StateRole};
use rand::Rng;
use rand::rngs::StdRng;
use slog::Logger;

pub use self::hand_over::Reason;
use self::log_store::{Foundation, LogStore, log_id};
pub use self::manage::Order;
use self::manage::{Ordered, changes_members};
pub use self::peers::PeerError;
use crate::append::Append;
use crate::batch::{Content, recovered_content};
use crate::certain::Certain;
use crate::control::Control;
use crate::effects::{Answer, Committed, Effects, Fetch, Install};
use crate::gate::Gate;
use crate::inline;
use crate::write_queue::{Durable, WriteQueue};
use crate::writers::Writers;

/// What does not change while a node runs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Write groups that may be with the segment writer at a time.
    pub groups_max: usize,
    /// A write group is closed before it passes this many bytes.
    pub group_bytes: Length,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Appends are refused with [`DiskFull`](loglog_proto::error::Code::DiskFull) while the disk has less than this left, bytes.
    pub free_min: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            groups_max: 2,
            group_bytes: Length::new(4 << 20),
            election_ticks: 10,
            heartbeat_ticks: 2,
            free_min: 128 << 20,
        }
    }
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovery {
    /// Identity, term, vote and membership.
    pub meta: MetaState,
    /// How far the log was surely committed.
    pub mark: Mark,
    /// Every batch above the mark, synced (S8).
    pub tail: Vec<RecoveredBatch>,
    /// First index of each term in the segments' headers, in order.
    pub terms: Vec<(Index, Term)>,
    /// The writers' table, rebuilt from the log, the tail included.
    pub writers: Writers,
}

/// How consensus stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsensusStatus {
    /// What the node does.
    pub role: Role,
    /// Raft's epoch.
    pub term: Term,
    /// Who leads, where known.
    pub leader: Option<RaftId>,
    /// How far the log is committed.
    pub committed: Committed,
    /// How far it is synced here.
    pub durable: Offset,
    /// What a peer is told when it says hello.
    pub accepted: PeerAccepted,
    /// Index of the membership that this node goes by.
    pub membership: Index,
    /// Whether this node counts for the quorum, or only follows, or is no member (any more, or yet).
    pub place: Place,
    /// Appends that wait for their place.
    pub queued: usize,
    /// Batches that this node proposed and that are not committed yet.
    pub in_flight: usize,
    /// Writers remembered.
    pub writers: usize,
    /// Whether appends are refused for want of space.
    pub disk_full: bool,
}

/// How another member stands, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Who.
    pub id: RaftId,
    /// The last batch that it surely holds; only a leader knows.
    pub matched: Option<Index>,
    /// Where that batch ends, if it is recent enough to be known from memory.
    pub matched_end: Option<Offset>,
    /// Ticks since it was heard last.
    pub silent_ticks: Option<u64>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders appends.
    Leader,
    /// Follows.
    Follower,
    /// Wants to lead.
    Candidate,
}

/// A node's place in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Counts for the quorum.
    Voter,
    /// Only follows.
    Learner,
    /// Not taken in yet.
    Joining,
    /// Removed.
    Gone,
}

/// The state machine. `T` says where an answer goes; it comes back in [`Effects::answers`], once.
pub struct Consensus<T> {
    settings: Settings,
    raw: RawNode<LogStore>,
    rng: StdRng,
    /// The election timeout drawn for this term and role (S18).
    timeout: (u64, StateRole, usize),
    meta: MetaState,
    writers: Writers,
    queue: VecDeque<(T, Append)>,
    proposed: VecDeque<Proposed<T>>,
    gate: Gate,
    /// While it leads others.
    recent: inline::Recent,
    /// Small payloads of old batches that were read for a peer, until the messages of this turn are made.
    read_inline: HashMap<LogId, Bytes>,
    write: WriteQueue,
    /// Messages that wait until the `Ready` of that number is persisted (S15).
    held: VecDeque<(u64, Vec<RaftMessage>)>,
    committed: Committed,
    /// How much of it the shell was told; at a start it knows of the mark.
    told: Committed,
    certain: Certain<T>,
    /// Refusals that need no certainty, for the next turn.
    refused: Vec<(T, Answer)>,
    /// Answers to repeated appends, by the end that must be committed first.
    repeats: BTreeMap<(Offset, u64), (T, Appended)>,
    repeats_next: u64,
    /// Makes this life's ReadIndex contexts unlike any other's (S20).
    nonce: u64,
    /// Old batches that the shell reads for raft-rs.
    fetching: Vec<(u64, Index, GetEntriesContext)>,
    fetches: u64,
    /// Number of the newest `Ready` that has reached the disk.
    persisted_ready: u64,
    available: u64,
    /// Bytes of the append that was refused last for want of space, until there is room for as many.
    refused_bytes: u64,
    /// Ticks since the writer was last through with a group, while it has one.
    unsynced_ticks: usize,
    /// Who was asked last to lead instead, and when, in ticks.
    asked: Option<(RaftId, u64)>,
    role: Role,
    /// Orders to be decided, and those whose control entries are not committed yet.
    orders: VecDeque<(T, Order, bool)>,
    ordered: VecDeque<Ordered<T>>,
    /// Where this node is reached, if that is better known than by the membership.
    addresses: Option<(String, String)>,
    /// Ticks since the start, and at which of them each peer was heard last.
    ticks: u64,
    heard: BTreeMap<RaftId, u64>,
    /// The life of each peer's storage, as it said when it accepted our link (S23).
    lives: BTreeMap<RaftId, u64>,
    /// Free bytes of each peer (S37), how we stand, and a start that a peer has trimmed to (S36).
    free: BTreeMap<RaftId, u64>,
    standing: Option<PeerStanding>,
    heard_start: Option<LogStart>,
    /// Leaders whose snapshot we could not get.
    failed_installs: Vec<RaftId>,
    /// A snapshot that the shell is to get.
    install: Option<Box<Install>>,
    /// Whether it is being copied.
    is_installing: bool,
}

/// A batch of ours that is not committed yet.
struct Proposed<T> {
    log_id: LogId,
    entries: Vec<NewEntry>,
    waiting: Vec<(T, Appended)>,
}

impl<T> Consensus<T> {
    /// Starts from what recovery found. A sole voter is leader after the next [`Consensus::turn`].
    ///
    /// # Panics
    /// If recovery's parts contradict one another.
    #[must_use]
    pub fn new(settings: Settings, recovery: Recovery, mut rng: StdRng, logger: &Logger) -> Self {
        let Recovery { meta, mark, tail, terms, writers } = recovery;
        let id = own_id(&meta);
        let (applied, commit) = certain_of(&meta, mark, &tail);
        let applied_terms: Vec<_> =
            terms.iter().copied().filter(|(first, _)| *first <= applied.index).collect();
        let applied_term = applied_terms.last().map_or(meta.start.previous_term, |(_, term)| *term);
        let mut store = LogStore::new(Foundation {
            meta: &meta,
            commit,
            applied: LogId { term: applied_term, index: applied.index },
            applied_end: applied.offset,
            terms: applied_terms,
        });
        for batch in tail.iter().filter(|batch| batch.log_id.index > applied.index) {
            let content = recovered_content(batch);
            let offset = store.push(entry(batch.log_id, content.encode()), content.log_len());
            assert_eq!(offset, batch.offset, "recovered batches are contiguous");
        }
        let durable = Durable { last: store.last(), end: store.end() };
        let config = raft::Config {
            id: id.get(),
            // S12: what recovery knows to be committed is applied through `drain`, like all else.
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: applied.index.get(),
            max_size_per_msg: BATCH_BYTES as u64,
            pre_vote: true,
            check_quorum: true,
            ..raft::Config::default()
        };
        let raw =
            RawNode::new(&config, store, logger).expect("raft-rs takes our settings and what recovery found");
        let mut consensus = Self {
            settings,
            nonce: rng.random(),
            timeout: (u64::MAX, StateRole::Follower, 0),
            raw,
            rng,
            meta,
            writers,
            queue: VecDeque::new(),
            proposed: VecDeque::new(),
            gate: Gate::default(),
            recent: inline::Recent::default(),
            read_inline: HashMap::new(),
            held: VecDeque::new(),
            write: WriteQueue::new(durable, settings.groups_max, settings.group_bytes),
            committed: applied,
            told: Committed { index: mark.index, offset: mark.offset },
            certain: Certain::new(),
            refused: Vec::new(),
            repeats: BTreeMap::new(),
            repeats_next: 0,
            fetching: Vec::new(),
            fetches: 0,
            persisted_ready: 0,
            available: u64::MAX,
            refused_bytes: 0,
            unsynced_ticks: 0,
            asked: None,
            role: Role::Follower,
            orders: VecDeque::new(),
            ordered: VecDeque::new(),
            addresses: None,
            ticks: 0,
            heard: BTreeMap::new(),
            lives: BTreeMap::new(),
            free: BTreeMap::new(),
            standing: None,
            heard_start: None,
            failed_installs: Vec::new(),
            install: None,
            is_installing: false,
        };
        // Trims that were committed before the mark was saved, and not carried out.
        for payload in tail.iter().filter(|it| it.log_id.index <= applied.index).map(recovered_content) {
            if let Content::Control(payload) = payload
                && let Ok(Control::Trim(start)) = Control::decode(&payload)
            {
                consensus.heard_start = Some(start);
            }
        }
        consensus.draw_timeout();
        if consensus.is_sole_voter() {
            // Nobody else can be asked: waiting for a timeout would only delay the start.
            consensus.raw.campaign().expect("a sole voter may campaign");
            consensus.draw_timeout();
        }
        consensus
    }

    /// One tick of Raft's clock.
    pub fn tick(&mut self) {
        self.raw.tick();
        self.draw_timeout();
        self.tell_standing();
        self.watch_disk();
        self.certain.tick(&mut self.refused);
    }

    /// Takes an append; it is decided and proposed in a later [`Consensus::turn`], in the order of the calls.
    pub fn append(&mut self, token: T, append: Append) {
        self.queue.push_back((token, append));
    }

    /// Takes an append that cannot be proposed, and why: whether another node leads comes first.
    pub fn refuse(&mut self, token: T, refusal: Refusal) {
        let refusal = if self.role == Role::Leader { refusal } else { self.not_leader() };
        self.refused.push((token, Answer::Refused(refusal)));
    }

    /// Asks for the committed end, no older than now.
    pub fn end(&mut self, token: T) {
        self.certain.end(token);
    }

    /// The segment writer has synced a group.
    ///
    /// # Panics
    /// If it is not the oldest outstanding one.
    pub fn synced(&mut self, group: u64) {
        self.write.synced(group);
        self.unsynced_ticks = 0;
        self.persisted();
    }

    /// A batch of this log that is not synced yet: peers need not wait for this node's disk, which may hang or be full.
    #[must_use]
    pub fn unsynced(&self, batch: LogId) -> Option<&NewBatch> {
        self.write.unsynced(batch)
    }

    /// The disk has room for this many more bytes.
    pub fn set_available(&mut self, bytes: u64) {
        self.available = bytes;
        if !self.disk_full(self.refused_bytes) {
            self.refused_bytes = 0;
        }
    }

    /// Goes on as far as it can. `wall_clock_ms` (since 1970) goes into the entry that opens a term, nowhere else.
    pub fn turn(&mut self, wall_clock_ms: u64) -> Effects<T> {
        let mut effects = Effects { answers: std::mem::take(&mut self.refused), ..Effects::default() };
        let start = self.meta.start;
        self.drain(wall_clock_ms, &mut effects);
        // The messages that these were read for are made.
        self.read_inline = HashMap::new();
        self.pass_gate(wall_clock_ms, &mut effects);
        self.obey(wall_clock_ms, &mut effects);
        self.propose(wall_clock_ms, &mut effects);
        self.step_aside(wall_clock_ms, &mut effects);
        self.begin_round(wall_clock_ms, &mut effects);
        effects.groups.extend(std::iter::from_fn(|| self.write.next_group()));
        for (first, context) in self.raw.store().take_wanted() {
            self.fetches += 1;
            self.fetching.push((self.fetches, first, context));
            effects.fetches.push(Fetch { number: self.fetches, first, last: self.committed.index });
        }
        self.follow_start(&mut effects);
        self.say_outside_raft(&mut effects);
        // Taken when the start grew; term, vote and members may have changed since, in this very turn.
        if let Some(state) = &mut effects.trim {
            **state = self.meta.clone();
        }
        if let Some(state) = &mut effects.save {
            // The start goes behind the mark (S36).
            state.start = start;
        }
        // Before any answer: what is acknowledged can be read.
        if self.committed != self.told {
            self.told = self.committed;
            effects.committed = Some(self.committed);
            effects.mark = Some(self.mark());
        }
        self.certain.take(self.meta.start.offset, self.committed, &mut effects.answers);
        effects
    }

    /// How consensus stands.
    #[must_use]
    pub fn status(&self) -> ConsensusStatus {
        ConsensusStatus {
            role: self.role,
            term: log_store::term(self.raw.raft.term),
            leader: RaftId::from_raw(self.raw.raft.leader_id),
            committed: self.committed,
            durable: self.write.durable().end,
            accepted: PeerAccepted { life: self.nonce, last: self.write.durable().last },
            membership: self.meta.membership.index,
            place: self.place(),
            queued: self.queue.len(),
            in_flight: self.proposed.len(),
            writers: self.writers.len(),
            disk_full: self.disk_full(self.refused_bytes),
        }
    }

    /// Handles every `Ready` of raft-rs.
    fn drain(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            if let Some(hard) = ready.hs() {
                let (term, vote) = (log_store::term(hard.term), RaftId::from_raw(hard.vote));
                if (term, vote) != (self.meta.term, self.meta.vote) {
                    (self.meta.term, self.meta.vote) = (term, vote);
                    effects.save = Some(Box::new(self.meta.clone()));
                }
            }
            if let Some(soft) = ready.ss() {
                let role = match soft.raft_state {
                    StateRole::Leader => Role::Leader,
                    StateRole::Follower => Role::Follower,
                    StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
                };
                self.set_role(role, effects);
            }
            for entry in ready.take_entries() {
                self.accept(entry, wall_clock_ms, effects);
            }
            self.write.ready(ready.number());
            for message in ready.take_messages() {
                effects.messages.extend(self.outgoing(message));
            }
            let held = ready.take_persisted_messages();
            if !held.is_empty() {
                let held = held.into_iter().filter_map(|message| self.outgoing(message)).collect();
                self.held.push_back((ready.number(), held));
            }
            for state in ready.take_read_states() {
                if let Some(round) = self.round_of(&state.request_ctx) {
                    self.certain.confirm(round, Index::new(state.index));
                }
            }
            let committed = ready.take_committed_entries();
            self.raw.advance_append_async(ready);
            if let Some(last) = committed.last() {
                committed.iter().for_each(|entry| self.apply(entry, effects));
                self.commit(Index::new(last.index), effects);
            }
            self.persisted();
            self.release_held(effects);
        }
        self.release_held(effects);
    }

    /// Takes an entry that raft-rs added to its log into ours.
    fn accept(&mut self, mut entry: Entry, wall_clock_ms: u64, effects: &mut Effects<T>) {
        let id = log_id(&entry);
        if id.index <= self.raw.store().last().index {
            self.truncate(id.index, effects);
        }
        let at = self.proposed.partition_point(|ours| ours.log_id.index < id.index);
        let ours = self.proposed.get_mut(at).filter(|ours| ours.log_id == id);
        if let Some(ours) = &ours
            && ours.entries.first().is_some_and(|it| it.kind == Kind::Control)
        {
            if entry.data.is_empty() {
                // S21: a change of members that raft-rs refused is a noop now.
                self.proposed.remove(at);
                self.refuse_ordered(id, effects);
                return self.accept(entry, wall_clock_ms, effects);
            }
            // raft-rs has its own bytes for a change of members; nobody else is to see them (S19).
            entry.data = Content::Control(ours.entries[0].payload.clone()).encode();
        }
        let entries = match ours {
            Some(ours) => {
                let entries = std::mem::take(&mut ours.entries);
                if self.has_others() {
                    self.recent.push(id, &entries);
                }
                entries
            }
            None if entry.data.is_empty() => {
                // Raft's own: it opens a term, or stands for a conf change that was refused.
                let clock = Bytes::copy_from_slice(&wall_clock_ms.to_le_bytes());
                entry.data = Content::Noop(clock.clone()).encode();
                vec![own_entry(Kind::Noop, clock)]
            }
            None => match Content::decode(&entry.data).expect("the content was read when it arrived") {
                Content::Noop(payload) => vec![own_entry(Kind::Noop, payload)],
                Content::Control(payload) => vec![own_entry(Kind::Control, payload)],
                Content::Data(_) => {
                    let entries = self.gate.take(id).expect("a batch passes the gate with its payloads");
                    let mut at = self.raw.store().end();
                    for entry in &entries {
                        self.writers.record(entry.writer, entry.sequence, at, entry_len(entry), id.term);
                        at += entry_len(entry);
                    }
                    entries
                }
            },
        };
        let length = entries.iter().map(entry_len).fold(Length::ZERO, |sum, it| sum + it);
        let offset = self.raw.mut_store().push(entry, length);
        self.write.push(NewBatch { log_id: id, offset, entries }, offset + length);
    }

    /// raft-rs has delivered everything up to `index`.
    fn commit(&mut self, index: Index, effects: &mut Effects<T>) {
        let offset = self.raw.store().end_of(index).expect("what is delivered is stored");
        assert!(offset > self.committed.offset, "the committed end grows");
        self.committed = Committed { index, offset };
        self.raw.mut_store().release(index);
        self.raw.advance_apply_to(index.get());
        self.writers.commit(offset);
        self.answer_orders(index, effects);
        while self.proposed.front().is_some_and(|batch| batch.log_id.index <= index) {
            let batch = self.proposed.pop_front().expect("there is a front");
            effects
                .answers
                .extend(batch.waiting.into_iter().map(|(token, it)| (token, Answer::Appended(it))));
        }
        while let Some(repeat) = self.repeats.first_entry()
            && repeat.key().0 <= offset
        {
            let (token, appended) = repeat.remove();
            effects.answers.push((token, Answer::Appended(appended)));
        }
    }

    /// Tells raft-rs which of its `Ready`s have reached the disk.
    fn persisted(&mut self) {
        if let Some(number) = self.write.persisted() {
            self.persisted_ready = number;
            self.raw.on_persist_ready(number);
        }
    }

    fn set_role(&mut self, role: Role, effects: &mut Effects<T>) {
        self.role = role;
        self.refused_bytes = 0;
        self.recent = inline::Recent::default();
        if role == Role::Leader {
            self.gate.clear(log_store::term(self.raw.raft.term));
        } else {
            let refusal = self.not_leader();
            self.certain.abandon(&refusal, &mut effects.answers);
            self.give_up_waiting(effects);
        }
    }

    /// S18: raft-rs draws its own timeout in every reset; ours replaces it, so that a run can be repeated from its seed.
    fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let (term, role, _) = self.timeout;
        if (term, role) != (raft.term, raft.state) {
            let ticks = self.settings.election_ticks;
            self.timeout = (raft.term, raft.state, self.rng.random_range(ticks..2 * ticks));
        }
        raft.set_randomized_election_timeout(self.timeout.2);
    }

    /// The mark never passes what is synced here (S6).
    fn mark(&self) -> Mark {
        let durable = self.write.durable();
        if self.committed.index <= durable.last.index {
            Mark { index: self.committed.index, offset: self.committed.offset }
        } else {
            Mark { index: durable.last.index, offset: durable.end }
        }
    }

    fn has_others(&self) -> bool {
        let membership = &self.meta.membership;
        membership.voters.len() + membership.learners.len() > 1
    }

    fn is_sole_voter(&self) -> bool {
        let voters = &self.meta.membership.voters;
        voters.len() == 1 && voters[0].id == own_id(&self.meta)
    }

    fn place(&self) -> Place {
        let membership = &self.meta.membership;
        if self.is_voter() {
            Place::Voter
        } else if membership.learners.iter().any(|it| it.id == own_id(&self.meta)) {
            Place::Learner
        } else if membership.index == Index::ZERO {
            Place::Joining
        } else {
            Place::Gone
        }
    }
}

/// What is surely applied and committed when a node starts (S12): the mark, or the change of members that `meta` holds already;
/// and all but the last change behind that, since a leader proposes one only after it has applied the one before.
fn certain_of(meta: &MetaState, mark: Mark, tail: &[RecoveredBatch]) -> (Committed, Index) {
    let mut applied = Committed { index: mark.index, offset: mark.offset };
    let membership = meta.membership.index;
    if membership > applied.index {
        // Missing where its owner accepted the loss of it (S10); then the mark is all there is.
        if let Some(made) = tail.iter().find(|batch| batch.log_id.index == membership) {
            applied = Committed { index: membership, offset: made.end };
        }
    }
    let changes = tail.iter().filter(|batch| batch.log_id.index > applied.index);
    let changes: Vec<Index> = changes
        .filter(|batch| changes_members(&recovered_content(batch).encode()))
        .map(|batch| batch.log_id.index)
        .collect();
    let commit = changes.len().checked_sub(2).map_or(applied.index, |at| changes[at]);
    (applied, commit)
}

const fn own_id(meta: &MetaState) -> RaftId {
    RaftId::new(meta.node, meta.incarnation)
}

/// An entry of Raft's own.
fn own_entry(kind: Kind, payload: Bytes) -> NewEntry {
    let payload_crc = loglog_proto::crc32c(&payload);
    NewEntry { kind, writer: WriterId::NONE, sequence: Sequence::new(0), payload, payload_crc }
}

fn entry_len(entry: &NewEntry) -> Length {
    Length::of(entry.payload.len() + OVERHEAD)
}

/// An entry as raft-rs carries it; a change of members is to be known as one.
fn entry(id: LogId, data: Bytes) -> Entry {
    let entry_type =
        if changes_members(&data) { EntryType::EntryConfChangeV2 } else { EntryType::EntryNormal };
    Entry { index: id.index.get(), term: u64::from(id.term.get()), data, entry_type, ..Entry::default() }
}

#[cfg(test)]
#[path = "consensus_test.rs"]
mod tests;
