//! Node error: why a node did not start, or ended by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use loglog_proto::NodeId;
use loglog_storage::{FormError, IoFailure, LockError};

use crate::peer::formation::FormationError;
use crate::storage_group::RecoveryError;

/// Why a node ended, other than being told to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The directory is taken or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory cannot be read.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// The directory cannot be made a node's.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The address cannot be listened to.
    #[error("cannot listen on {address} (listen.client): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The Unix socket cannot be listened to.
    #[error("cannot listen on {} (listen.unix): {source}", path.display())]
    BindUnix {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The peer port cannot be listened to.
    #[error("cannot listen on {address} (listen.peer): {source}")]
    BindPeer {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// One of several nodes must be reached by the others.
    #[error("a member of a cluster needs a port for the other nodes: set listen.peer")]
    NoPeerPort,
    /// The admin port cannot be listened to.
    #[error("cannot listen on {address} (listen.admin; \"\" turns the admin endpoint off): {source}")]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The cluster cannot form.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The log cannot be opened.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The directory belongs to another node number.
    #[error("{} belongs to node {found}; this is node {expected} (node.id)", path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// What the configuration says.
        expected: NodeId,
        /// What the directory says.
        found: NodeId,
    },
    /// What was to be kept cannot be kept any more.
    #[error(
        "{0}; the process ends, since a disk that failed once cannot be trusted until the log is recovered anew"
    )]
    Disk(String),
    /// An actor failed too often.
    #[error("{actor} panicked too often: {panic}")]
    GaveUp {
        /// Which.
        actor: String,
        /// Its last words.
        panic: String,
    },
}
