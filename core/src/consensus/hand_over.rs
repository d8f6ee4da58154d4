//! Handing over: when a leader lets another lead, and whom.
//!
//! Owns:   how long the writer has not been through with a group.
//! Keeps:  a leader whose own disk hangs or has no room is followed by one whose disk does, if there is one: until then nothing is
//!         proposed, though a majority could sync it.
//! Never:  lets go of anything that was accepted: the successor holds it before it campaigns (Raft thesis §3.10).

use std::fmt;

use loglog_proto::{Index, RaftId};

use super::{Consensus, Role, own_id};
use crate::effects::Effects;

/// So many election timeouts may the writer take for a group before another node is to lead.
const STUCK_TIMEOUTS: usize = 3;

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
    /// Hands leadership to the voter that holds most of the log, if there is another, one that answers before one that does not; until
    /// it has taken over, appends are refused as [`Code::Unavailable`](loglog_proto::error::Code::Unavailable).
    pub fn hand_over(&mut self) {
        let (own, active) = (own_id(&self.meta), self.active());
        let others = self.meta.membership.voters.iter().map(|it| it.id).filter(|id| *id != own);
        if let Some(best) = others.max_by_key(|id| (active.contains(id), self.matched(*id))) {
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
    pub(super) fn step_aside(&mut self, effects: &mut Effects<T>) {
        if self.role != Role::Leader || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        let last = Index::new(self.raw.raft.raft_log.last_index());
        let (reason, successor) = if self.unsynced_ticks > STUCK_TIMEOUTS * self.settings.election_ticks {
            // Who has synced what this disk has not.
            (Reason::DiskStuck, self.successor(last, 0))
        } else if self.refused_bytes > 0 {
            (Reason::DiskFull, self.successor_with_room(self.refused_bytes))
        } else {
            return;
        };
        if let Some(successor) = successor {
            effects.hands_over = Some((successor, reason));
            self.hand_over_to(successor);
        }
    }

    /// Who could take an append of so many bytes that this disk has no room for.
    pub(super) fn successor_with_room(&self, bytes: u64) -> Option<RaftId> {
        if self.has_room(bytes) { None } else { self.successor(self.committed.index, bytes) }
    }

    /// The voter that answers, holds the log up to `held`, has room for `bytes` more, and holds most of the log.
    fn successor(&self, held: Index, bytes: u64) -> Option<RaftId> {
        let (own, wanted) = (own_id(&self.meta), self.settings.free_min.saturating_add(bytes));
        let has_room = |id: &RaftId| self.free.get(id).is_none_or(|free| *free >= wanted);
        let voters = self.meta.membership.voters.iter().map(|it| it.id);
        let active = self.active();
        voters
            .filter(|id| *id != own && active.contains(id) && has_room(id))
            .filter(|id| self.matched(*id) >= held.get())
            .max_by_key(|id| self.matched(*id))
    }
}
