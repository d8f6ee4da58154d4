//! Membership: which change of members is a good one, and what it is to raft-rs.
//!
//! ```text
//!     running, unknown ──add──► learner ──promote──► voter ──remove──► gone
//!     dead or wiped voter ──replace──► gone, its successor a learner, in one entry
//! ```
//!
//! Owns:   the rules: one change at a time, never a quorum that does not answer, no node twice (S26).
//! Keeps:  from one membership to the next the voters differ by one at most: two quorums always share a node (Raft §4.1).
//! Never:  carries a change out: [`Consensus`](crate::Consensus) does.

use std::collections::{BTreeMap, BTreeSet};

use loglog_proto::error::{Code, Refusal};
use loglog_proto::{NodeId, RaftId};
use loglog_storage::{Member, Membership};

use crate::control::MEMBERS_MAX;

/// The longest address, bytes.
const ADDRESS_BYTES_MAX: usize = 255;
/// Batches that a learner may lack to be promoted: what is on its way while appends go on.
const PROMOTION_LAG_MAX: u64 = 256;

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Take in a learner.
    Add(Member),
    /// Make a learner a voter.
    Promote(NodeId),
    /// Let a member go.
    Remove(NodeId),
    /// Let a member go and take in its successor as a learner.
    Replace(Member),
}

/// How a leader sees its cluster.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// The leader.
    pub own: RaftId,
    /// Who keeps the log.
    pub membership: &'a Membership,
    /// Those it heard from lately, itself included.
    pub active: &'a BTreeSet<RaftId>,
    /// Batches that a member lacks; none where that is not known.
    pub lag: &'a BTreeMap<RaftId, u64>,
}

/// What is to be done about a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Write these members to the log.
    Change {
        /// In words.
        message: String,
        /// Those who will count for the quorum.
        voters: Vec<Member>,
        /// Those who will only follow.
        learners: Vec<Member>,
    },
    /// It is so already.
    Done(String),
    /// Another must lead first.
    HandOver(Refusal),
}

/// One step that raft-rs is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Voter(RaftId),
    Learner(RaftId),
    Gone(RaftId),
}

/// What leads from one membership to the next, in the order in which raft-rs takes it.
pub(crate) fn steps(old: &Membership, voters: &[Member], learners: &[Member]) -> Vec<Step> {
    let ids = |members: &[Member]| members.iter().map(|it| it.id).collect::<BTreeSet<_>>();
    let (old_voters, old_learners) = (ids(&old.voters), ids(&old.learners));
    let (voters, learners) = (ids(voters), ids(learners));
    let gone = old_voters.union(&old_learners).filter(|id| !voters.contains(id) && !learners.contains(id));
    let gone = gone.map(|id| Step::Gone(*id));
    let new_learners = learners.difference(&old_learners).map(|id| Step::Learner(*id));
    let new_voters = voters.difference(&old_voters).map(|id| Step::Voter(*id));
    gone.chain(new_learners).chain(new_voters).collect()
}

/// Decides about a change.
///
/// # Errors
/// Why not.
pub fn plan(standing: &Standing<'_>, change: &MemberChange) -> Result<Plan, Refusal> {
    let Membership { voters, learners, .. } = standing.membership;
    let (voters, learners) = (voters.clone(), learners.clone());
    match change {
        MemberChange::Add(new) => add(standing, new),
        MemberChange::Promote(node) => promote(standing, *node),
        MemberChange::Remove(node) => {
            let Some(old) = standing.find(*node) else {
                return Ok(Plan::Done(format!("node {node} is no member")));
            };
            let id = old.id;
            let left = without(&voters, id);
            if voters.len() != left.len() {
                standing.check_quorum(*node, &left)?;
            }
            if id == standing.own {
                let message = format!("node {node} leads: it hands over first, then it can be removed");
                return Ok(Plan::HandOver(Refusal::new(Code::Unavailable, message)));
            }
            let message = format!("node {node} is no longer a member");
            Ok(Plan::Change { message, voters: left, learners: without(&learners, id) })
        }
        MemberChange::Replace(new) => replace(standing, new),
    }
}

fn add(standing: &Standing<'_>, new: &Member) -> Result<Plan, Refusal> {
    let node = new.id.node();
    let Membership { voters, learners, .. } = standing.membership;
    match standing.find(node) {
        Some(old) if old.id == new.id => return Ok(Plan::Done(format!("node {node} is a member already"))),
        Some(_) => {
            let message = format!(
                "node {node} is a member under another incarnation: use `members replace {node}` if that one is dead or wiped"
            );
            return Err(bad(message));
        }
        None => {}
    }
    if voters.len() + learners.len() >= MEMBERS_MAX {
        return Err(bad(format!("there are {MEMBERS_MAX} members already, the most there can be")));
    }
    standing.check_addresses(new)?;
    let learners = with(learners, new);
    let message = format!("node {node} is a learner");
    Ok(Plan::Change { message, voters: voters.clone(), learners })
}

