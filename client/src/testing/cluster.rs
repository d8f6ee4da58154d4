//! Three nodes before one log: the leader takes appends, the others take uploads and serve reads.
//!
//! Owns:   the nodes; who leads is set by the test.
//! Never:  elects or replicates.

use std::sync::Arc;

use loglog_proto::NodeId;

use super::fake_log::FakeLog;
use super::node::{Behaviour, FakeNode};

/// Three nodes, of which the first leads at the beginning.
pub(crate) struct FakeCluster {
    pub(crate) nodes: [FakeNode; 3],
    pub(crate) log: Arc<FakeLog>,
}

impl FakeCluster {
    pub(crate) async fn start() -> Self {
        let log = FakeLog::new(Behaviour::default().memory);
        let node = |id| FakeNode::of(log.clone(), NodeId::new(id).unwrap(), Behaviour::default());
        let nodes = [node(1).await, node(2).await, node(3).await];
        let cluster = Self { nodes, log };
        cluster.lead(Some(0));
        cluster
    }

    /// Says who leads.
    pub(crate) fn lead(&self, leader: Option<usize>) {
        self.log.set_leader(leader.map(|at| NodeId::new(u32::try_from(at).unwrap() + 1).unwrap()));
    }

    /// A node dies. If it led, the first `kept` uncommitted entries survive, and nobody leads yet, nor is known to be dead.
    pub(crate) async fn kill(&mut self, at: usize, kept: usize) {
        let led = self.log.leader().is_some_and(|leader| leader.get() as usize == at + 1);
        self.nodes[at].shut().await;
        if led {
            self.log.crash(kept);
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }
}
