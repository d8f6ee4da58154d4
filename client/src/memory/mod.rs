//! Memory log: a log without a disk and without a node, for tests of what is built on one.
//!
//! ```text
//!     MemoryLog ─► Client, as ever ◄─channels─► MemoryNode: the rules of appends, the log's bytes, in this program's memory
//! ```
//!
//! Owns:   the log, for as long as somebody holds it or a client of it.
//! Keeps:  the same bytes at the same offsets as a node would, the same errors, the same exactly-once; only nothing survives the program.
//! Never:  loses a race against a disk: it answers at once, unless it is told not to.

pub(crate) mod model;
mod node;
pub(crate) mod raw;

use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::response::{Appended, Data};
use loglog_proto::{ClusterId, Offset};

use crate::append_error::AppendError;
use crate::client::{Client, Ends};
use crate::error::Error;
use crate::local::LocalEndpoint;
use crate::log::Log;
use crate::pipeline::{AppendOptions, Pipeline, PipelineOptions};
use crate::read::{Entries, EntriesOptions, Follow, ReadOptions};
use node::MemoryNode;

/// A log in this program's memory: a test double of everything that is a [`Log`]. Clones are the same log.
///
/// ```
/// # loglog_client::block_on(async {
/// use loglog_client::{Log, MemoryLog};
///
/// let log = MemoryLog::new();
/// let place = log.append("hello").await?;
/// assert_eq!(log.end(true).await?, place.end);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MemoryLog {
    client: Client,
    node: Arc<MemoryNode>,
}

impl MemoryLog {
    /// An empty log: as of any node that has just started, it holds one entry of Raft's own.
    #[must_use]
    pub fn new() -> Self {
        let node = Arc::new(MemoryNode::new());
        let client = Client::builder().local(LocalEndpoint::new(node.clone()));
        Self { client, node }
    }

    /// The client, for what a [`Log`] does not offer. Members cannot be managed here.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every connection breaks, as when a node is restarted: what was answered on it may be lost. Clients connect again by themselves.
    pub fn break_connections(&self) {
        self.node.break_connections();
    }

    /// From now on what is appended gets no answer, and does not become readable, until [`MemoryLog::resume`]: a node without its majority.
    pub fn pause(&self) {
        self.node.pause(true);
    }

    /// Ends [`MemoryLog::pause`]; what was appended meanwhile is committed.
    pub fn resume(&self) {
        self.node.pause(false);
    }

    /// Flips a bit of the byte at `at`, if the log has it: a damaged copy.
    pub fn damage(&self, at: Offset) {
        self.node.damage(at);
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for MemoryLog {
    fn cluster(&self) -> impl Future<Output = Result<ClusterId, Error>> + Send {
        self.client.cluster()
    }

    fn append_with(
        &self,
        payload: impl Into<Bytes> + Send,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        self.client.append_with(payload, options)
    }

    fn pipeline(&self, options: PipelineOptions) -> Pipeline {
        self.client.pipeline(options)
    }

    fn read_with(&self, options: ReadOptions) -> impl Future<Output = Result<Data, Error>> + Send {
        self.client.read_with(options)
    }

    fn ends(&self, linearizable: bool) -> impl Future<Output = Result<Ends, Error>> + Send {
        self.client.ends(linearizable)
    }

    fn entries_with(&self, range: impl RangeBounds<Offset>, options: EntriesOptions) -> Entries {
        self.client.entries_with(range, options)
    }

    fn follow_with(&self, from: Offset, options: EntriesOptions) -> Follow {
        self.client.follow_with(from, options)
    }

    fn tail_start(&self, count: u64) -> impl Future<Output = Result<Offset, Error>> + Send {
        self.client.tail_start(count)
    }

    fn trim(&self, before: Offset) -> impl Future<Output = Result<Offset, Error>> + Send {
        Log::trim(&self.client, before)
    }
}
