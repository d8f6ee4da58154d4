//! A node in the test's own process: the real protocol over a real socket, before a [`ModelNode`].
//!
//! Owns:   the listener, its connections, raw bytes of what is committed.
//! Keeps:  S28 and S30 through the model; a crash drops every connection and part of the uncommitted tail.
//! Never:  touches a disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{PROTOCOL_VERSION, Read, Request, RequestBody};
use loglog_proto::response::{Data, MemberAddress, Response, ResponseBody, Status, Welcome, WireLimits};
use loglog_proto::{ClusterId, Length, NodeId, Offset, RequestId, WriterId, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::log::TestLog;
use super::model::{ModelEntry, ModelNode};

/// A running node.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

/// How the node behaves.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) cluster: ClusterId,
    /// Commits what it takes at once.
    pub(crate) commits: bool,
    /// Dies after this many requests, and again.
    pub(crate) crash_every: Option<u64>,
    /// Refuses this many appends with this.
    pub(crate) refuse: Option<(u64, Refusal)>,
    /// Takes requests and says nothing.
    pub(crate) silent: bool,
    /// The most one read returns.
    pub(crate) read_bytes_max: usize,
    /// How long it remembers writers.
    pub(crate) memory: Length,
}

struct Shared {
    inner: Mutex<Inner>,
    committed: watch::Sender<Offset>,
    address: String,
}

struct Inner {
    behaviour: Behaviour,
    model: ModelNode<(u64, RequestId)>,
    raw: TestLog,
    encoded: usize,
    requests: u64,
    connections: HashMap<u64, (mpsc::UnboundedSender<Response>, JoinHandle<()>)>,
    accepted: u64,
    welcome_leader: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            cluster: ClusterId::new(0xab).unwrap(),
            commits: true,
            crash_every: None,
            refuse: None,
            silent: false,
            read_bytes_max: 4 << 20,
            memory: Length::new(256 << 20),
        }
    }
}

impl FakeNode {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut model = ModelNode::new(behaviour.memory, 4096);
        model.noop();
        model.commit(1);
        let inner = Inner {
            behaviour,
            model,
            raw: TestLog::new(Offset::ZERO),
            encoded: 0,
            requests: 0,
            connections: HashMap::new(),
            accepted: 0,
            welcome_leader: None,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            committed: watch::Sender::new(Offset::ZERO),
            address: address.clone(),
        });
        shared.settle();
        let listener = Some(tokio::spawn(accept(shared.clone(), listener)));
        Self { address, shared, listener }
    }

    /// Changes how it behaves.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    /// Names another node as the leader in its welcome.
    pub(crate) fn point_to(&self, leader: &str) {
        self.shared.lock().welcome_leader = Some(leader.to_owned());
    }

    /// Commits everything and answers.
    pub(crate) fn commit(&self) {
        self.shared.lock().model.commit(usize::MAX / 2);
        self.shared.settle();
    }

    /// Drops every connection.
    pub(crate) fn crash(&self, kept: usize) {
        self.shared.lock().crash(kept);
        self.shared.settle();
    }

    /// Stops listening, and drops every connection.
    pub(crate) async fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
        self.crash(usize::MAX);
    }

    /// Listens again, at the same address.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.listener = Some(tokio::spawn(accept(self.shared.clone(), listener)));
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Appends taken and not committed.
    pub(crate) fn tail_len(&self) -> usize {
        self.shared.lock().model.tail_len()
    }

    /// Everything before the committed end is gone.
    pub(crate) fn trim(&self) {
        self.shared.lock().model.trim();
    }

    /// Clients' entries in the log.
    pub(crate) fn data(&self) -> Vec<ModelEntry> {
        let inner = self.shared.lock();
        inner.model.entries().iter().filter(|entry| entry.writer != WriterId::NONE).cloned().collect()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        self.shared.lock().drop_connections();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Gives the answers that may be given, and wakes who reads.
    fn settle(&self) {
        let mut inner = self.lock();
        for ((connection, id), answer) in inner.model.answers() {
            if let Some((to, _)) = inner.connections.get(&connection) {
                let body = answer.map_or_else(ResponseBody::Refused, ResponseBody::Appended);
                let _ = to.send(Response { id, body });
            }
        }
        let Inner { model, raw, encoded, .. } = &mut *inner;
        for entry in model.committed_entries(*encoded) {
            let kind = if entry.writer == WriterId::NONE { Kind::Noop } else { Kind::Data };
            raw.entry(kind, entry.writer, entry.sequence, &entry.payload);
            *encoded += 1;
        }
        assert_eq!(raw.end(), model.committed());
        self.committed.send_replace(raw.end());
    }

    async fn read(&self, read: Read) -> ResponseBody {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(read.wait_ms);
        let mut committed = self.committed.subscribe();
        let enough = |end: &Offset| *end > read.offset && read.min_end.is_none_or(|min| *end >= min);
        let _ = tokio::time::timeout_at(deadline, committed.wait_for(enough)).await;
        let inner = self.lock();
        let (start, end) = (inner.model.start(), inner.raw.end());
        if read.offset < start {
            return ResponseBody::Refused(Refusal::trimmed(read.offset, start));
        }
        if read.offset > end {
            return ResponseBody::Refused(Refusal::beyond_end(read.offset, end));
        }
        let limit = usize::try_from(read.limit).unwrap().min(inner.behaviour.read_bytes_max);
        let from = (read.offset - Offset::ZERO).as_usize();
        let bytes = inner.raw.slice(from, limit);
        ResponseBody::Data(Data { offset: read.offset, end, bytes })
    }
}

