//! Sources: all that the admin endpoint looks at.
//!
//! Owns:   nothing: every field is shared with whoever keeps it up to date.
//! Keeps:  looking takes short locks only, never longer than it takes to copy a few words.
//! Never:  holds the address of an actor.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use loglog_proto::{Length, NodeId};

use crate::faults::Faults;
use crate::measures::Measures;
use crate::peer::SharedIdentity;
use crate::peer::traffic::PeerTraffic;
use crate::registry::Registry;
use crate::view::LogView;

/// What the program around a node lets an administrator see and change of its log (of words, not of entries).
pub trait LogControl: fmt::Debug + Send + Sync {
    /// The level that holds.
    fn level(&self) -> String;

    /// Sets it.
    ///
    /// # Errors
    /// What is wrong with `text`.
    fn set_level(&self, text: &str) -> Result<(), String>;

    /// Records lost because they came faster than they could be written.
    fn dropped(&self) -> u64;
}

/// What is looked at.
#[derive(Debug)]
pub struct Sources {
    /// This node.
    pub node: NodeId,
    /// The program's version.
    pub version: &'static str,
    /// When the node started.
    pub began: Instant,
    /// Who the node and its peers are; known once the cluster is formed.
    pub identity: OnceLock<SharedIdentity>,
    /// Whether clients are served: not yet while the log is recovered, not any more while the node stops.
    pub is_serving: AtomicBool,
    /// Every actor's counters.
    pub registry: Registry,
    /// Watermarks and the reader.
    pub view: Arc<LogView>,
    /// Log bytes to and from peers.
    pub traffic: Arc<PeerTraffic>,
    /// What is counted and timed of the log's work.
    pub measures: Arc<Measures>,
    /// Connections there are.
    pub connections: Arc<AtomicU64>,
    /// Bytes in the upload buffer.
    pub upload_bytes: Arc<AtomicUsize>,
    /// Reads that wait.
    pub waiting_reads: Arc<AtomicUsize>,
    /// Entry bytes of a segment.
    pub segment_bytes_max: Length,
    /// Actors that can be told to fail.
    pub faults: Faults,
    /// Whether somebody may tell them.
    pub are_faults_allowed: bool,
    /// The configuration that holds, secrets hidden.
    pub config: Vec<(String, String)>,
    /// The log of words, if the program around the node has one.
    pub log: Option<Arc<dyn LogControl>>,
}

impl Sources {
    /// Whether clients are served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed)
    }

    pub(crate) fn set_serving(&self, is_serving: bool) {
        self.is_serving.store(is_serving, Ordering::Relaxed);
    }
}
