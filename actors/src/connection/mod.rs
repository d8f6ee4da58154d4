//! Connection actor: one client's socket, or its channels, where client and node are one program.
//!
//! ```text
//!   socket ─► RequestReader ─► appends ─► UploadBuffer ─► Consensus ─┐
//!      ▲                  └──► reads ───► ReadWaiters, LogReader ────┤
//!      └──────── Outbox ◄──────────────────── replies ◄──────────────┘
//! ```
//!
//! Owns:   the socket, and the order of this client's requests.
//! Keeps:  memory is bounded whatever the client sends or does not read.
//! Never:  is restarted: its end is the client's to notice. Never blocks its thread on a file.

mod awake;
mod local;
mod outbox;
mod reader;
mod reads;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::ActorFutureExt;
use actix::fut::wrap_future;
use actix::{Actor, ActorContext, AsyncContext, Handler, Message, StreamHandler};
use bytes::Bytes;
use futures_util::stream::unfold;
use loglog_core::upload::ClientId;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::manage::Manage;
use loglog_proto::request::{PROTOCOL_VERSION, Request, RequestBody};
use loglog_proto::response::{Data, Response, ResponseBody};
use loglog_proto::{ClusterId, Offset, RequestId};
use loglog_storage::{Located, LogReader, ReadError};
use serde_json::{Value, json};
use slog::{debug, info, warn};
use tokio::sync::watch;

use self::awake::Awake;
use self::local::LocalReader;
pub(crate) use self::outbox::is_ready;
use self::outbox::{FileSend, Flushed, Outbox};
use self::reader::{Batch, RequestReader};
use self::reads::{Reads, Step};
use crate::client_socket::{ClientSocket, Halves, LocalSocket};
use crate::consensus::{AskEnd, Ordered};
use crate::credits::Credits;
use crate::faults::{Fault, How, fail_as_told};
use crate::guard::Ctx;
use crate::read_waiters::{Gone, Wait};
use crate::services::Services;
use crate::ticket::{Route, Ticket};
use crate::upload_buffer::{Offer, Uploads};

/// Silent sockets hold a place that others may want.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the log's end that are copied on this thread at most.
const COPIED_BYTES: usize = 64 << 10;
/// From so many bytes on, what is read from the disk is sent from its file.
const FILE_BYTES: usize = 64 << 10;

/// How soon a change of state is shown.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// The actor.
pub struct Connection {
    client: ClientId,
    services: Arc<Services>,
    socket: Option<ClientSocket>,
    credits: Credits,
    outbox: Option<Outbox>,
    is_flushing: bool,
    awake: Arc<Awake>,
    reads: Reads,
    is_reading: bool,
    is_greeted: bool,
    /// Requests handed to others and not answered yet.
    in_flight: usize,
    /// No further requests are taken; the connection ends when the last reply has left.
    is_draining: bool,
    count: Arc<AtomicU64>,
    /// Where the client is.
    address: Option<String>,
}

/// Replies to this client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Replies(pub Vec<Response>);

/// A read may go on: the log has grown, or its time is up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Woken(pub RequestId);

/// Take no more requests; end when what is in flight is answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Drain;

impl Connection {
    /// A connection over `socket`. `count` is how many there are.
    pub(crate) fn new(
        client: ClientId,
        socket: ClientSocket,
        services: Arc<Services>,
        count: Arc<AtomicU64>,
    ) -> Self {
        let (credits, address) = (services.credits(), socket.peer());
        let awake = Arc::new(Awake::new(services.busy_poll));
        count.fetch_add(1, Ordering::Relaxed);
        Self {
            client,
            services,
            socket: Some(socket),
            credits,
            outbox: None,
            is_flushing: false,
            awake,
            reads: Reads::default(),
            is_reading: false,
            is_greeted: false,
            in_flight: 0,
            is_draining: false,
            count,
            address,
        }
    }

