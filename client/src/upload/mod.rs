//! Uploads: payloads on their way to every node beside the leader, so that a log entry's bytes need not pass through it.
//!
//! ```text
//!     pipeline ─► feed: cut into chunks, encode once ─┬─► lane (node 2): bounded queue ─► its task ─► socket
//!                                                     └─► lane (node 3): …
//! ```
//!
//! Owns:   one lane for each member but the one that appends go through.
//! Keeps:  an upload is a hint: what a lane has no room for is skipped, what has its outcome is let go, nothing is sent twice.
//! Never:  is waited for.

mod chunk;
mod feed;
mod lane;
mod task;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use loglog_proto::NodeId;
use tokio::sync::watch;

pub(crate) use feed::Feed;

use crate::connection::HELLO_ID;
use crate::hub::Hub;
use crate::members::Member;
#[cfg(test)]
pub(crate) use lane::Counts;
use lane::{Lane, OpenLane};

/// The lanes as they are now.
type Lanes = Arc<[Arc<OpenLane>]>;

/// All lanes of a client. There are none before the first append, nor where there is a single member.
#[derive(Debug)]
pub(crate) struct Uploads {
    hub: Weak<Hub>,
    wanted: Mutex<Wanted>,
    lanes: watch::Sender<Lanes>,
    /// Request ids, drawn for all lanes at once, so that a chunk is the same bytes on each.
    ids: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Wanted {
    members: Vec<Member>,
    /// The node that appends go through.
    through: Option<NodeId>,
}

impl Uploads {
    pub(crate) fn new(hub: Weak<Hub>) -> Self {
        let ids = Arc::new(AtomicU64::new(HELLO_ID + 1));
        Self { hub, wanted: Mutex::default(), lanes: watch::Sender::new(Arc::new([])), ids }
    }

    /// What a pipeline with `budget` bytes sends through.
    pub(crate) fn feed(&self, budget: usize) -> Feed {
        Feed::new(self.lanes.subscribe(), self.ids.clone(), budget)
    }

    /// Appends go through `node` from now on.
    pub(crate) fn append_through(&self, node: NodeId) {
        self.change(|wanted| wanted.through = Some(node));
    }

    /// The members are these.
    pub(crate) fn members_are(&self, members: Vec<Member>) {
        self.change(|wanted| wanted.members = members);
    }

    /// Opens the lanes that are missing and closes those that are not wanted any more.
    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted);
        let Some(through) = wanted.through else { return };
        let members = || wanted.members.iter().filter(|member| member.node != through);
        let now = self.lanes.borrow().clone();
        if now.iter().map(|lane| lane.member()).eq(members()) {
            return;
        }
        let lane = |member: &Member| {
            let kept = now.iter().find(|lane| lane.member() == member).cloned();
            kept.unwrap_or_else(|| OpenLane::start(Lane::new(member.clone()), self.hub.clone()))
        };
        self.lanes.send_replace(members().map(lane).collect());
    }

    /// What became of uploads, for each lane.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<(NodeId, lane::Counts)> {
        self.lanes.borrow().iter().map(|lane| (lane.member().node, lane.counts())).collect()
    }
}
