//! What the tests of whole nodes share.

use std::path::Path;
use std::time::Duration;

use loglog_actors::NodeOptions;
use loglog_proto::{Length, NodeId};

/// A node that nobody reaches from outside of its program.
pub(crate) fn options(dir: &Path, node: u32) -> NodeOptions {
    NodeOptions {
        data_dir: dir.to_owned(),
        cluster: None,
        node: NodeId::new(node).unwrap(),
        listen_client: None,
        listen_unix: None,
        listen_peer: None,
        listen_admin: None,
        cluster_nodes: Vec::new(),
        join: false,
        advertise_client: None,
        advertise_peer: None,
        segment_bytes_max: Length::new(1 << 20),
        upload_bytes_max: 64 << 20,
        connection_bytes_max: 32 << 20,
        connections_max: 5,
        busy_poll: Duration::ZERO,
        bulk_bytes_per_second: 0,
        free_min: 0,
        accept_loss: false,
        direct_io: true,
        tail_bytes_max: 1 << 20,
        tick: Duration::from_millis(50),
        are_faults_allowed: false,
        config: Vec::new(),
        log_control: None,
        measure: true,
        version: "0",
    }
}
