//! Peers: how the nodes of a cluster speak to each other.
//!
//! ```text
//!   Consensus ─► PeerLink ─────────────► peer's PeerConnection ─► its Consensus           Raft's messages
//!   Consensus ─► Fetcher ── copy ──────► peer's PeerConnection ─► its segments, or memory bytes that no client brought
//!   Mender ─► BulkSource ─ locate ─────► peer's PeerConnection                            what is held where, and what is committed
//!   BulkSource ──────────── copy ──────► peer's PeerConnection ─► its segments            bytes in bulk, segment by segment
//! ```
//!
//! A node speaks on connections that it opened itself and listens on those that others opened: a link is one-way but for its
//! handshake. What is fetched in bulk goes over connections of its own, so that heartbeats never wait behind it.
//!
//! Owns:   the peer port, the handshakes and their checks (S22).
//! Never:  understands a Raft message.

pub mod bulk;
pub mod connection;
pub mod fetcher;
pub mod formation;
pub mod link;
pub mod links;
pub mod listener;
pub(crate) mod mender;
pub mod pace;
pub(crate) mod port;
pub mod receiver;
pub(crate) mod socket;
pub mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use loglog_proto::error::{Code, Refusal};
use loglog_proto::peer::{Announcement, PEER_VERSION, PeerHello};
use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId, RaftId};
use loglog_storage::{Member, Membership};

/// Who we are to our peers, and who they are.
#[derive(Debug)]
pub struct PeerIdentity {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This life of its directory.
    pub incarnation: Incarnation,
    /// Entry bytes of a segment.
    pub segment_bytes_max: Length,
    /// Where this node's peer port is reached.
    pub address: String,
    /// How long a connection of a peer's may be without a sign of life.
    pub patience: Duration,
    /// The members, once the cluster is formed; of index 0 on a node that waits to be taken in.
    pub membership: RwLock<Option<Membership>>,
    /// Those who speak to us and are no members as far as we know: a leader perhaps that came while we were away.
    /// With the index of the membership that each goes by: ours tells of him or not once it has reached that.
    pub introduced: Mutex<BTreeMap<NodeId, (Member, Index)>>,
    /// Peers that our links have reached.
    pub linked: Mutex<BTreeSet<RaftId>>,
    /// This life of our storage, 0 while there is none.
    pub life: AtomicU64,
}

impl PeerIdentity {
    /// This node's Raft id.
    #[must_use]
    pub const fn raft_id(&self) -> RaftId {
        RaftId::new(self.node, self.incarnation)
    }

    /// What we say of ourselves.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement {
            version: PEER_VERSION,
            cluster: self.cluster,
            node: self.node,
            incarnation: self.incarnation,
            is_formed: self.members().is_some(),
            segment_bytes_max: self.segment_bytes_max,
        }
    }

    /// The first message to a peer.
    #[must_use]
    pub fn hello(&self, to: RaftId) -> PeerHello {
        PeerHello {
            version: PEER_VERSION,
            cluster: self.cluster,
            from: self.raft_id(),
            to,
            membership: self.membership_index(),
            life: self.life(),
            address: self.address.clone(),
        }
    }

    /// This life of our storage, 0 while there is none.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    pub(crate) fn set_life(&self, life: u64) {
        self.life.store(life, Ordering::Release);
    }

    /// A member.
    #[must_use]
    pub fn member(&self, id: RaftId) -> Option<Member> {
        self.members().into_iter().flatten().find(|member| member.id == id)
    }

    /// Every member but this node.
    #[must_use]
    pub fn others(&self) -> Vec<Member> {
        let members = self.members().into_iter().flatten();
        members.filter(|member| member.id != self.raft_id()).collect()
    }

    /// From whom bytes may be had: every other member, and whoever else speaks to us.
    #[must_use]
    pub fn sources(&self) -> Vec<Member> {
        let introduced = self.introduced.lock().unwrap_or_else(PoisonError::into_inner);
        self.others().into_iter().chain(introduced.values().map(|(member, _)| member.clone())).collect()
    }

    /// The membership as a whole, once there is one.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.clone().filter(|membership| membership.index > Index::ZERO)
    }

    /// Whether our link has reached this peer.
    #[must_use]
    pub fn is_linked(&self, peer: RaftId) -> bool {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    pub(crate) fn set_linked(&self, peer: RaftId, is_linked: bool) {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        if is_linked {
            linked.insert(peer);
        } else {
            linked.remove(&peer);
        }
    }

    fn membership_index(&self) -> Index {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.as_ref().map_or(Index::ZERO, |membership| membership.index)
    }

    /// Every member, once there are members.
    #[must_use]
    pub fn members(&self) -> Option<Vec<Member>> {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        let members = membership.as_ref().filter(|membership| membership.index > Index::ZERO)?;
        Some(members.voters.iter().chain(&members.learners).cloned().collect())
    }

    /// Checks who announces itself.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_announcement(&self, theirs: &Announcement) -> Result<(), Refusal> {
        check(theirs.version, theirs.cluster, self.cluster)?;
        if theirs.node == self.node {
            let message = format!("node {} is here: two nodes have the same node.id", self.node);
            return Err(Refusal::new(Code::WrongNode, message));
        }
        if theirs.segment_bytes_max != self.segment_bytes_max && !theirs.is_formed {
            let message = format!(
                "segment.bytes_max is {} on node {} and {} on node {}: all nodes of a cluster must agree",
                self.segment_bytes_max, self.node, theirs.segment_bytes_max, theirs.node
            );
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let Some(members) = self.members() else { return Ok(()) };
        match members.iter().map(|member| member.id).find(|id| id.node() == theirs.node) {
            Some(member) if member.incarnation() == theirs.incarnation => Ok(()),
            Some(member) => Err(Refusal::new(
                Code::NotMember,
                format!(
                    "node {} is a member under incarnation {}, not {}: its directory was lost or is another's, and it must \
                     not come back under its old place. Start it with --set cluster.join=true --set 'cluster.nodes=[]', then `loglog \
                     members replace {}`",
                    theirs.node,
                    member.incarnation(),
                    theirs.incarnation,
                    theirs.node
                ),
            )),
            None => Err(Refusal::new(
                Code::NotMember,
                format!("node {} is no member of this cluster", theirs.node),
            )),
        }
    }

    /// Checks who opens a link.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_hello(&self, hello: &PeerHello) -> Result<(), Refusal> {
        check(hello.version, hello.cluster, self.cluster)?;
        if hello.to != self.raft_id() {
            let message = format!("this is node {}, not {}", self.raft_id(), hello.to);
            return Err(Refusal::new(Code::WrongNode, message));
        }
        let is_formed = self.membership.read().unwrap_or_else(PoisonError::into_inner).is_some();
        // One whose membership is newer than ours may be a member that we have not heard of yet: the leader itself, perhaps.
        let may_be_member = hello.membership > self.membership_index() || self.member(hello.from).is_some();
        if !is_formed {
            return Err(Refusal::new(Code::Unavailable, format!("{} has no cluster yet", self.raft_id())));
        }
        if may_be_member && hello.from != self.raft_id() {
            return Ok(());
        }
        Err(Refusal::new(Code::NotMember, format!("{} is no member of this cluster", hello.from)))
    }
}

