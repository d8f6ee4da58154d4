//! Memory node: what stands for a node behind a [`MemoryLog`](super::MemoryLog).
//!
//! Owns:   the log's bytes, the rules of appends over them, the connections.
//! Keeps:  answers go out only once what they rest on is committed (S30, by the model).
//! Never:  has peers, a disk, or a thread of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::{
    FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, READ_BYTES_MAX, READ_WAIT_MS_MAX, WRITER_SEQUENCES_MAX,
};
use loglog_proto::manage::{Change, Manage, Managed};
use loglog_proto::request::{PROTOCOL_VERSION, Read, Request, RequestBody};
use loglog_proto::response::{Data, Response, ResponseBody, Status, Welcome, WireLimits};
use loglog_proto::{ClusterId, Length, NodeId, Offset, RequestId, WriterId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::model::ModelNode;
use super::raw::RawLog;
use crate::local::{LocalNode, LocalSocket};

/// Writers are remembered for as many bytes as by a node.
const MEMORY: Length = Length::new(256 << 20);
/// What one connection's requests may hold.
const CONNECTION_BYTES: u64 = 32 << 20;

/// The node.
#[derive(Debug)]
pub(super) struct MemoryNode {
    log: Arc<MemoryState>,
}

#[derive(Debug)]
struct MemoryState {
    cluster: ClusterId,
    inner: Mutex<Inner>,
    committed: watch::Sender<Offset>,
    /// Counts what breaks connections.
    life: watch::Sender<u64>,
}

/// Whom an answer is for.
type Whom = (UnboundedSender<Vec<Response>>, RequestId);

#[derive(Debug)]
struct Inner {
    model: ModelNode<Whom>,
    raw: RawLog,
    /// Entries whose bytes are in `raw`.
    encoded: usize,
    is_paused: bool,
}

impl MemoryNode {
    pub(super) fn new() -> Self {
        let mut model = ModelNode::new(MEMORY, WRITER_SEQUENCES_MAX);
        // As a leader's: its wall clock, eight bytes, so that offsets are those of a node.
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_millis()).unwrap_or_default();
        model.begin_term(Bytes::copy_from_slice(&clock.to_le_bytes()));
        let inner = Inner { model, raw: RawLog::new(Offset::ZERO), encoded: 0, is_paused: false };
        let cluster = std::iter::repeat_with(|| ClusterId::new(rand::random())).flatten().next();
        let log = MemoryState {
            cluster: cluster.expect("an endless search ends with one"),
            inner: Mutex::new(inner),
            committed: watch::Sender::new(Offset::ZERO),
            life: watch::Sender::new(0),
        };
        log.settle();
        Self { log: Arc::new(log) }
    }

    pub(super) fn break_connections(&self) {
        self.log.life.send_modify(|life| *life += 1);
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.log.lock().is_paused = is_paused;
        self.log.settle();
    }

    pub(super) fn damage(&self, at: Offset) {
        self.log.lock().raw.flip(at);
    }
}

impl LocalNode for Arc<MemoryNode> {
    fn connect(&self) -> Option<LocalSocket> {
        let ((to_node, requests), (to_client, responses)) = (unbounded_channel(), unbounded_channel());
        tokio::spawn(serve(self.log.clone(), requests, to_client));
        Some(LocalSocket { requests: to_node, responses })
    }
}

/// One connection, until the client is gone or it is broken.
async fn serve(
    log: Arc<MemoryState>,
    mut requests: UnboundedReceiver<Vec<Request>>,
    to: UnboundedSender<Vec<Response>>,
) {
    let mut life = log.life.subscribe();
    loop {
        let requests = tokio::select! {
            biased;
            _ = life.changed() => return log.forget(&to),
            requests = requests.recv() => requests,
        };
        let Some(requests) = requests else { return };
        for Request { id, body } in requests {
            if let Some(body) = log.handle(id, body, &to) {
                // Who asked may be gone.
                let _ = to.send(vec![Response { id, body }]);
            }
        }
        log.settle();
    }
}

impl MemoryState {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is answered at once.
    fn handle(
        self: &Arc<Self>,
        id: RequestId,
        body: RequestBody,
        to: &UnboundedSender<Vec<Response>>,
    ) -> Option<ResponseBody> {
        if let Err(wrong) = body.check() {
            return Some(ResponseBody::Refused(Refusal::new(Code::BadRequest, wrong.to_string())));
        }
        let refused = |code, message: &str| ResponseBody::Refused(Refusal::new(code, message));
        Some(match body {
            RequestBody::Hello { .. } => ResponseBody::Welcome(Box::new(self.welcome())),
            RequestBody::Append(append) => {
                self.lock().model.append((to.clone(), id), &append);
                return None;
            }
            RequestBody::Read(read) => {
                let (log, to) = (self.clone(), to.clone());
                tokio::spawn(async move {
                    let mut life = log.life.subscribe();
                    tokio::select! {
                        body = log.read(read) => drop(to.send(vec![Response { id, body }])),
                        _ = life.changed() => {}
                    }
                });
                return None;
            }
            RequestBody::End { .. } => {
                ResponseBody::End { start: self.lock().model.start(), end: *self.committed.borrow() }
            }
            RequestBody::Status => ResponseBody::Status(Box::new(self.status())),
            RequestBody::Upload(_) => ResponseBody::Uploaded,
            RequestBody::Manage(manage) => match *manage {
                Manage { what: Change::Trim(before), dry_run } => self.trim(before, dry_run),
                Manage { what: Change::List, .. } => ResponseBody::Managed(Box::default()),
                _ => refused(Code::Forbidden, "a log in memory has no members to manage"),
            },
            _ => refused(Code::BadRequest, "a log in memory does not do that"),
        })
    }

