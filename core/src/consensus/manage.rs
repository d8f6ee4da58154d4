//! Managing: what an operator asks of the log, and what control entries do once they are committed.
//!
//! Owns:   deciding about orders, proposing control entries, applying them: members, start.
//! Keeps:  one change of members at a time, each applied before the next is proposed (S12, S26); the start only grows, and never
//!         past what is committed here (S36).
//! Never:  moves a file or opens a link: the shell does, told by [`Effects`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::manage::{Managed, MemberStatus};
use loglog_proto::peer::PeerStanding;
use loglog_proto::{Index, LogId, NodeId, Offset, RaftId};
use loglog_storage::{LogReader, LogStart, Member, Membership};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry};
use raft::{ProgressState, SnapshotStatus};

use super::{Consensus, PeerProgress, Proposed, Role, log_id, log_store, own_entry, own_id};
use crate::batch::{Content, control_payload};
use crate::control::Control;
use crate::effects::{Answer, Effects};
use crate::membership::{self, MemberChange, Plan, Standing, Step};

/// Ticks after which a member that said nothing counts as absent, in election timeouts.
const ABSENT_TIMEOUTS: u64 = 2;
/// Ticks between two tellings of how this node stands.
const STANDING_TICKS: u64 = 10;

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Who keeps the log, and how far each is.
    List,
    /// Drop what lies before `to`, the base of a segment that holds a committed batch, at or before what was asked for.
    Trim {
        /// What was asked for.
        asked: Offset,
        /// What that comes to.
        to: LogStart,
    },
    /// Change the members.
    Members(MemberChange),
    /// Let this voter lead.
    Lead(NodeId),
}

impl Order {
    /// To drop what lies before `before`: down to the base of the segment that holds it, or of the last one that holds a committed
    /// batch.
    ///
    /// # Errors
    /// [`Code::BadRequest`] for an offset beyond the committed end.
    pub fn trim(reader: &LogReader, before: Offset, committed: Offset) -> Result<Self, Refusal> {
        if before > committed {
            let message = format!("offset {before} lies beyond the committed end {committed}");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let segments = reader.segments();
        // One that begins where the committed end is may hold nothing that stays.
        let within =
            segments.iter().rfind(|it| it.header.base_offset <= before && it.header.base_offset < committed);
        let to = within.map_or(LogStart::GENESIS, |segment| LogStart {
            offset: segment.header.base_offset,
            index: segment.header.base_index,
            previous_term: segment.header.previous_term,
        });
        Ok(Self::Trim { asked: before, to })
    }
}

/// An order whose control entry is not committed yet.
pub(super) struct Ordered<T> {
    log_id: LogId,
    token: T,
    message: String,
}

/// What a decision about an order comes to.
enum Decided {
    Told(Managed),
    Propose { control: Control, message: String },
}

impl<T> Consensus<T> {
    /// Takes an order; it is decided in a later [`Consensus::turn`]. A dry run only says what would happen.
    pub fn manage(&mut self, token: T, order: Order, dry_run: bool) {
        self.orders.push_back((token, order, dry_run));
    }

    /// Where this node is reached now; it goes into the log with the next change of members.
    pub fn set_addresses(&mut self, peer: String, client: String) {
        self.addresses = Some((peer, client));
    }

    /// The snapshot that [`Effects::install`] asked for is not to be had now: the leader may send another.
    pub fn install_failed(&mut self) {
        self.is_installing = false;
        if let Some(leader) = RaftId::from_raw(self.raw.raft.leader_id) {
            self.failed_installs.push(leader);
        }
    }

    /// A peer said how it stands.
    pub fn stands(&mut self, peer: RaftId, standing: PeerStanding) {
        self.free.insert(peer, standing.free);
        let (offset, index, previous_term) = standing.start;
        let start = LogStart { offset, index, previous_term };
        // The furthest one heard; another peer that lags must not hide it.
        self.heard_start = self.heard_start.filter(|it| it.index >= index).or(Some(start));
        if self.role == Role::Leader
            && !standing.is_copying
            && self.raw.raft.prs().get(peer.get()).is_some_and(|it| it.state == ProgressState::Snapshot)
        {
            // It never got the snapshot, or has given it up; or the news crossed, and a second snapshot changes nothing.
            self.raw.report_snapshot(peer.get(), SnapshotStatus::Failure);
        }
    }

    /// How this node stands, for its peers, now and then.
    pub(super) fn tell_standing(&mut self) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(STANDING_TICKS) {
            let start = self.meta.start;
            self.standing = Some(PeerStanding {
                free: self.available,
                start: (start.offset, start.index, start.previous_term),
                is_copying: self.is_installing,
            });
        }
    }

