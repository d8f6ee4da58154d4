//! Peer connection actor: what one peer says on a connection that it opened.
//!
//! Owns:   that socket, its handshake, and the answers to searches.
//! Keeps:  nobody is heard before the handshake is right (S22), and then only for himself; until then he gets a few KiB of memory.
//! Never:  serves a client; understands a Raft message.

use std::io;

use actix::fut::wrap_future;
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, StreamHandler};
use bytes::{Bytes, BytesMut};
use loglog_core::copies;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::frame::split;
use loglog_proto::peer::{
    Copy, Locate, PEER_FRAME_BYTES_MAX, PEER_HELLO_BYTES_MAX, PeerAccepted, PeerHello, PeerMessage,
    RaftMessage, Seek,
};
use loglog_proto::{LogId, RaftId};
use loglog_storage::{Member, NewBatch};
use serde_json::json;
use slog::{debug, info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, oneshot};

use super::links::Links;
use super::listener::PeerParts;
use super::traffic::PeerTraffic;
use super::{SharedIdentity, socket};
use crate::consensus::{ConsensusSlot, PeerSays, Unsynced};
use crate::guard::Ctx;
use crate::supervisor::Handle;
use crate::upload_buffer::{Lend, UploadBuffer};
use crate::view::LogView;

/// Read from the socket at a time, bytes.
const READ_BYTES: usize = 256 << 10;

/// Silent sockets are not kept.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The actor.
pub struct PeerConnection {
    socket: Option<std::net::TcpStream>,
    send: Option<Arc<Mutex<OwnedWriteHalf>>>,
    identity: SharedIdentity,
    consensus: ConsensusSlot,
    view: Arc<LogView>,
    uploads: Handle<UploadBuffer>,
    traffic: Arc<PeerTraffic>,
    links: Arc<Links>,
    /// Who speaks, once the handshake was right.
    peer: Option<Peer>,
    /// Whether that was; the reader and the listener look too.
    is_known: Arc<AtomicBool>,
}

/// What came in one read of the socket, as it is called among the actor's messages.
struct PeerMessages;

/// Who speaks, and in which lives of his storage and of ours.
#[derive(Clone, Copy, Debug)]
struct Peer {
    id: RaftId,
    life: u64,
    generation: u64,
}

impl PeerConnection {
    /// A connection over `socket`.
    /// `is_known` is set once the handshake was right.
    pub fn new(socket: std::net::TcpStream, parts: &PeerParts, is_known: Arc<AtomicBool>) -> Self {
        Self {
            socket: Some(socket),
            send: None,
            identity: Arc::clone(&parts.identity),
            consensus: parts.consensus.clone(),
            view: Arc::clone(&parts.view),
            uploads: parts.uploads.clone(),
            traffic: Arc::clone(&parts.traffic),
            links: Arc::clone(&parts.links),
            peer: None,
            is_known,
        }
    }

    fn open(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some(socket) = self.socket.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket::watch(&socket, self.identity.patience)?;
        let (receive, send) = TcpStream::from_std(socket)?.into_split();
        self.send = Some(Arc::new(Mutex::new(send)));
        let reader = (receive, BytesMut::new(), Arc::clone(&self.is_known));
        ctx.add_stream(futures_util::stream::unfold(
            reader,
            |(mut receive, mut buffer, is_known)| async move {
                let messages = next(&mut receive, &mut buffer, &is_known).await?;
                Some((messages, (receive, buffer, is_known)))
            },
        ));
        Ok(())
    }

    fn answer(&self, message: PeerMessage, close: bool, ctx: &mut Ctx<Self>) {
        let Some(send) = self.send.clone() else { return };
        let sending = async move {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            send.lock().await.write_all(&out).await
        };
        ctx.spawn(wrap_future::<_, Self>(sending).map(
            move |result: io::Result<()>, _, ctx: &mut Ctx<Self>| {
                if close || result.is_err() {
                    ctx.stop();
                }
            },
        ));
    }

    fn refuse(&self, refusal: Refusal, ctx: &mut Ctx<Self>) {
        info!(ctx.log(), "refused a peer"; "why" => %refusal);
        self.answer(PeerMessage::Refused(refusal), true, ctx);
    }

