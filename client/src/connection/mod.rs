//! Connection: one socket (or pair of channels) to one node, shared by everybody who asks it something.
//!
//! ```text
//!     callers ─► mpsc ─► task: encode all that waits, write once ─► socket
//!     callers ◄─ oneshot, or a batch for a pipeline ◄─ decode all that came ◄─┘
//! ```
//!
//! Owns:   the handle that callers hold.
//! Keeps:  a connection that is lost stays lost; whoever needs another asks the hub.
//! Never:  retries.

mod hello;
mod local;
mod outbox;
mod pending;
mod task;

use std::sync::Arc;
use std::time::Duration;

use loglog_proto::ClusterId;
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::response::{ResponseBody, Welcome};
use tokio::sync::{mpsc, oneshot};

pub(crate) use hello::{Greeted, HELLO_ID, greet};
pub(crate) use outbox::{Outbox, VECTORED_FROM};
pub(crate) use pending::{Replies, ReplySink};

use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::pipeline::state::Attempt;

/// The most commands that a task takes at once.
const COMMANDS: usize = 256;

/// What callers hand to the task.
#[derive(Debug)]
enum Command {
    Ask { body: RequestBody, reply: oneshot::Sender<ResponseBody> },
    Appends { appends: Vec<(Attempt, Append)>, sink: ReplySink },
}

/// A handle on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    welcome: Welcome,
    /// Unbounded, since whoever sends is bounded: pipelines by their window, others by awaiting the answer.
    commands: mpsc::UnboundedSender<Command>,
}

impl Connection {
    /// Connects to a node and greets it, all within `timeout`. A connection that is silent for twice `quiet` while something is
    /// waited for counts as lost.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        cluster: Option<ClusterId>,
        timeout: Duration,
        quiet: Duration,
    ) -> Result<Self, Error> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let welcome = if let Endpoint::Local(node) = endpoint {
            let greeted = tokio::time::timeout(timeout, local::greet(node, cluster)).await;
            let (socket, welcome) = greeted.unwrap_or_else(|_| Err(hello::too_late(endpoint, timeout)))?;
            tokio::spawn(local::LocalTask::new(socket, receiver).run());
            welcome
        } else {
            let Greeted { reader, writer, received, welcome } = greet(endpoint, cluster, timeout).await?;
            tokio::spawn(task::Task::new(reader, writer, receiver, received, quiet).run());
            welcome
        };
        Ok(Self { shared: Arc::new(Shared { endpoint: endpoint.clone(), welcome, commands }) })
    }

    /// Where the node listens.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// What the node said in the hello.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// Whether it was lost.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.commands.is_closed()
    }

    /// Waits until it is lost.
    pub(crate) async fn closed(&self) {
        self.shared.commands.closed().await;
    }

    /// Whether both are handles on the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Asks, and waits for the answer, without a limit in time. A refusal is an answer.
    pub(crate) async fn ask(&self, body: RequestBody) -> Result<ResponseBody, Error> {
        let (reply, answer) = oneshot::channel();
        // Where the task has ended, the command is dropped with its sender, and the answer below is an error.
        let _ = self.shared.commands.send(Command::Ask { body, reply });
        answer.await.map_err(|_| self.lost())
    }

    /// Sends appends, in order. Replies go to `sink`; none come once the connection is lost.
    pub(crate) fn append(&self, appends: Vec<(Attempt, Append)>, sink: ReplySink) {
        let _ = self.shared.commands.send(Command::Appends { appends, sink });
    }

    /// The error of an answer that is of another kind than asked for.
    pub(crate) fn unexpected(&self) -> Error {
        let what = "the answer is of another kind than the question".to_owned();
        Error::Protocol { address: self.shared.endpoint.to_string(), what }
    }

    fn lost(&self) -> Error {
        let why = "it was closed, or the node fell silent".to_owned();
        Error::Lost { address: self.shared.endpoint.to_string(), why }
    }
}
