//! The log behind one or several [`FakeNode`](super::node::FakeNode)s, and who of them leads.
//!
//! Owns:   the model, raw bytes of what is committed, the roster and its changes.
//! Keeps:  answers go out only once what they rest on is committed (S30, by the model).

use std::sync::{Arc, Mutex, MutexGuard};

use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::manage::{Change, Manage, Managed, MemberStatus};
use loglog_proto::request::Append;
use loglog_proto::response::{MemberAddress, Response, ResponseBody};
use loglog_proto::{Length, NodeId, Offset, RequestId, WriterId};
use tokio::sync::{mpsc, watch};

use crate::memory::model::{ModelEntry, ModelNode};
use crate::memory::raw::RawLog;

/// Whom an answer is for.
type Whom = (mpsc::UnboundedSender<Response>, RequestId);

/// A log that nodes share.
pub(crate) struct FakeLog {
    inner: Mutex<Inner>,
    roster: Mutex<Roster>,
    committed: watch::Sender<Offset>,
}

/// Who keeps the log, and who leads.
#[derive(Clone, Default)]
struct Roster {
    members: Vec<MemberAddress>,
    learners: Vec<NodeId>,
    leader: Option<NodeId>,
    /// Refuses so many changes with [`Code::Unavailable`].
    busy: u32,
    changes: u64,
}

pub(crate) struct Inner {
    pub(crate) model: ModelNode<Whom>,
    pub(crate) raw: RawLog,
    encoded: usize,
}

impl FakeLog {
    pub(crate) fn new(memory: Length) -> Arc<Self> {
        let mut model = ModelNode::new(memory, 4096);
        model.noop();
        model.commit(1);
        let inner = Inner { model, raw: RawLog::new(Offset::ZERO), encoded: 0 };
        let committed = watch::Sender::new(Offset::ZERO);
        let log = Self { inner: Mutex::new(inner), roster: Mutex::default(), committed };
        log.settle();
        Arc::new(log)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn join(&self, member: MemberAddress) {
        self.roster().put(member);
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.roster().members.retain(|known| known.node != node);
    }

    pub(crate) fn set_leader(&self, leader: Option<NodeId>) {
        self.roster().leader = leader;
    }

    /// Refuses the next `times` changes.
    pub(crate) fn set_busy(&self, times: u32) {
        self.roster().busy = times;
    }

    pub(crate) fn members(&self) -> Vec<MemberAddress> {
        self.roster().members.clone()
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.roster().leader
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap()
    }

    /// What `node` answers to a [`Manage`].
    pub(crate) fn manage(&self, node: NodeId, manage: &Manage) -> ResponseBody {
        let end = self.end();
        let mut roster = self.roster();
        let leads = roster.leader == Some(node);
        if manage.what != Change::List {
            if !leads {
                return ResponseBody::Refused(Refusal::not_leader(roster.leader_address()));
            }
            if roster.busy > 0 {
                roster.busy -= 1;
                return ResponseBody::Refused(Refusal::new(Code::Unavailable, "another change is under way"));
            }
        }
        let mut after = roster.clone();
        match after.carry_out(&manage.what, end) {
            Ok(start) => {
                let managed = after.managed(start, leads);
                if !manage.dry_run {
                    *roster = after;
                }
                ResponseBody::Managed(Box::new(managed))
            }
            Err(refusal) => {
                *roster = after;
                ResponseBody::Refused(refusal)
            }
        }
    }

    /// What `node` answers to an append if it does not lead.
    pub(crate) fn refusal_of(&self, node: NodeId) -> Option<Refusal> {
        let roster = self.roster();
        (roster.leader != Some(node)).then(|| Refusal::not_leader(roster.leader_address()))
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

impl Roster {
    fn put(&mut self, member: MemberAddress) {
        self.members.retain(|known| known.node != member.node);
        self.members.push(member);
        self.members.sort_by_key(|member| member.node);
    }

    fn leader_address(&self) -> Option<String> {
        let leader = self.members.iter().find(|member| Some(member.node) == self.leader)?;
        Some(leader.address.clone())
    }

    /// Returns where the log starts then. Segments begin at every 64th byte.
    fn carry_out(&mut self, what: &Change, end: Offset) -> Result<Offset, Refusal> {
        self.changes += u64::from(*what != Change::List);
        match what {
            Change::List => {}
            Change::Trim(before) if *before > end => {
                return Err(Refusal::new(Code::BadRequest, "beyond the end"));
            }
            Change::Trim(before) => return Ok(Offset::new(before.get() / 64 * 64)),
            Change::Add(new) | Change::Replace(new) => {
                let known = self.members.iter().find(|member| member.node == new.node);
                let Some(address) = new.client.clone().or(known.map(|known| known.address.clone())) else {
                    return Err(Refusal::new(Code::BadRequest, "no address"));
                };
                self.put(MemberAddress { node: new.node, address });
                self.learners.push(new.node);
            }
            Change::Promote(node) => self.learners.retain(|learner| learner != node),
            Change::Remove(node) if self.members.len() == 1 => {
                return Err(Refusal::new(Code::Forbidden, format!("node {node} is the last voter")));
            }
            Change::Remove(node) if self.leader == Some(*node) => {
                self.leader = self.members.iter().map(|member| member.node).find(|other| other != node);
                return Err(Refusal::new(Code::Unavailable, "hands over first"));
            }
            Change::Remove(node) => self.members.retain(|member| member.node != *node),
            Change::Lead(node) => self.leader = Some(*node),
        }
        Ok(Offset::ZERO)
    }

    /// `leads`: whether the node that answers does.
    fn managed(&self, start: Offset, leads: bool) -> Managed {
        let member = |member: &MemberAddress| MemberStatus {
            node: member.node.get(),
            role: if self.learners.contains(&member.node) { "learner" } else { "voter" }.to_owned(),
            leads: self.leader == Some(member.node),
            client: member.address.clone(),
            active: leads.then_some(true),
            lag: leads.then_some(0),
            ..MemberStatus::default()
        };
        let members = self.members.iter().map(member).collect();
        Managed { message: "done".to_owned(), start: start.get(), membership: self.changes, members }
    }
}
