//! The log behind one or several [`FakeNode`](super::node::FakeNode)s, and who of them leads.
//!
//! Owns:   the model, raw bytes of what is committed, the roster.
//! Keeps:  answers go out only once what they rest on is committed (S30, by the model).

use std::sync::{Arc, Mutex, MutexGuard};

use loglog_proto::entry::Kind;
use loglog_proto::error::Refusal;
use loglog_proto::request::Append;
use loglog_proto::response::{MemberAddress, Response, ResponseBody};
use loglog_proto::{Length, NodeId, Offset, RequestId, WriterId};
use tokio::sync::{mpsc, watch};

use super::log::TestLog;
use super::model::{ModelEntry, ModelNode};

/// Whom an answer is for.
type Whom = (mpsc::UnboundedSender<Response>, RequestId);

/// A log that nodes share.
pub(crate) struct FakeLog {
    inner: Mutex<Inner>,
    roster: Mutex<(Vec<MemberAddress>, Option<NodeId>)>,
    committed: watch::Sender<Offset>,
}

pub(crate) struct Inner {
    pub(crate) model: ModelNode<Whom>,
    pub(crate) raw: TestLog,
    encoded: usize,
}

impl FakeLog {
    pub(crate) fn new(memory: Length) -> Arc<Self> {
        let mut model = ModelNode::new(memory, 4096);
        model.noop();
        model.commit(1);
        let inner = Inner { model, raw: TestLog::new(Offset::ZERO), encoded: 0 };
        let committed = watch::Sender::new(Offset::ZERO);
        let log = Self { inner: Mutex::new(inner), roster: Mutex::default(), committed };
        log.settle();
        Arc::new(log)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn join(&self, member: MemberAddress) {
        let mut roster = self.roster.lock().unwrap();
        roster.0.retain(|known| known.node != member.node);
        roster.0.push(member);
    }

    pub(crate) fn set_leader(&self, leader: Option<NodeId>) {
        self.roster.lock().unwrap().1 = leader;
    }

    pub(crate) fn roster(&self) -> (Vec<MemberAddress>, Option<NodeId>) {
        self.roster.lock().unwrap().clone()
    }

    /// What `node` answers to an append if it does not lead.
    pub(crate) fn refusal_of(&self, node: NodeId) -> Option<Refusal> {
        let (members, leader) = self.roster();
        let address =
            || members.iter().find(|member| Some(member.node) == leader).map(|member| member.address.clone());
        (leader != Some(node)).then(|| Refusal::not_leader(address()))
    }

    pub(crate) fn append(&self, whom: Whom, append: &Append, commits: bool) {
        let mut inner = self.lock();
        inner.model.append(whom, append);
        if commits {
            inner.model.commit(1);
        }
    }

    pub(crate) fn commit(&self) {
        self.lock().model.commit(usize::MAX / 2);
        self.settle();
    }

    /// Whoever leads dies. Of the uncommitted entries the first `kept` survive.
    pub(crate) fn crash(&self, kept: usize) {
        let mut inner = self.lock();
        let kept = kept.min(inner.model.tail_len());
        inner.model.crash(kept);
        inner.model.noop();
        inner.model.commit(usize::MAX / 2);
        drop(inner);
        self.settle();
    }

    /// Gives the answers that may be given, and wakes who reads.
    pub(crate) fn settle(&self) {
        let mut inner = self.lock();
        for ((to, id), answer) in inner.model.answers() {
            let body = answer.map_or_else(ResponseBody::Refused, ResponseBody::Appended);
            let _ = to.send(Response { id, body });
        }
        let Inner { model, raw, encoded } = &mut *inner;
        for entry in model.committed_entries(*encoded) {
            let kind = if entry.writer == WriterId::NONE { Kind::Noop } else { Kind::Data };
            raw.entry(kind, entry.writer, entry.sequence, &entry.payload);
            *encoded += 1;
        }
        assert_eq!(raw.end(), model.committed());
        let end = raw.end();
        drop(inner);
        self.committed.send_replace(end);
    }

    /// Makes who waits look again.
    pub(crate) fn wake(&self) {
        self.committed.send_modify(|_| {});
    }

    pub(crate) fn committed(&self) -> watch::Receiver<Offset> {
        self.committed.subscribe()
    }

    pub(crate) fn end(&self) -> Offset {
        self.lock().raw.end()
    }

    /// Clients' entries.
    pub(crate) fn data(&self) -> Vec<ModelEntry> {
        let inner = self.lock();
        inner.model.entries().iter().filter(|entry| entry.writer != WriterId::NONE).cloned().collect()
    }
}