    fn open(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some(socket) = self.socket.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        match socket.split()? {
            Halves::Socket(receive, send) => {
                let (choke, is_choked) = watch::channel(false);
                self.outbox = Some(Outbox::new(send, choke));
                let reader =
                    RequestReader::new(receive, self.credits.clone(), is_choked, Arc::clone(&self.awake));
                ctx.add_stream(unfold(reader, |mut reader| async move {
                    reader.next().await.map(|batch| (batch, reader))
                }));
            }
            Halves::Local(LocalSocket { requests, responses }) => {
                let reader = LocalReader::new(requests, responses.clone(), self.credits.clone());
                self.outbox = Some(Outbox::Local(responses, Vec::new()));
                ctx.add_stream(unfold(reader, |mut reader| async move {
                    reader.next().await.map(|batch| (Ok(batch), reader))
                }));
            }
        }
        Ok(())
    }

    fn observe(&self) -> Value {
        json!({
            "peer": self.address,
            "bytes_held": self.credits.held(),
            "requests_in_flight": self.in_flight + self.reads.len(),
            "unsent_bytes": self.outbox.as_ref().map_or(0, Outbox::len),
        })
    }

    fn reply(&mut self, id: RequestId, body: ResponseBody) {
        if let Some(outbox) = &mut self.outbox {
            outbox.push(Response { id, body });
        }
    }

    fn refuse(&mut self, id: RequestId, refusal: Refusal) {
        self.reply(id, ResponseBody::Refused(refusal));
    }

    /// Sends replies, lets the next reads run, and ends a connection that has nothing left to do.
    fn go_on(&mut self, ctx: &mut Ctx<Self>) {
        loop {
            if !self.is_flushing
                && let Err(error) = self.flush(ctx)
            {
                debug!(ctx.log(), "the client is gone"; "error" => %error);
                return ctx.stop();
            }
            // Behind the flush: what it took from the outbox may be what the next read was waiting for.
            if !self.read_next(ctx) {
                break;
            }
        }
        let is_idle = self.in_flight == 0 && self.reads.len() == 0 && !self.is_reading;
        if is_idle && self.outbox.as_ref().is_none_or(Outbox::is_empty) {
            if self.is_draining {
                ctx.stop();
            }
            self.awake.answered();
        }
    }

    /// Sends what the client takes; the rest goes on by itself.
    fn flush(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        match outbox.flush()? {
            Flushed::All => {}
            Flushed::Waits(socket) => {
                self.is_flushing = true;
                let writable = async move { socket.writable().await };
                ctx.spawn(wrap_future::<_, Self>(writable).map(|result, connection, ctx| {
                    connection.is_flushing = false;
                    match result {
                        Ok(()) => connection.go_on(ctx),
                        Err(_) => ctx.stop(),
                    }
                }));
            }
            Flushed::File(send) => self.send_file(send, ctx),
        }
        Ok(())
    }

    /// Sends bytes of a file, off this thread.
    fn send_file(&mut self, send: FileSend, ctx: &mut Ctx<Self>) {
        self.is_flushing = true;
        let sending = tokio::task::spawn_blocking(move || send.run());
        ctx.spawn(wrap_future::<_, Self>(sending).map(move |result, connection, ctx| {
            connection.is_flushing = false;
            match result.map_err(io::Error::other).flatten() {
                Ok(sent) => {
                    if let Some(outbox) = &mut connection.outbox {
                        outbox.sent(sent);
                    }
                    connection.go_on(ctx);
                }
                // The answer's head is on its way, and what should follow it is not to be had.
                Err(error) => {
                    warn!(ctx.log(), "closing a connection: an answer cannot be sent to its end"; "error" => %error);
                    ctx.stop();
                }
            }
        }));
    }