    /// A start that a peer has trimmed to is committed: a node whose disk is too full to take the entry that says so trims all the
    /// same, as far as it has committed itself (S36, S37).
    pub(super) fn follow_start(&mut self, effects: &mut Effects<T>) {
        if let Some(start) = self.heard_start.take_if(|start| start.index <= self.committed.index) {
            // It is ours only if it names a place in our log.
            let before = self.raw.store().term_of(start.index.previous());
            if start.offset <= self.committed.offset && before == Some(start.previous_term) {
                self.trim_to(start, effects);
            }
        }
        // What a payload is wanted for may be trimmed everywhere else by now: it will not be had, and the leader, asked again, sends
        // a snapshot instead.
        if let Some(start) = self.heard_start
            && self.gate.waits_below(start.index)
        {
            self.gate.clear(log_store::term(self.raw.raft.term));
        }
    }

    /// Decides about the orders that wait.
    pub(super) fn obey(&mut self, wall_clock_ms: u64, effects: &mut Effects<T>) {
        while let Some((token, order, dry_run)) = self.orders.pop_front() {
            match self.decide_order(&order, dry_run) {
                Ok(Decided::Told(managed)) => {
                    effects.answers.push((token, Answer::Managed(Box::new(managed))))
                }
                Ok(Decided::Propose { control, message }) if dry_run => {
                    let managed = self.would(&control, message);
                    effects.answers.push((token, Answer::Managed(Box::new(managed))));
                }
                Ok(Decided::Propose { control, message }) => {
                    self.propose_control(token, &control, message, effects);
                    self.drain(wall_clock_ms, effects);
                }
                Err(refusal) => effects.answers.push((token, Answer::Refused(refusal))),
            }
        }
    }

    fn decide_order(&mut self, order: &Order, dry_run: bool) -> Result<Decided, Refusal> {
        if *order == Order::List {
            return Ok(Decided::Told(self.managed(String::new())));
        }
        if self.role != Role::Leader {
            return Err(self.not_leader());
        }
        match order {
            Order::List => unreachable!("answered above"),
            Order::Trim { asked, to } => {
                let start = self.meta.start.offset;
                if to.offset <= start {
                    let message =
                        format!("the log begins at {start} already: no whole segment lies before {asked}");
                    return Ok(Decided::Told(self.managed(message)));
                }
                let message = if to.offset == *asked {
                    format!("the log begins at {asked}")
                } else {
                    format!("the log begins at {}, where the segment begins that holds {asked}", to.offset)
                };
                Ok(Decided::Propose { control: Control::Trim(*to), message })
            }
            Order::Members(change) => self.decide_members(change, dry_run),
            Order::Lead(node) => self.decide_lead(*node, dry_run).map(Decided::Told),
        }
    }

    fn decide_members(&mut self, change: &MemberChange, dry_run: bool) -> Result<Decided, Refusal> {
        let unavailable = |message: &str| Err(Refusal::new(Code::Unavailable, message));
        if !self.raw.raft.commit_to_current_term() {
            return unavailable("the leader is new and has committed nothing yet: try again in a moment");
        }
        if self.raw.raft.has_pending_conf() || !self.ordered.is_empty() {
            return unavailable("another change is under way: one at a time");
        }
        let (active, mut lag) = (self.active(), self.lags());
        // Who is probed, or copies a snapshot, may lack anything.
        lag.retain(|id, _| {
            self.raw.raft.prs().get(id.get()).is_some_and(|it| it.state == ProgressState::Replicate)
        });
        let standing = Standing {
            own: own_id(&self.meta),
            membership: &self.meta.membership,
            active: &active,
            lag: &lag,
        };
        match membership::plan(&standing, change)? {
            Plan::Done(message) => Ok(Decided::Told(self.managed(message))),
            Plan::HandOver(refusal) if dry_run => Ok(Decided::Told(self.managed(refusal.message))),
            Plan::HandOver(refusal) => {
                self.hand_over();
                Err(refusal)
            }
            Plan::Change { message, mut voters, learners } => {
                if let Some((peer, client)) = &self.addresses
                    && let Some(own) = voters.iter_mut().find(|it| it.id == own_id(&self.meta))
                {
                    (own.peer_address, own.client_address) = (peer.clone(), client.clone());
                }
                Ok(Decided::Propose { control: Control::Members { voters, learners }, message })
            }
        }
    }

