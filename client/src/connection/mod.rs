//! Connection: one socket to one node, shared by everybody who asks it something.
//!
//! ```text
//!     callers ─► mpsc ─► task: encode all that waits, write once ─► socket
//!     callers ◄─ oneshot, or a batch for a pipeline ◄─ decode all that came ◄─┘
//! ```
//!
//! Owns:   the handle that callers hold, and the first exchange (hello).
//! Keeps:  a connection that is lost stays lost; whoever needs another asks the hub.
//! Never:  retries.

mod outbox;
mod pending;
mod task;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use loglog_proto::error::Code;
use loglog_proto::frame;
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{Append, PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::{Response, ResponseBody, Welcome};
use loglog_proto::{ClusterId, RequestId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

pub(crate) use pending::{Replies, ReplySink};

use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::pipeline::state::Attempt;

/// The hello's id; later requests count on from it.
const HELLO_ID: u64 = 1;

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
        let lost =
            |error: std::io::Error| Error::Lost { address: endpoint.to_string(), why: error.to_string() };
        let opening = async {
            match endpoint {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(lost)?;
                    stream.set_nodelay(true).map_err(lost)?;
                    let (reader, writer) = stream.into_split();
                    Self::greet(endpoint, cluster, quiet, reader, writer).await
                }
                Endpoint::Unix(path) => {
                    let (reader, writer) = UnixStream::connect(path).await.map_err(lost)?.into_split();
                    Self::greet(endpoint, cluster, quiet, reader, writer).await
                }
            }
        };
        tokio::time::timeout(timeout, opening).await.unwrap_or_else(|_| {
            Err(Error::TimedOut { after: timeout, last: Some(format!("connecting to {endpoint}")) })
        })
    }

    async fn greet<R, W>(
        endpoint: &Endpoint,
        cluster: Option<ClusterId>,
        quiet: Duration,
        mut reader: R,
        mut writer: W,
    ) -> Result<Self, Error>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let address = || endpoint.to_string();
        let lost = |error: std::io::Error| Error::Lost { address: address(), why: error.to_string() };
        let hello = RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
        let mut out = BytesMut::new();
        Request { id: RequestId::new(HELLO_ID), body: hello }.encode(&mut out);
        writer.write_all(&out).await.map_err(lost)?;

        let protocol = |what: String| Error::Protocol { address: address(), what };
        let mut received = BytesMut::with_capacity(task::RECEIVE_BYTES);
        let reply = loop {
            let frame =
                frame::split(&mut received, FRAME_BYTES_MAX).map_err(|error| protocol(error.to_string()))?;
            if let Some(frame) = frame {
                break Response::decode(&frame).map_err(|error| protocol(error.to_string()))?;
            }
            if reader.read_buf(&mut received).await.map_err(lost)? == 0 {
                return Err(Error::Lost { address: address(), why: "closed during the hello".to_owned() });
            }
        };
        let welcome = match reply.body {
            ResponseBody::Welcome(welcome) => welcome,
            ResponseBody::Refused(refusal) if refusal.code == Code::Version => {
                return Err(Error::Version { address: address(), why: refusal.message });
            }
            ResponseBody::Refused(refusal) => return Err(Error::Refused(refusal)),
            _ => return Err(protocol("the answer to the hello is no welcome".to_owned())),
        };
        if welcome.version != PROTOCOL_VERSION {
            let why = format!("it speaks {}, this client {PROTOCOL_VERSION}", welcome.version);
            return Err(Error::Version { address: address(), why });
        }
        if let Some(expected) = cluster.filter(|expected| *expected != welcome.cluster) {
            return Err(Error::WrongCluster { address: address(), expected, found: welcome.cluster });
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        tokio::spawn(task::Task::new(reader, writer, receiver, received, quiet).run());
        Ok(Self { shared: Arc::new(Shared { endpoint: endpoint.clone(), welcome, commands }) })
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
