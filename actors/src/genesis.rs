//! Genesis: the first state of a node's directory.
//!
//! Owns:   what `meta` says before anything was appended: alone, one of a static cluster, or waiting to be taken in.
//! Never:  writes it.

use std::net::SocketAddr;

use loglog_proto::{ClusterId, Incarnation, Index, RaftId, Term};
use loglog_storage::{LogStart, Member, Membership, MetaState};

use crate::node::NodeOptions;

/// Where others reach a node that listens at `address`, unless it was told otherwise. Empty: nowhere.
pub(crate) fn reached_at(advertised: Option<&String>, address: Option<SocketAddr>) -> String {
    let listens = || address.map(|address| address.to_string());
    advertised.cloned().or_else(listens).unwrap_or_default()
}

/// The first state of a node that is alone.
pub(crate) fn alone(options: &NodeOptions, cluster: ClusterId, incarnation: Incarnation) -> MetaState {
    let member = Member {
        id: RaftId::new(options.node, incarnation),
        peer_address: reached_at(options.advertise_peer.as_ref(), options.listen_peer),
        client_address: reached_at(options.advertise_client.as_ref(), options.listen_client),
    };
    let membership = Membership { index: Index::new(1), voters: vec![member], learners: Vec::new() };
    formed(options, cluster, incarnation, membership)
}

/// The first state of a node of a new log: index 1, term 1, held by no entry (S24).
pub(crate) fn formed(
    options: &NodeOptions,
    cluster: ClusterId,
    incarnation: Incarnation,
    membership: Membership,
) -> MetaState {
    MetaState {
        cluster,
        node: options.node,
        incarnation,
        term: Term::new(1),
        vote: None,
        membership,
        start: LogStart::GENESIS,
        segment_bytes_max: options.segment_bytes_max,
    }
}

/// The first state of a node that waits to be taken in: before genesis, so that it begins with a snapshot.
pub(crate) fn joining(options: &NodeOptions, cluster: ClusterId, incarnation: Incarnation) -> MetaState {
    let membership = Membership { index: Index::ZERO, voters: Vec::new(), learners: Vec::new() };
    MetaState {
        term: Term::ZERO,
        start: LogStart::NOTHING,
        ..formed(options, cluster, incarnation, membership)
    }
}