    fn decide_lead(&mut self, node: NodeId, dry_run: bool) -> Result<Managed, Refusal> {
        let voter = self.meta.membership.voters.iter().find(|it| it.id.node() == node).map(|it| it.id);
        let Some(voter) = voter else {
            return Err(Refusal::new(Code::BadRequest, format!("node {node} is no voter: it cannot lead")));
        };
        if voter == own_id(&self.meta) {
            return Ok(self.managed(format!("node {node} leads")));
        }
        if !self.active().contains(&voter) {
            let message = format!("node {node} does not answer: it cannot lead now");
            return Err(Refusal::new(Code::Unavailable, message));
        }
        if !dry_run {
            self.raw.transfer_leader(voter.get());
            self.draw_timeout();
        }
        Ok(self.managed(format!("node {node} is asked to lead")))
    }

    fn propose_control(&mut self, token: T, control: &Control, message: String, effects: &mut Effects<T>) {
        let last = self.raw.store().last();
        assert_eq!(
            last.index.get(),
            self.raw.raft.raft_log.last_index(),
            "all of Raft's own entries have their place"
        );
        let log_id = LogId { term: log_store::term(self.raw.raft.term), index: last.index.next() };
        let payload = control.encode();
        let steps = match control {
            Control::Trim(_) => Vec::new(),
            Control::Members { voters, learners } => {
                membership::steps(&self.meta.membership, voters, learners)
            }
        };
        let result = if steps.is_empty() {
            self.raw.propose(Vec::new(), Content::Control(payload.clone()).encode().into())
        } else {
            let changes = steps.iter().map(|step| single(*step)).collect::<Vec<_>>();
            let change = ConfChangeV2 { changes: changes.into(), ..ConfChangeV2::default() };
            self.raw.propose_conf_change(Vec::new(), change)
        };
        if let Err(error) = result {
            let refusal = Refusal::new(Code::Unavailable, format!("the log takes nothing just now: {error}"));
            effects.answers.push((token, Answer::Refused(refusal)));
            return;
        }
        assert_eq!(self.raw.raft.raft_log.last_index(), log_id.index.get(), "a proposal gets the next index");
        let entries = vec![own_entry(Kind::Control, payload)];
        self.proposed.push_back(Proposed { log_id, entries, waiting: Vec::new() });
        self.ordered.push_back(Ordered { log_id, token, message });
    }

    /// raft-rs put a noop where a change of members was proposed (S21).
    pub(super) fn refuse_ordered(&mut self, id: LogId, effects: &mut Effects<T>) {
        let refusal =
            Refusal::new(Code::Unavailable, "another change of members is under way: one at a time");
        // It is the last one proposed.
        if let Some(it) = self.ordered.pop_back_if(|it| it.log_id == id) {
            effects.answers.push((it.token, Answer::Refused(refusal)));
        }
    }

    /// This node leads no more: what comes of its orders is open.
    pub(super) fn give_up_orders(&mut self, refusal: &Refusal, effects: &mut Effects<T>) {
        let ordered = self.ordered.drain(..).map(|it| (it.token, Answer::Refused(refusal.clone())));
        effects.answers.extend(ordered);
    }

    /// Control entries up to `index` are committed and applied.
    pub(super) fn answer_orders(&mut self, index: Index, effects: &mut Effects<T>) {
        while let Some(it) = self.ordered.pop_front_if(|it| it.log_id.index <= index) {
            let managed = self.managed(it.message);
            effects.answers.push((it.token, Answer::Managed(Box::new(managed))));
        }
    }

    /// Does what a committed control entry says.
    pub(super) fn apply(&mut self, entry: &Entry, effects: &mut Effects<T>) {
        let Some(payload) = control_payload(&entry.data) else { return };
        match Control::decode(&payload).expect("control entries are checked before they are taken") {
            Control::Trim(start) => self.trim_to(start, effects),
            Control::Members { voters, learners } => {
                let index = log_id(entry).index;
                // S12: those up to the saved membership were applied in an earlier life.
                if index > self.meta.membership.index {
                    self.change_members(Membership { index, voters, learners }, effects);
                }
            }
        }
    }

    fn trim_to(&mut self, start: LogStart, effects: &mut Effects<T>) {
        if start.offset <= self.meta.start.offset {
            return;
        }
        self.meta.start = start;
        self.raw.mut_store().trim(start);
        self.writers.trim(start.offset);
        effects.trim = Some(Box::new(self.meta.clone()));
    }

