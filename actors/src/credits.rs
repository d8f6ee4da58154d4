//! Credits: the bytes that requests may hold in memory, for the node and for each connection.
//!
//! A connection takes credit before it reads on, and the credit returns when the last request of that batch is done: the
//! kernel's socket buffers then hold back a client that sends more. So memory is bounded however deep the mailboxes are.
//!
//! Owns:   the budgets.
//! Keeps:  a connection that takes all it may leaves the node's budget for others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a request costs beyond its payload, bytes: its place in queues and maps, its reply.
pub const REQUEST_COST: usize = 256;

/// One connection's budget, within the node's.
#[derive(Clone, Debug)]
pub struct Credits {
    node: Arc<Semaphore>,
    connection: Arc<Semaphore>,
    connection_bytes_max: u32,
}

/// Bytes taken; they return when it is dropped.
#[derive(Debug)]
pub struct Credit {
    _connection: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Credits {
    /// The budget of a new connection. `node` is shared by all.
    #[must_use]
    pub fn new(node: Arc<Semaphore>, connection_bytes_max: u32) -> Self {
        let connection = Arc::new(Semaphore::new(connection_bytes_max as usize));
        Self { node, connection, connection_bytes_max }
    }

    /// Takes `bytes`, waiting for them if need be. More than the connection may ever have counts as all of it.
    pub async fn take(&self, bytes: usize) -> Credit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.connection_bytes_max);
        let open = "the budgets are never closed";
        let connection = Arc::clone(&self.connection).acquire_many_owned(bytes).await.expect(open);
        let node = Arc::clone(&self.node).acquire_many_owned(bytes).await.expect(open);
        Credit { _connection: connection, _node: node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_greedy_connection_waits_and_others_go_on() {
        let node = Arc::new(Semaphore::new(100));
        let (greedy, modest) = (Credits::new(Arc::clone(&node), 60), Credits::new(node, 60));
        let held = greedy.take(1000).now_or_never().expect("all that it may have");
        assert!(greedy.take(1).now_or_never().is_none());
        let other = modest.take(40).now_or_never().expect("the rest is left for others");
        assert!(modest.take(1).now_or_never().is_none(), "the node's budget is spent");
        drop((held, other));
        assert!(greedy.take(60).now_or_never().is_some());
    }
}
