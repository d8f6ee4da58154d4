//! A node in the test's own process: the real protocol over a real socket, before a [`FakeLog`].
//!
//! Owns:   the listener, its connections, what was uploaded to it.
//! Keeps:  S28 and S30 through the log's model; a crash drops every connection and part of the uncommitted tail.
//! Never:  touches a disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loglog_proto::check::Checked;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX};
use loglog_proto::request::{PROTOCOL_VERSION, Read, Request, RequestBody, Upload};
use loglog_proto::response::{Data, MemberAddress, Response, ResponseBody, Status, Welcome, WireLimits};
use loglog_proto::{ClusterId, Length, NodeId, Offset, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fake_log::FakeLog;
use crate::memory::model::ModelEntry;

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
    /// Accepts connections and reads nothing from them.
    pub(crate) deaf: bool,
    /// The most one read returns.
    pub(crate) read_bytes_max: usize,
    /// Gives the byte at this offset wrong.
    pub(crate) damaged_at: Option<Offset>,
    /// What it answers when it is told so.
    pub(crate) checked: Result<Checked, Refusal>,
    /// How long it remembers writers.
    pub(crate) memory: Length,
}

struct Shared {
    inner: Mutex<Inner>,
    log: Arc<FakeLog>,
    node: NodeId,
    /// Has got the log up to here only. No lock: it is asked for under that of whoever waits for the end.
    lags_at: AtomicU64,
}

struct Inner {
    behaviour: Behaviour,
    requests: u64,
    connections: HashMap<u64, (mpsc::UnboundedSender<Response>, JoinHandle<()>)>,
    accepted: u64,
    /// One for each payload.
    uploads: Vec<Upload>,
    checks: Vec<Offset>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            cluster: ClusterId::new(0xab).unwrap(),
            commits: true,
            crash_every: None,
            refuse: None,
            silent: false,
            deaf: false,
            read_bytes_max: 4 << 20,
            damaged_at: None,
            checked: Err(Refusal::new(Code::BadRequest, "unknown kind 9")),
            memory: Length::new(256 << 20),
        }
    }
}

impl FakeNode {
    /// The only node of a log.
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let log = FakeLog::new(behaviour.memory);
        let node = NodeId::new(1).unwrap();
        let node = Self::of(log.clone(), node, behaviour).await;
        log.set_leader(Some(NodeId::new(1).unwrap()));
        node
    }

    /// One node of several before the same log.
    pub(crate) async fn of(log: Arc<FakeLog>, node: NodeId, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = HashMap::new();
        let inner = Inner {
            behaviour,
            requests: 0,
            connections,
            accepted: 0,
            uploads: Vec::new(),
            checks: Vec::new(),
        };
        log.join(MemberAddress { node, address: address.clone() });
        let shared =
            Arc::new(Shared { inner: Mutex::new(inner), log, node, lags_at: AtomicU64::new(u64::MAX) });
        let listener = Some(tokio::spawn(accept(shared.clone(), listener)));
        Self { address, shared, listener }
    }

    /// Changes how it behaves.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    /// From now on it gets no more of the log than what lies before `at`.
    pub(crate) fn lag_at(&self, at: Option<Offset>) {
        self.shared.lags_at.store(at.map_or(u64::MAX, Offset::get), Ordering::Relaxed);
        self.shared.log.wake();
    }

    /// Names another node as the leader in its welcome.
    pub(crate) fn point_to(&self, leader: &str) {
        if leader == self.address {
            return self.shared.log.set_leader(Some(self.shared.node));
        }
        let other = NodeId::new(9).unwrap();
        self.shared.log.join(MemberAddress { node: other, address: leader.to_owned() });
        self.shared.log.set_leader(Some(other));
    }

    /// Commits everything and answers.
    pub(crate) fn commit(&self) {
        self.shared.log.commit();
    }

    /// Drops every connection.
    pub(crate) fn crash(&self, kept: usize) {
        self.shared.crash(&mut self.shared.lock(), kept);
    }

    /// Stops listening, and drops every connection.
    pub(crate) async fn stop(&mut self) {
        self.shut().await;
        self.crash(usize::MAX);
    }

    /// The same, and nothing happens to the log.
    pub(crate) async fn shut(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
        self.shared.lock().drop_connections();
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

    /// What was uploaded to it.
    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.shared.lock().uploads.clone()
    }

    /// Where it was told that its bytes do not hold.
    pub(crate) fn checks(&self) -> Vec<Offset> {
        self.shared.lock().checks.clone()
    }

    /// Appends taken and not committed.
    pub(crate) fn tail_len(&self) -> usize {
        self.shared.log.lock().model.tail_len()
    }

    /// Everything before the committed end is gone.
    pub(crate) fn trim(&self) {
        let mut log = self.shared.log.lock();
        let end = log.model.committed();
        log.model.trim(end);
    }

    /// Clients' entries in the log.
    pub(crate) fn data(&self) -> Vec<ModelEntry> {
        self.shared.log.data()
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

    /// How much of the log this node has.
    fn visible(&self, end: Offset) -> Offset {
        end.min(Offset::new(self.lags_at.load(Ordering::Relaxed)))
    }

    async fn read(&self, read: Read) -> ResponseBody {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(read.wait_ms);
        let mut committed = self.log.committed();
        let reached = |end: Offset| read.min_end.is_none_or(|min| end >= min);
        let enough = |end: &Offset| self.visible(*end) > read.offset && reached(self.visible(*end));
        let _ = tokio::time::timeout_at(deadline, committed.wait_for(enough)).await;
        let end = self.visible(self.log.end());
        let (limit, damaged_at) = {
            let behaviour = &self.lock().behaviour;
            (usize::try_from(read.limit).unwrap().min(behaviour.read_bytes_max), behaviour.damaged_at)
        };
        let log = self.log.lock();
        let start = log.model.start();
        if read.offset < start {
            return ResponseBody::Refused(Refusal::trimmed(read.offset, start));
        }
        if !reached(end) {
            return ResponseBody::Refused(Refusal::new(Code::TimedOut, "not there yet"));
        }
        if read.offset > end {
            return ResponseBody::Refused(Refusal::beyond_end(read.offset, end));
        }
        let from = (read.offset - Offset::ZERO).as_usize();
        let mut bytes = log.raw.slice(from, limit.min((end - read.offset).as_usize()));
        if let Some(at) = damaged_at.filter(|at| *at >= read.offset).map(|at| (at - read.offset).as_usize())
            && at < bytes.len()
        {
            let mut wrong = bytes.to_vec();
            wrong[at] ^= 4;
            bytes = wrong.into();
        }
        ResponseBody::Data(Data { offset: read.offset, end, bytes })
    }

    fn crash(&self, inner: &mut Inner, kept: usize) {
        self.log.crash(kept);
        inner.drop_connections();
    }

    fn welcome(&self, cluster: ClusterId, end: Offset) -> Welcome {
        let (members, leader) = (self.log.members(), self.log.leader());
        let limits = WireLimits {
            payload_bytes_max: 1 << 24,
            frame_bytes_max: 1 << 25,
            read_bytes_max: 4 << 20,
            read_wait_ms_max: 60_000,
            writer_appends_max: 4096,
            connection_bytes_max: 32 << 20,
        };
        let start = self.log.lock().model.start();
        Welcome { version: PROTOCOL_VERSION, cluster, node: self.node, leader, members, limits, start, end }
    }
}

