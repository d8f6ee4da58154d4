//! Local: a node inside this program, spoken to through channels.
//!
//! Owns:   the seam: what a node must offer so that a client can speak to it without socket and MessagePack.
//! Keeps:  what travels are the protocol's own requests and responses, so that everything above is the same as over a socket.
//! Never:  knows what a node is made of.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use loglog_proto::request::Request;
use loglog_proto::response::Response;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// A node inside this program.
pub trait LocalNode: Send + Sync + 'static {
    /// Opens a connection; `None` once the node has ended.
    fn connect(&self) -> Option<LocalSocket>;
}

/// A connection to a [`LocalNode`]. Each channel's end is the connection's.
#[derive(Debug)]
pub struct LocalSocket {
    /// To the node, in the order in which they were made.
    pub requests: UnboundedSender<Vec<Request>>,
    /// From the node, in any order.
    pub responses: UnboundedReceiver<Vec<Response>>,
}

/// Where a [`LocalNode`] is: nowhere but here.
#[derive(Clone)]
pub struct LocalEndpoint(Arc<dyn LocalNode>);

impl LocalEndpoint {
    /// Where `node` is.
    #[must_use]
    pub fn new(node: impl LocalNode) -> Self {
        Self(Arc::new(node))
    }

    pub(crate) fn connect(&self) -> Option<LocalSocket> {
        self.0.connect()
    }
}

impl PartialEq for LocalEndpoint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LocalEndpoint {}

impl Hash for LocalEndpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for LocalEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalEndpoint")
    }
}

impl fmt::Display for LocalEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node in this program")
    }
}
