//! Peer link actor: carries Raft's messages to one peer, in order, over a connection of its own.
//!
//! Owns:   that connection: connecting, backing off, what waits to be sent.
//! Keeps:  bounded memory: what a slow or absent peer would need is dropped, and consensus is told (S32); one connection carries
//!         the words of one life of our storage (S23).
//! Never:  sends a message again: raft-rs does.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message};
use bytes::{Buf, BytesMut};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::peer::{PeerAccepted, PeerMessage, PeerStanding, RaftMessage};
use loglog_proto::{NodeId, RaftId};
use loglog_storage::Member;
use serde_json::{Value, json};
use slog::{debug, info, warn};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::traffic::PeerTraffic;
use super::{SharedIdentity, socket};
use crate::consensus::{ConsensusSlot, PeerAccepts, Unreachable};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::view::LogView;

/// Bytes that may wait for a slow peer.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Beyond this the small payloads of what is added stay behind: the peer fetches them when it gets there.
const INLINE_QUEUE_MAX: usize = 4 << 20;
/// First and longest wait between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Whom a link is for at the moment.
pub(super) type Aim = Arc<Mutex<Option<Member>>>;

/// The actor.
pub struct PeerLink {
    name: String,
    aim: Aim,
    /// Whom the connection, or the attempt at one, is for.
    peer: Option<Member>,
    identity: SharedIdentity,
    consensus: ConsensusSlot,
    view: Arc<LogView>,
    traffic: Arc<PeerTraffic>,
    faults: Faults,
    send: Option<Arc<OwnedWriteHalf>>,
    /// The life of our storage that this connection's hello named.
    life: u64,
    queue: BytesMut,
    is_flushing: bool,
    backoff: Duration,
    /// Whether it was told that the peer does not know this node any more.
    is_told: bool,
    /// Raised with each connection and each aim, so that what comes of an old one is not taken for the new.
    attempt: u64,
}

/// Messages for this peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Send {
    /// Which life of our storage speaks.
    pub life: u64,
    /// Raft's.
    pub messages: Vec<RaftMessage>,
    /// How we stand.
    pub standing: Option<PeerStanding>,
}

/// The aim has changed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retarget;

impl PeerLink {
    /// The name of the link to a node.
    #[must_use]
    pub fn name(node: NodeId) -> String {
        format!("peer-link-{node}")
    }

    /// A link that is not connected yet.
    pub(super) fn new(
        name: String,
        aim: Aim,
        identity: SharedIdentity,
        consensus: ConsensusSlot,
        view: Arc<LogView>,
        traffic: Arc<PeerTraffic>,
        faults: Faults,
    ) -> Self {
        Self {
            name,
            aim,
            peer: None,
            identity,
            consensus,
            view,
            traffic,
            faults,
            send: None,
            life: 0,
            queue: BytesMut::new(),
            is_flushing: false,
            backoff: BACKOFF.0,
            is_told: false,
            attempt: 0,
        }
    }

    /// Begins anew, with whoever is aimed at.
    fn begin(&mut self, ctx: &mut Ctx<Self>) {
        self.attempt += 1;
        self.unlink();
        self.queue = BytesMut::new();
        self.backoff = BACKOFF.0;
        self.peer = self.aim.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.connect(ctx);
    }

    fn connect(&mut self, ctx: &mut Ctx<Self>) {
        let Some(peer) = self.peer.clone() else { return };
        let (identity, attempt) = (Arc::clone(&self.identity), self.attempt);
        let life = identity.life();
        let connecting = async move {
            if life == 0 {
                return Err(io::Error::other("the log is being recovered"));
            }
            socket::open_link(&peer.peer_address, &identity, peer.id).await
        };
        ctx.spawn(wrap_future::<_, Self>(connecting).map(move |result, link, ctx| {
            if link.attempt != attempt {
                return;
            }
            match result {
                Ok((socket, accepted)) => link.opened(socket, life, accepted, ctx),
                Err(error) => {
                    link.tell_refusal(&error, ctx);
                    link.connect_later(ctx);
                }
            }
        }));
    }

    /// A peer that is not up yet is nothing to tell; one that does not know this node any more is, once.
    fn tell_refusal(&mut self, error: &io::Error, ctx: &Ctx<Self>) {
        let refusal = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
        let is_removed = refusal.is_some_and(|refusal| refusal.code == Code::NotMember);
        if is_removed && !std::mem::replace(&mut self.is_told, true) {
            warn!(ctx.log(), "a peer says that this node is no member any more: if it was removed, stop it and remove its directory";
                "error" => %error);
        } else {
            debug!(ctx.log(), "no link to a peer yet"; "error" => %error);
        }
    }