    fn take(&mut self, batch: Batch, ctx: &mut Ctx<Self>) {
        let Batch { requests, malformed, credits, last } = batch;
        for (id, refusal) in malformed {
            self.refuse(id, refusal);
        }
        let route = Route::new(ctx.this(), credits, Arc::clone(&self.services.measures));
        // Nearly always all of one kind.
        let (mut appends, mut uploads) = (Vec::new(), Vec::new());
        match requests.last() {
            Some(Request { body: RequestBody::Append(_), .. }) => appends.reserve_exact(requests.len()),
            Some(Request { body: RequestBody::Upload(_), .. }) => uploads.reserve_exact(requests.len()),
            _ => {}
        }
        for Request { id, body } in requests {
            match body {
                RequestBody::Hello { version, cluster, .. } => self.greet(id, version, cluster),
                _ if !self.is_greeted => {
                    self.refuse(id, Refusal::new(Code::BadRequest, "a connection begins with a hello"));
                }
                RequestBody::Append(append) => {
                    self.in_flight += 1;
                    appends.push((Ticket::new(&route, id), append));
                }
                RequestBody::Upload(upload) => {
                    self.in_flight += 1;
                    uploads.push((Ticket::new(&route, id), upload));
                }
                RequestBody::Read(read) => match self.reads.open(id, read, Instant::now()) {
                    Ok(()) => self.look_at(id, ctx),
                    Err(refusal) => self.refuse(id, refusal),
                },
                RequestBody::End { linearizable: true } => {
                    self.in_flight += 1;
                    let ticket = Ticket::new(&route, id);
                    match self.services.consensus.get() {
                        // A question lost in a dying actor's mailbox is answered by its ticket.
                        Some(consensus) => {
                            let _ = consensus.tell(AskEnd(ticket));
                        }
                        None => ticket.answer(loglog_core::Answer::Refused(unavailable())),
                    }
                }
                RequestBody::End { linearizable: false } => {
                    let (start, end) = (self.services.view.start(), self.services.view.committed());
                    self.reply(id, ResponseBody::End { start, end });
                }
                RequestBody::Status => {
                    let status = self.services.status();
                    self.reply(id, ResponseBody::Status(Box::new(status)));
                }
                RequestBody::Fault { actor, how } => self.inject(id, &actor, &how, ctx),
                RequestBody::Manage(manage) => {
                    self.in_flight += 1;
                    self.manage(Ticket::new(&route, id), *manage, ctx);
                }
                RequestBody::Check { offset } => {
                    self.in_flight += 1;
                    self.check(id, offset, ctx);
                }
            }
        }
        if !uploads.is_empty() {
            // Uploads that the buffer cannot take are answered by their tickets.
            let _ = self.services.uploads.tell(Uploads { client: self.client, uploads });
        }
        if !appends.is_empty() {
            // Appends that the buffer cannot take are answered by their tickets.
            let _ = self.services.uploads.tell(Offer { client: self.client, appends });
        }
        if let Some(refusal) = last {
            info!(ctx.log(), "closing a connection"; "why" => %refusal);
            self.refuse(RequestId::new(0), refusal);
            self.is_draining = true;
        }
        self.go_on(ctx);
    }

    /// Takes no more requests; what can be answered is, then the connection ends.
    fn drain(&mut self, ctx: &mut Ctx<Self>) {
        self.is_draining = true;
        for id in self.reads.close_waiting() {
            self.refuse(
                id,
                Refusal::new(Code::Unavailable, "the connection is ending, the log did not grow meanwhile"),
            );
        }
        self.go_on(ctx);
    }

    fn greet(&mut self, id: RequestId, version: u32, cluster: Option<ClusterId>) {
        let ours = self.services.identity.cluster;
        if version != PROTOCOL_VERSION {
            let message = format!("protocol version {version}; this node speaks {PROTOCOL_VERSION}");
            return self.refuse(id, Refusal::new(Code::Version, message));
        }
        if let Some(other) = cluster.filter(|cluster| *cluster != ours) {
            let message = format!("this is a node of cluster {ours}, not of {other}");
            return self.refuse(id, Refusal::new(Code::WrongCluster, message));
        }
        self.is_greeted = true;
        let welcome = self.services.welcome();
        self.reply(id, ResponseBody::Welcome(Box::new(welcome)));
    }

