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

use local::LocalLink;

use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::pipeline::state::Attempt;

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
    way: Way,
}

/// How requests get to the node. Unbounded, since whoever sends is bounded: pipelines by their window, others by awaiting the answer.
#[derive(Debug)]
enum Way {
    Socket(mpsc::UnboundedSender<Command>),
    Local(LocalLink),
}

/// How a connection waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Silent for twice as long while something is waited for, it counts as lost.
    pub(crate) quiet: Duration,
    /// So long after a lone request was sent it looks for the answer without sleeping.
    pub(crate) busy_poll: Duration,
}

impl Way {
    fn send(&self, command: Command) {
        match self {
            // Where the task has ended, the command is dropped with its sender.
            Self::Socket(commands) => drop(commands.send(command)),
            Self::Local(link) => link.send(command),
        }
    }
}

impl Connection {
    /// Connects to a node and greets it, all within `timeout`.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        cluster: Option<ClusterId>,
        timeout: Duration,
        habits: Habits,
    ) -> Result<Self, Error> {
        let (way, welcome) = if let Endpoint::Local(node) = endpoint {
            let opened = tokio::time::timeout(timeout, LocalLink::open(node, cluster)).await;
            let (link, welcome) = opened.unwrap_or_else(|_| Err(hello::too_late(endpoint, timeout)))?;
            (Way::Local(link), welcome)
        } else {
            let Greeted { reader, writer, received, welcome } = greet(endpoint, cluster, timeout).await?;
            let (commands, receiver) = mpsc::unbounded_channel();
            tokio::spawn(task::Task::new(reader, writer, receiver, received, habits).run());
            (Way::Socket(commands), welcome)
        };
        Ok(Self { shared: Arc::new(Shared { endpoint: endpoint.clone(), welcome, way }) })
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
        match &self.shared.way {
            Way::Socket(commands) => commands.is_closed(),
            Way::Local(link) => link.is_closed(),
        }
    }

    /// Waits until it is lost.
    pub(crate) async fn closed(&self) {
        match &self.shared.way {
            Way::Socket(commands) => commands.closed().await,
            Way::Local(link) => link.closed().await,
        }
    }

    /// Whether both are handles on the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Asks, and waits for the answer, without a limit in time. A refusal is an answer.
    pub(crate) async fn ask(&self, body: RequestBody) -> Result<ResponseBody, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.way.send(Command::Ask { body, reply });
        answer.await.map_err(|_| self.lost())
    }

    /// Sends appends, in order. Replies go to `sink`; none come once the connection is lost.
    pub(crate) fn append(&self, appends: Vec<(Attempt, Append)>, sink: ReplySink) {
        self.shared.way.send(Command::Appends { appends, sink });
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
