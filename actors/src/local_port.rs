//! Local port: where clients in this program connect.
//!
//! Owns:   nothing once it is closed: whoever still holds a client holds no part of a node that has ended.
//! Keeps:  a connection is like any other, with its actor, its credit and its limits; only its socket is a pair of channels.
//! Never:  makes anybody wait: how many connections a program opens to itself is its own business.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use loglog_proto::request::Request;
use loglog_proto::response::Response;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::client_socket::{ClientSocket, LocalSocket};
use crate::listener::Connections;
use crate::services::Services;

/// A way to a node from within its program. Cheap to clone.
#[derive(Clone)]
pub struct LocalPort(Arc<Mutex<Option<Inside>>>);

/// What a connection is made of, while the node lives.
type Inside = (Connections, Arc<Services>);

/// The client's ends of a connection.
#[derive(Debug)]
pub struct LocalChannels {
    /// To the node; the first must be a hello.
    pub requests: UnboundedSender<Vec<Request>>,
    /// From the node.
    pub responses: UnboundedReceiver<Vec<Response>>,
}

impl LocalPort {
    pub(crate) fn new(connections: Connections, services: Arc<Services>) -> Self {
        Self(Arc::new(Mutex::new(Some((connections, services)))))
    }

    /// Opens a connection; `None` once the node has ended.
    #[must_use]
    pub fn connect(&self) -> Option<LocalChannels> {
        let port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (connections, services) = port.as_ref()?;
        let ((to_node, requests), (responses, from_node)) = (unbounded_channel(), unbounded_channel());
        connections.open(ClientSocket::Local(LocalSocket { requests, responses }), services);
        Some(LocalChannels { requests: to_node, responses: from_node })
    }

    /// Nobody connects any more.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl fmt::Debug for LocalPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalPort")
    }
}
