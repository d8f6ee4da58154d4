//! Peer port: what a node has for others beside what it has for clients.
//!
//! Owns:   the peer listener, the links, the fetcher, the snapshot receiver, as children of the node.
//! Keeps:  the port is open before the cluster is formed, so that nodes find one another; a node that is alone has it too, so that
//!         others can be taken in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError};

use loglog_storage::Membership;

use super::SharedIdentity;
use super::fetcher::{self, Fetcher};
use super::listener::{self, PeerListener, PeerParts};
use super::receiver::{self, ReceiverParts, SnapshotReceiver};
use crate::consensus::Peers;
use crate::node::permanent;

/// The port, open or not.
pub(crate) struct PeerPort {
    parts: PeerParts,
    is_open: bool,
}

impl PeerPort {
    /// A port that is not open yet.
    pub(crate) const fn new(parts: PeerParts) -> Self {
        Self { parts, is_open: false }
    }

    /// Who we are to peers.
    pub(crate) fn identity(&self) -> &SharedIdentity {
        &self.parts.identity
    }

    /// Who the members are; they can be asked from now on, and may say hello once the port is open.
    pub(crate) fn know(&self, membership: &Membership) {
        let mut known = self.parts.identity.membership.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(membership.clone());
    }

    /// Listens, unless it does already.
    pub(crate) fn open(&mut self, address: SocketAddr) -> io::Result<()> {
        if self.is_open {
            return Ok(());
        }
        let (socket, parts) = (TcpListener::bind(address)?, self.parts.clone());
        let child = permanent(listener::NAME, "PeerListener");
        let handle = self.parts.supervisor.spawn(child, &self.parts.arbiter, move || {
            PeerListener::new(socket.try_clone().ok(), parts.clone())
        });
        self.parts.faults.enlist(listener::NAME, &handle);
        self.is_open = true;
        Ok(())
    }

    /// Starts what speaks to peers: who they are is known, or will be.
    pub(crate) fn start(&self, membership: &Membership, receiver: ReceiverParts) -> Peers {
        let PeerParts { identity, consensus, supervisor, arbiter, faults, links, traffic, pace, .. } =
            &self.parts;
        links.follow(membership);
        let own = (Arc::clone(identity), consensus.clone(), faults.clone());
        let (traffic, fetching) = (Arc::clone(traffic), pace.clone());
        let fetcher = supervisor.spawn(permanent(fetcher::NAME, "Fetcher"), arbiter, move || {
            let (identity, consensus, faults) = own.clone();
            Fetcher::new(identity, consensus, faults, Arc::clone(&traffic), fetching.clone())
        });
        let receiver = supervisor.spawn(permanent(receiver::NAME, "SnapshotReceiver"), arbiter, move || {
            SnapshotReceiver::new(receiver.clone())
        });
        faults.enlist(fetcher::NAME, &fetcher);
        faults.enlist(receiver::NAME, &receiver);
        self.parts.fetcher.set(fetcher.clone());
        Peers { links: Arc::clone(links), fetcher, receiver, pace: pace.apart() }
    }
}