impl Inner {
    fn crash(&mut self, kept: usize) {
        let kept = kept.min(self.model.tail_len());
        self.model.crash(kept);
        self.model.noop();
        self.model.commit(usize::MAX / 2);
        self.drop_connections();
    }

    fn drop_connections(&mut self) {
        for (_, task) in std::mem::take(&mut self.connections).into_values() {
            task.abort();
        }
    }

    fn welcome(&self, address: &str) -> Welcome {
        let node = NodeId::new(1).unwrap();
        let other = NodeId::new(2).unwrap();
        let mut members = vec![MemberAddress { node, address: address.to_owned() }];
        members.extend(self.welcome_leader.clone().map(|address| MemberAddress { node: other, address }));
        Welcome {
            version: PROTOCOL_VERSION,
            cluster: self.behaviour.cluster,
            node,
            leader: Some(if self.welcome_leader.is_some() { other } else { node }),
            members,
            limits: WireLimits {
                payload_bytes_max: 1 << 24,
                frame_bytes_max: 1 << 25,
                read_bytes_max: 4 << 20,
                read_wait_ms_max: 60_000,
                writer_appends_max: 4096,
                connection_bytes_max: 32 << 20,
            },
            start: self.model.start(),
            end: self.raw.end(),
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (to, from) = mpsc::unbounded_channel();
        let mut inner = shared.lock();
        inner.accepted += 1;
        let number = inner.accepted;
        let task = tokio::spawn(serve(shared.clone(), stream, number, to.clone(), from));
        inner.connections.insert(number, (to, task));
    }
}

async fn serve(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    number: u64,
    to: mpsc::UnboundedSender<Response>,
    mut from: mpsc::UnboundedReceiver<Response>,
) {
    let (mut reader, mut writer) = stream.split();
    let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            read = reader.read_buf(&mut received) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                while let Some(frame) = frame::split(&mut received, FRAME_BYTES_MAX).unwrap() {
                    handle(&shared, number, Request::decode(&frame).unwrap(), &to);
                }
                shared.settle();
            }
            Some(response) = from.recv() => {
                response.encode(&mut out);
                while let Ok(response) = from.try_recv() {
                    response.encode(&mut out);
                }
                if writer.write_all_buf(&mut out).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn handle(shared: &Arc<Shared>, number: u64, request: Request, to: &mpsc::UnboundedSender<Response>) {
    let mut inner = shared.lock();
    inner.requests += 1;
    if inner.behaviour.crash_every.is_some_and(|every| inner.requests.is_multiple_of(every)) {
        let kept = usize::try_from(inner.requests / 7).unwrap() % (inner.model.tail_len() + 1);
        return inner.crash(kept);
    }
    // A connection of an earlier life has nothing to say.
    if !inner.connections.contains_key(&number) || inner.behaviour.silent {
        return;
    }
    let id = request.id;
    let body = match request.body {
        RequestBody::Hello { cluster, .. } => match cluster {
            Some(cluster) if cluster != inner.behaviour.cluster => {
                ResponseBody::Refused(Refusal::new(Code::WrongCluster, "another cluster"))
            }
            _ => ResponseBody::Welcome(inner.welcome(&shared.address)),
        },
        RequestBody::Append(append) => {
            if let Some((left, refusal)) = inner.behaviour.refuse.take() {
                inner.behaviour.refuse = (left > 1).then(|| (left - 1, refusal.clone()));
                ResponseBody::Refused(refusal)
            } else {
                inner.model.append((number, id), &append);
                if inner.behaviour.commits {
                    inner.model.commit(1);
                }
                return;
            }
        }
        RequestBody::Read(read) => {
            let (shared, to) = (shared.clone(), to.clone());
            tokio::spawn(async move { to.send(Response { id, body: shared.read(read).await }) });
            return;
        }
        RequestBody::End { .. } => ResponseBody::End { start: inner.model.start(), end: inner.raw.end() },
        RequestBody::Status => {
            ResponseBody::Status(Box::new(Status { role: "leader".into(), ..Status::default() }))
        }
        RequestBody::Upload(_) => ResponseBody::Uploaded,
        RequestBody::Fault { .. } => ResponseBody::Refused(Refusal::new(Code::Forbidden, "set debug.faults")),
    };
    let _ = to.send(Response { id, body });
}

/// Bytes that tell one append from another.
pub(crate) fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}
