//! Peer traffic: what a node's log bytes cost on the way between nodes, beside what clients bring.
//!
//! Owns:   the counts, since the process started. They show whether clients upload to every node: then they stay near zero.
//! Never:  decides anything from them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct PeerTraffic {
    sent_bytes: AtomicU64,
    served_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
    fetches: AtomicU64,
}

impl PeerTraffic {
    /// All bytes sent to peers: Raft's messages, and what they asked for.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed) + self.served_bytes()
    }

    /// Log or payload bytes sent to peers that asked for them.
    #[must_use]
    pub fn served_bytes(&self) -> u64 {
        self.served_bytes.load(Relaxed)
    }

    /// Log or payload bytes that peers sent because this node asked.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Relaxed)
    }

    /// How often that was.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.fetches.load(Relaxed)
    }

    /// Raft's messages, as many bytes as the socket took.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn served(&self, bytes: usize) {
        self.served_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn fetched(&self, bytes: usize) {
        self.fetched_bytes.fetch_add(bytes as u64, Relaxed);
        self.fetches.fetch_add(1, Relaxed);
    }
}