    fn take(&mut self, messages: Vec<PeerMessage>, ctx: &mut Ctx<Self>) {
        let (mut said, mut stood): (Vec<RaftMessage>, _) = (Vec::new(), None);
        for message in messages {
            match message {
                PeerMessage::Announce(theirs) => match self.identity.check_announcement(&theirs) {
                    Ok(()) => self.answer(PeerMessage::Announced(self.identity.announcement()), false, ctx),
                    Err(refusal) => return self.refuse(refusal, ctx),
                },
                PeerMessage::Hello(hello) => {
                    if let Err(refusal) = self.greet(hello, ctx) {
                        return self.refuse(refusal, ctx);
                    }
                }
                PeerMessage::Raft(message) if self.peer.is_some_and(|peer| peer.id == message.from) => {
                    said.push(*message);
                }
                PeerMessage::Standing(standing) if self.peer.is_some() => stood = Some(standing),
                PeerMessage::Raft(message) if self.peer.is_some() => {
                    let why = format!("a message from {} on another node's link", message.from);
                    return self.refuse(Refusal::new(Code::WrongNode, why), ctx);
                }
                PeerMessage::Copy(copy) if self.peer.is_some() => self.copy(copy, ctx),
                PeerMessage::Locate(locate) if self.peer.is_some() => self.locate(locate, ctx),
                PeerMessage::Seek(seek) if self.peer.is_some() => self.seek(seek, ctx),
                _ => {
                    let refusal = Refusal::new(Code::BadRequest, "a link begins with a hello");
                    return self.refuse(refusal, ctx);
                }
            }
        }
        let Some(peer) = self.peer else { return };
        if said.is_empty() && stood.is_none() {
            return;
        }
        if peer.generation != self.view.generation() {
            // S23: what our storage holds may be other than what was said at the hello.
            debug!(ctx.log(), "our log went through recovery: the peer is to say hello again");
            return ctx.stop();
        }
        if let Some(consensus) = self.consensus.get() {
            // What a dying consensus does not hear, peers say again.
            let _ =
                consensus.tell(PeerSays { from: peer.id, life: peer.life, messages: said, standing: stood });
        }
    }

    /// Opens the link, if he may speak here and our log is up.
    fn greet(&mut self, hello: PeerHello, ctx: &mut Ctx<Self>) -> Result<(), Refusal> {
        self.identity.check_hello(&hello)?;
        let PeerHello { from, life, address, membership, .. } = hello;
        if !address.is_empty() {
            let member = Member { id: from, peer_address: address, client_address: String::new() };
            self.links.introduce(&member, membership);
        }
        let generation = self.view.generation();
        let accepted = match (self.view.consensus(), self.view.reader()) {
            (Some(status), _) => status.accepted,
            // He too is being repaired, so this is no link, and he only wants to copy. What our last life held we can give, checked (S34):
            // else two that are damaged at different places would wait for each other for ever (S10).
            (None, Some(reader)) if life == 0 => PeerAccepted { life: 0, last: reader.last() },
            (None, _) => return Err(Refusal::new(Code::Unavailable, "the log is being recovered")),
        };
        self.peer = Some(Peer { id: from, life, generation });
        self.is_known.store(true, Ordering::Relaxed);
        self.answer(PeerMessage::Accepted(accepted), false, ctx);
        Ok(())
    }

    /// Answers from what is known in memory.
    fn locate(&self, locate: Locate, ctx: &mut Ctx<Self>) {
        let committed = self.view.committed_index();
        let located = match self.view.reader() {
            Some(reader) => copies::locate(&reader, committed, locate),
            None => Err(Refusal::new(Code::Unavailable, "the log is being recovered")),
        };
        self.answer(located.map_or_else(PeerMessage::Refused, PeerMessage::Located), false, ctx);
    }

    /// Looks in the upload buffer, then answers.
    fn seek(&self, seek: Seek, ctx: &mut Ctx<Self>) {
        let (answer, answered) = oneshot::channel();
        // A buffer that is gone answers nothing, which is the same as having nothing.
        let _ = self.uploads.tell(Lend { seek, answer });
        let (send, traffic) = (self.send.clone(), Arc::clone(&self.traffic));
        let serving = async move {
            let Some(send) = send else { return Ok(()) };
            let (payload, mut out) = (answered.await.ok(), BytesMut::new());
            let bytes = payload.as_ref().map_or(0, Bytes::len);
            let nothing = || Refusal::new(Code::NotUploaded, "no such payload was uploaded here");
            let answer = payload.map_or_else(|| PeerMessage::Refused(nothing()), PeerMessage::Sought);
            answer.encode(&mut out);
            send.lock().await.write_all(&out).await?;
            traffic.served(bytes);
            Ok(())
        };
        self.serve_or_stop(serving, ctx);
    }