fn promote(standing: &Standing<'_>, node: NodeId) -> Result<Plan, Refusal> {
    let Membership { voters, learners, .. } = standing.membership;
    if voters.iter().any(|it| it.id.node() == node) {
        return Ok(Plan::Done(format!("node {node} is a voter already")));
    }
    let Some(learner) = learners.iter().find(|it| it.id.node() == node) else {
        return Err(bad(format!("node {node} is no member: add it first")));
    };
    if !standing.active.contains(&learner.id) {
        let message = format!("node {node} does not answer: it cannot be given a vote now");
        return Err(Refusal::new(Code::Unavailable, message));
    }
    let lag = standing.lag.get(&learner.id).copied();
    if lag.is_none_or(|lag| lag > PROMOTION_LAG_MAX) {
        let lacks = lag.map_or("much".to_owned(), |lag| format!("{lag} batches"));
        let message = format!("node {node} lacks {lacks} still: promote it when it has caught up");
        return Err(Refusal::new(Code::Unavailable, message));
    }
    let message = format!("node {node} is a voter");
    Ok(Plan::Change { message, voters: with(voters, learner), learners: without(learners, learner.id) })
}

fn replace(standing: &Standing<'_>, new: &Member) -> Result<Plan, Refusal> {
    let node = new.id.node();
    let Membership { voters, learners, .. } = standing.membership;
    let Some(old) = standing.find(node) else {
        return Err(bad(format!("node {node} is no member: use `members add`")));
    };
    if old.id == new.id {
        if (&old.peer_address, &old.client_address) == (&new.peer_address, &new.client_address) {
            return Ok(Plan::Done(format!("node {node} is that very member: there is nothing to replace")));
        }
        // It has moved.
        standing.check_addresses(new)?;
        let moved = |members: &[Member]| match members.iter().any(|it| it.id == new.id) {
            true => with(&without(members, new.id), new),
            false => members.to_vec(),
        };
        let message = format!("node {node} is reached at {} and {}", new.peer_address, new.client_address);
        return Ok(Plan::Change { message, voters: moved(voters), learners: moved(learners) });
    }
    if old.id == standing.own || standing.active.contains(&old.id) {
        let message = format!(
            "node {node} is alive under incarnation {}: stop it first, or remove it and add the other under another id",
            old.id.incarnation()
        );
        return Err(Refusal::new(Code::Forbidden, message));
    }
    standing.check_addresses(new)?;
    let left = without(voters, old.id);
    if left.len() != voters.len() {
        standing.check_quorum(node, &left)?;
    }
    let learners = with(&without(learners, old.id), new);
    let message = format!(
        "node {node} of incarnation {} is a learner in its predecessor's place",
        new.id.incarnation()
    );
    Ok(Plan::Change { message, voters: left, learners })
}

impl Standing<'_> {
    fn all(&self) -> impl Iterator<Item = &Member> {
        self.membership.voters.iter().chain(&self.membership.learners)
    }

    fn find(&self, node: NodeId) -> Option<&Member> {
        self.all().find(|it| it.id.node() == node)
    }

    /// Those voters who would be left must be able to commit.
    fn check_quorum(&self, node: NodeId, left: &[Member]) -> Result<(), Refusal> {
        if left.is_empty() {
            let message = format!("node {node} is the last voter: without it there would be no log");
            return Err(Refusal::new(Code::Forbidden, message));
        }
        let answering = left.iter().filter(|it| self.active.contains(&it.id)).count();
        let needed = left.len() / 2 + 1;
        if answering < needed {
            let message = format!(
                "without node {node} there would be {} voters, of which {needed} must answer; {answering} do: nothing could be \
                 appended any more",
                left.len()
            );
            return Err(Refusal::new(Code::Forbidden, message));
        }
        Ok(())
    }

    fn check_addresses(&self, new: &Member) -> Result<(), Refusal> {
        for (what, address) in [("peer", &new.peer_address), ("client", &new.client_address)] {
            if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
                return Err(bad(format!(
                    "the {what} address has {} bytes: 1 to {ADDRESS_BYTES_MAX} are possible",
                    address.len()
                )));
            }
            let taken = self.all().filter(|it| it.id.node() != new.id.node());
            let taken = taken.flat_map(|it| [(it, &it.peer_address), (it, &it.client_address)]);
            if let Some((other, _)) = taken.into_iter().find(|(_, theirs)| *theirs == address) {
                return Err(bad(format!("{address} is node {}'s", other.id.node())));
            }
        }
        Ok(())
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn with(members: &[Member], new: &Member) -> Vec<Member> {
    let mut members = members.to_vec();
    members.push(new.clone());
    members.sort_by_key(|it| it.id.node());
    members
}

fn without(members: &[Member], id: RaftId) -> Vec<Member> {
    members.iter().filter(|it| it.id != id).cloned().collect()
}

#[cfg(test)]
mod tests {
    use loglog_proto::{Incarnation, Index};

    use super::*;

