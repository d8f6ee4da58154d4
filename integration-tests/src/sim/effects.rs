//! Effects: what consensus asks for is carried out, in the order of `actors/src/consensus.rs`.
//!
//! Keeps:  term and vote are durable before anything that follows from them leaves the node (S14); what goes wrong on the way ends the
//!         process (S2).

use loglog_core::effects::Fetch;
use loglog_core::{Effects, Role, Truncation, old_batches};
use loglog_proto::peer::{RaftKind, RaftMessage};
use loglog_proto::{Index, Offset};
use loglog_storage::{LogStart, MetaState, WriteError};
use rand::Rng;

use super::dials::Fault;
use super::lives::TICK;
use super::network::Say;
use super::node::{At, Event, Reply, Token};
use super::queue::MS;
use super::world::World;

/// How soon it is looked again whether a disk hangs still.
const LOOK_AGAIN: u64 = 200 * MS;
/// How often it is looked whether payloads are missing.
const LOOK: u64 = 8 * MS;

impl World {
    /// A turn follows soon, with what comes until then.
    pub(super) fn turn_soon(&mut self, at: At) {
        let generation = self.nodes[at].generation;
        if let Some(life) = self.nodes[at].life()
            && !std::mem::replace(&mut life.is_turn_due, true)
        {
            let delay = 50 * self.nodes[at].slow;
            self.queue.push(delay, Event::Turn { at, generation });
        }
    }

    pub(super) fn turn_due(&mut self, at: At, generation: u64) {
        if let Some(life) = self.nodes[at].life_of(generation) {
            life.is_turn_due = false;
            self.turn(at);
        }
    }

    pub(super) fn tick(&mut self, at: At, generation: u64) {
        let rate = self.nodes[at].rate;
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        life.core.tick();
        self.turn(at);
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        if std::mem::take(&mut life.groups) == 0 {
            // The keeper, too, works while little is written.
            let prepared = life.keeper.prepare_step();
            if let Err(error) = prepared
                && !matches!(error, loglog_storage::KeeperError::NoSpace { .. })
            {
                return self.fail(at, &format!("cannot prepare a segment: {error}"));
            }
            if !self.sync_mark(at) {
                return;
            }
        }
        self.queue.push(TICK * 1000 / rate, Event::Tick { at, generation });
    }

    pub(super) fn turn(&mut self, at: At) {
        let now_ms = i64::try_from(self.queue.now() / MS).unwrap_or(i64::MAX);
        // Some day in 2026; a clock that was set back may well show a time before the epoch.
        let wall = (1_790_000_000_000 + now_ms + self.nodes[at].ahead_ms).max(0).unsigned_abs();
        let Some(life) = self.nodes[at].life() else { return };
        let effects = life.core.turn(wall);
        self.carry_out(at, effects);
    }

    /// Whether the node dies here, between two effects.
    fn dies(&mut self, at: At) -> bool {
        let Some(left) = self.nodes[at].dies_after else { return false };
        if left > 0 {
            self.nodes[at].dies_after = Some(left - 1);
            return false;
        }
        self.count(Fault::CrashAtEffect);
        let survival = if self.rng.random_bool(0.5) { Some(self.draw_survival()) } else { None };
        self.end_life(at, survival);
        true
    }

