//! NATS JetStream: a stream kept in files, by one server or by three, each record synced before it is acknowledged.
//!
//! Owns:   clients that publish to the stream's leader, with many acknowledgements outstanding on each connection.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};

use super::side_by_side;
use crate::cluster::{Cluster, free_ports};
use crate::gauge::{Gauge, Lane, Payloads, shares};
use crate::plan::Load;
use crate::servers::Server;

const STREAM: &str = "s";
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn start(cluster: &mut Cluster, server: &Server, nodes: usize) -> Result<(), String> {
    let addresses = free_ports(2 * nodes)?;
    let (clients, peers) = addresses.split_at(nodes);
    let routes: Vec<String> = peers.iter().map(|peer| format!("nats://{peer}")).collect();
    for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let path = cluster.node_path(at + 1)?;
        let mut config = format!(
            "server_name: n{at}\nlisten: \"{client}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            path.join("store").display()
        );
        if nodes > 1 {
            let routes = routes.join(", ");
            let _ = writeln!(config, "cluster {{ name: c, listen: \"{peer}\", routes: [{routes}] }}");
        }
        let file = path.join("nats.conf");
        std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        cluster.start(Command::new(&server.program).arg("-c").arg(&file))?;
    }
    cluster.clients = clients.to_vec();
    Ok(())
}

async fn connect(cluster: &Cluster, node: usize, in_flight: usize) -> Result<Context, String> {
    // To that node alone: the client would go to any that the cluster tells it of.
    let options = async_nats::ConnectOptions::new()
        .ignore_discovered_servers()
        .client_capacity(in_flight.max(128))
        .connection_timeout(Duration::from_secs(5));
    let client =
        options.connect(cluster.clients[node].to_string()).await.map_err(|error| error.to_string())?;
    Ok(ContextBuilder::new().timeout(TIMEOUT).max_ack_inflight(in_flight + 1).build(client))
}

/// Makes the stream, if it is not there yet, and publishes to it.
pub(super) async fn answers(cluster: &Cluster) -> Result<(), String> {
    let context = connect(cluster, 0, 1).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![STREAM.to_owned()],
        storage: StorageType::File,
        num_replicas: cluster.clients.len(),
        ..Config::default()
    };
    context.get_or_create_stream(config).await.map_err(|error| error.to_string())?;
    let ack = context.publish(STREAM, "hello".into()).await.map_err(|error| error.to_string())?;
    ack.await.map(drop).map_err(|error| error.to_string())
}

/// The node that leads the stream: any other would send everything on to it.
async fn leader(cluster: &Cluster) -> Result<usize, String> {
    let context = connect(cluster, 0, 1).await?;
    let stream: jetstream::stream::Stream =
        context.get_stream(STREAM).await.map_err(|error| error.to_string())?;
    let Some(info) = &stream.cached_info().cluster else {
        return Ok(0);
    };
    let Some(name) = &info.leader else {
        return Ok(0);
    };
    let node = name.strip_prefix('n').and_then(|node| node.parse().ok());
    node.filter(|node| *node < cluster.clients.len()).ok_or_else(|| format!("who is leader {name}?"))
}

pub(super) async fn drive(
    cluster: &Cluster,
    load: Load,
    connections: usize,
    gauge: &Arc<Gauge>,
) -> Result<(), String> {
    let leader = leader(cluster).await?;
    let mut each = Vec::new();
    for in_flight in shares(load.in_flight, connections) {
        let context = connect(cluster, leader, in_flight).await?;
        each.push(one(context, in_flight, Payloads::new(load.payload), gauge.lane()));
    }
    side_by_side(gauge, each).await
}

async fn one(
    context: Context,
    in_flight: usize,
    mut payloads: Payloads,
    mut lane: Lane,
) -> Result<(), String> {
    let mut flying = VecDeque::with_capacity(in_flight);
    while lane.goes_on() {
        if flying.len() == in_flight
            && let Some((ack, sent)) = flying.pop_front()
        {
            acknowledged(ack, sent, &mut lane).await?;
        }
        let sent = lane.sent();
        let ack = context.publish(STREAM, payloads.next()).await.map_err(|error| error.to_string())?;
        flying.push_back((ack, sent));
    }
    for (ack, sent) in flying {
        acknowledged(ack, sent, &mut lane).await?;
    }
    Ok(())
}

async fn acknowledged(
    ack: PublishAckFuture,
    sent: Option<std::time::Instant>,
    lane: &mut Lane,
) -> Result<(), String> {
    ack.await.map_err(|error| error.to_string())?;
    lane.acknowledged(sent);
    Ok(())
}
