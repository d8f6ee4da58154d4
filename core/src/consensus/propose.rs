//! Proposing: what only a leader does.
//!
//! Owns:   deciding about appends, filling batches.
//! Keeps:  offsets are computed behind all of Raft's own entries, in the turn that proposes, and undone with a dropped proposal (S21).
//! Never:  steps a message between proposing a batch and taking its entries into the log.

use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::{BATCH_BYTES, BATCH_ENTRIES_MAX};
use loglog_proto::response::Appended;
use loglog_proto::{Length, LogId, RaftId};
use loglog_storage::NewEntry;

use super::{Consensus, Proposed, Role, log_store, own_id};
use crate::batch::{Content, Reference};
use crate::effects::{Answer, Effects};
use crate::writers::Decision;

impl<T> Consensus<T> {
    /// Clients that wait for entries of ours learn that the outcome is open; sent again, it resolves.
    pub(super) fn give_up_waiting(&mut self, effects: &mut Effects<T>) {
        let message = "this node stopped leading before the entry was committed: it may have happened, send it again to know";
        let refusal = Refusal::new(Code::Interrupted, message);
        let waiting = self.proposed.drain(..).flat_map(|batch| batch.waiting).map(|(token, _)| token);
        let repeats = std::mem::take(&mut self.repeats).into_values().map(|(token, _)| token);
        effects.answers.extend(waiting.chain(repeats).map(|token| (token, Answer::Refused(refusal.clone()))));
        self.give_up_orders(&refusal, effects);
    }

    /// Decides and proposes what waits, as long as the writer has room.
    pub(super) fn propose(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
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
    pub(super) fn propose_batch(&mut self, effects: &mut Effects<T>) -> Length {
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
                    let refusal = self.no_room((end - begin + length).get());
                    effects.answers.push((token, Answer::Refused(refusal)));
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
    pub(super) fn begin_round(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
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
    pub(super) fn round_of(&self, context: &[u8]) -> Option<u64> {
        let (parts, rest) = context.as_chunks::<8>();
        let [id, nonce, round] = parts else { return None };
        let ours =
            u64::from_le_bytes(*id) == own_id(&self.meta).get() && u64::from_le_bytes(*nonce) == self.nonce;
        (ours && rest.is_empty()).then(|| u64::from_le_bytes(*round))
    }

    pub(super) fn not_leader(&self) -> Refusal {
        let leader = RaftId::from_raw(self.raw.raft.leader_id);
        let members = self.meta.membership.voters.iter();
        Refusal::not_leader(
            leader
                .and_then(|leader| members.clone().find(|it| it.id == leader))
                .map(|it| it.client_address.clone()),
        )
    }

    fn no_room(&self, bytes: u64) -> Refusal {
        if self.raw.raft.lead_transferee.is_some() || self.successor_with_room(bytes).is_some() {
            let message = "this node's disk is nearly full: another node is to lead";
            return Refusal::new(Code::Unavailable, message);
        }
        let message = "the disk is nearly full: appends are refused until there is room, reads go on";
        Refusal::new(Code::DiskFull, message)
    }

    /// Whether this node has room for so many bytes more.
    pub(super) fn has_room(&self, wanted: u64) -> bool {
        self.available >= self.settings.free_min.saturating_add(wanted)
    }

    /// Whether this node has too little room, or so many others have too little, or do not answer, that no quorum has enough (S37).
    pub(super) fn disk_full(&self, wanted: u64) -> bool {
        if !self.has_room(wanted) {
            return true;
        }
        let (own, voters) = (own_id(&self.meta), &self.meta.membership.voters);
        let others = || voters.iter().map(|it| it.id).filter(|id| *id != own);
        // Those that do not answer stop the log by themselves; that counts as full only where what is left would have to take it.
        if !others().any(|id| self.is_low(id)) {
            return false;
        }
        let active = self.active();
        let roomy = 1 + others().filter(|id| !self.is_low(*id) && active.contains(id)).count();
        roomy < voters.len() / 2 + 1
    }

    /// Whether a voter said that it has too little room.
    pub(super) fn is_low(&self, id: RaftId) -> bool {
        self.free.get(&id).is_some_and(|free| *free < self.settings.free_min)
    }
}