    fn serve_or_stop(&self, serving: impl Future<Output = io::Result<()>> + 'static, ctx: &mut Ctx<Self>) {
        ctx.spawn(wrap_future::<_, Self>(serving).map(|result: io::Result<()>, _, ctx: &mut Ctx<Self>| {
            if result.is_err() {
                ctx.stop();
            }
        }));
    }

    /// Reads off this thread, then answers.
    fn copy(&self, copy: Copy, ctx: &mut Ctx<Self>) {
        let (reader, send, log) = (self.view.reader(), self.send.clone(), ctx.log().clone());
        let (traffic, consensus) = (Arc::clone(&self.traffic), self.consensus.clone());
        let serving = async move {
            let Some(send) = send else { return Ok(()) };
            let answer = match reader {
                Some(reader) => tokio::task::spawn_blocking(move || copies::copy(&reader, copy)).await?,
                None => Err(Refusal::new(Code::Unavailable, "the log is being recovered")),
            };
            let answer = match answer {
                // Our disk may hang or be full: who wants one batch need not wait for it.
                Err(refusal) if refusal.code == Code::NotUploaded && copy.first == copy.last.index => {
                    match unsynced(&consensus, copy.last).await {
                        Some(batch) => {
                            tokio::task::spawn_blocking(move || copies::unsynced(&batch, copy)).await?
                        }
                        None => None,
                    }
                    .ok_or(refusal)
                }
                answer => answer,
            };
            let answer = answer.map_or_else(
                |refusal| {
                    if refusal.code == Code::Damaged {
                        warn!(log, "a peer asked for bytes that are damaged here"; "batch" => %copy.last, "why" => %refusal);
                    }
                    PeerMessage::Refused(refusal)
                },
                PeerMessage::Copied,
            );
            let mut out = BytesMut::new();
            answer.encode(&mut out);
            send.lock().await.write_all(&out).await?;
            if let PeerMessage::Copied(copied) = answer {
                traffic.served(copied.bytes.len());
            }
            Ok(())
        };
        self.serve_or_stop(serving, ctx);
    }
}

/// A batch that is not synced here yet, if there is such a one.
async fn unsynced(consensus: &ConsensusSlot, batch: LogId) -> Option<NewBatch> {
    let (answer, answered) = oneshot::channel();
    // A consensus that is gone answers nothing, which is the same as having nothing.
    let _ = consensus.get()?.tell(Unsynced { batch, answer });
    answered.await.ok()
}

/// All messages of one socket read, one at a time until the peer is known; `None` at the end.
async fn next(
    receive: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    is_known: &AtomicBool,
) -> Option<io::Result<Vec<PeerMessage>>> {
    // What was handed out last has been judged: this is asked for more only then.
    let is_known = is_known.load(Ordering::Relaxed);
    let (frame_bytes_max, read_bytes) = if is_known {
        (PEER_FRAME_BYTES_MAX, READ_BYTES)
    } else {
        (PEER_HELLO_BYTES_MAX, PEER_HELLO_BYTES_MAX)
    };
    loop {
        let mut messages = Vec::new();
        while is_known || messages.is_empty() {
            match split(buffer, frame_bytes_max) {
                Ok(Some(frame)) => match PeerMessage::decode(&frame) {
                    Ok(message) => messages.push(message),
                    Err(error) => return Some(Err(io::Error::other(error))),
                },
                Ok(None) => break,
                Err(error) => return Some(Err(io::Error::other(error))),
            }
        }
        if !messages.is_empty() {
            return Some(Ok(messages));
        }
        if buffer.capacity() - buffer.len() < read_bytes / 4 {
            buffer.reserve(read_bytes);
        }
        match receive.read_buf(buffer).await {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

impl Actor for PeerConnection {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.show(|it| json!({ "peer": it.peer.map(|peer| peer.id.node().get()) }));
        if let Err(error) = self.open(ctx) {
            debug!(ctx.log(), "a peer was gone before it began"; "error" => %error);
            ctx.stop();
        }
        ctx.run_later(HANDSHAKE_TIMEOUT, |connection, ctx| {
            if connection.peer.is_none() {
                debug!(ctx.log(), "a peer did not say hello in time");
                ctx.stop();
            }
        });
    }
}

impl StreamHandler<io::Result<Vec<PeerMessage>>> for PeerConnection {
    fn handle(&mut self, messages: io::Result<Vec<PeerMessage>>, ctx: &mut Self::Context) {
        let begun = ctx.begin::<PeerMessages>();
        match messages {
            Ok(messages) => self.take(messages, ctx),
            Err(error) => self.refuse(Refusal::new(Code::BadRequest, error.to_string()), ctx),
        }
        ctx.end(begun);
    }

    /// What was asked is answered still.
    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