    fn change_members(&mut self, membership: Membership, effects: &mut Effects<T>) {
        for step in membership::steps(&self.meta.membership, &membership.voters, &membership.learners) {
            let change = ConfChangeV2 { changes: vec![single(step)].into(), ..ConfChangeV2::default() };
            self.raw.apply_conf_change(&change).expect("a change that was planned can be made");
        }
        let members = ids(&membership);
        self.heard.retain(|id, _| members.contains(id));
        self.free.retain(|id, _| members.contains(id));
        self.raw.mut_store().set_membership(membership.clone());
        self.meta.membership = membership.clone();
        effects.save = Some(Box::new(self.meta.clone()));
        effects.members = Some(Box::new(membership));
        if self.role == Role::Leader && !self.is_voter() {
            // It was to lead no more before (S26); where its successor's removal of it came to it as a leader, it stops now.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.draw_timeout();
    }

    pub(super) fn is_voter(&self) -> bool {
        self.meta.membership.voters.iter().any(|it| it.id == own_id(&self.meta))
    }

    /// Those that this leader heard from lately, itself included.
    pub(super) fn active(&self) -> BTreeSet<RaftId> {
        let limit = ABSENT_TIMEOUTS * self.settings.election_ticks as u64;
        let lately = |at: &u64| self.ticks.saturating_sub(*at) <= limit;
        let heard = self.heard.iter().filter(|(_, at)| lately(at)).map(|(id, _)| *id);
        heard.chain([own_id(&self.meta)]).collect()
    }

    pub(super) fn matched(&self, id: RaftId) -> u64 {
        self.raw.raft.prs().get(id.get()).map_or(0, |progress| progress.matched)
    }

    /// How every other member stands.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerProgress> {
        let (leads, own) = (self.role == Role::Leader, own_id(&self.meta));
        let others = ids(&self.meta.membership).into_iter().filter(|id| *id != own);
        let peer = |id| {
            let matched = leads.then(|| Index::new(self.matched(id)));
            PeerProgress {
                id,
                matched,
                matched_end: matched.and_then(|index| self.raw.store().end_of(index)),
                silent_ticks: self.heard.get(&id).map(|at| self.ticks.saturating_sub(*at)),
            }
        };
        others.map(peer).collect()
    }

    fn lags(&self) -> BTreeMap<RaftId, u64> {
        let lag = |id: RaftId| (id, self.committed.index.get().saturating_sub(self.matched(id)));
        ids(&self.meta.membership).into_iter().map(lag).collect()
    }

    /// How things stand.
    fn managed(&self, message: String) -> Managed {
        let Membership { voters, learners, index } = &self.meta.membership;
        self.describe(message, *index, voters, learners)
    }

    fn would(&self, control: &Control, message: String) -> Managed {
        let message = format!("it would be done: {message}");
        match control {
            Control::Trim(start) => Managed { start: start.offset.get(), ..self.managed(message) },
            Control::Members { voters, learners } => {
                self.describe(message, self.raw.store().last().index.next(), voters, learners)
            }
        }
    }

    fn describe(&self, message: String, index: Index, voters: &[Member], learners: &[Member]) -> Managed {
        let (leads, own) = (self.role == Role::Leader, own_id(&self.meta));
        let (active, lags) = (self.active(), self.lags());
        let status = |role: &str, it: &Member| {
            let progress = self.raw.raft.prs().get(it.id.get());
            let is_own = it.id == own;
            MemberStatus {
                node: it.id.node().get(),
                incarnation: it.id.incarnation().to_string(),
                role: role.to_owned(),
                leads: Some(it.id) == RaftId::from_raw(self.raw.raft.leader_id),
                peer: it.peer_address.clone(),
                client: it.client_address.clone(),
                active: leads.then(|| active.contains(&it.id)),
                matched: leads.then(|| {
                    if is_own { self.write.durable().last.index.get() } else { self.matched(it.id) }
                }),
                lag: leads.then(|| if is_own { 0 } else { lags.get(&it.id).copied().unwrap_or_default() }),
                is_copying: leads.then(|| progress.is_some_and(|it| it.state == ProgressState::Snapshot)),
            }
        };
        let members = voters.iter().map(|it| status("voter", it));
        let members = members.chain(learners.iter().map(|it| status("learner", it)));
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|it| it.node);
        Managed { message, start: self.meta.start.offset.get(), membership: index.get(), members }
    }
}

/// Every member's id.
pub(super) fn ids(membership: &Membership) -> Vec<RaftId> {
    membership.voters.iter().chain(&membership.learners).map(|it| it.id).collect()
}

fn single(step: Step) -> ConfChangeSingle {
    let (change_type, id) = match step {
        Step::Voter(id) => (ConfChangeType::AddNode, id),
        Step::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        Step::Gone(id) => (ConfChangeType::RemoveNode, id),
    };
    ConfChangeSingle { change_type, node_id: id.get(), ..ConfChangeSingle::default() }
}

/// Which payload a control entry of a batch has that changes the members.
pub(super) fn changes_members(content: &Bytes) -> bool {
    control_payload(content).is_some_and(|payload| Control::changes_members(&payload))
}