    fn inject(&mut self, id: RequestId, actor: &str, how: &str, ctx: &mut Ctx<Self>) {
        if !self.services.are_faults_allowed {
            let message = "fault injection is off: start the node with debug.faults = true";
            return self.refuse(id, Refusal::new(Code::Forbidden, message));
        }
        let result = How::from_str(how).and_then(|how| {
            if actor == "connection" {
                // Nobody is called before this batch is done, and a panic right here would take its replies along.
                ctx.notify(Fault(how));
                Ok(())
            } else {
                self.services.faults.inject(actor, how)
            }
        });
        match result {
            Ok(()) => self.reply(id, ResponseBody::Injected),
            Err(message) => self.refuse(id, Refusal::new(Code::BadRequest, message)),
        }
    }

    /// Looks up what an order names, then hands it on.
    fn manage(&self, ticket: Ticket, manage: Manage, ctx: &mut Ctx<Self>) {
        let (services, dry_run) = (Arc::clone(&self.services), manage.dry_run);
        let looking = async move { crate::manage::order(manage, &services.view, &services.identity).await };
        ctx.spawn(wrap_future::<_, Self>(looking).map(move |order, connection, _| {
            match (order, connection.services.consensus.get()) {
                (Ok(order), Some(consensus)) => {
                    // A question lost in a dying actor's mailbox is answered by its ticket.
                    let _ = consensus.tell(Ordered { ticket, order, dry_run });
                }
                (Ok(_), None) => ticket.answer(loglog_core::Answer::Refused(unavailable())),
                (Err(refusal), _) => ticket.answer(loglog_core::Answer::Refused(refusal)),
            }
        }));
    }

    /// Has the bytes around `offset` looked at, off this thread.
    fn check(&self, id: RequestId, offset: Offset, ctx: &mut Ctx<Self>) {
        let checking = Arc::clone(&self.services.integrity).check(offset);
        ctx.spawn(wrap_future::<_, Self>(checking).map(move |checked, connection, ctx| {
            connection.in_flight -= 1;
            match checked {
                Ok(checked) => connection.reply(id, ResponseBody::Checked(Box::new(checked))),
                Err(refusal) => connection.refuse(id, refusal),
            }
            connection.go_on(ctx);
        }));
    }

    /// Looks where a new or woken read stands.
    fn look_at(&mut self, id: RequestId, ctx: &mut Ctx<Self>) {
        let (start, committed) = (self.services.view.start(), self.services.view.committed());
        match self.reads.look(id, (start, committed), Instant::now()) {
            None | Some(Step::Run) => {}
            Some(Step::Wait { end, timeout }) => {
                let wait = Wait { client: self.client, connection: ctx.this(), id, end, timeout };
                if self.services.waiters.tell(wait).is_err() {
                    self.reads.forget(id);
                    self.refuse(id, unavailable());
                }
            }
            Some(Step::Nothing) => {
                let data = Data { offset: committed, end: committed, bytes: Bytes::new() };
                self.reply(id, ResponseBody::Data(data));
            }
            Some(Step::Refuse(refusal)) => self.refuse(id, refusal),
        }
    }

    /// Runs the next read, if the client takes its replies. True if it is answered already: then there may be another.
    fn read_next(&mut self, ctx: &mut Ctx<Self>) -> bool {
        if self.is_reading || self.outbox.as_ref().is_none_or(Outbox::is_choked) {
            return false;
        }
        let Some(reader) = self.services.view.reader() else { return false };
        let Some((id, offset, limit)) = self.reads.next() else { return false };
        let committed = self.services.view.committed();
        match reader.read_from_memory(offset, limit, committed, COPIED_BYTES) {
            Ok(Some(bytes)) => self.reply(id, ResponseBody::Data(Data { offset, end: committed, bytes })),
            Ok(None) => {
                self.read_from_disk(id, (offset, limit, committed), reader, ctx);
                return false;
            }
            Err(error) => self.refuse(id, not_read(offset, error, ctx)),
        }
        true
    }

