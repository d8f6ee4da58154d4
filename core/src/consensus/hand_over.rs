//! Handing over: when a leader lets another lead, and whom.
//!
//! Keeps:  a leader whose own disk hangs or has no room is followed by one that can do without that disk, if there is one: until then
//!         nothing is proposed, though a majority could sync it. In between two tries there is time for orders.
//! Never:  lets go of anything that was accepted: the successor holds it before it campaigns (Raft thesis §3.10).

use std::fmt;

use loglog_proto::{Index, RaftId};

use super::{Consensus, Role, own_id};
use crate::effects::Effects;

/// So many election timeouts may the writer take for a group before another node is to lead.
const STUCK_TIMEOUTS: usize = 3;

/// So many election timeouts pass before another is asked, if the one that was asked does not take over.
const PAUSE_TIMEOUTS: u64 = 5;

/// Why another is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The disk has not been through with a write for long.
    DiskStuck,
    /// The disk has no room for an append that others have room for.
    DiskFull,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskStuck => "this node's disk has not finished a write for long",
            Self::DiskFull => "this node's disk is nearly full",
        })
    }
}

impl<T> Consensus<T> {
    /// Hands leadership to the voter that is best placed, if there is another: one that answers, and has room, and holds most of the log.
    /// Until it has taken over, appends are refused as [`Code::Unavailable`](loglog_proto::error::Code::Unavailable).
    pub fn hand_over(&mut self) {
        let (own, active) = (own_id(&self.meta), self.active());
        let others = self.meta.membership.voters.iter().map(|it| it.id).filter(|id| *id != own);
        let rank = |id: &RaftId| (active.contains(id), !self.is_low(*id), self.matched(*id));
        if let Some(best) = others.max_by_key(rank) {
            self.hand_over_to(best);
        }
    }

    fn hand_over_to(&mut self, successor: RaftId) {
        if self.role == Role::Leader {
            self.raw.transfer_leader(successor.get());
            self.draw_timeout();
        }
    }

    /// A tick has passed.
    pub(super) fn watch_disk(&mut self) {
        self.unsynced_ticks = if self.write.is_idle() { 0 } else { self.unsynced_ticks + 1 };
    }

    /// Lets another lead if this node's disk is what holds up the log.
    pub(super) fn step_aside(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        if self.role != Role::Leader || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        let is_stuck = self.unsynced_ticks > STUCK_TIMEOUTS * self.settings.election_ticks;
        let last = Index::new(self.raw.raft.raft_log.last_index());
        // Who has synced what this disk has not.
        let stuck = is_stuck.then(|| self.successor(last, |_| true)).flatten();
        let full = || {
            Some(self.refused_bytes).filter(|bytes| *bytes > 0).and_then(|it| self.successor_with_room(it))
        };
        let successor =
            stuck.map(|it| (it, Reason::DiskStuck)).or_else(|| full().map(|it| (it, Reason::DiskFull)));
        if let Some((successor, _)) = successor {
            self.asked = Some((successor, self.ticks));
            self.hand_over_to(successor);
            self.drain(wall_clock_ms, effects);
        }
        effects.hands_over = successor;
    }

    /// Who could take an append of so many bytes that this disk has no room for.
    pub(super) fn successor_with_room(&self, bytes: u64) -> Option<RaftId> {
        if self.has_room(bytes) {
            return None;
        }
        let wanted = self.settings.free_min.saturating_add(bytes);
        self.successor(self.committed.index, |id| self.free.get(&id).is_some_and(|free| *free >= wanted))
    }

    /// The best placed of the voters that answer, hold the log up to `held` and will do. None unless those who answer and will do are a
    /// majority without this node: else nothing is gained, since the log waits for this disk all the same. And none for a while after
    /// one was asked that did not take over.
    fn successor(&self, held: Index, will_do: impl Fn(RaftId) -> bool) -> Option<RaftId> {
        let (own, active) = (own_id(&self.meta), self.active());
        let pause = PAUSE_TIMEOUTS * self.settings.election_ticks as u64;
        if self.asked.is_some_and(|(_, at)| self.ticks - at < pause) {
            return None;
        }
        let voters = &self.meta.membership.voters;
        let others =
            voters.iter().map(|it| it.id).filter(|id| *id != own && active.contains(id) && will_do(*id));
        let others: Vec<RaftId> = others.collect();
        if others.len() < voters.len() / 2 + 1 {
            return None;
        }
        let is_new = |id: RaftId| self.asked.is_none_or(|(before, _)| before != id);
        let held = others.into_iter().filter(|id| self.matched(*id) >= held.get());
        held.max_by_key(|id| (is_new(*id), self.matched(*id)))
    }
}
