//! Peer link actor: carries Raft's messages to one peer, in order, over a connection of its own.
//!
//! Owns:   that connection: connecting, backing off, what waits to be sent.
//! Keeps:  bounded memory: what a slow or absent peer would need is dropped, and consensus is told (S32).
//! Never:  sends a message again: raft-rs does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message};
use bytes::{Buf, BytesMut};
use loglog_proto::peer::{PeerMessage, RaftMessage};
use loglog_storage::Member;
use slog::{debug, info};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{SharedIdentity, socket};
use crate::consensus::{ConsensusSlot, Unreachable};
use crate::faults::{Fault, Faults, panic_as_told};
use crate::guard::Ctx;

/// Bytes that may wait for a slow peer.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// First and longest wait between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The actor.
pub struct PeerLink {
    name: String,
    peer: Member,
    identity: SharedIdentity,
    consensus: ConsensusSlot,
    faults: Faults,
    send: Option<Arc<OwnedWriteHalf>>,
    queue: BytesMut,
    is_flushing: bool,
    backoff: Duration,
    /// Raised with each connection, so that the end of an old one is not taken for the end of the new.
    connection: u64,
}

/// Messages for this peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Send(pub Vec<RaftMessage>);

impl PeerLink {
    /// The name of the link to a node.
    #[must_use]
    pub fn name(peer: &Member) -> String {
        format!("peer-link-{}", peer.id.node())
    }

    /// A link to `peer`, not connected yet.
    pub fn new(peer: Member, identity: SharedIdentity, consensus: ConsensusSlot, faults: Faults) -> Self {
        Self {
            name: Self::name(&peer),
            peer,
            identity,
            consensus,
            faults,
            send: None,
            queue: BytesMut::new(),
            is_flushing: false,
            backoff: BACKOFF.0,
            connection: 0,
        }
    }

    fn connect(&mut self, ctx: &mut Ctx<Self>) {
        let (address, identity, peer) =
            (self.peer.peer_address.clone(), Arc::clone(&self.identity), self.peer.id);
        let connecting = async move { socket::open(&address, &identity, peer).await };
        ctx.spawn(wrap_future::<_, Self>(connecting).map(|result, link, ctx| match result {
            Ok(socket) => link.opened(socket, ctx),
            Err(error) => {
                debug!(ctx.log(), "no link to a peer yet"; "address" => &link.peer.peer_address, "error" => %error);
                link.connect_later(ctx);
            }
        }));
    }

    fn connect_later(&mut self, ctx: &mut Ctx<Self>) {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(BACKOFF.1);
        ctx.run_later(wait, Self::connect);
    }

    fn opened(&mut self, socket: TcpStream, ctx: &mut Ctx<Self>) {
        info!(ctx.log(), "linked to a peer"; "node" => self.peer.id.node().get(), "address" => &self.peer.peer_address);
        self.backoff = BACKOFF.0;
        self.connection += 1;
        self.queue.clear();
        // The connection before may have been lost while its socket was full, and never become writable again.
        self.is_flushing = false;
        let (receive, send) = socket.into_split();
        self.send = Some(Arc::new(send));
        let connection = self.connection;
        ctx.spawn(wrap_future::<_, Self>(end_of(receive)).map(move |error, link, ctx| {
            if link.connection == connection {
                link.lost(&error, ctx);
            }
        }));
    }

    fn lost(&mut self, error: &io::Error, ctx: &mut Ctx<Self>) {
        if self.send.take().is_some() {
            info!(ctx.log(), "lost the link to a peer"; "node" => self.peer.id.node().get(), "error" => %error);
            self.queue = BytesMut::new();
            self.report_unreachable();
            self.connect_later(ctx);
        }
    }

    fn report_unreachable(&self) {
        if let Some(consensus) = self.consensus.get() {
            // A consensus that is down asks again when it is up.
            let _ = consensus.tell(Unreachable(self.peer.id));
        }
    }

    fn flush(&mut self, ctx: &mut Ctx<Self>) {
        let Some(send) = self.send.clone() else { return };
        while !self.queue.is_empty() && !self.is_flushing {
            match send.try_write(&self.queue) {
                Ok(sent) => self.queue.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_flushing = true;
                    let (socket, connection) = (Arc::clone(&send), self.connection);
                    let writable = async move { socket.writable().await };
                    ctx.spawn(wrap_future::<_, Self>(writable).map(move |_, link, ctx| {
                        if link.connection == connection {
                            link.is_flushing = false;
                            link.flush(ctx);
                        }
                    }));
                }
                Err(error) => return self.lost(&error, ctx),
            }
        }
    }
}

/// A peer sends nothing on our link: whatever comes, or the end, is the end.
async fn end_of(mut receive: OwnedReadHalf) -> io::Error {
    match socket::receive(&mut receive, &mut BytesMut::new()).await {
        Ok(None) => io::ErrorKind::UnexpectedEof.into(),
        Ok(Some(message)) => socket::unexpected(message),
        Err(error) => error,
    }
}

impl Actor for PeerLink {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(&self.name);
        self.connect(ctx);
    }
}

impl Handler<Send> for PeerLink {
    type Result = ();

    fn handle(&mut self, Send(messages): Send, ctx: &mut Self::Context) {
        if self.send.is_none() || self.queue.len() > QUEUE_BYTES_MAX {
            return self.report_unreachable();
        }
        for message in messages {
            PeerMessage::Raft(Box::new(message)).encode(&mut self.queue);
        }
        self.flush(ctx);
    }
}

impl Handler<Fault> for PeerLink {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        panic_as_told(how, ctx);
    }
}
