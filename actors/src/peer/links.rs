//! Links: one to each other node, as the members come and go.
//!
//! ```text
//!   members ─► follow ─► one PeerLink a node id, aimed at its incarnation of the moment, or at nobody
//!   a hello from one we do not know yet ─► introduce ─► a link back to him
//! ```
//!
//! Owns:   which links there are, and whom each is aimed at.
//! Keeps:  one actor a node id, for ever: a node that comes back under another incarnation gets the link its predecessor had.
//! Never:  sends anything of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_rt::ArbiterHandle;
use loglog_core::control::MEMBERS_MAX;
use loglog_proto::peer::PeerStanding;
use loglog_proto::{Index, NodeId, RaftId};
use loglog_storage::{Member, Membership};

use super::SharedIdentity;
use super::link::{Aim, PeerLink, Retarget, Send};
use super::traffic::PeerTraffic;
use crate::consensus::ConsensusSlot;
use crate::faults::Faults;
use crate::node::permanent;
use crate::supervisor::{Handle, Supervisor};
use crate::view::LogView;

/// The most links: twice the members that there can be, for those who come and go.
const LINKS_MAX: usize = 2 * MEMBERS_MAX;

/// What links are made with.
#[derive(Clone)]
pub struct LinkParts {
    /// Who we are to peers.
    pub identity: SharedIdentity,
    /// Whom to tell what became of a link.
    pub consensus: ConsensusSlot,
    /// How peers stand.
    pub view: Arc<LogView>,
    /// Counts what they send.
    pub traffic: Arc<PeerTraffic>,
    /// Spawns their actors.
    pub supervisor: Supervisor,
    /// In this thread.
    pub arbiter: ArbiterHandle,
    /// Injected faults.
    pub faults: Faults,
}

/// The links of a node.
pub struct Links {
    parts: LinkParts,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

struct Link {
    aim: Aim,
    handle: Handle<PeerLink>,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(parts: LinkParts) -> Self {
        Self { parts, links: Mutex::default() }
    }

    /// Another life of our storage begins, or, with 0, one has ended.
    pub(crate) fn set_life(&self, life: u64) {
        self.parts.identity.set_life(life);
    }

    /// Whether there is any other node to speak to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A link to each other member, to those who were introduced and are news to this membership, and to nobody else.
    pub fn follow(&self, membership: &Membership) {
        let identity = &self.parts.identity;
        let own = identity.raft_id();
        *identity.membership.write().unwrap_or_else(PoisonError::into_inner) = Some(membership.clone());
        let mut introduced = lock(&identity.introduced);
        introduced
            .retain(|_, (known, index)| *index > membership.index && identity.member(known.id).is_none());
        let members = membership.voters.iter().chain(&membership.learners);
        let others: Vec<&Member> = members.filter(|member| member.id != own).collect();
        let mut links = self.lock();
        for (node, link) in &*links {
            if !introduced.contains_key(node) && !others.iter().any(|member| member.id.node() == *node) {
                link.point(None);
            }
        }
        for member in others {
            self.aim(&mut links, member);
        }
    }

    /// Somebody whom we do not know speaks to us, as a leader does to a node that lags or is to be taken in: he is answered.
    pub fn introduce(&self, member: &Member, membership: Index) {
        if self.parts.identity.member(member.id).is_some() {
            return;
        }
        // In this order, as in `follow`.
        let mut introduced = lock(&self.parts.identity.introduced);
        let mut links = self.lock();
        if links.contains_key(&member.id.node()) || links.len() < LINKS_MAX {
            self.aim(&mut links, member);
            introduced.insert(member.id.node(), (member.clone(), membership));
        }
    }

    /// Sends to one peer; to nobody if there is no link to him.
    pub fn send(&self, to: RaftId, send: Send) {
        let links = self.lock();
        if let Some(link) = links.get(&to.node()).filter(|link| link.is_aimed_at(to)) {
            // A link that is down loses it, and says so when it is up.
            let _ = link.handle.tell(send);
        }
    }

    /// Tells every peer how we stand.
    pub fn tell_all(&self, life: u64, standing: PeerStanding) {
        for link in self.lock().values() {
            // What is lost is told again soon.
            let _ = link.handle.tell(Send { life, messages: Vec::new(), standing: Some(standing) });
        }
    }

    fn aim(&self, links: &mut BTreeMap<NodeId, Link>, member: &Member) {
        let link = links.entry(member.id.node()).or_insert_with(|| self.spawn(member));
        link.point(Some(member.clone()));
    }

    fn spawn(&self, member: &Member) -> Link {
        let LinkParts { identity, consensus, view, traffic, supervisor, arbiter, faults } = &self.parts;
        let (name, aim) = (PeerLink::name(member.id.node()), Aim::default());
        *lock(&aim) = Some(member.clone());
        let own = (name.clone(), aim.clone(), Arc::clone(identity), consensus.clone(), faults.clone());
        let (view, traffic) = (Arc::clone(view), Arc::clone(traffic));
        let handle = supervisor.spawn(permanent(&name, "PeerLink"), arbiter, move || {
            let (name, aim, identity, consensus, faults) = own.clone();
            PeerLink::new(name, aim, identity, consensus, Arc::clone(&view), Arc::clone(&traffic), faults)
        });
        faults.enlist(&name, &handle);
        Link { aim, handle }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Link>> {
        lock(&self.links)
    }
}

impl Link {
    fn is_aimed_at(&self, peer: RaftId) -> bool {
        lock(&self.aim).as_ref().is_some_and(|member| member.id == peer)
    }

    fn point(&self, at: Option<Member>) {
        let mut aim = lock(&self.aim);
        if *aim != at {
            *aim = at;
            // A link that restarts just now looks at its aim by itself.
            let _ = self.handle.tell(Retarget);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