impl Inner {
    fn drop_connections(&mut self) {
        for (_, task) in std::mem::take(&mut self.connections).into_values() {
            task.abort();
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
            read = reader.read_buf(&mut received), if !shared.lock().behaviour.deaf => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                // It became deaf while it listened.
                if shared.lock().behaviour.deaf {
                    continue;
                }
                while let Some(frame) = frame::split(&mut received, FRAME_BYTES_MAX).unwrap() {
                    handle(&shared, number, Request::decode(&frame).unwrap(), &to);
                }
                shared.log.settle();
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
        let kept = usize::try_from(inner.requests / 7).unwrap();
        let tail = shared.log.lock().model.tail_len();
        return shared.crash(&mut inner, kept % (tail + 1));
    }
    // A connection of an earlier life has nothing to say.
    if !inner.connections.contains_key(&number) || inner.behaviour.silent {
        return;
    }
    let id = request.id;
    let start = shared.log.lock().model.start();
    let end = shared.visible(shared.log.end());
    let not_leader = shared.log.refusal_of(shared.node);
    let body = match request.body {
        RequestBody::Hello { cluster, .. } => match cluster {
            Some(cluster) if cluster != inner.behaviour.cluster => {
                ResponseBody::Refused(Refusal::new(Code::WrongCluster, "another cluster"))
            }
            _ => ResponseBody::Welcome(Box::new(shared.welcome(inner.behaviour.cluster, end))),
        },
        RequestBody::Append(append) => {
            if let Some((left, refusal)) = inner.behaviour.refuse.take() {
                inner.behaviour.refuse = (left > 1).then(|| (left - 1, refusal.clone()));
                ResponseBody::Refused(refusal)
            } else if let Some(refusal) = not_leader {
                ResponseBody::Refused(refusal)
            } else {
                return shared.log.append((to.clone(), id), &append, inner.behaviour.commits);
            }
        }
        RequestBody::Read(read) => {
            let (shared, to) = (shared.clone(), to.clone());
            tokio::spawn(async move { to.send(Response { id, body: shared.read(read).await }) });
            return;
        }
        RequestBody::End { linearizable: true } if not_leader.is_some() => {
            ResponseBody::Refused(not_leader.unwrap())
        }
        RequestBody::End { .. } => ResponseBody::End { start, end },
        RequestBody::Status => {
            let role = if not_leader.is_some() { "follower" } else { "leader" };
            ResponseBody::Status(Box::new(Status { role: role.into(), ..Status::default() }))
        }
        RequestBody::Upload(upload) => {
            let mut payloads = upload.payloads;
            for (part, sequence) in upload.parts.into_iter().zip(upload.sequence.get()..) {
                let payload = payloads.split_to(part.length as usize);
                let (writer, sequence) = (upload.writer, loglog_proto::Sequence::new(sequence));
                inner.uploads.push(Upload { writer, sequence, parts: vec![part], payloads: payload });
            }
            ResponseBody::Uploaded
        }
        RequestBody::Manage(manage) => shared.log.manage(shared.node, &manage),
        RequestBody::Check { offset } => {
            inner.checks.push(offset);
            match &inner.behaviour.checked {
                Ok(checked) => ResponseBody::Checked(Box::new(checked.clone())),
                Err(refusal) => ResponseBody::Refused(refusal.clone()),
            }
        }
        RequestBody::Fault { .. } => ResponseBody::Refused(Refusal::new(Code::Forbidden, "set debug.faults")),
    };
    let _ = to.send(Response { id, body });
}

/// Bytes that tell one append from another, so many that clients upload them.
pub(crate) fn numbered(number: u32) -> Bytes {
    Bytes::from(number.to_le_bytes().repeat(INLINE_BYTES_MAX / 4 + 1))
}
