//! etcd: a put of a new key, under the next number each time: the nearest it has to an append.
//!
//! Owns:   clients of the leader, with many puts at a time on each of a few connections.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use etcd_client::Client;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::side_by_side;
use crate::cluster::{Cluster, free_ports};
use crate::gauge::{Gauge, Lane, Payloads, shares};
use crate::plan::Load;
use crate::servers::Server;

/// Its default of 2 GiB would end a run.
const QUOTA: &str = "8589934592";

pub(super) fn start(cluster: &mut Cluster, server: &Server, nodes: usize) -> Result<(), String> {
    let addresses = free_ports(2 * nodes)?;
    let (clients, peers) = addresses.split_at(nodes);
    let members: Vec<String> =
        peers.iter().enumerate().map(|(at, peer)| format!("n{at}=http://{peer}")).collect();
    for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let path = cluster.node_path(at + 1)?;
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new(&server.program);
        command.arg("--data-dir").arg(path.join("data")).args(["--name", &format!("n{at}")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        command.args(["--quota-backend-bytes", QUOTA, "--logger", "zap", "--log-level", "warn"]);
        cluster.start(&mut command)?;
    }
    cluster.clients = clients.to_vec();
    Ok(())
}

async fn connect(cluster: &Cluster, node: usize) -> Result<Client, String> {
    let endpoint = cluster.clients[node].to_string();
    Client::connect([endpoint], None).await.map_err(|error| error.to_string())
}

pub(super) async fn answers(cluster: &Cluster) -> Result<(), String> {
    let mut client = connect(cluster, 0).await?;
    client.put("hello", "hello", None).await.map(drop).map_err(|error| error.to_string())
}

/// The node that leads: any other would send everything on to it.
async fn leader(cluster: &Cluster) -> Result<usize, String> {
    for node in 0..cluster.clients.len() {
        let mut client = connect(cluster, node).await?;
        let status = client.status().await.map_err(|error| error.to_string())?;
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            return Ok(node);
        }
    }
    Err("no node says that it leads".to_owned())
}

pub(super) async fn drive(
    cluster: &Cluster,
    load: Load,
    connections: usize,
    gauge: &Arc<Gauge>,
) -> Result<(), String> {
    let leader = leader(cluster).await?;
    let key = Arc::new(AtomicU64::new(0));
    let mut each = Vec::new();
    for in_flight in shares(load.in_flight, connections) {
        let client = connect(cluster, leader).await?;
        each.push(one(client, in_flight, key.clone(), Payloads::new(load.payload), gauge.lane()));
    }
    side_by_side(gauge, each).await
}

async fn one(
    client: Client,
    in_flight: usize,
    key: Arc<AtomicU64>,
    mut payloads: Payloads,
    mut lane: Lane,
) -> Result<(), String> {
    let mut flying = FuturesUnordered::new();
    loop {
        while flying.len() < in_flight && lane.goes_on() {
            let sent = lane.sent();
            let mut kv = client.kv_client();
            let key = format!("{:016x}", key.fetch_add(1, Relaxed));
            let payload = payloads.next();
            flying.push(async move {
                let outcome = kv.put(key, payload, None).await;
                (outcome, sent)
            });
        }
        let Some((outcome, sent)) = flying.next().await else {
            return Ok(());
        };
        outcome.map_err(|error| error.to_string())?;
        lane.acknowledged(sent);
    }
}
