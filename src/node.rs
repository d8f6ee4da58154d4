//! Node: LogLog inside a program.
//!
//! ```text
//!     Node ──stop──► thread: actix system, the node's actors ◄──channels── Client (log)
//! ```
//!
//! Owns:   the thread that a node lives on, and what it is told to do: start, stop.
//! Keeps:  nothing here needs a runtime of the program's, nor minds one.
//! Never:  holds logic of the node.

mod builder;

use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io};

use loglog_actors::{LocalChannels, LocalPort, NodeError};
use loglog_client::{Client, ClusterId, LocalEndpoint, LocalNode, LocalSocket, NodeId};
use slog::{Logger, error};
use tokio::sync::{oneshot, watch};

pub use builder::NodeBuilder;

use crate::config::ConfigError;

/// How a node ended; `None` while it runs.
type Ended = Option<Result<(), Arc<NodeError>>>;

/// A node that serves, in this program. Dropping it stops it as well, and waits for nothing; a program that just ends leaves what was acknowledged on
/// the disk, as a crash does.
///
/// It handles no signals and installs no panic hook. Its actors are restarted when they panic, which takes `panic = "unwind"`, Rust's default: with
/// `"abort"` such a panic ends the program.
#[must_use = "a node that is dropped stops"]
pub struct Node {
    log: Client,
    about: About,
    stop: oneshot::Sender<()>,
    ended: watch::Receiver<Ended>,
}

/// What a node that has started tells of itself.
struct About {
    local: LocalPort,
    id: NodeId,
    cluster: ClusterId,
    client_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
}

/// Why a node did not start. Shown for debugging it is the same words: a `main` that returns it prints these.
#[derive(thiserror::Error)]
pub enum StartError {
    /// It cannot be what it was told to be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It did not come up: the directory is taken, say.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system gives no thread.
    #[error("no thread for the node: {0}")]
    Thread(#[source] io::Error),
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a node ended by itself: what [`NodeError`] says, shared among all who ask.
pub type EndError = Arc<NodeError>;

impl Node {
    /// Says what kind of node it is to be. Without more it is alone, keeps its log in `./loglog-data`, and nobody reaches it from outside of this
    /// program.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// The log, as a client of this node, over no socket. In a cluster it finds the leader as any client does, and reads here.
    ///
    /// All are clones of one client. It may be used from any runtime, or from none: see `ClientBuilder::connect`.
    #[must_use]
    pub fn log(&self) -> Client {
        self.log.clone()
    }

    /// Which node it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.about.id
    }

    /// Whose log it keeps.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.about.cluster
    }

    /// Where clients of other programs connect, if anywhere.
    #[must_use]
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.about.client_address
    }

    /// Where administrators look in, if anywhere.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.about.admin_address
    }

    /// Stops in order: what is in flight is finished, a leader hands over, all is synced. Then the directory is free.
    ///
    /// # Errors
    /// The disk failed, now or before: what was acknowledged is safe, and the next start recovers the log.
    pub async fn shutdown(self) -> Result<(), EndError> {
        let Self { stop, ended, .. } = self;
        drop(stop);
        wait(ended).await
    }

    /// Waits until the node ends by itself, which it does only if it cannot go on: its disk failed, or an actor of it again and again. A client
    /// sees that as a node that is not there.
    ///
    /// # Errors
    /// Always, with the reason, unless the node was stopped.
    pub async fn ended(&self) -> Result<(), EndError> {
        wait(self.ended.clone()).await
    }
}

async fn wait(mut ended: watch::Receiver<Ended>) -> Result<(), EndError> {
    match ended.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ok(())),
        // Its thread is gone without a word: only a panic does that.
        Err(_) => Err(Arc::new(NodeError::Disk("the node's thread panicked".to_owned()))),
    }
}

/// A thread for a node, which starts there.
async fn spawn(options: loglog_actors::NodeOptions, log: Logger) -> Result<Node, StartError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell_start, started) = oneshot::channel();
    let (tell_end, ended) = watch::channel(None);
    let name = format!("loglog-node-{}", options.node);
    let live = move || {
        let end = actix_rt::System::new().block_on(live(options, log, tell_start, stopped));
        // Nobody may wait for it.
        tell_end.send_replace(Some(end));
    };
    std::thread::Builder::new().name(name).spawn(live).map_err(StartError::Thread)?;
    let about = match started.await {
        Ok(started) => started?,
        Err(_) => return Err(NodeError::Disk("the node's thread panicked at its start".to_owned()).into()),
    };
    let local = LocalEndpoint::new(Port(about.local.clone()));
    let log = Client::builder().cluster(about.cluster).local(local);
    Ok(Node { log, about, stop, ended })
}

async fn live(
    options: loglog_actors::NodeOptions,
    log: Logger,
    tell_start: oneshot::Sender<Result<About, NodeError>>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), EndError> {
    let node = tokio::select! {
        node = loglog_actors::Node::start(options, log.clone()) => node,
        // Whoever wanted it has gone; nothing is served yet.
        _ = &mut stopped => return Ok(()),
    };
    let node = match node {
        Ok(node) => node,
        Err(error) => {
            // As above: then nobody wants to know.
            let _ = tell_start.send(Err(error));
            return Ok(());
        }
    };
    let identity = node.identity();
    let about = About {
        local: node.local(),
        id: identity.node,
        cluster: identity.cluster,
        client_address: node.address(),
        admin_address: node.admin_address(),
    };
    // If nobody is there any more, `stopped` is done as well.
    let _ = tell_start.send(Ok(about));
    let served = node.serve(async {
        // Nothing is ever sent: it is dropped.
        let _ = stopped.await;
    });
    served.await.map_err(|reason| {
        error!(log, "the node in this program has ended"; "reason" => %reason);
        Arc::new(reason)
    })
}

/// The node's port as the client knows it.
struct Port(LocalPort);

impl LocalNode for Port {
    fn connect(&self) -> Option<LocalSocket> {
        let LocalChannels { requests, responses } = self.0.connect()?;
        Some(LocalSocket { requests, responses })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.about.id).field("cluster", &self.about.cluster).finish()
    }
}
