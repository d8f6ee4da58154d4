//! Members: what is known of the cluster's nodes and where they listen.
//!
//! Owns:   the endpoints given, the members learnt, who is said to lead, the nodes that reads were passed over at.
//! Keeps:  what the leader says of the members replaces what was known; what others say, who may lag, only adds to it.
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
    /// Who answered at the endpoints that were tried.
    answered: Vec<Member>,
    /// Who leads, as somebody said last.
    leader: Option<Endpoint>,
    /// Nodes that were slow, or refused what another may grant.
    passed: Vec<Endpoint>,
}

impl Members {
    pub(crate) fn new(given: Vec<Endpoint>, cluster: Option<ClusterId>) -> Self {
        let (learnt, answered, passed) = (Vec::new(), Vec::new(), Vec::new());
        Self { given, cluster, learnt, answered, leader: None, passed }
    }

    /// The cluster that is meant, once that is known.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Whether there is just one address to try.
    pub(crate) fn is_one(&self) -> bool {
        self.given.len() < 2 && self.learnt.len() < 2
    }

    /// The members learnt from welcomes.
    pub(crate) fn learnt(&self) -> &[Member] {
        &self.learnt
    }

    /// Takes what the node at `endpoint` said.
    pub(crate) fn learn(&mut self, endpoint: &Endpoint, welcome: &Welcome) {
        self.cluster = Some(welcome.cluster);
        self.answered.retain(|known| known.endpoint != *endpoint);
        self.answered.push(Member { node: welcome.node, endpoint: endpoint.clone() });
        let said: Vec<Member> = welcome
            .members
            .iter()
            .filter_map(|member| {
                let endpoint = Endpoint::parse(&member.address).ok()?;
                Some(Member { node: member.node, endpoint })
            })
            .collect();
        if leads(welcome) {
            self.learnt = said;
        } else {
            let new =
                said.into_iter().filter(|member| !self.learnt.iter().any(|known| known.node == member.node));
            self.learnt.extend(new.collect::<Vec<_>>());
        }
    }

    /// Somebody said who leads.
    pub(crate) fn hear_leader(&mut self, leader: Endpoint) {
        self.leader = Some(leader);
    }

    /// Where to look for the leader, each address once. What was said about it is taken once: it may be wrong.
    pub(crate) fn for_leader(&mut self) -> Vec<Endpoint> {
        let leader = self.leader.take();
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

    fn all(&self) -> impl Iterator<Item = Endpoint> {
        self.given.iter().chain(self.learnt.iter().map(|member| &member.endpoint)).cloned()
    }

    fn node_at(&self, endpoint: &Endpoint) -> Option<NodeId> {
        let mut known = self.answered.iter().chain(&self.learnt);
        known.find(|known| known.endpoint == *endpoint).map(|known| known.node)
    }
}

/// Whether the node said that it leads.
pub(crate) fn leads(welcome: &Welcome) -> bool {
    welcome.leader == Some(welcome.node)
}

/// Where the leader listens, if it is known to be another node than the one that said so.
pub(crate) fn leader_elsewhere(welcome: &Welcome) -> Option<Endpoint> {
    let leader = welcome.leader.filter(|leader| *leader != welcome.node)?;
    let member = welcome.members.iter().find(|member| member.node == leader)?;
    Endpoint::parse(&member.address).ok()
}

fn dedup(endpoints: &mut Vec<Endpoint>) {
    let mut seen = Vec::with_capacity(endpoints.len());
    endpoints.retain(|endpoint| {
        let new = !seen.contains(endpoint);
        seen.extend(new.then(|| endpoint.clone()));
        new
    });
}
