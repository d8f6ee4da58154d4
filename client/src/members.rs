//! Members: what is known of the cluster's nodes and where they listen.
//!
//! Owns:   the endpoints given, the members learnt, who is said to lead, the nodes that reads were passed over at.
//! Keeps:  what the leader says of the members replaces what was known. What others say, who may lag, or be members no more, only
//!         adds to it, and once a leader has spoken only as places to look at.
//! Never:  opens a connection.

use loglog_proto::response::Welcome;
use loglog_proto::{ClusterId, NodeId};

use crate::endpoints::Endpoint;

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) endpoint: Endpoint,
}

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Members {
    given: Vec<Endpoint>,
    cluster: Option<ClusterId>,
    learnt: Vec<Member>,
    /// Whether a leader said who is in `learnt`.
    is_certain: bool,
    /// Others that were named since a leader said who is a member.
    rumoured: Vec<Member>,
    /// Who answered at the endpoints that were tried.
    answered: Vec<Member>,
    /// Who leads, as somebody said last.
    leader: Option<Endpoint>,
    /// Nodes that were slow, or refused what another may grant.
    passed: Vec<Endpoint>,
    /// The node in this program: whoever would go to its address goes here.
    local: Option<Member>,
}

impl Members {
    pub(crate) fn new(given: Vec<Endpoint>, cluster: Option<ClusterId>) -> Self {
        let (learnt, rumoured, answered) = (Vec::new(), Vec::new(), Vec::new());
        let (is_certain, leader, passed) = (false, None, Vec::new());
        Self { given, cluster, learnt, is_certain, rumoured, answered, leader, passed, local: None }
    }

    /// The cluster that is meant, once that is known.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Whether there is just one address to try.
    pub(crate) fn is_one(&self) -> bool {
        self.given.len() < 2 && self.learnt.len() < 2 && self.rumoured.is_empty()
    }

    /// The members, as far as is known.
    pub(crate) fn learnt(&self) -> &[Member] {
        &self.learnt
    }

    /// Takes what the node at `endpoint` said.
    pub(crate) fn learn(&mut self, endpoint: &Endpoint, welcome: &Welcome) {
        self.cluster = Some(welcome.cluster);
        self.answered.retain(|known| known.endpoint != *endpoint);
        let answered = Member { node: welcome.node, endpoint: endpoint.clone() };
        if matches!(endpoint, Endpoint::Local(_)) {
            self.local = Some(answered.clone());
        }
        self.answered.push(answered);
        let said: Vec<Member> = welcome
            .members
            .iter()
            .filter_map(|member| {
                let endpoint = Endpoint::parse(&member.address).ok()?;
                Some(Member { node: member.node, endpoint })
            })
            .collect();
        if leads(welcome) {
            (self.learnt, self.is_certain) = (said, true);
            self.rumoured.clear();
            return;
        }
        for member in said {
            let is_known = if self.is_certain {
                self.learnt.contains(&member) || self.rumoured.contains(&member)
            } else {
                self.learnt.iter().any(|known| known.node == member.node)
            };
            if !is_known {
                let to = if self.is_certain { &mut self.rumoured } else { &mut self.learnt };
                to.push(member);
            }
        }
    }

    /// Somebody said who leads.
    pub(crate) fn hear_leader(&mut self, leader: Endpoint) {
        self.leader = Some(leader);
    }

    /// Where to look for the leader, each address once. What was said about it is taken once: it may be wrong.
    pub(crate) fn for_leader(&mut self) -> Vec<Endpoint> {
        let leader = self.leader.take().map(|leader| self.nearest(&leader));
        let mut all: Vec<Endpoint> = leader.into_iter().chain(self.all()).collect();
        dedup(&mut all);
        all
    }

    /// Where to read, each address once, those that were passed over last.
    pub(crate) fn for_reads(&mut self) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = self.all().collect();
        dedup(&mut all);
        if all.iter().all(|endpoint| self.passed.contains(endpoint)) {
            // The one that was passed over last stays last.
            let last = self.passed.len().saturating_sub(1);
            self.passed.drain(..last);
        }
        all.sort_by_key(|endpoint| {
            self.passed.iter().position(|passed| passed == endpoint).map_or(0, |at| at + 1)
        });
        all
    }

    /// The node at `endpoint` is of no use to a read now.
    pub(crate) fn pass_over(&mut self, endpoint: &Endpoint) {
        let node = self.node_at(endpoint);
        let same: Vec<Endpoint> = self
            .all()
            .filter(|other| other == endpoint || node.is_some() && self.node_at(other) == node)
            .collect();
        self.passed.retain(|passed| !same.contains(passed));
        self.passed.extend(same);
        dedup(&mut self.passed);
    }

    /// Whether reads were passed over at `endpoint`, and not at all others since.
    pub(crate) fn is_passed(&self, endpoint: &Endpoint) -> bool {
        self.passed.contains(endpoint)
    }

    /// Where the leader listens, if `welcome` says that it is another node than the one that said so.
    pub(crate) fn leader_elsewhere(&self, welcome: &Welcome) -> Option<Endpoint> {
        let leader = welcome.leader.filter(|leader| *leader != welcome.node)?;
        let member = welcome.members.iter().find(|member| member.node == leader)?;
        Endpoint::parse(&member.address).ok().map(|endpoint| self.nearest(&endpoint))
    }

    fn all(&self) -> impl Iterator<Item = Endpoint> {
        let named = self.learnt.iter().chain(&self.rumoured).map(|member| self.nearest(&member.endpoint));
        self.given.iter().cloned().chain(named)
    }

    /// The same node without a way through the network, if it is in this program.
    fn nearest(&self, endpoint: &Endpoint) -> Endpoint {
        match &self.local {
            Some(local) if self.node_at(endpoint) == Some(local.node) => local.endpoint.clone(),
            _ => endpoint.clone(),
        }
    }

    fn node_at(&self, endpoint: &Endpoint) -> Option<NodeId> {
        let mut known = self.answered.iter().chain(&self.learnt).chain(&self.rumoured);
        known.find(|known| known.endpoint == *endpoint).map(|known| known.node)
    }
}

