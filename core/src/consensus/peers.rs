//! Peers: what other nodes say, and what is said to them.
//!
//! Owns:   the checks of incoming messages, the way through the payload gate, truncation, messages held until their sync.
//! Keeps:  nothing a peer says makes raft-rs panic; what it says about the log waits for its payloads (S32).

use bytes::Bytes;
use loglog_proto::limits::BATCH_BYTES;
use loglog_proto::peer::{PeerAccepted, RaftEntry, RaftKind, RaftMessage};
use loglog_proto::{Index, Length, LogId, RaftId, Term};
use raft::{ProgressState, SnapshotStatus};

use super::{Consensus, Role, entry, messages, own_id};
use crate::batch::{Content, is_content};
use crate::control::{Control, SnapshotContent};
use crate::effects::{Effects, Install};
use crate::gate::{Pass, Want};
use crate::old_batches::OldBatch;
use crate::write_queue::Truncation;

/// Beyond this no log comes: what says so was never said by a node of ours.
const INDEX_MAX: Index = Index::new(1 << 62);

/// Log bytes that may wait for the writer while more is taken from a leader.
const WAITING_BYTES_MAX: Length = Length::new(64 << 20);
/// The most bytes of small payloads in one message: those of a few batches.
const INLINE_OF_MESSAGE_MAX: usize = 4 * BATCH_BYTES;

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

impl<T> Consensus<T> {
    /// A peer accepted our link, and said what it durably holds. If that is less than it once acknowledged, a leader believes the peer
    /// and goes back (S23); and whatever became of a snapshot, this is how it stands now (S25).
    pub fn accepted(&mut self, peer: RaftId, accepted: PeerAccepted) {
        self.lives.insert(peer, accepted.life);
        let last = accepted.last.index.get();
        if self.role != Role::Leader {
            return;
        }
        let Some(progress) = self.raw.raft.mut_prs().get_mut(peer.get()) else { return };
        if progress.state == ProgressState::Snapshot {
            let joins = self.raw.store().term_of(accepted.last.index) == Some(accepted.last.term);
            let Some(progress) = self.raw.raft.mut_prs().get_mut(peer.get()) else { return };
            if joins && last < progress.pending_snapshot {
                // An earlier snapshot than the last one told is in place, and our log joins it: go on from there.
                progress.pending_snapshot = last;
            }
            let is_there = last >= progress.pending_snapshot;
            let status = if is_there { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raw.report_snapshot(peer.get(), status);
        } else if last < progress.matched {
            progress.matched = last;
            progress.become_probe();
        }
    }

    /// A snapshot takes the place of a log that no longer joins the leader's, unless this node holds its last batch.
    fn hear_snapshot(&mut self, message: RaftMessage) -> Result<(), PeerError> {
        let content = SnapshotContent::decode(&message.context);
        let content = content.map_err(|_| PeerError::Malformed { from: message.from })?;
        let last = LogId { term: message.log_term, index: message.index };
        // raft-rs learns who leads, in which term; of the snapshot only when it is in place.
        let heartbeat = RaftMessage {
            kind: RaftKind::Heartbeat,
            commit: Index::ZERO,
            index: Index::ZERO,
            log_term: Term::ZERO,
            context: Bytes::new(),
            ..message.clone()
        };
        self.hear(heartbeat);
        if self.raw.raft.term != u64::from(message.term.get())
            || self.raw.raft.leader_id != message.from.get()
        {
            return Ok(());
        }
        if last.index <= self.committed.index || self.raw.store().term_of(last.index) == Some(last.term) {
            self.raw.step(messages::snapshot(&message, &content)).ok();
            self.draw_timeout();
        } else if !self.is_installing {
            self.is_installing = true;
            self.install = Some(Box::new(Install { last, content }));
        }
        Ok(())
    }

    /// What is said or asked for beside raft-rs' own messages.
    pub(super) fn say_outside_raft(&mut self, effects: &mut Effects<T>) {
        effects.standing = self.standing.take();
        effects.install = self.install.take();
        let term = super::log_store::term(self.raw.raft.term);
        for leader in std::mem::take(&mut self.failed_installs) {
            effects.messages.push(messages::snapshot_failed(own_id(&self.meta), leader, term));
        }
    }

    /// A peer says something, in this life of its storage. What it says about the log waits at the payload gate; all else is heard at once (S32).
    ///
    /// # Errors
    /// [`PeerError`] for what no node of ours would say; nothing is changed.
    pub fn step(&mut self, life: u64, mut message: RaftMessage) -> Result<(), PeerError> {
        self.check(&message)?;
        self.heard.insert(message.from, self.ticks);
        match message.kind {
            RaftKind::Append => {
                self.gate.push(message);
                return Ok(());
            }
            RaftKind::Snapshot => return self.hear_snapshot(message),
            RaftKind::SnapshotStatus => {
                let status = if message.reject { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
                self.raw.report_snapshot(message.from.get(), status);
                return Ok(());
            }
            // What an earlier life of a peer held, this one may have lost (S23).
            RaftKind::AppendResponse if self.lives.get(&message.from).is_some_and(|now| *now != life) => {
                return Ok(());
            }
            _ => {}
        }
        if message.kind == RaftKind::Heartbeat {
            // S23: a leader that believes more of us than we hold must not commit beyond our end.
            message.commit = message.commit.min(Index::new(self.raw.raft.raft_log.last_index()));
        }
        self.hear(message);
        Ok(())
    }

    /// The payloads that were wanted for a batch.
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
            entries.push(reference.entry(payload));
        }
        self.gate.arrive(want, entries);
        Ok(())
    }

