//! From a configuration to what a node is made with.

use loglog_actors::{ClusterNode, NodeOptions};
use loglog_proto::Length;

use crate::config::Effective;
use crate::logging::Logging;

/// A node as `effective` has it, whose administrators see and change the level of `logging`, if that is theirs to change.
#[must_use]
pub fn node_options(effective: &Effective, logging: Option<&Logging>) -> NodeOptions {
    let config = &effective.config;
    let bytes = |length: Length| length.as_usize();
    NodeOptions {
        data_dir: config.data.dir.clone(),
        cluster: config.cluster.id,
        node: config.node.id,
        listen_client: config.listen.client,
        listen_unix: config.listen.unix.clone().map(|path| (path, config.listen.unix_mode)),
        listen_peer: config.listen.peer,
        listen_admin: config.listen.admin,
        cluster_nodes: config
            .cluster
            .nodes
            .iter()
            .map(|node| ClusterNode { id: node.id, peer: node.peer.clone(), client: node.client.clone() })
            .collect(),
        join: config.cluster.join,
        advertise_client: config.advertise.client.clone(),
        advertise_peer: config.advertise.peer.clone(),
        segment_bytes_max: config.segment.bytes_max,
        upload_bytes_max: bytes(config.upload.bytes_max),
        connection_bytes_max: u32::try_from(config.connection.bytes_max.get()).unwrap_or(u32::MAX),
        connections_max: u64::from(config.connection.max),
        busy_poll: config.connection.busy_poll,
        bulk_bytes_per_second: config.peers.bulk_bytes_per_second.get(),
        free_min: config.data.free_min.get(),
        accept_loss: config.data.accept_loss,
        direct_io: config.data.direct_io,
        tail_bytes_max: bytes(config.data.tail_bytes_max),
        tick: config.raft.tick,
        are_faults_allowed: config.debug.faults,
        measure: config.actors.measure,
        config: effective.values(),
        log_control: logging.map(Logging::control),
        version: env!("CARGO_PKG_VERSION"),
    }
}
