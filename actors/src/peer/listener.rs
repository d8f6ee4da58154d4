//! Peer listener actor: accepts peers.
//!
//! Owns:   the peer port's socket.
//! Never:  reads a byte from a peer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Handler, StreamHandler};
use actix_rt::ArbiterHandle;
use slog::warn;

use super::SharedIdentity;
use super::connection::PeerConnection;
use super::links::Links;
use super::traffic::PeerTraffic;
use crate::consensus::ConsensusSlot;
use crate::faults::{Fault, Faults, panic_as_told};
use crate::guard::{Ctx, Restart};
use crate::supervisor::{Child, Supervisor};
use crate::view::LogView;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "peer-listener";

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
    /// Counts the log bytes that go to and fro.
    pub traffic: Arc<PeerTraffic>,
    /// Injected faults.
    pub faults: Faults,
}

impl PeerListener {
    /// Accepts from `socket`, which is bound already.
    pub const fn new(socket: Option<std::net::TcpListener>, parts: PeerParts) -> Self {
        Self { socket, parts }
    }

    fn accept(&self, socket: std::net::TcpStream) {
        let parts = self.parts.clone();
        let child = Child {
            name: format!("peer-connection-{}", parts.next.fetch_add(1, Ordering::Relaxed)),
            kind: "PeerConnection",
            parent: NAME.to_owned(),
            restart: Restart::Never,
        };
        let (supervisor, arbiter) = (parts.supervisor.clone(), parts.arbiter.clone());
        supervisor.spawn_once(child, &arbiter, move || PeerConnection::new(socket, &parts));
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
        // The socket was bound before; what fails here fails again, and the supervisor gives up on it.
        self.listen(ctx).expect("a bound socket can be listened to");
    }
}

impl StreamHandler<io::Result<tokio::net::TcpStream>> for PeerListener {
    fn handle(&mut self, accepted: io::Result<tokio::net::TcpStream>, ctx: &mut Self::Context) {
        match accepted.and_then(tokio::net::TcpStream::into_std) {
            Ok(socket) => self.accept(socket),
            Err(error) => warn!(ctx.log(), "cannot accept a peer"; "error" => %error),
        }
    }
}

impl Handler<Fault> for PeerListener {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        panic_as_told(how, ctx);
    }
}