    fn carry_out(&mut self, at: At, effects: Effects<Token>) {
        let Effects { save, groups, members, messages, standing, wants, fetches, committed, mark, .. } =
            effects;
        let Effects { inline, trim, install, answers, .. } = effects;
        let generation = self.nodes[at].generation;
        if let Some(state) = save
            && (self.dies(at) || !self.save(at, *state))
        {
            return;
        }
        if !groups.is_empty() {
            if self.dies(at) {
                return;
            }
            let Some(life) = self.nodes[at].life() else { return };
            life.held.extend(groups);
            self.write_soon(at);
        }
        if let Some(mark) = mark {
            if self.dies(at) {
                return;
            }
            let Some(life) = self.nodes[at].life() else { return };
            life.is_mark_loose = true;
            if let Err(error) = life.meta.save_mark(mark) {
                return self.fail(at, &format!("cannot save the mark: {error}"));
            }
        }
        if let Some(state) = trim
            && (self.dies(at) || !self.trim(at, *state))
        {
            return;
        }
        let node = &mut self.nodes[at];
        let id = node.id;
        let Some(life) = node.life() else { return };
        let status = life.core.status();
        if let Some(membership) = members {
            self.tell(|| format!("node {at} goes by the members of {}", membership.index));
        }
        if !messages.is_empty() && self.dies(at) {
            return;
        }
        let Some(life) = self.nodes[at].life() else { return };
        let last = life.writer.last().index;
        if let Some(early) = messages.iter().find(|it| !is_durable(life.meta.state(), last, it)) {
            let (kind, term) = (early.kind, early.term);
            let of = early.index;
            return self
                .violate(format!("node {at} says {kind:?} of {of} in term {term}, which it has not saved"));
        }
        let votes = messages.iter().any(|it| it.kind == RaftKind::RequestVoteResponse && !it.reject);
        for message in messages {
            let to = message.to;
            self.say(id, to, status.accepted.life, Say::Raft(Box::new(message)));
        }
        if votes && std::mem::take(&mut self.nodes[at].dies_at_vote) {
            // And is back before the election is over: what it knows of its vote is what it has written.
            self.count(Fault::CrashAtVote);
            let survival = if self.rng.random_bool(0.5) { Some(self.draw_survival()) } else { None };
            self.end_life(at, survival);
            return self.start(at);
        }
        if let Some(standing) = standing {
            self.say_to_all(at, status.accepted.life, standing);
        }
        if let Some(install) = install {
            self.begin_install(at, *install);
        }
        if !wants.is_empty() {
            for want in wants {
                self.deliver_uploads(at, &want);
            }
            self.look_soon(at);
        }
        self.nodes[at].uploads.release(&inline);
        for fetch in fetches {
            let delay = self.rng.random_range(100..3000) * self.nodes[at].slow;
            self.queue.push(delay, Event::OldRead { at, generation, fetch });
        }
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(id);
            if leader != id {
                self.violate(format!("{leader} and {id} both lead in term {}", status.term));
            }
        }
        if let Some(committed) = committed {
            self.judge_committed(at, committed.offset);
            if self.nodes[at].generation != generation || self.dies(at) {
                return;
            }
        }
        for (token, answer) in answers {
            self.answer(at, token, Reply::Answer(answer));
        }
    }

    fn save(&mut self, at: At, state: MetaState) -> bool {
        let Some(life) = self.nodes[at].life() else { return false };
        let (mark, vote) = (life.meta.mark(), (state.term, state.vote));
        match life.meta.save(state) {
            Ok(()) => {
                let node = &mut self.nodes[at];
                (node.synced_mark, node.synced_vote) = (mark, vote);
                true
            }
            Err(error) => {
                self.fail(at, &format!("cannot save term and vote: {error}"));
                false
            }
        }
    }

    fn trim(&mut self, at: At, state: MetaState) -> bool {
        let start: LogStart = state.start;
        if !self.save(at, state) {
            return false;
        }
        if self.dies(at) {
            return false;
        }
        let Some(life) = self.nodes[at].life() else { return false };
        life.is_mark_loose = false;
        if let Err(error) = life.keeper.trim(start) {
            self.fail(at, &format!("cannot trim: {error}"));
            return false;
        }
        self.tell(|| format!("node {at} trimmed to {}", start.offset));
        self.judge_trim(at, start.offset);
        true
    }

    pub(super) fn sync_mark(&mut self, at: At) -> bool {
        let Some(life) = self.nodes[at].life() else { return false };
        if std::mem::take(&mut life.is_mark_loose) {
            let mark = life.meta.mark();
            if let Err(error) = life.meta.sync() {
                self.fail(at, &format!("cannot sync the mark: {error}"));
                return false;
            }
            self.nodes[at].synced_mark = mark;
        }
        true
    }

    fn write_soon(&mut self, at: At) {
        let generation = self.nodes[at].generation;
        let delay = self.rng.random_range(200..3000) * self.nodes[at].slow;
        if let Some(life) = self.nodes[at].life()
            && !std::mem::replace(&mut life.is_writing, true)
        {
            self.queue.push(delay, Event::Written { at, generation });
        }
    }

    /// The writer's time is up: the oldest group is on the disk, or is not.
    pub(super) fn write(&mut self, at: At, generation: u64) {
        let (until, now) = (self.nodes[at].hangs_until, self.queue.now());
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        if now < until {
            life.is_writing = true;
            if std::mem::take(&mut self.nodes[at].is_hang_unfelt) {
                self.count(Fault::HungDisk);
            }
            return self.queue.push(LOOK_AGAIN.min(until - now), Event::Written { at, generation });
        }
        life.is_writing = false;
        let Some(group) = life.held.front_mut() else { return };
        let truncate = group.truncate.take();
        if let Some(Truncation { to, .. }) = truncate {
            let node = &mut self.nodes[at];
            node.synced_end = node.synced_end.min(to);
        }
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let Some(group) = life.held.front_mut() else { return };
        let cut = match truncate {
            Some(Truncation { first_removed, to, last }) => life.writer.truncate(first_removed, to, last),
            None => Ok(()),
        };
        match cut.and_then(|()| life.writer.write(&group.batches)) {
            Ok(_) => {
                let number = group.number;
                life.held.pop_front();
                life.groups += 1;
                let active = life.reader.segment_base_at_or_before(life.writer.end());
                let is_sealed = std::mem::replace(&mut life.active, active) != active;
                let (available, end) = (life.writer.available(), life.writer.end());
                life.core.synced(number);
                life.core.set_available(available);
                self.nodes[at].synced_end = end;
                if is_sealed && !self.sync_mark(at) {
                    return;
                }
                if self.nodes[at].life().is_some_and(|life| !life.held.is_empty()) {
                    self.write_soon(at);
                }
                self.turn_soon(at);
            }
            Err(WriteError::NoSpace { .. }) => {
                // The next look at the space tries again.
                let done = life.writer.end();
                group.batches = group.batches.iter().filter(|batch| batch.offset >= done).cloned().collect();
                if std::mem::take(&mut self.nodes[at].is_full_unfelt) {
                    self.count(Fault::FullDisk);
                }
            }
            Err(error) => self.fail(at, &format!("cannot write the log: {error}")),
        }
    }

    pub(super) fn old_read(&mut self, at: At, generation: u64, fetch: Fetch) {
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let read = old_batches::read(&life.reader, &life.places, fetch.first, fetch.last);
        life.core.fetched(fetch.number, read.unwrap_or_default());
        self.turn_soon(at);
    }

    pub(super) fn look_soon(&mut self, at: At) {
        let generation = self.nodes[at].generation;
        if let Some(life) = self.nodes[at].life()
            && !std::mem::replace(&mut life.is_looking, true)
        {
            self.queue.push(LOOK, Event::Look { at, generation });
        }
    }

    /// Bytes of a node's log from `from` on, of one segment, at most to `to`.
    pub(super) fn bytes_of(&mut self, at: At, from: Offset, to: Offset) -> Option<bytes::Bytes> {
        let life = self.nodes[at].life()?;
        life.reader.read(from, (to - from).as_usize(), to).ok()
    }
}

/// Whether the term and the vote that a message tells of are saved (S14), and the batches that it acknowledges are synced, up to `last` (S15).
fn is_durable(saved: &MetaState, last: Index, message: &RaftMessage) -> bool {
    let has_voted =
        |whom| saved.term > message.term || (saved.term, saved.vote) == (message.term, Some(whom));
    match message.kind {
        // No promise: asked before a term is begun.
        RaftKind::RequestPreVote | RaftKind::RequestPreVoteResponse => true,
        RaftKind::RequestVote => has_voted(message.from),
        RaftKind::RequestVoteResponse if !message.reject => has_voted(message.to),
        RaftKind::AppendResponse if !message.reject && message.term == saved.term => message.index <= last,
        _ => message.term <= saved.term,
    }
}
