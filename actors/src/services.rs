//! Services: what every connection of a node works with.
//!
//! Owns:   the handles of the actors that connections speak to, and what may be told about the node.
//! Never:  changes while the node runs, save through what it points to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loglog_core::consensus::Place;
use loglog_core::{ConsensusStatus, Role};
use loglog_proto::limits::{
    FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, READ_BYTES_MAX, READ_WAIT_MS_MAX, WRITER_SEQUENCES_MAX,
};
use loglog_proto::response::{ActorStatus, MemberAddress, Status, Welcome, WireLimits};
use loglog_storage::Member;

use crate::consensus::ConsensusSlot;
use crate::credits::{Credits, NodeCredits};
use crate::faults::Faults;
use crate::integrity::Integrity;
use crate::measures::Measures;
use crate::peer::SharedIdentity;
use crate::peer::traffic::PeerTraffic;
use crate::read_waiters::ReadWaiters;
use crate::registry::Registry;
use crate::supervisor::Handle;
use crate::upload_buffer::UploadBuffer;
use crate::view::LogView;

/// Shared by the connections of a node.
pub struct Services {
    /// Who the node is, and who its peers are.
    pub identity: SharedIdentity,
    /// Where clients reach this node, if that is better known than by the membership.
    pub client_address: Option<String>,
    /// Watermarks and the reader.
    pub view: Arc<LogView>,
    /// How long a connection looks for its client's next request without sleeping.
    pub busy_poll: Duration,
    /// Where appends and uploads go.
    pub uploads: Handle<UploadBuffer>,
    /// Where reads wait.
    pub waiters: Handle<ReadWaiters>,
    /// The consensus of the moment.
    pub consensus: ConsensusSlot,
    /// Every actor's counters.
    pub registry: Registry,
    /// Actors that can be told to panic.
    pub faults: Faults,
    /// Whether clients may tell them.
    pub are_faults_allowed: bool,
    /// The node's byte budget.
    pub credits: NodeCredits,
    /// One connection's byte budget.
    pub connection_bytes_max: u32,
    /// Connections there are.
    pub connections: Arc<AtomicU64>,
    /// Bytes in the upload buffer.
    pub upload_bytes: Arc<AtomicUsize>,
    /// Reads that wait.
    pub waiting_reads: Arc<AtomicUsize>,
    /// Log bytes to and from peers.
    pub traffic: Arc<PeerTraffic>,
    /// What is counted and timed of the log's work.
    pub measures: Arc<Measures>,
    /// Who looks where a client says that bytes do not hold.
    pub(crate) integrity: Arc<Integrity>,
    /// Where data lies.
    pub data_dir: PathBuf,
    /// When the node started.
    pub began: Instant,
    /// The program's version.
    pub version: &'static str,
}

impl Services {
    pub(crate) fn credits(&self) -> Credits {
        self.credits.connection()
    }

    pub(crate) fn welcome(&self) -> Welcome {
        let leader = self.view.consensus().and_then(|consensus| consensus.leader);
        Welcome {
            version: loglog_proto::request::PROTOCOL_VERSION,
            cluster: self.identity.cluster,
            node: self.identity.node,
            leader: leader.map(loglog_proto::RaftId::node),
            members: self.members(),
            limits: WireLimits {
                payload_bytes_max: PAYLOAD_BYTES_MAX as u64,
                frame_bytes_max: FRAME_BYTES_MAX as u64,
                read_bytes_max: READ_BYTES_MAX as u64,
                read_wait_ms_max: READ_WAIT_MS_MAX,
                writer_appends_max: WRITER_SEQUENCES_MAX as u64,
                connection_bytes_max: u64::from(self.connection_bytes_max),
            },
            start: self.view.start(),
            end: self.view.committed(),
        }
    }

    /// Every member, where clients reach it.
    fn members(&self) -> Vec<MemberAddress> {
        let own = self.identity.raft_id();
        let address = |member: Member| match &self.client_address {
            Some(here) if member.id == own => here.clone(),
            _ => member.client_address,
        };
        let members = self.identity.members().into_iter().flatten();
        members.map(|member| MemberAddress { node: member.id.node(), address: address(member) }).collect()
    }

    pub(crate) fn status(&self) -> Status {
        let consensus = self.view.consensus();
        let role = role(consensus);
        let actors = self.registry.snapshot().into_iter().map(|actor| ActorStatus {
            name: actor.name,
            kind: actor.kind.to_owned(),
            parent: actor.parent.unwrap_or_default(),
            state: format!("{:?}", actor.state).to_lowercase(),
            mailbox: actor.mailbox,
            handled: actor.handled,
            restarts: actor.restarts,
            last_panic: actor.last_panic.map(|panic| panic.to_string()),
        });
        Status {
            version: self.version.to_owned(),
            cluster: self.identity.cluster.to_string(),
            node: self.identity.node.get(),
            incarnation: self.identity.incarnation.to_string(),
            role: role.to_owned(),
            term: consensus.map_or(0, |consensus| consensus.term.get()),
            leader: consensus.and_then(|consensus| consensus.leader).map(|leader| leader.node().get()),
            start: self.view.start().get(),
            committed: self.view.committed().get(),
            durable: consensus.map_or(0, |consensus| consensus.durable.get()),
            segments: self.view.reader().map_or(0, |reader| reader.segments().len() as u64),
            upload_bytes: self.upload_bytes.load(Ordering::Relaxed) as u64,
            connections: self.connections.load(Ordering::Relaxed),
            waiting_reads: self.waiting_reads.load(Ordering::Relaxed) as u64,
            peer_payload_bytes: self.traffic.served_bytes(),
            fetched_bytes: self.traffic.fetched_bytes(),
            fetches: self.traffic.fetches(),
            disk_free: self.view.available(),
            disk_full: consensus.is_some_and(|consensus| consensus.disk_full),
            uptime_s: self.began.elapsed().as_secs(),
            data_dir: self.data_dir.display().to_string(),
            generation: self.view.generation(),
            torn_bytes: self.view.torn_bytes(),
            restarts: self.registry.restarts(),
            actors: actors.collect(),
        }
    }
}

/// What a node does, in a word.
pub(crate) fn role(consensus: Option<ConsensusStatus>) -> &'static str {
    consensus.map_or("starting", |consensus| match (consensus.place, consensus.role) {
        (Place::Joining, _) => "joining",
        (Place::Gone, _) => "removed",
        (Place::Learner, _) => "learner",
        (Place::Voter, Role::Leader) => "leader",
        (Place::Voter, Role::Follower) => "follower",
        (Place::Voter, Role::Candidate) => "candidate",
    })
}
