//! Node options: what a node is made with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loglog_proto::{ClusterId, Length, NodeId};

use crate::admin::sources::LogControl;
use crate::peer::formation::ClusterNode;

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where data lies; made if missing.
    pub data_dir: PathBuf,
    /// Whose log it is; a new directory gets it, another's is refused. A new directory without it draws one.
    pub cluster: Option<ClusterId>,
    /// This node's number.
    pub node: NodeId,
    /// Where clients connect; `None`: only through a Unix socket or from within this program.
    pub listen_client: Option<SocketAddr>,
    /// Where clients of this machine connect, too: a Unix socket's file, and its permissions.
    pub listen_unix: Option<(PathBuf, u32)>,
    /// Where peers connect; `None`: nowhere, which only a node that is alone may.
    pub listen_peer: Option<SocketAddr>,
    /// Where administrators look in; `None`: nowhere.
    pub listen_admin: Option<SocketAddr>,
    /// The nodes of a static cluster, this one among them; none or one: the node is alone. Counts for a new directory.
    pub cluster_nodes: Vec<ClusterNode>,
    /// An empty directory waits to be taken in by the cluster `cluster`; `cluster_nodes` is empty then.
    pub join: bool,
    /// Where clients reach this node, `host:port`, if not where it listens; counts for a node alone.
    pub advertise_client: Option<String>,
    /// Where peers reach this node, as above.
    pub advertise_peer: Option<String>,
    /// Entry bytes of a segment; counts for a new directory.
    pub segment_bytes_max: Length,
    /// Bytes that requests may hold in memory.
    pub upload_bytes_max: usize,
    /// The same for one connection.
    pub connection_bytes_max: u32,
    /// Connections at a time.
    pub connections_max: u64,
    /// How long a connection looks for its client's next request without sleeping; zero: not at all.
    pub busy_poll: Duration,
    /// How fast this node copies from others what it missed, bytes a second; 0: as fast as it goes.
    pub bulk_bytes_per_second: u64,
    /// Appends are refused below this much free space, bytes.
    pub free_min: u64,
    /// Cut a corrupt log instead of refusing it.
    pub accept_loss: bool,
    /// Write the log past the page cache, where the file system can do that.
    pub direct_io: bool,
    /// Memory for the end of the log, from which readers are served, bytes.
    pub tail_bytes_max: usize,
    /// Time between Raft's ticks.
    pub tick: Duration,
    /// Whether clients may inject faults.
    pub are_faults_allowed: bool,
    /// The configuration that holds, to be shown: secrets are hidden already.
    pub config: Vec<(String, String)>,
    /// What administrators may see and change of the program's log.
    pub log_control: Option<Arc<dyn LogControl>>,
    /// Whether actors take times: how long messages wait and are handled, stalls, their own state. What comes and goes in mailboxes is counted in any case.
    pub measure: bool,
    /// The program's version, for those who ask.
    pub version: &'static str,
}

impl NodeOptions {
    /// Whether the node is one of a static cluster, rather than alone or waiting to be taken in.
    pub(crate) const fn is_cluster(&self) -> bool {
        self.cluster_nodes.len() > 1
    }
}