    /// Old batches that were asked for by [`Effects::fetches`], read from the segments, in order, beginning with the one asked for. Empty
    /// if they could not be read.
    pub fn fetched(&mut self, fetch: u64, batches: Vec<OldBatch>) {
        let Some(at) = self.fetching.iter().position(|(number, ..)| *number == fetch) else { return };
        let (_, first, context) = self.fetching.swap_remove(at);
        self.raw.store().end_reading(first);
        if batches.is_empty() {
            // raft-rs asks again with the peer's next answer; at once it would get the same.
            return;
        }
        let mut entries = Vec::with_capacity(batches.len());
        for OldBatch { log_id, content, inline } in batches {
            entries.push(entry(log_id, content.encode()));
            if !inline.is_empty() {
                self.read_inline.insert(log_id, inline);
            }
        }
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
        // Nobody counts on it until it is heard again.
        self.heard.remove(&peer);
        self.raw.report_unreachable(peer.get());
        self.draw_timeout();
    }

    /// Lets append messages through whose payloads are here.
    pub(super) fn pass_gate(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        // A disk that is slower than the leader's leaves the rest at the gate, which is bounded.
        while self.write.waiting_bytes() < WAITING_BYTES_MAX {
            let pass = self.gate.pass(self.raw.raft.store());
            let inline = self.gate.take_inline();
            let is_more_here = !inline.is_empty();
            effects.inline.extend(inline);
            match pass {
                Pass::Step(message) => {
                    self.hear(*message);
                    // The next message is judged by a log that has taken this one.
                    self.drain(wall_clock_ms, effects);
                }
                Pass::Wait(wants) => {
                    effects.wants.extend(wants);
                    // A later message may bring what the head waits for.
                    if !is_more_here {
                        return;
                    }
                }
                Pass::Empty => return,
            }
        }
    }

    pub(super) fn hear(&mut self, message: RaftMessage) {
        // A peer that is no member (any more), or a reply to nothing: raft-rs ignores it, and so do we.
        let _ = self.raw.step(messages::incoming(message));
        self.draw_timeout();
    }

    /// Messages whose `Ready` has reached the disk may go.
    pub(super) fn release_held(&mut self, effects: &mut Effects<T>) {
        while self.held.front().is_some_and(|(number, _)| *number <= self.persisted_ready) {
            effects.messages.extend(self.held.pop_front().into_iter().flat_map(|(_, held)| held));
        }
    }

    /// As it travels; the entry that opens a term, and one that changes the members, get the payload they have in our log, which
    /// raft-rs does not know, and others their small payloads, where these are in memory or were read.
    pub(super) fn outgoing(&self, message: raft::eraftpb::Message) -> Option<RaftMessage> {
        let mut message = messages::outgoing(message)?;
        if message.kind == RaftKind::Append {
            for entry in message.entries.iter_mut().filter(|entry| !is_content(&entry.content)) {
                entry.content = self.raw.store().content_of(entry.log_id)?;
            }
            let mut room = INLINE_OF_MESSAGE_MAX;
            for entry in &mut message.entries {
                let read = self.read_inline.get(&entry.log_id).cloned();
                let inline = read.unwrap_or_else(|| self.recent.get(entry.log_id));
                if inline.len() <= room {
                    room -= inline.len();
                    entry.inline = inline;
                }
            }
        }
        Some(message)
    }

    /// What raft-rs would panic on, or what was never made by a node of ours.
    pub(super) fn check(&self, message: &RaftMessage) -> Result<(), PeerError> {
        let own = own_id(&self.meta);
        if message.to != own {
            return Err(PeerError::NotForUs { to: message.to, own });
        }
        // raft-rs takes term 0 for its own, adds to indexes, and looks unasked for the context of a ReadIndex, which nobody forwards here.
        let is_huge = [message.index, message.commit, message.reject_hint].iter().any(|it| *it > INDEX_MAX);
        if message.term == Term::ZERO || message.kind == RaftKind::ReadIndex || is_huge {
            return Err(PeerError::Malformed { from: message.from });
        }
        if message.kind == RaftKind::Append {
            let (mut last, mut is_sound) = (LogId { term: message.log_term, index: message.index }, true);
            for entry in &message.entries {
                let id = entry.log_id;
                is_sound &= id.index == last.index.next() && id.term >= last.term && id.term <= message.term;
                is_sound &= is_known(entry);
                last = id;
            }
            if !is_sound {
                return Err(PeerError::Malformed { from: message.from });
            }
        }
        Ok(())
    }

    /// Another leader's log replaces ours from `first` on.
    pub(super) fn truncate(&mut self, first: Index, effects: &mut Effects<T>) {
        assert!(first > self.committed.index, "what is committed is never truncated");
        let (last, to) = self.raw.mut_store().truncate(first);
        self.writers.roll_back(to);
        self.write.truncate(Truncation { first_removed: first, last, to });
        self.give_up_waiting(effects);
    }
}

/// Whether a batch's content is one that this version makes, and no more came with it than belongs to it.
fn is_known(entry: &RaftEntry) -> bool {
    match Content::decode(&entry.content) {
        Ok(Content::Control(payload)) => Control::decode(&payload).is_ok() && entry.inline.is_empty(),
        Ok(Content::Noop(_)) => entry.inline.is_empty(),
        Ok(content) => Length::of(entry.inline.len()) < content.log_len(),
        Err(_) => false,
    }
}
