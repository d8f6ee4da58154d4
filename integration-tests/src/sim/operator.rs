//! The operator: trims, moves the lead, changes the members, replaces what was wiped.
//!
//! Owns:   one order at a time, and which directories may be wiped without a loss that nobody promised to survive.

use loglog_core::consensus::{Order, Place};
use loglog_core::membership::MemberChange;
use loglog_core::{Answer, Role};
use loglog_proto::entry::Kind;
use loglog_proto::{Offset, RaftId};
use rand::Rng;

use super::dials::Fault;
use super::node::{Ask, At, Event, Reply, State, Token};
use super::queue::{Micros, SECOND};
use super::world::{World, member};
use crate::history::{Tick, Trim};

/// The operator's name among the clients.
pub(super) const CLIENT: usize = usize::MAX;
/// An order without an answer is given up after that.
const PATIENCE: Micros = 10 * SECOND;

#[derive(Default)]
pub(super) struct Operator {
    /// How far the log was told to be trimmed, at most.
    pub(super) trimmed: Offset,
    number: u64,
    waiting: Option<(u64, Micros, Fault)>,
    /// Members whose directories are wiped, and that are to be replaced.
    wiped: Vec<RaftId>,
    /// A directory is to be wiped as soon as it may be.
    pub(super) is_wipe_due: bool,
}

impl World {
    pub(super) fn operate(&mut self) {
        let pause = if self.is_stormy { self.rng.random_range(SECOND..15 * SECOND) } else { SECOND };
        self.queue.push(pause, Event::Operator);
        let now = self.queue.now();
        if self.operator.waiting.is_some_and(|(_, since, _)| now < since + PATIENCE) {
            return;
        }
        self.operator.waiting = None;
        self.switch_off();
        if self.operator.is_wipe_due && self.is_stormy && self.wipe().is_some() {
            self.operator.is_wipe_due = false;
            self.count(Fault::Wipe);
        }
        let Some(leader) = self.sure_leader() else { return };
        let Some((fault, order)) = self.draw_order(leader) else { return };
        self.operator.number += 1;
        self.operator.waiting = Some((self.operator.number, now, fault));
        self.tell(|| format!("order to node {leader}: {order:?}"));
        self.ask(leader, Token { client: CLIENT, number: self.operator.number }, Ask::Order(order));
    }

    pub(super) fn obeyed(&mut self, token: Token, answer: Reply) {
        if let Some((_, _, fault)) = self.operator.waiting.take_if(|(number, ..)| *number == token.number)
            && let Reply::Answer(answer) = answer
        {
            self.tell(|| format!("order {}: {answer:?}", token.number));
            if let Answer::Managed(managed) = answer {
                self.count(fault);
                if fault == Fault::Trim
                    && let Some(trim) = self.judge.history.trims.last_mut()
                {
                    trim.answer = Some((Tick::new(self.queue.now()), Offset::new(managed.start)));
                }
            }
        }
    }

    pub(super) fn sure_leader(&mut self) -> Option<At> {
        (0..self.nodes.len())
            .find(|at| self.nodes[*at].life().is_some_and(|life| life.core.status().role == Role::Leader))
    }

