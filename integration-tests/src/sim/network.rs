//! The network: messages between nodes, and what becomes of them.
//!
//! Owns:   links, cuts, loss, doubles, delays, messages of old.
//! Keeps:  what travels are the wire's own bytes.

use bytes::{Bytes, BytesMut};
use loglog_proto::peer::{PEER_FRAME_BYTES_MAX, PeerAccepted, PeerMessage, PeerStanding, RaftMessage};
use loglog_proto::{RaftId, frame};
use rand::Rng;

use super::dials::Fault;
use super::node::{At, Event};
use super::queue::{MS, Micros};
use super::world::World;

/// Messages of old that are remembered.
const OLD_MAX: usize = 2000;

/// What a node says to another.
pub(super) enum Say {
    Raft(Box<RaftMessage>),
    Standing(PeerStanding),
}

impl World {
    /// Sends a message over a link; where there is none, one is opened for the next.
    pub(super) fn say(&mut self, from: RaftId, to: RaftId, life: u64, what: Say) {
        let (Some(&here), Some(&there)) = (self.by_id.get(&from), self.by_id.get(&to)) else { return };
        let ends = (self.nodes[here].generation, self.nodes[there].generation);
        if self.links.get(&(here, there)) != Some(&ends) {
            self.connect_soon(here, there);
            if let Some(life) = self.nodes[here].life() {
                life.core.unreachable(to);
            }
            return;
        }
        let mut out = BytesMut::new();
        match what {
            Say::Raft(message) => PeerMessage::Raft(message),
            Say::Standing(standing) => PeerMessage::Standing(standing),
        }
        .encode(&mut out);
        let message = out.freeze();
        if self.chance(Fault::Replay) && !self.old.is_empty() {
            let (from, to, life, old) = self.old[self.rng.random_range(0..self.old.len())].clone();
            self.count(Fault::Replay);
            self.carry(from, to, life, old);
        }
        match self.old.len() {
            // Some stay for long.
            OLD_MAX => {
                let at = self.rng.random_range(0..OLD_MAX);
                self.old[at] = (from, to, life, message.clone());
            }
            _ => self.old.push((from, to, life, message.clone())),
        }
        if self.chance(Fault::Duplicate) {
            self.count(Fault::Duplicate);
            self.carry(from, to, life, message.clone());
        }
        self.carry(from, to, life, message);
    }

    pub(super) fn say_to_all(&mut self, at: At, life: u64, standing: PeerStanding) {
        // To whoever there is a link to: who is to be taken in knows no members yet.
        let linked: Vec<At> =
            (0..self.nodes.len()).filter(|to| self.links.contains_key(&(at, *to))).collect();
        for to in linked {
            self.say(self.nodes[at].id, self.nodes[to].id, life, Say::Standing(standing));
        }
    }

    fn carry(&mut self, from: RaftId, to: RaftId, life: u64, frame: Bytes) {
        let (Some(&here), Some(&there)) = (self.by_id.get(&from), self.by_id.get(&to)) else { return };
        if self.is_cut(here, there) {
            return;
        }
        if self.chance(Fault::Loss) {
            return self.count(Fault::Loss);
        }
        let delay = self.delay(here, there);
        self.queue.push(delay, Event::Said { from, to, life, frame });
    }

    /// Whether what goes this way is swallowed; and that it was.
    pub(super) fn is_cut(&mut self, from: At, to: At) -> bool {
        let Some(&fault) = self.cuts.get(&(from, to)) else { return false };
        if !std::mem::replace(&mut self.is_cut_felt, true) {
            self.count(fault);
        }
        true
    }

    pub(super) fn delay(&mut self, from: At, to: At) -> Micros {
        let usual = self.rng.random_range(50..400) * self.nodes[from].slow.max(self.nodes[to].slow);
        if self.chance(Fault::Delay) {
            self.count(Fault::Delay);
            return usual + self.rng.random_range(0..2000 * MS);
        }
        usual
    }

    /// A message arrives.
    pub(super) fn said(&mut self, from: RaftId, to: RaftId, life: u64, frame: Bytes) {
        let Some(&at) = self.by_id.get(&to) else { return };
        let Some(own) = self.nodes[at].life() else { return };
        let mut frame = BytesMut::from(&frame[..]);
        let frame = frame::split(&mut frame, PEER_FRAME_BYTES_MAX).expect("our own frame").expect("whole");
        match PeerMessage::decode(&frame).expect("our own message") {
            PeerMessage::Raft(message) => {
                if let Err(error) = own.core.step(life, *message) {
                    self.violate(format!("node {at} does not hear what a node says: {error}"));
                }
            }
            PeerMessage::Standing(standing) => own.core.stands(from, standing),
            other => unreachable!("nobody says {other:?}"),
        }
        self.turn_soon(at);
    }

    /// Links to and from a node that has come to life: all have to be opened.
    pub(super) fn links_of(&mut self, at: At) {
        for other in 0..self.nodes.len() {
            if other != at && !self.nodes[other].is_gone() {
                self.connect_soon(at, other);
                self.connect_soon(other, at);
            }
        }
    }

    fn connect_soon(&mut self, from: At, to: At) {
        if self.connecting.insert((from, to)) {
            let delay = self.rng.random_range(20 * MS..300 * MS);
            self.queue.push(delay, Event::Connect { from, to });
        }
    }

    /// One node says hello to another, which answers what it durably holds (S23).
    pub(super) fn connect(&mut self, from: At, to: At) {
        self.connecting.remove(&(from, to));
        if self.is_cut(from, to) || self.is_cut(to, from) {
            return;
        }
        let ends = (self.nodes[from].generation, self.nodes[to].generation);
        let peer = self.nodes[to].id;
        // Who has said hello is answered, also by one who does not know him yet.
        let is_heard = self.links.get(&(to, from)) == Some(&(ends.1, ends.0));
        let is_known = |life: &super::node::Life| {
            let members = &life.meta.state().membership;
            members.voters.iter().chain(&members.learners).any(|it| it.id == peer)
        };
        if !self.nodes[from].life().is_some_and(|life| is_heard || is_known(life)) {
            return;
        }
        let Some(theirs) = self.nodes[to].life() else { return };
        let accepted = theirs.core.status().accepted;
        let delay = self.delay(to, from);
        self.links.insert((from, to), ends);
        self.queue.push(delay, Event::Accepted { at: from, generation: ends.0, to: ends.1, peer, accepted });
    }

    pub(super) fn accepted(&mut self, at: At, ends: (u64, u64), peer: RaftId, accepted: PeerAccepted) {
        // The answer of a life that has ended went with its connection.
        let is_open = self.by_id.get(&peer).is_some_and(|to| self.links.get(&(at, *to)) == Some(&ends));
        if let Some(life) = self.nodes[at].life_of(ends.0).filter(|_| is_open) {
            life.core.accepted(peer, accepted);
            self.turn_soon(at);
        }
    }
}
