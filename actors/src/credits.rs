//! Credits: the bytes that requests may hold in memory, for the node and for each connection.
//!
//! A connection takes credit before it reads on, and the credit returns when the last request of that batch is done: the
//! kernel's socket buffers then hold back a client that sends more. So memory is bounded however deep the mailboxes are.
//!
//! Large frames take theirs before their bytes are received, and out of one half of the node's budget, so that frames which
//! are never finished cannot take it all from those that are.
//!
//! Owns:   the budgets.
//! Keeps:  a connection that takes all it may leaves the node's budget for others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a request costs beyond its payload, bytes: its place in queues and maps, its reply.
pub const REQUEST_COST: usize = 256;

/// The node's budget, shared by its connections.
#[derive(Clone, Debug)]
pub struct NodeCredits {
    usual: Budget,
    large: Budget,
    connection_bytes_max: u32,
}

#[derive(Clone, Debug)]
struct Budget {
    bytes: Arc<Semaphore>,
    max: u32,
}

/// One connection's budget, within the node's.
#[derive(Clone, Debug)]
pub struct Credits {
    node: NodeCredits,
    connection: Budget,
}

/// Bytes taken; they return when it is dropped.
#[derive(Debug)]
pub struct Credit {
    _connection: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        let max = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { bytes: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// More than there ever is counts as all of it: waiting for it would be waiting for ever.
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max);
        let taken = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        taken.expect("budgets are never closed")
    }
}

impl NodeCredits {
    /// A node's budget of `bytes`, of which one connection may have `connection_bytes_max`.
    #[must_use]
    pub fn new(bytes: usize, connection_bytes_max: u32) -> Self {
        Self { usual: Budget::new(bytes / 2), large: Budget::new(bytes / 2), connection_bytes_max }
    }

    /// The budget of a new connection.
    #[must_use]
    pub fn connection(&self) -> Credits {
        Credits { node: self.clone(), connection: Budget::new(self.connection_bytes_max as usize) }
    }
}

impl Credits {
    /// Bytes that this connection's requests hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.connection.max as usize - self.connection.bytes.available_permits()
    }

    /// Takes `bytes` for requests that are here, waiting for them if need be.
    pub async fn take(&self, bytes: usize) -> Credit {
        let bytes = bytes.min(self.connection.max as usize);
        let connection = self.connection.take(bytes).await;
        Credit { _connection: connection, _node: self.node.usual.take(bytes).await }
    }

    /// Takes `bytes` for a large frame that is still to come.
    pub async fn take_ahead(&self, bytes: usize) -> Credit {
        let bytes = bytes.min(self.connection.max as usize);
        let connection = self.connection.take(bytes).await;
        Credit { _connection: connection, _node: self.node.large.take(bytes).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_greedy_connection_waits_and_others_go_on() {
        let node = NodeCredits::new(200, 60);
        let (greedy, modest) = (node.connection(), node.connection());
        let held = greedy.take(1000).now_or_never().expect("all that it may have");
        assert!(greedy.take(1).now_or_never().is_none());
        let other = modest.take(40).now_or_never().expect("the rest is left for others");
        assert!(modest.take(1).now_or_never().is_none(), "the node's budget is spent");
        drop((held, other));
        assert!(greedy.take(60).now_or_never().is_some());
    }

    #[test]
    fn frames_that_never_come_leave_half_the_budget() {
        let node = NodeCredits::new(200, 1000);
        let held = node.connection().take_ahead(5000).now_or_never().expect("all there is for large frames");
        assert!(node.connection().take_ahead(1).now_or_never().is_none());
        assert!(node.connection().take(100).now_or_never().is_some());
        drop(held);
    }
}