/// Whether the node said that it leads.
pub(crate) fn leads(welcome: &Welcome) -> bool {
    welcome.leader == Some(welcome.node)
}

fn dedup(endpoints: &mut Vec<Endpoint>) {
    let mut seen = Vec::with_capacity(endpoints.len());
    endpoints.retain(|endpoint| {
        let new = !seen.contains(endpoint);
        seen.extend(new.then(|| endpoint.clone()));
        new
    });
}

#[cfg(test)]
mod tests {
    use loglog_proto::Offset;
    use loglog_proto::response::{MemberAddress, WireLimits};

    use super::*;

    fn id(node: u32) -> NodeId {
        NodeId::new(node).unwrap()
    }

    fn endpoint(node: u32) -> Endpoint {
        Endpoint::parse(&format!("h:{node}")).unwrap()
    }

    /// What `node` says, who takes `leader` for the leader.
    fn welcome(node: u32, leader: u32, members: &[u32]) -> Welcome {
        let address = |node: &u32| MemberAddress { node: id(*node), address: format!("h:{node}") };
        let limits = WireLimits {
            payload_bytes_max: 1,
            frame_bytes_max: 1,
            read_bytes_max: 1,
            read_wait_ms_max: 1,
            writer_appends_max: 1,
            connection_bytes_max: 1,
        };
        Welcome {
            version: 1,
            cluster: ClusterId::new(1).unwrap(),
            node: id(node),
            leader: NodeId::new(leader),
            members: members.iter().map(address).collect(),
            limits,
            start: Offset::ZERO,
            end: Offset::ZERO,
        }
    }

    fn learnt(members: &Members) -> Vec<u32> {
        members.learnt().iter().map(|member| member.node.get()).collect()
    }

    #[test]
    fn the_leader_has_the_last_word_on_who_is_a_member() {
        let mut members = Members::new(vec![endpoint(3)], None);
        members.learn(&endpoint(3), &welcome(3, 1, &[1, 3]));
        members.learn(&endpoint(2), &welcome(2, 1, &[1, 2, 3]));
        assert_eq!(learnt(&members), [1, 3, 2], "nobody knows better yet");
        members.learn(&endpoint(1), &welcome(1, 1, &[1, 2, 4]));
        assert_eq!(learnt(&members), [1, 2, 4]);
        // The one that was let go has not heard of it.
        members.learn(&endpoint(3), &welcome(3, 1, &[1, 2, 3]));
        assert_eq!(learnt(&members), [1, 2, 4]);
        assert!(members.for_leader().contains(&endpoint(4)));
    }

    #[test]
    fn the_node_in_this_program_is_reached_without_its_address() {
        struct Nobody;
        impl crate::local::LocalNode for Nobody {
            fn connect(&self) -> Option<crate::local::LocalSocket> {
                None
            }
        }
        let here = Endpoint::Local(crate::local::LocalEndpoint::new(Nobody));
        let mut members = Members::new(vec![here.clone()], None);
        members.learn(&here, &welcome(2, 1, &[1, 2, 3]));
        assert_eq!(members.for_leader(), [here.clone(), endpoint(1), endpoint(3)]);
        assert_eq!(members.leader_elsewhere(&welcome(3, 2, &[1, 2, 3])), Some(here.clone()));
        members.hear_leader(endpoint(2));
        assert_eq!(members.for_leader()[0], here);
        // Uploads still go to its address.
        assert_eq!(members.learnt()[1].endpoint, endpoint(2));
        members.pass_over(&here);
        assert_eq!(members.for_reads(), [endpoint(1), endpoint(3), here]);
    }

    #[test]
    fn what_others_name_is_a_place_to_look_at_until_the_leader_speaks() {
        let mut members = Members::new(vec![endpoint(1)], None);
        members.learn(&endpoint(1), &welcome(1, 1, &[1]));
        assert!(members.is_one());
        members.learn(&endpoint(1), &welcome(1, 0, &[1, 5]));
        assert_eq!(learnt(&members), [1]);
        assert!(members.for_leader().contains(&endpoint(5)) && !members.is_one());
        members.learn(&endpoint(5), &welcome(5, 5, &[5]));
        assert_eq!(learnt(&members), [5]);
        assert_eq!(members.for_leader(), [endpoint(1), endpoint(5)], "what was given is never forgotten");
    }
}
