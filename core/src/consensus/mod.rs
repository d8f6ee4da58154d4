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

mod log_store;
mod messages;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::{BATCH_BYTES, BATCH_ENTRIES_MAX};
use loglog_proto::peer::{RaftKind, RaftMessage};
use loglog_proto::response::Appended;
use loglog_proto::{Index, Length, LogId, NodeId, Offset, RaftId, Sequence, Term, WriterId};
use loglog_storage::{Mark, MetaState, NewBatch, NewEntry, RecoveredBatch};
use raft::eraftpb::Entry;
use raft::{GetEntriesContext, RawNode, StateRole};
use rand::Rng;
use rand::rngs::StdRng;
use slog::Logger;

use self::log_store::{Foundation, LogStore, log_id};
use crate::append::Append;
use crate::batch::{Content, Reference, recovered_content};
use crate::certain::Certain;
use crate::effects::{Answer, Committed, Effects, Fetch};
use crate::gate::{Gate, Pass, Want};
use crate::write_queue::{Durable, Truncation, WriteQueue};
use crate::writers::{Decision, Writers};

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
    /// Appends are refused with [`Code::DiskFull`] while the disk has less than this left, bytes.
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
    /// Appends that wait for their place.
    pub queued: usize,
    /// Writers remembered.
    pub writers: usize,
    /// Whether appends are refused for want of space.
    pub disk_full: bool,
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