    /// Answers a read with what lies on the disk, off this thread.
    fn read_from_disk(
        &mut self,
        id: RequestId,
        (offset, limit, committed): (Offset, usize, Offset),
        reader: LogReader,
        ctx: &mut Ctx<Self>,
    ) {
        self.is_reading = true;
        let takes_files = self.outbox.as_ref().is_some_and(Outbox::takes_files);
        let read = tokio::task::spawn_blocking(move || {
            if takes_files {
                if let Some(bytes) = reader.read_from_memory(offset, limit, committed, usize::MAX)? {
                    return Ok(Found::Bytes(bytes));
                }
                if let Some(part) = reader.locate(offset, limit, committed)?.filter(is_worth_a_file) {
                    return Ok(Found::File(part));
                }
            }
            reader.read(offset, limit, committed).map(Found::Bytes)
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |result, connection, ctx| {
            connection.is_reading = false;
            match result {
                Ok(Ok(Found::Bytes(bytes))) => {
                    connection.reply(id, ResponseBody::Data(Data { offset, end: committed, bytes }));
                }
                Ok(Ok(Found::File(part))) => {
                    if let Some(outbox) = &mut connection.outbox {
                        outbox.push_file(id, (offset, committed), part);
                    }
                }
                Ok(Err(error)) => connection.refuse(id, not_read(offset, error, ctx)),
                Err(error) => connection.refuse(id, Refusal::new(Code::Internal, error.to_string())),
            }
            connection.go_on(ctx);
        }));
    }
}

/// Bytes of the log.
enum Found {
    Bytes(Bytes),
    File(Located),
}

/// Whether bytes are better sent from their file. A few are read first, so that a disk that does not give them is told the client in words.
fn is_worth_a_file(part: &Located) -> bool {
    part.len >= FILE_BYTES && part.file.os_file().is_some()
}

fn not_read(offset: Offset, error: ReadError, ctx: &Ctx<Connection>) -> Refusal {
    match error {
        ReadError::Trimmed { start } => Refusal::trimmed(offset, start),
        ReadError::BeyondEnd { end } => Refusal::beyond_end(offset, end),
        error @ ReadError::Io(_) => {
            slog::error!(ctx.log(), "cannot read the log"; "offset" => offset.get(), "error" => %error);
            Refusal::new(Code::Internal, error.to_string())
        }
    }
}

impl Actor for Connection {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // There may be ten thousand.
        ctx.show_within(SHOWN_WITHIN, Self::observe);
        if let Err(error) = self.open(ctx) {
            debug!(ctx.log(), "a connection was gone before it began"; "error" => %error);
            ctx.stop();
        }
        ctx.run_later(HELLO_TIMEOUT, |connection, ctx| {
            if !connection.is_greeted {
                debug!(ctx.log(), "the client did not say hello in time");
                ctx.stop();
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        // Waiters that are down have forgotten this client already.
        let _ = self.services.waiters.tell(Gone(self.client));
    }
}

impl StreamHandler<io::Result<Batch>> for Connection {
    fn handle(&mut self, batch: io::Result<Batch>, ctx: &mut Self::Context) {
        let begun = ctx.begin::<Batch>();
        match batch {
            Ok(batch) if !self.is_draining => self.take(batch, ctx),
            Ok(_) => {}
            Err(error) => {
                debug!(ctx.log(), "the client is gone"; "error" => %error);
                ctx.stop();
            }
        }
        ctx.end(begun);
    }

    /// The client has closed its side; it may still wait for replies.
    fn finished(&mut self, ctx: &mut Self::Context) {
        self.drain(ctx);
    }
}

impl Handler<Replies> for Connection {
    type Result = ();

    fn handle(&mut self, Replies(replies): Replies, ctx: &mut Self::Context) {
        self.in_flight = self.in_flight.saturating_sub(replies.len());
        if let Some(outbox) = &mut self.outbox {
            outbox.extend(replies);
        }
        self.go_on(ctx);
    }
}

impl Handler<Woken> for Connection {
    type Result = ();

    fn handle(&mut self, Woken(id): Woken, ctx: &mut Self::Context) {
        self.look_at(id, ctx);
        self.go_on(ctx);
    }
}

impl Handler<Drain> for Connection {
    type Result = ();

    fn handle(&mut self, _drain: Drain, ctx: &mut Self::Context) {
        self.drain(ctx);
    }
}

impl Handler<Fault> for Connection {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the log is being recovered: try again shortly")
}
