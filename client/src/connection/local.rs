//! Link to a node inside this program.
//!
//! Owns:   the channel to the node, who waits; the task that takes what comes back.
//! Keeps:  a request goes from whoever makes it straight to the node; once the connection is lost, nobody waits in vain.
//! Never:  listens for silence, as over a socket: both ends die together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loglog_proto::request::{PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::{Response, Welcome};
use loglog_proto::{ClusterId, RequestId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Command;
use super::hello::{HELLO_ID, welcome};
use super::pending::{Pending, Waiter};
use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::local::{LocalEndpoint, LocalSocket};

/// The sending side.
#[derive(Debug)]
pub(super) struct LocalLink {
    requests: UnboundedSender<Vec<Request>>,
    waiting: Arc<Waiting>,
    /// Its other end is the task's.
    alive: UnboundedSender<()>,
}

/// Who waits; nobody may, once the connection is lost.
#[derive(Debug)]
struct Waiting(Mutex<Option<Pending>>);

impl LocalLink {
    /// Greets the node, as over a socket.
    pub(super) async fn open(
        node: &LocalEndpoint,
        cluster: Option<ClusterId>,
    ) -> Result<(Self, Welcome), Error> {
        let endpoint = Endpoint::Local(node.clone());
        let lost =
            || Error::Lost { address: endpoint.to_string(), why: "closed during the hello".to_owned() };
        let LocalSocket { requests, mut responses } = node.connect().ok_or(Error::Ended)?;
        let body = RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
        let hello = Request { id: RequestId::new(HELLO_ID), body };
        requests.send(vec![hello]).map_err(|_| lost())?;
        let reply = responses.recv().await.and_then(|replies| replies.into_iter().next());
        let welcome = welcome(reply.ok_or_else(lost)?, &endpoint, cluster)?;
        let waiting = Arc::new(Waiting(Mutex::new(Some(Pending::new(HELLO_ID + 1)))));
        let (alive, life) = unbounded_channel();
        let receiver = Receiver { responses, waiting: Arc::clone(&waiting), _life: life };
        tokio::spawn(receiver.run());
        Ok((Self { requests, waiting, alive }, welcome))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.alive.is_closed()
    }

    pub(super) async fn closed(&self) {
        self.alive.closed().await;
    }

    /// Sends, unless the connection is lost: then whoever waits for the answer sees its channel close.
    pub(super) fn send(&self, command: Command) {
        let mut requests = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let Some(pending) = waiting.as_mut() else { return };
            match command {
                Command::Ask { body, reply } => {
                    requests.push(Request { id: pending.add(Waiter::Ask(reply)), body });
                }
                Command::Appends { appends, sink } => {
                    requests.reserve_exact(appends.len());
                    pending.add_run(appends, sink, |request| requests.push(request));
                }
            }
        }
        // Where the node is gone, the task ends, and all who wait are told.
        let _ = self.requests.send(requests);
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving side. Whatever ends it, also the end of the runtime that it runs in, is the connection's end.
struct Receiver {
    responses: UnboundedReceiver<Vec<Response>>,
    waiting: Arc<Waiting>,
    _life: UnboundedReceiver<()>,
}

impl Receiver {
    /// Takes what the node answers until that ends the connection or breaks the protocol.
    async fn run(mut self) {
        while let Some(replies) = self.responses.recv().await {
            let mut waiting = self.waiting.lock();
            let Some(pending) = waiting.as_mut() else { break };
            let delivered = replies.into_iter().try_for_each(|reply| pending.deliver(reply));
            pending.flush();
            if delivered.is_err() {
                break;
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.waiting.lock().take();
    }
}
