//! Peer listener actor: accepts peers.
//!
//! Owns:   the peer port's socket, and how many may be connected to it.
//! Keeps:  strangers never keep a peer out: the oldest of them goes when another comes.
//! Never:  reads a byte from a peer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Handler, StreamHandler};
use actix_rt::ArbiterHandle;
use serde_json::json;
use slog::{Logger, warn};

use super::SharedIdentity;
use super::connection::PeerConnection;
use super::fetcher::FetcherSlot;
use super::links::Links;
use super::pace::Pace;
use super::traffic::PeerTraffic;
use crate::consensus::ConsensusSlot;
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::{Ctx, Restart};
use crate::supervisor::{Child, Handle, Supervisor};
use crate::upload_buffer::UploadBuffer;
use crate::view::LogView;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "peer-listener";

/// Connections at a time. A peer has one for its link and up to a dozen for bulk.
const CONNECTIONS_MAX: usize = 512;
/// Those among them whose hello was not accepted yet.
const STRANGERS_MAX: usize = 32;

/// Wait after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// The actor.
pub struct PeerListener {
    socket: Option<std::net::TcpListener>,
    parts: PeerParts,
}

/// What peer connections work with.
#[derive(Clone)]
pub struct PeerParts {
    /// Who we are to them.
    pub identity: SharedIdentity,
    /// The consensus of the moment.
    pub consensus: ConsensusSlot,
    /// Where copies are read.
    pub view: Arc<LogView>,
    /// Spawns their actors.
    pub supervisor: Supervisor,
    /// In this thread.
    pub arbiter: ArbiterHandle,
    /// Numbers them.
    pub next: Arc<AtomicU64>,
    /// Answers to those who speak to us.
    pub links: Arc<Links>,
    /// Those that live, oldest first; outlive the listener's restarts.
    pub living: Arc<Mutex<Vec<Living>>>,
    /// Counts the log bytes that go to and fro.
    pub traffic: Arc<PeerTraffic>,
    /// Where payloads wait for their place.
    pub uploads: Handle<UploadBuffer>,
    /// Where the upload buffer finds the fetcher.
    pub fetcher: FetcherSlot,
    /// How fast this node copies what it missed.
    pub pace: Pace,
    /// Injected faults.
    pub faults: Faults,
}

/// A connection that lives, or did a moment ago.
pub struct Living {
    handle: Handle<PeerConnection>,
    is_known: Arc<AtomicBool>,
}

impl PeerListener {
    /// Accepts from `socket`, which is bound already.
    pub const fn new(socket: Option<std::net::TcpListener>, parts: PeerParts) -> Self {
        Self { socket, parts }
    }

    fn accept(&self, socket: std::net::TcpStream, log: &Logger) {
        let parts = self.parts.clone();
        let mut living = self.parts.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.retain(|it| !it.handle.stats().state().has_ended());
        if living.len() >= CONNECTIONS_MAX {
            return warn!(log, "a peer is not let in: too many are connected"; "connections" => living.len());
        }
        let is_stranger = |it: &Living| !it.is_known.load(Ordering::Relaxed);
        if living.iter().filter(|it| is_stranger(it)).count() >= STRANGERS_MAX
            && let Some(oldest) = living.iter().position(is_stranger)
        {
            // Whoever belongs here says hello at once, and the newcomer may be one of those.
            living.remove(oldest).handle.kill();
        }
        let child = Child {
            name: format!("peer-connection-{}", parts.next.fetch_add(1, Ordering::Relaxed)),
            kind: "PeerConnection",
            parent: NAME.to_owned(),
            restart: Restart::Never,
        };
        let (supervisor, arbiter) = (parts.supervisor.clone(), parts.arbiter.clone());
        let is_known = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&is_known);
        let handle =
            supervisor.spawn_once(child, &arbiter, move || PeerConnection::new(socket, &parts, known));
        living.push(Living { handle, is_known });
    }

    fn listen(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some(socket) = self.socket.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(socket)?;
        use actix::AsyncContext;
        ctx.add_stream(futures_util::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await;
            if accepted.is_err() {
                actix_rt::time::sleep(PAUSE).await;
            }
            Some((accepted.map(|(stream, _)| stream), listener))
        }));
        Ok(())
    }
}

impl Actor for PeerListener {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parts.faults.on_start(NAME);
        ctx.show(|listener| {
            let living = listener.parts.living.lock().unwrap_or_else(PoisonError::into_inner);
            let living = living.iter().filter(|it| !it.handle.stats().state().has_ended());
            json!({ "connections": living.count(), "connections_max": CONNECTIONS_MAX })
        });
        // The socket was bound before; what fails here fails again, and the supervisor gives up on it.
        self.listen(ctx).expect("a bound socket can be listened to");
    }
}

impl StreamHandler<io::Result<tokio::net::TcpStream>> for PeerListener {
    fn handle(&mut self, accepted: io::Result<tokio::net::TcpStream>, ctx: &mut Self::Context) {
        match accepted.and_then(tokio::net::TcpStream::into_std) {
            Ok(socket) => self.accept(socket, ctx.log()),
            Err(error) => warn!(ctx.log(), "cannot accept a peer"; "error" => %error),
        }
    }
}

impl Handler<Fault> for PeerListener {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
