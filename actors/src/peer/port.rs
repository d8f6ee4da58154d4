//! Peer port: what a node of several has beside a node that is alone.
//!
//! Owns:   the peer listener, the links, the fetcher, as children of the node.
//! Keeps:  the port is open before the cluster is formed, so that nodes find one another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError};

use loglog_storage::{Member, Membership};

use super::SharedIdentity;
use super::fetcher::{self, Fetcher};
use super::link::PeerLink;
use super::listener::{self, PeerListener, PeerParts};
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

    /// Starts a link to each other member, and the fetcher: the cluster is formed.
    pub(crate) fn link(&self, membership: &Membership) -> Peers {
        let PeerParts { identity, consensus, supervisor, arbiter, faults, traffic, pace, .. } = &self.parts;
        *identity.membership.write().unwrap_or_else(PoisonError::into_inner) = Some(membership.clone());
        let others = membership.voters.iter().filter(|member| member.id != identity.raft_id());
        let others: Vec<Member> = others.cloned().collect();
        let links = others.iter().map(|peer| {
            let name = PeerLink::name(peer);
            let own = (peer.clone(), Arc::clone(identity), consensus.clone(), faults.clone());
            let link = supervisor.spawn(permanent(&name, "PeerLink"), arbiter, move || {
                let (peer, identity, consensus, faults) = own.clone();
                PeerLink::new(peer, identity, consensus, faults)
            });
            faults.enlist(&name, &link);
            (peer.id, link)
        });
        let links = links.collect();
        let own = (Arc::clone(identity), others.clone(), consensus.clone(), faults.clone());
        let (traffic, pace) = (Arc::clone(traffic), pace.clone());
        let fetcher = supervisor.spawn(permanent(fetcher::NAME, "Fetcher"), arbiter, move || {
            let (identity, peers, consensus, faults) = own.clone();
            Fetcher::new(identity, peers, consensus, faults, Arc::clone(&traffic), pace.clone())
        });
        faults.enlist(fetcher::NAME, &fetcher);
        self.parts.fetcher.set(fetcher.clone());
        Peers { links, fetcher: Some(fetcher) }
    }
}