    fn draw_order(&mut self, leader: At) -> Option<(Fault, Order)> {
        let life = self.nodes[leader].life()?;
        let (reader, committed) = (life.reader.clone(), life.core.status().committed.offset);
        let membership = life.meta.state().membership.clone();
        let voters: Vec<RaftId> = membership.voters.iter().map(|it| it.id).collect();
        let learners: Vec<RaftId> = membership.learners.iter().map(|it| it.id).collect();
        self.operator.wiped.retain(|id| voters.contains(id) || learners.contains(id));
        // What is broken comes first.
        if let Some(gone) = self.operator.wiped.first().copied() {
            let heir = self.nodes.iter().find(|node| {
                node.node() == gone.node() && node.id != gone && !matches!(node.state, State::Gone)
            });
            let id = match heir.map(|heir| heir.id) {
                Some(id) => id,
                None => {
                    let id = self.draw_id(gone.node().get());
                    self.join(id);
                    id
                }
            };
            return Some((Fault::Replace, Order::Members(MemberChange::Replace(member(id)))));
        }
        let may_promote = self.dials.of(Fault::Promote) > 0.0 || voters.len() < 3;
        if !learners.is_empty() && may_promote && self.rng.random_bool(0.5) {
            let node = learners[self.rng.random_range(0..learners.len())].node();
            return Some((Fault::Promote, Order::Members(MemberChange::Promote(node))));
        }
        if !self.is_stormy {
            return None;
        }
        let choice = [Fault::Trim, Fault::Trim, Fault::MoveLeader, Fault::Add, Fault::Remove]
            [self.rng.random_range(0..5)];
        if !self.chance(choice) {
            return None;
        }
        let order = match choice {
            Fault::Trim => {
                let start = reader.start().get();
                // Mostly a part, seldom all that can be.
                let most = if self.rng.random_bool(0.2) {
                    committed.get()
                } else {
                    start + (committed.get() - start) / 2
                };
                let before = Offset::new(self.rng.random_range(start..=most.max(start)));
                let order = Order::trim(&reader, before, committed).ok()?;
                if let Order::Trim { asked, to } = &order {
                    self.operator.trimmed = self.operator.trimmed.max(to.offset);
                    let invoked = Tick::new(self.queue.now());
                    self.judge.history.trims.push(Trim { asked: *asked, invoked, answer: None });
                }
                order
            }
            Fault::MoveLeader => Order::Lead(voters[self.rng.random_range(0..voters.len())].node()),
            Fault::Add if voters.len() + learners.len() < 5 => {
                let node = (1..=9)
                    .find(|node| !self.nodes.iter().any(|it| it.node().get() == *node && !it.is_gone()))?;
                let id = self.draw_id(node);
                self.join(id);
                Order::Members(MemberChange::Add(member(id)))
            }
            Fault::Remove if voters.len() > 3 && self.harmed() == 0 => {
                Order::Members(MemberChange::Remove(voters[self.rng.random_range(0..voters.len())].node()))
            }
            _ => return None,
        };
        Some((choice, order))
    }

    /// Members that have lost what they once held, and have not got it back.
    pub(super) fn harmed(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_damaged && !node.is_gone()).count()
            + self.operator.wiped.len()
    }

    /// A voter's directory is wiped, if the others can do without it, whatever is under way.
    fn wipe(&mut self) -> Option<()> {
        let leader = self.sure_leader()?;
        let membership = self.nodes[leader].life()?.meta.state().membership.clone();
        let voters: Vec<RaftId> = membership.voters.iter().map(|it| it.id).collect();
        if voters.len() < 3
            || !membership.learners.is_empty()
            || self.harmed() > 0
            || self.operator.waiting.is_some()
        {
            return None;
        }
        for id in &voters {
            let at = *self.by_id.get(id)?;
            let life = self.nodes[at].life()?;
            if life.meta.state().membership != membership || !life.held.is_empty() {
                return None;
            }
            // No change of members may come to be that was written to some log and not committed yet.
            let (from, end) = (life.core.status().committed.offset, life.writer.end());
            let mut is_open = false;
            let _ = life.reader.scan(from, end, &mut |entry| is_open |= entry.prefix.kind == Kind::Control);
            if is_open {
                return None;
            }
        }
        let gone = voters[self.rng.random_range(0..voters.len())];
        let at = *self.by_id.get(&gone)?;
        self.tell(|| format!("node {at} is wiped"));
        self.retire(at);
        self.operator.wiped.push(gone);
        Some(())
    }

    /// A node that nothing can repair is wiped, and replaced as soon as may be.
    pub(super) fn give_up_on(&mut self, at: At) {
        self.tell(|| format!("node {at} cannot be repaired"));
        let id = self.nodes[at].id;
        self.retire(at);
        self.operator.wiped.push(id);
    }

    fn retire(&mut self, at: At) {
        let node = &mut self.nodes[at];
        node.generation += 1;
        node.state = State::Gone;
        node.disk = loglog_storage::vfs::SimVfs::new();
    }

    /// Nodes that know that they are members no more are switched off; so are those that were to be taken in and were not, in the end.
    fn switch_off(&mut self) {
        let members = |world: &mut Self| {
            let leader = world.sure_leader()?;
            let life = world.nodes[leader].life()?;
            Some((life.meta.state().membership.clone(), life.core.status().committed.index))
        };
        let Some((membership, committed)) = members(self) else { return };
        if membership.index > committed || self.operator.waiting.is_some() {
            return;
        }
        for at in 0..self.nodes.len() {
            let id = self.nodes[at].id;
            let is_member = membership.voters.iter().chain(&membership.learners).any(|it| it.id == id);
            let is_heir = self.operator.wiped.iter().any(|it| it.node() == id.node());
            let place = self.nodes[at].life().map(|life| life.core.status().place);
            if !is_member && !is_heir && place == Some(Place::Gone) {
                self.tell(|| format!("node {at} is switched off"));
                self.retire(at);
            }
        }
    }
}
