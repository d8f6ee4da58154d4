//! Network: what lies between the nodes of a cluster, and can fail.

/// The ways between nodes. Clients reach every node all the time.
pub trait Network {
    /// Nothing gets from one node to another any more.
    fn cut(&self, from: u32, to: u32);

    /// Everything gets through again.
    fn heal(&self);

    /// Nothing that this node sends reaches any of `others`.
    fn silence(&self, node: u32, others: &[u32]) {
        others.iter().for_each(|other| self.cut(node, *other));
    }

    /// Nothing that any of `others` sends reaches this node.
    fn deafen(&self, node: u32, others: &[u32]) {
        others.iter().for_each(|other| self.cut(*other, node));
    }

    /// Both.
    fn isolate(&self, node: u32, others: &[u32]) {
        self.silence(node, others);
        self.deafen(node, others);
    }
}
