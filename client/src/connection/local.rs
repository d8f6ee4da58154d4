//! The task that owns a connection to a node inside this program.
//!
//! Owns:   both channels, who waits.
//! Keeps:  everything queued goes out in one message, everything received is delivered before anybody is told.
//! Never:  listens for silence, as over a socket: both ends die together.

use loglog_proto::request::{PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::Welcome;
use loglog_proto::{ClusterId, RequestId};
use tokio::sync::mpsc;

use super::hello::{HELLO_ID, welcome};
use super::pending::{Pending, Waiter};
use super::{COMMANDS, Command};
use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::local::{LocalEndpoint, LocalSocket};

/// Greets the node, as over a socket.
pub(super) async fn greet(
    node: &LocalEndpoint,
    cluster: Option<ClusterId>,
) -> Result<(LocalSocket, Welcome), Error> {
    let endpoint = Endpoint::Local(node.clone());
    let ended = || Error::Lost { address: endpoint.to_string(), why: "it has ended".to_owned() };
    let mut socket = node.connect().ok_or_else(ended)?;
    let body = RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
    let hello = Request { id: RequestId::new(HELLO_ID), body };
    socket.requests.send(vec![hello]).map_err(|_| ended())?;
    let reply = socket.responses.recv().await.and_then(|replies| replies.into_iter().next());
    let welcome = welcome(reply.ok_or_else(ended)?, &endpoint, cluster)?;
    Ok((socket, welcome))
}

/// The channels and their surroundings.
pub(super) struct LocalTask {
    socket: LocalSocket,
    commands: mpsc::UnboundedReceiver<Command>,
    pending: Pending,
}

impl LocalTask {
    pub(super) fn new(socket: LocalSocket, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        Self { socket, commands, pending: Pending::new(HELLO_ID + 1) }
    }

    /// Runs until the node ends the connection, breaks the protocol, or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut commands = Vec::with_capacity(COMMANDS);
        let mut open = true;
        while open || !self.pending.is_empty() {
            tokio::select! {
                biased;
                replies = self.socket.responses.recv() => {
                    let Some(replies) = replies else { break };
                    if replies.into_iter().try_for_each(|reply| self.pending.deliver(reply)).is_err() {
                        break;
                    }
                    self.pending.flush();
                }
                count = self.commands.recv_many(&mut commands, COMMANDS), if open => {
                    open = count > 0;
                    let mut requests = Vec::with_capacity(commands.iter().map(Command::len).sum());
                    commands.drain(..).for_each(|command| command.requests(&mut self.pending, &mut requests));
                    if !requests.is_empty() && self.socket.requests.send(requests).is_err() {
                        break;
                    }
                }
            }
        }
        self.pending.flush();
    }
}

impl Command {
    fn len(&self) -> usize {
        match self {
            Self::Ask { .. } => 1,
            Self::Appends { appends, .. } => appends.len(),
        }
    }

    fn requests(self, pending: &mut Pending, to: &mut Vec<Request>) {
        match self {
            Self::Ask { body, reply } => to.push(Request { id: pending.add(Waiter::Ask(reply)), body }),
            Self::Appends { appends, sink } => to.extend(appends.into_iter().map(|(attempt, append)| {
                let id = pending.add(Waiter::Append(sink.clone(), attempt));
                Request { id, body: RequestBody::Append(append) }
            })),
        }
    }
}