    fn connect_later(&mut self, ctx: &mut Ctx<Self>) {
        let (wait, attempt) = (self.backoff, self.attempt);
        self.backoff = (wait * 2).min(BACKOFF.1);
        ctx.run_later(wait, move |link, ctx| {
            if link.attempt == attempt {
                link.connect(ctx);
            }
        });
    }

    fn opened(&mut self, socket: TcpStream, life: u64, accepted: PeerAccepted, ctx: &mut Ctx<Self>) {
        let Some(peer) = self.id() else { return };
        info!(ctx.log(), "linked to a peer"; "node" => %peer);
        self.backoff = BACKOFF.0;
        self.is_told = false;
        self.life = life;
        self.attempt += 1;
        self.queue.clear();
        // The connection before may have been lost while its socket was full, and never become writable again.
        self.is_flushing = false;
        let (receive, send) = socket.into_split();
        self.send = Some(Arc::new(send));
        self.identity.set_linked(peer, true);
        let attempt = self.attempt;
        ctx.spawn(wrap_future::<_, Self>(end_of(receive)).map(move |error, link, ctx| {
            if link.attempt == attempt {
                link.lost(&error, ctx);
            }
        }));
        if let Some(consensus) = self.consensus.get() {
            // A consensus that is down comes back with another life, and this connection goes.
            let _ = consensus.tell(PeerAccepts { peer, accepted });
        }
    }

    fn lost(&mut self, error: &io::Error, ctx: &mut Ctx<Self>) {
        if self.unlink() {
            info!(ctx.log(), "lost the link to a peer"; "error" => %error);
            self.attempt += 1;
            self.queue = BytesMut::new();
            self.report_unreachable();
            self.connect_later(ctx);
        }
    }

    fn report_unreachable(&self) {
        if let Some((consensus, peer)) = self.consensus.get().zip(self.id()) {
            // A consensus that is down asks again when it is up.
            let _ = consensus.tell(Unreachable(peer));
        }
    }

    fn observe(&self) -> Value {
        let status = self.view.peers().into_iter().find(|it| Some(it.id) == self.id());
        let lag = status.and_then(|status| status.lag);
        json!({
            "peer": self.peer.as_ref().map(|peer| peer.id.node().get()),
            "address": self.peer.as_ref().map(|peer| &peer.peer_address),
            "connected": self.send.is_some(),
            "queued_bytes": self.queue.len(),
            "matched": lag.map(|lag| lag.matched.get()),
            "lag_batches": lag.map(|lag| lag.batches),
            "lag_bytes": lag.map(|lag| lag.bytes),
        })
    }

    /// Takes the connection away, if there is one.
    fn unlink(&mut self) -> bool {
        if let Some(peer) = self.id() {
            self.identity.set_linked(peer, false);
        }
        self.send.take().is_some()
    }

    fn id(&self) -> Option<RaftId> {
        self.peer.as_ref().map(|peer| peer.id)
    }

    fn flush(&mut self, ctx: &mut Ctx<Self>) {
        let Some(send) = self.send.clone() else { return };
        while !self.queue.is_empty() && !self.is_flushing {
            match send.try_write(&self.queue) {
                Ok(sent) => {
                    self.queue.advance(sent);
                    self.traffic.sent(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_flushing = true;
                    let (socket, attempt) = (Arc::clone(&send), self.attempt);
                    let writable = async move { socket.writable().await };
                    ctx.spawn(wrap_future::<_, Self>(writable).map(move |_, link, ctx| {
                        if link.attempt == attempt {
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

impl Drop for PeerLink {
    /// After a panic, too, the connection is gone.
    fn drop(&mut self) {
        self.unlink();
    }
}

impl Actor for PeerLink {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(&self.name);
        ctx.show(Self::observe);
        self.begin(ctx);
    }
}

impl Handler<Send> for PeerLink {
    type Result = ();

    fn handle(&mut self, Send { life, messages, standing }: Send, ctx: &mut Self::Context) {
        if self.send.is_some() && life != self.life {
            self.lost(&io::Error::other("the storage group was restarted: another hello is due"), ctx);
        }
        if self.send.is_none() || self.queue.len() > QUEUE_BYTES_MAX {
            if !messages.is_empty() {
                self.report_unreachable();
            }
            return;
        }
        for mut message in messages {
            if self.queue.len() > INLINE_QUEUE_MAX {
                message.entries.iter_mut().for_each(|entry| entry.inline.clear());
            }
            PeerMessage::Raft(Box::new(message)).encode(&mut self.queue);
        }
        if let Some(standing) = standing {
            PeerMessage::Standing(standing).encode(&mut self.queue);
        }
        self.flush(ctx);
    }
}

impl Handler<Retarget> for PeerLink {
    type Result = ();

    fn handle(&mut self, _retarget: Retarget, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

impl Handler<Fault> for PeerLink {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