/// What a peer said that no node of ours would say, or not to us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is meant for another.
    #[error("a message for {to} came to {own}")]
    NotForUs {
        /// Who is meant.
        to: RaftId,
        /// Who we are.
        own: RaftId,
    },
    /// It is from somebody who is no member.
    #[error("a message from {from}, who is no member")]
    Stranger {
        /// Who says so.
        from: RaftId,
    },
    /// Its batches do not follow one another, or cannot be read.
    #[error("batches from {from} do not follow one another or cannot be read")]
    Malformed {
        /// Who says so.
        from: RaftId,
    },
    /// Payloads are not what the references say.
    #[error("the payloads of batch {log_id} are not what its references say")]
    Payloads {
        /// The batch.
        log_id: LogId,
    },
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
    write: WriteQueue,
    /// Messages that wait until the `Ready` of that number is persisted (S15).
    held: VecDeque<(u64, Vec<RaftMessage>)>,
    committed: Committed,
    certain: Certain<T>,
    /// What the last ticks gave up, for the next turn.
    expired: Vec<(T, Answer)>,
    /// Answers to repeated appends, by the end that must be committed first.
    repeats: BTreeMap<(Offset, u64), (T, Appended)>,
    repeats_next: u64,
    /// Makes this life's ReadIndex contexts unlike any other's (S20).
    nonce: u64,
    /// Old batches that the shell reads for raft-rs.
    fetching: Vec<(u64, GetEntriesContext)>,
    fetches: u64,
    /// Number of the newest `Ready` that has reached the disk.
    persisted_ready: u64,
    available: u64,
    /// Bytes of the append that was refused last for want of space, until there is room for as many.
    refused_bytes: u64,
    role: Role,
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
        let applied = Committed { index: mark.index, offset: mark.offset };
        // S12. Conf changes are not proposed yet, so none can lie between the mark and the log's end.
        assert!(meta.membership.index <= applied.index, "no membership above the mark exists yet");
        let applied_terms: Vec<_> =
            terms.iter().copied().filter(|(first, _)| *first <= applied.index).collect();
        let applied_term = applied_terms.last().map_or(meta.start.previous_term, |(_, term)| *term);
        let mut store = LogStore::new(Foundation {
            meta: &meta,
            commit: applied.index,
            applied: LogId { term: applied_term, index: applied.index },
            applied_end: applied.offset,
            terms: applied_terms,
        });
        for batch in &tail {
            let content = recovered_content(batch);
            let offset = store.push(entry(batch.log_id, content.encode()), content.log_len());
            assert_eq!(offset, batch.offset, "recovered batches are contiguous");
        }
        let durable = Durable { last: store.last(), end: store.end() };
        let config = raft::Config {
            id: id.get(),
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
            held: VecDeque::new(),
            write: WriteQueue::new(durable, settings.groups_max, settings.group_bytes),
            committed: applied,
            certain: Certain::new(),
            expired: Vec::new(),
            repeats: BTreeMap::new(),
            repeats_next: 0,
            fetching: Vec::new(),
            fetches: 0,
            persisted_ready: 0,
            available: u64::MAX,
            refused_bytes: 0,
            role: Role::Follower,
        };
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
        self.certain.tick(&mut self.expired);
    }

    /// Takes an append; it is decided and proposed in a later [`Consensus::turn`], in the order of the calls.
    pub fn append(&mut self, token: T, append: Append) {
        self.queue.push_back((token, append));
    }

    /// Asks for the committed end, no older than now.
    pub fn end(&mut self, token: T) {
        self.certain.end(token);
    }

    /// A peer says something. What it says about the log waits at the payload gate; all else is heard at once (S32).
    ///
    /// # Errors
    /// [`PeerError`] for what no node of ours would say; nothing is changed.
    pub fn step(&mut self, mut message: RaftMessage) -> Result<(), PeerError> {
        self.check(&message)?;
        if message.kind == RaftKind::Append {
            self.gate.push(message);
            return Ok(());
        }
        if message.kind == RaftKind::Heartbeat {
            // S23: a leader that believes more of us than we hold must not commit beyond our end.
            message.commit = message.commit.min(Index::new(self.raw.raft.raft_log.last_index()));
        }
        self.hear(message);
        Ok(())
    }

    /// The payloads of a batch that was wanted.
    ///
    /// # Errors
    /// [`PeerError::Payloads`] if they are not what the references say (S31).
    pub fn payloads(&mut self, want: &Want, payloads: Vec<Bytes>) -> Result<(), PeerError> {
        if payloads.len() != want.references.len() {
            return Err(PeerError::Payloads { log_id: want.log_id });
        }
        let mut entries = Vec::with_capacity(payloads.len());
        for (reference, payload) in want.references.iter().zip(payloads) {
            if payload.len() != reference.payload_len as usize
                || loglog_proto::crc32c(&payload) != reference.payload_crc
            {
                return Err(PeerError::Payloads { log_id: want.log_id });
            }
            entries.push(NewEntry {
                kind: Kind::Data,
                writer: reference.writer,
                sequence: reference.sequence,
                payload,
                payload_crc: reference.payload_crc,
            });
        }
        self.gate.arrive(want.log_id, entries);
        Ok(())
    }

    /// Old batches that were asked for by [`Effects::fetches`], read from the segments: their ids and contents, in order,
    /// beginning with the one asked for. Empty if they could not be read: raft-rs asks again.
    pub fn fetched(&mut self, fetch: u64, batches: Vec<(LogId, Content)>) {
        let Some(at) = self.fetching.iter().position(|(number, _)| *number == fetch) else { return };
        let (_, context) = self.fetching.swap_remove(at);
        let entries = batches.into_iter().map(|(log_id, content)| entry(log_id, content.encode())).collect();
        self.raw.store().set_read(entries);
        self.raw.on_entries_fetched(context);
        self.raw.store().set_read(Vec::new());
    }

    /// Batches whose payloads are missing still, in the log's order.
    #[must_use]
    pub fn wanted(&self) -> Vec<Want> {
        self.gate.wanted()
    }

    /// A message to this peer was lost (S32).
    pub fn unreachable(&mut self, peer: RaftId) {
        self.raw.report_unreachable(peer.get());
        self.draw_timeout();
    }

    /// Hands leadership to the voter that holds most of the log, if there is another; until it has taken over,
    /// appends are refused as [`Code::Unavailable`].
    pub fn hand_over(&mut self) {
        let own = own_id(&self.meta);
        let others = self.meta.membership.voters.iter().filter(|member| member.id != own);
        let progress = |id: RaftId| self.raw.raft.prs().get(id.get()).map_or(0, |progress| progress.matched);
        let best = others.max_by_key(|member| progress(member.id)).map(|member| member.id);
        if let Some(best) = best.filter(|_| self.role == Role::Leader) {
            self.raw.transfer_leader(best.get());
            self.draw_timeout();
        }
    }

    /// The segment writer has synced a group.
    ///
    /// # Panics
    /// If it is not the oldest outstanding one.
    pub fn synced(&mut self, group: u64) {
        self.write.synced(group);
        self.persisted();
    }

    /// The disk has room for this many more bytes.
    pub const fn set_available(&mut self, bytes: u64) {
        self.available = bytes;
        if !self.disk_full(self.refused_bytes) {
            self.refused_bytes = 0;
        }
    }

    /// Goes on as far as it can. `wall_clock_ms` (since 1970) goes into the entry that opens a term, nowhere else.
    pub fn turn(&mut self, wall_clock_ms: u64) -> Effects<T> {
        let mut effects = Effects { answers: std::mem::take(&mut self.expired), ..Effects::default() };
        let committed = self.committed;
        self.drain(wall_clock_ms, &mut effects);
        self.pass_gate(wall_clock_ms, &mut effects);
        self.propose(wall_clock_ms, &mut effects);
        self.begin_round(wall_clock_ms, &mut effects);
        effects.groups.extend(std::iter::from_fn(|| self.write.next_group()));
        for (first, context) in self.raw.store().take_wanted() {
            self.fetches += 1;
            self.fetching.push((self.fetches, context));
            effects.fetches.push(Fetch { number: self.fetches, first, last: self.committed.index });
        }
        if self.committed != committed {
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
            queued: self.queue.len(),
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
            let committed = ready.take_committed_entries().last().map(|entry| Index::new(entry.index));
            self.raw.advance_append_async(ready);
            if let Some(index) = committed {
                self.commit(index, effects);
            }
            self.persisted();
            self.release_held(effects);
        }
        self.release_held(effects);
    }

    /// Lets append messages through whose payloads are here.
    fn pass_gate(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        loop {
            match self.gate.pass(self.raw.raft.store()) {
                Pass::Step(message) => {
                    self.hear(*message);
                    // The next message is judged by a log that has taken this one.
                    self.drain(wall_clock_ms, effects);
                }
                Pass::Wait(wants) => {
                    effects.wants.extend(wants);
                    return;
                }
                Pass::Empty => return,
            }
        }
    }

    fn hear(&mut self, message: RaftMessage) {
        // A peer that is no member (any more), or a reply to nothing: raft-rs ignores it, and so do we.
        let _ = self.raw.step(messages::incoming(message));
        self.draw_timeout();
    }

    /// Messages whose `Ready` has reached the disk may go.
    fn release_held(&mut self, effects: &mut Effects<T>) {
        while self.held.front().is_some_and(|(number, _)| *number <= self.persisted_ready) {
            effects.messages.extend(self.held.pop_front().into_iter().flat_map(|(_, held)| held));
        }
    }

    /// As it travels; the entry that opens a term gets the payload it has in our log, which raft-rs does not know.
    fn outgoing(&self, message: raft::eraftpb::Message) -> Option<RaftMessage> {
        let mut message = messages::outgoing(message)?;
        if message.kind == RaftKind::Append {
            for entry in message.entries.iter_mut().filter(|entry| entry.content.is_empty()) {
                entry.content = self.raw.store().content_of(entry.log_id)?;
            }
        }
        Some(message)
    }

    /// What raft-rs would panic on, or what was never made by a node of ours.
    fn check(&self, message: &RaftMessage) -> Result<(), PeerError> {
        let own = own_id(&self.meta);
        if message.to != own {
            return Err(PeerError::NotForUs { to: message.to, own });
        }
        if !self
            .meta
            .membership
            .voters
            .iter()
            .chain(&self.meta.membership.learners)
            .any(|it| it.id == message.from)
        {
            return Err(PeerError::Stranger { from: message.from });
        }
        if message.kind == RaftKind::Append {
            let (mut last, mut is_sound) = (LogId { term: message.log_term, index: message.index }, true);
            for entry in &message.entries {
                let id = entry.log_id;
                is_sound &= id.index == last.index.next() && id.term >= last.term && id.term <= message.term;
                is_sound &= Content::decode(&entry.content).is_ok();
                last = id;
            }
            if !is_sound {
                return Err(PeerError::Malformed { from: message.from });
            }
        }
        Ok(())
    }

    /// Takes an entry that raft-rs added to its log into ours.
    fn accept(&mut self, mut entry: Entry, wall_clock_ms: u64, effects: &mut Effects<T>) {
        let id = log_id(&entry);
        if id.index <= self.raw.store().last().index {
            self.truncate(id.index, effects);
        }
        let at = self.proposed.partition_point(|ours| ours.log_id.index < id.index);
        let ours = self.proposed.get_mut(at).filter(|ours| ours.log_id == id);
        let entries = match ours {
            Some(ours) => std::mem::take(&mut ours.entries),
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

    /// Another leader's log replaces ours from `first` on.
    fn truncate(&mut self, first: Index, effects: &mut Effects<T>) {
        assert!(first > self.committed.index, "what is committed is never truncated");
        let (last, to) = self.raw.mut_store().truncate(first);
        self.writers.roll_back(to);
        self.write.truncate(Truncation { first_removed: first, last, to });
        self.give_up_waiting(effects);
    }

    /// Clients that wait for entries of ours learn that the outcome is open; sent again, it resolves.
    fn give_up_waiting(&mut self, effects: &mut Effects<T>) {
        let message = "this node stopped leading before the entry was committed: it may have happened, send it again to know";
        let refusal = Refusal::new(Code::Interrupted, message);
        let waiting = self.proposed.drain(..).flat_map(|batch| batch.waiting).map(|(token, _)| token);
        let repeats = std::mem::take(&mut self.repeats).into_values().map(|(token, _)| token);
        effects.answers.extend(waiting.chain(repeats).map(|token| (token, Answer::Refused(refusal.clone()))));
    }

    /// raft-rs has delivered everything up to `index`.
    fn commit(&mut self, index: Index, effects: &mut Effects<T>) {
        let offset = self.raw.store().end_of(index).expect("what is delivered is stored");
        assert!(offset > self.committed.offset, "the committed end grows");
        self.committed = Committed { index, offset };
        self.raw.mut_store().release(index);
        self.raw.advance_apply_to(index.get());
        self.writers.commit(offset);
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

    /// Decides and proposes what waits, as long as the writer has room.
    fn propose(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        if self.role != Role::Leader {
            let refusal = self.not_leader();
            effects
                .answers
                .extend(self.queue.drain(..).map(|(token, _)| (token, Answer::Refused(refusal.clone()))));
            return;
        }
        let mut room = self.settings.group_bytes.get();
        while room > 0 && self.write.has_room() && !self.queue.is_empty() {
            let bytes = self.propose_batch(effects);
            room = room.saturating_sub(bytes.get());
            self.drain(wall_clock_ms, effects);
        }
    }

    /// Fills one batch from the head of the queue and proposes it. Returns its log bytes.
    fn propose_batch(&mut self, effects: &mut Effects<T>) -> Length {
        let (last, begin) = (self.raw.store().last(), self.raw.store().end());
        assert_eq!(
            last.index.get(),
            self.raw.raft.raft_log.last_index(),
            "all of Raft's own entries have their place"
        );
        let log_id = LogId { term: log_store::term(self.raw.raft.term), index: last.index.next() };
        let mut end = begin;
        let (mut references, mut entries, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        // Judged against entries of this very batch, so they stand and fall with it.
        let (mut repeats, mut refusals) = (Vec::new(), Vec::new());
        while let Some((_, next)) = self.queue.front() {
            let length = next.entry_len();
            let full =
                (end - begin + length).get() > BATCH_BYTES as u64 || references.len() == BATCH_ENTRIES_MAX;
            if full && !references.is_empty() {
                break;
            }
            let (token, append) = self.queue.pop_front().expect("there is a front");
            match self.writers.decide(&append, end) {
                Decision::Repeat(appended) if appended.end <= self.committed.offset => {
                    effects.answers.push((token, Answer::Appended(appended)));
                }
                Decision::Repeat(appended) => repeats.push((token, appended)),
                Decision::Refuse(refusal) => refusals.push((token, refusal, end)),
                Decision::Go if self.disk_full((end - begin + length).get()) => {
                    self.refused_bytes = length.get();
                    let message =
                        "the disk is nearly full: appends are refused until there is room, reads go on";
                    effects.answers.push((token, Answer::Refused(Refusal::new(Code::DiskFull, message))));
                }
                Decision::Go => {
                    self.writers.record(append.writer, append.sequence, end, length, log_id.term);
                    let payload_len = u32::try_from(append.payload.len()).expect("payloads are under 16 MiB");
                    references.push(Reference {
                        writer: append.writer,
                        sequence: append.sequence,
                        payload_len,
                        payload_crc: append.payload_crc,
                    });
                    waiting.push((token, Appended { offset: end, end: end + length, term: log_id.term }));
                    entries.push(NewEntry {
                        kind: Kind::Data,
                        writer: append.writer,
                        sequence: append.sequence,
                        payload: append.payload,
                        payload_crc: append.payload_crc,
                    });
                    end += length;
                }
            }
        }
        if !references.is_empty()
            && let Err(error) = self.raw.propose(Vec::new(), Content::Data(references).encode().into())
        {
            self.writers.roll_back(begin);
            let refusal = Refusal::new(Code::Unavailable, format!("the log takes nothing just now: {error}"));
            let dropped = waiting.into_iter().map(|(token, _)| token);
            let dropped = dropped.chain(repeats.into_iter().map(|(token, _)| token));
            let dropped = dropped.chain(refusals.into_iter().map(|(token, ..)| token));
            effects.answers.extend(dropped.map(|token| (token, Answer::Refused(refusal.clone()))));
            return Length::ZERO;
        }
        for (token, appended) in repeats {
            self.repeats.insert((appended.end, self.repeats_next), (token, appended));
            self.repeats_next += 1;
        }
        for (token, refusal, judged_end) in refusals {
            self.certain.refuse(token, refusal, judged_end);
        }
        if entries.is_empty() {
            return Length::ZERO;
        }
        assert_eq!(self.raw.raft.raft_log.last_index(), log_id.index.get(), "a proposal gets the next index");
        self.available = self.available.saturating_sub((end - begin).get());
        self.proposed.push_back(Proposed { log_id, entries, waiting });
        end - begin
    }

    /// Begins a ReadIndex round for answers that need one.
    fn begin_round(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        if self.role != Role::Leader {
            let refusal = self.not_leader();
            self.certain.abandon(&refusal, &mut effects.answers);
            return;
        }
        // Before its term's first commit raft-rs drops the request silently (S20): the next turn asks again.
        if !self.raw.raft.commit_to_current_term() {
            return;
        }
        if let Some(round) = self.certain.begin_round() {
            let mut context = Vec::with_capacity(24);
            for part in [own_id(&self.meta).get(), self.nonce, round] {
                context.extend_from_slice(&part.to_le_bytes());
            }
            self.raw.read_index(context);
            self.drain(wall_clock_ms, effects);
        }
    }

    /// Which of our rounds a ReadIndex context names.
    fn round_of(&self, context: &[u8]) -> Option<u64> {
        let (parts, rest) = context.as_chunks::<8>();
        let [id, nonce, round] = parts else { return None };
        let ours =
            u64::from_le_bytes(*id) == own_id(&self.meta).get() && u64::from_le_bytes(*nonce) == self.nonce;
        (ours && rest.is_empty()).then(|| u64::from_le_bytes(*round))
    }

    fn set_role(&mut self, role: Role, effects: &mut Effects<T>) {
        self.role = role;
        if role != Role::Leader {
            let refusal = self.not_leader();
            self.certain.abandon(&refusal, &mut effects.answers);
            self.give_up_waiting(effects);
        }
    }

    fn not_leader(&self) -> Refusal {
        let leader = RaftId::from_raw(self.raw.raft.leader_id);
        let members = self.meta.membership.voters.iter();
        Refusal::not_leader(
            leader
                .and_then(|leader| members.clone().find(|it| it.id == leader))
                .map(|it| it.client_address.clone()),
        )
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

    const fn disk_full(&self, wanted: u64) -> bool {
        self.available < self.settings.free_min.saturating_add(wanted)
    }

    fn is_sole_voter(&self) -> bool {
        let voters = &self.meta.membership.voters;
        voters.len() == 1 && voters[0].id == own_id(&self.meta)
    }

    /// The node that a Raft id names.
    #[must_use]
    pub fn leader_node(&self) -> Option<NodeId> {
        RaftId::from_raw(self.raw.raft.leader_id).map(RaftId::node)
    }
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

fn entry(id: LogId, data: Bytes) -> Entry {
    Entry { index: id.index.get(), term: u64::from(id.term.get()), data, ..Entry::default() }
}

#[cfg(test)]
#[path = "consensus_test.rs"]
mod tests;