    fn id(node: u32, incarnation: u32) -> RaftId {
        RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(incarnation).unwrap())
    }

    fn member(node: u32, incarnation: u32) -> Member {
        let id = id(node, incarnation);
        Member { id, peer_address: format!("p{node}"), client_address: format!("c{node}") }
    }

    fn membership(voters: &[u32], learners: &[u32]) -> Membership {
        let of = |nodes: &[u32]| nodes.iter().map(|node| member(*node, 7)).collect();
        Membership { index: Index::new(1), voters: of(voters), learners: of(learners) }
    }

    /// Node 1 leads, those of `active` answer, learners lack `lag` batches.
    fn decide(
        membership: &Membership,
        active: &[u32],
        lag: u64,
        change: MemberChange,
    ) -> Result<Plan, Refusal> {
        let active = active.iter().chain(&[1]).map(|node| id(*node, 7)).collect();
        let lags = membership.learners.iter().map(|it| (it.id, lag)).collect();
        plan(&Standing { own: id(1, 7), membership, active: &active, lag: &lags }, &change)
    }

    fn ids(members: &[Member]) -> Vec<RaftId> {
        members.iter().map(|it| it.id).collect()
    }

    fn changed(plan: Result<Plan, Refusal>) -> (Vec<RaftId>, Vec<RaftId>) {
        match plan {
            Ok(Plan::Change { voters, learners, .. }) => (ids(&voters), ids(&learners)),
            other => panic!("{other:?}"),
        }
    }

    fn node(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn a_node_comes_in_as_a_learner_and_votes_when_it_has_caught_up() {
        let alone = membership(&[1], &[]);
        let added = changed(decide(&alone, &[], 0, MemberChange::Add(member(2, 7))));
        assert_eq!(added, (vec![id(1, 7)], vec![id(2, 7)]));
        let two = membership(&[1], &[2]);
        let again = decide(&two, &[], 0, MemberChange::Add(member(2, 7)));
        assert!(matches!(again, Ok(Plan::Done(_))));
        let promote = |active: &[u32], lag| decide(&two, active, lag, MemberChange::Promote(node(2)));
        assert_eq!(promote(&[], 0).unwrap_err().code, Code::Unavailable, "it does not answer");
        assert_eq!(promote(&[2], 10_000).unwrap_err().code, Code::Unavailable, "it has not caught up");
        assert_eq!(changed(promote(&[2], 3)), (vec![id(1, 7), id(2, 7)], vec![]));
    }

    #[test]
    fn s26_what_breaks_the_quorum_is_refused() {
        let three = membership(&[1, 2, 3], &[]);
        let remove = |active: &[u32], gone| decide(&three, active, 0, MemberChange::Remove(node(gone)));
        assert_eq!(changed(remove(&[2], 3)), (vec![id(1, 7), id(2, 7)], vec![]));
        assert_eq!(remove(&[2], 2).unwrap_err().code, Code::Forbidden, "then only node 1 would answer");
        assert!(matches!(remove(&[2], 9), Ok(Plan::Done(_))), "asked again, it is done");
        assert!(matches!(remove(&[2, 3], 1), Ok(Plan::HandOver(_))), "a leader transfers first");
        let alone = membership(&[1], &[2]);
        let last = decide(&alone, &[2], 0, MemberChange::Remove(node(1)));
        assert_eq!(last.unwrap_err().code, Code::Forbidden);
        assert_eq!(changed(decide(&alone, &[], 0, MemberChange::Remove(node(2)))), (vec![id(1, 7)], vec![]));
    }

    #[test]
    fn s22_a_dead_node_is_replaced_by_another_incarnation_only() {
        let three = membership(&[1, 2, 3], &[]);
        let replace = |active: &[u32], new| decide(&three, active, 0, MemberChange::Replace(new));
        assert_eq!(changed(replace(&[2], member(3, 8))), (vec![id(1, 7), id(2, 7)], vec![id(3, 8)]));
        assert_eq!(replace(&[2, 3], member(3, 8)).unwrap_err().code, Code::Forbidden, "it is alive");
        assert!(matches!(replace(&[2], member(3, 7)), Ok(Plan::Done(_))), "it is itself");
        let moved = Member { peer_address: "elsewhere".into(), ..member(3, 7) };
        let same = (vec![id(1, 7), id(2, 7), id(3, 7)], vec![]);
        assert_eq!(changed(replace(&[2, 3], moved)), same, "it has moved");
        assert_eq!(replace(&[], member(3, 8)).unwrap_err().code, Code::Forbidden, "no quorum would be left");
        let add = decide(&three, &[2], 0, MemberChange::Add(member(3, 8)));
        assert_eq!(add.unwrap_err().code, Code::BadRequest);
        let stolen = Member { peer_address: "c2".into(), ..member(4, 7) };
        assert_eq!(decide(&three, &[2], 0, MemberChange::Add(stolen)).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_change_is_told_to_raft_step_by_step() {
        let old = membership(&[1, 2, 3], &[4]);
        let new = [member(1, 7), member(2, 7)];
        assert_eq!(
            steps(&old, &new, &[member(4, 7), member(3, 8)]),
            [Step::Gone(id(3, 7)), Step::Learner(id(3, 8))]
        );
        let promoted = [member(1, 7), member(2, 7), member(3, 7), member(4, 7)];
        assert_eq!(steps(&old, &promoted, &[]), [Step::Voter(id(4, 7))]);
        assert_eq!(steps(&old, &old.voters, &old.learners), []);
    }
}