    fn welcome(&self) -> Welcome {
        let limits = WireLimits {
            payload_bytes_max: PAYLOAD_BYTES_MAX as u64,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            read_bytes_max: READ_BYTES_MAX as u64,
            read_wait_ms_max: READ_WAIT_MS_MAX,
            writer_appends_max: WRITER_SEQUENCES_MAX as u64,
            connection_bytes_max: CONNECTION_BYTES,
        };
        let node = NodeId::new(1).expect("one is not zero");
        Welcome {
            version: PROTOCOL_VERSION,
            cluster: self.cluster,
            node,
            leader: Some(node),
            members: Vec::new(),
            limits,
            start: self.lock().model.start(),
            end: *self.committed.borrow(),
        }
    }

    fn status(&self) -> Status {
        let end = self.committed.borrow().get();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.cluster.to_string(),
            node: 1,
            role: "leader".to_owned(),
            term: 1,
            leader: Some(1),
            start: self.lock().model.start().get(),
            committed: end,
            durable: end,
            ..Status::default()
        }
    }

    async fn read(&self, read: Read) -> ResponseBody {
        let deadline = Instant::now() + Duration::from_millis(read.wait_ms.min(READ_WAIT_MS_MAX));
        let min_end = read.min_end.unwrap_or(Offset::ZERO);
        let mut committed = self.committed.subscribe();
        let enough = |end: &Offset| *end >= min_end && *end != read.offset;
        // Whether it came in time is looked at below.
        let _ = timeout_at(deadline, committed.wait_for(enough)).await;
        let (inner, end) = (self.lock(), *self.committed.borrow());
        let start = inner.model.start();
        ResponseBody::Refused(if read.offset < start {
            Refusal::trimmed(read.offset, start)
        } else if end < min_end {
            Refusal::new(Code::TimedOut, format!("committed up to {end}, not yet to {min_end}"))
        } else if read.offset > end {
            Refusal::beyond_end(read.offset, end)
        } else {
            let limit = usize::try_from(read.limit).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
            let bytes = inner.raw.read(read.offset, limit.min((end - read.offset).as_usize()));
            return ResponseBody::Data(Data { offset: read.offset, end, bytes });
        })
    }

    /// Drops whole entries before `before`.
    fn trim(&self, before: Offset, dry_run: bool) -> ResponseBody {
        let (mut inner, end) = (self.lock(), *self.committed.borrow());
        if before > end {
            return ResponseBody::Refused(Refusal::beyond_end(before, end));
        }
        let start = if dry_run { inner.model.start_if_trimmed(before) } else { inner.model.trim(before) };
        let message = format!("the log starts at {start}");
        ResponseBody::Managed(Box::new(Managed { message, start: start.get(), ..Managed::default() }))
    }

    /// A connection is gone: nobody is there for its answers.
    fn forget(&self, to: &UnboundedSender<Vec<Response>>) {
        self.lock().model.forget(|(whom, _)| whom.same_channel(to));
    }

    /// Commits, unless it is paused; gives the answers that may be given, and wakes who reads.
    fn settle(&self) {
        let mut inner = self.lock();
        let Inner { model, raw, encoded, is_paused } = &mut *inner;
        if !*is_paused {
            model.commit(usize::MAX / 2);
        }
        for entry in model.committed_entries(*encoded) {
            let kind = if entry.writer == WriterId::NONE { Kind::Noop } else { Kind::Data };
            raw.entry(kind, entry.writer, entry.sequence, &entry.payload);
            *encoded += 1;
        }
        let end = raw.end();
        // Before the answers: who is told of an end must find it.
        self.committed.send_if_modified(|committed| std::mem::replace(committed, end) != end);
        let mut run: Option<(UnboundedSender<Vec<Response>>, Vec<Response>)> = None;
        for ((to, id), answer) in model.answers() {
            let body = answer.map_or_else(ResponseBody::Refused, ResponseBody::Appended);
            match &mut run {
                Some((whom, responses)) if whom.same_channel(&to) => responses.push(Response { id, body }),
                _ => {
                    if let Some((whom, responses)) = run.replace((to, vec![Response { id, body }])) {
                        let _ = whom.send(responses);
                    }
                }
            }
        }
        if let Some((whom, responses)) = run {
            let _ = whom.send(responses);
        }
    }
}
