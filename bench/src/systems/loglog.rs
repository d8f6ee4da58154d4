//! LogLog: `loglogd`, with the configuration it comes with.
//!
//! Owns:   the cheapest closed loop over a pipeline: one task a connection, tickets in order.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use loglog_client::{Client, PipelineOptions};

use super::side_by_side;
use crate::args::Connections;
use crate::cluster::{Cluster, free_ports};
use crate::gauge::{Gauge, Lane, Payloads, shares};
use crate::plan::Load;
use crate::servers::Server;

pub(super) fn start(
    cluster: &mut Cluster,
    server: &Server,
    nodes: usize,
    busy_poll: Duration,
) -> Result<(), String> {
    let addresses = free_ports(2 * nodes)?;
    let (clients, peers) = addresses.split_at(nodes);
    let mut members = String::new();
    for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let _ = writeln!(members, "    {{ id = {}, peer = \"{peer}\", client = \"{client}\" }},", at + 1);
    }
    for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let path = cluster.node_path(at + 1)?;
        let mut config = String::new();
        if nodes > 1 {
            let _ = write!(config, "[cluster]\nid = \"c0c0c0c0\"\nnodes = [\n{members}]\n");
        }
        let _ = write!(
            config,
            "[node]\nid = {}\n[listen]\nclient = \"{client}\"\npeer = \"{peer}\"\nadmin = \"\"\n[connection]\nbusy_poll = \"{} us\"\n[data]\ndir = \"{}\"\n",
            at + 1,
            busy_poll.as_micros(),
            path.join("data").display()
        );
        let file = path.join("config.toml");
        std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        cluster.start(Command::new(&server.program).arg("--config").arg(&file))?;
    }
    cluster.clients = clients.to_vec();
    Ok(())
}

async fn connect(cluster: &Cluster, busy_poll: Duration) -> Result<Client, String> {
    let endpoints: Vec<String> = cluster.clients.iter().map(ToString::to_string).collect();
    let builder = Client::builder().endpoints(endpoints).busy_poll(busy_poll);
    builder.connect().await.map_err(|error| error.to_string())
}

pub(super) async fn answers(cluster: &Cluster) -> Result<(), String> {
    let client = connect(cluster, Duration::ZERO).await?;
    client.append("hello").await.map(drop).map_err(|error| error.to_string())
}

pub(super) async fn drive(
    cluster: &Cluster,
    load: Load,
    connections: Connections,
    gauge: &Arc<Gauge>,
) -> Result<(), String> {
    let mut each = Vec::new();
    for in_flight in shares(load.in_flight, connections.loglog_connections) {
        let client = connect(cluster, connections.busy_poll).await?;
        let payloads = Payloads::new(load.payload);
        each.push(one(client, in_flight, payloads, gauge.lane()));
    }
    side_by_side(gauge, each).await
}

async fn one(client: Client, in_flight: usize, mut payloads: Payloads, mut lane: Lane) -> Result<(), String> {
    // Room for all that are in flight, each with what the pipeline adds to it: the loop below is what binds.
    let bytes_max = in_flight * (payloads.next().len() + 1024);
    let pipeline =
        client.pipeline(PipelineOptions { entries_max: in_flight, bytes_max, ..PipelineOptions::default() });
    let mut flying = VecDeque::with_capacity(in_flight);
    while lane.goes_on() {
        if flying.len() == in_flight
            && let Some((ticket, sent)) = flying.pop_front()
        {
            acknowledged(ticket, sent, &mut lane).await?;
        }
        let sent = lane.sent();
        let ticket = pipeline.append(payloads.next()).await.map_err(|error| error.to_string())?;
        flying.push_back((ticket, sent));
    }
    for (ticket, sent) in flying {
        acknowledged(ticket, sent, &mut lane).await?;
    }
    Ok(())
}

async fn acknowledged(
    ticket: loglog_client::Ticket,
    sent: Option<std::time::Instant>,
    lane: &mut Lane,
) -> Result<(), String> {
    ticket.await.map_err(|error| error.to_string())?;
    lane.acknowledged(sent);
    Ok(())
}