fn check(version: u32, theirs: ClusterId, ours: ClusterId) -> Result<(), Refusal> {
    if version != PEER_VERSION {
        let message = format!("peer protocol version {version}; this node speaks {PEER_VERSION}");
        return Err(Refusal::new(Code::Version, message));
    }
    if theirs != ours {
        let message = format!("this is a node of cluster {ours}, not of {theirs}");
        return Err(Refusal::new(Code::WrongCluster, message));
    }
    Ok(())
}

/// Shared by everything that speaks to peers.
pub type SharedIdentity = Arc<PeerIdentity>;

#[cfg(test)]
mod tests {
    use super::*;

    fn raft_id(node: u32, incarnation: u32) -> RaftId {
        RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(incarnation).unwrap())
    }

    fn identity(is_formed: bool) -> PeerIdentity {
        let member = |id| Member { id, peer_address: String::new(), client_address: String::new() };
        let voters = vec![member(raft_id(1, 7)), member(raft_id(2, 8))];
        let membership = Membership { index: Index::new(1), voters, learners: Vec::new() };
        PeerIdentity {
            cluster: ClusterId::new(5).unwrap(),
            node: NodeId::new(1).unwrap(),
            incarnation: Incarnation::new(7).unwrap(),
            segment_bytes_max: Length::new(100),
            address: "here:1".to_owned(),
            patience: Duration::from_secs(5),
            membership: RwLock::new(is_formed.then_some(membership)),
            introduced: Mutex::default(),
            linked: Mutex::default(),
            life: AtomicU64::new(1),
        }
    }

    #[test]
    fn s22_a_hello_is_checked_against_cluster_node_incarnation_and_version() {
        let ours = identity(true);
        let good = PeerHello {
            version: PEER_VERSION,
            cluster: ours.cluster,
            from: raft_id(2, 8),
            to: raft_id(1, 7),
            membership: Index::new(1),
            life: 1,
            address: "there:1".to_owned(),
        };
        assert_eq!(ours.check_hello(&good), Ok(()));
        let code = |change: fn(&mut PeerHello)| {
            let mut hello = good.clone();
            change(&mut hello);
            ours.check_hello(&hello).map_err(|refusal| refusal.code)
        };
        assert_eq!(code(|it| it.version = 9), Err(Code::Version));
        assert_eq!(code(|it| it.cluster = ClusterId::new(6).unwrap()), Err(Code::WrongCluster));
        assert_eq!(code(|it| it.to = raft_id(1, 9)), Err(Code::WrongNode));
        assert_eq!(code(|it| it.from = raft_id(2, 9)), Err(Code::NotMember));
        assert_eq!(code(|it| it.from = raft_id(3, 8)), Err(Code::NotMember));
        assert_eq!(
            code(|it| (it.from, it.membership) = (raft_id(3, 8), Index::new(9))),
            Ok(()),
            "news to us"
        );
        assert_eq!(identity(false).check_hello(&good).unwrap_err().code, Code::Unavailable, "no cluster yet");
    }

    #[test]
    fn s22_a_wiped_node_is_not_taken_for_what_it_was() {
        let theirs = Announcement {
            version: PEER_VERSION,
            cluster: ClusterId::new(5).unwrap(),
            node: NodeId::new(2).unwrap(),
            incarnation: Incarnation::new(8).unwrap(),
            is_formed: false,
            segment_bytes_max: Length::new(100),
        };
        let wiped = Announcement { incarnation: Incarnation::new(9).unwrap(), ..theirs };
        assert_eq!(identity(true).check_announcement(&theirs), Ok(()));
        assert_eq!(identity(true).check_announcement(&wiped).unwrap_err().code, Code::NotMember);
        assert_eq!(identity(false).check_announcement(&wiped), Ok(()), "nobody is a member yet");
        let twin = Announcement { node: NodeId::new(1).unwrap(), ..theirs };
        assert_eq!(identity(false).check_announcement(&twin).unwrap_err().code, Code::WrongNode);
        let other = Announcement { segment_bytes_max: Length::new(200), ..theirs };
        assert_eq!(identity(false).check_announcement(&other).unwrap_err().code, Code::BadRequest);
    }
}
