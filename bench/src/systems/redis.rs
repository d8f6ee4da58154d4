//! Redis streams: one server that syncs its append-only file before it answers.
//!
//! Owns:   a client that pipelines by itself: as many XADDs as there is room for go out together, replies are matched in order. One task a
//!         connection, no allocation for an append.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::{resp, side_by_side};
use crate::cluster::{Cluster, free_ports};
use crate::gauge::{Gauge, Lane, Payloads, shares};
use crate::plan::Load;
use crate::servers::Server;

const STREAM: &str = "s";
const READ_BYTES: usize = 64 << 10;

/// As many connections as are fastest, measured: a turn of Redis's event loop takes some from each, so with large payloads more of them share
/// a sync; with small ones more only cost.
pub(super) fn connections(load: Load) -> usize {
    if load.payload < 16 << 10 { 4 } else { 16 }
}

pub(super) fn start(cluster: &mut Cluster, server: &Server) -> Result<(), String> {
    let addresses = free_ports(1)?;
    let path = cluster.node_path(1)?;
    let mut command = Command::new(&server.program);
    command.current_dir(&path).arg("--dir").arg(&path).args(["--bind", "127.0.0.1", "--port"]);
    command.arg(addresses[0].port().to_string());
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]);
    // Rewriting the file beside the load would slow it down.
    command.args(["--auto-aof-rewrite-percentage", "0"]);
    cluster.start(&mut command)?;
    cluster.clients = addresses;
    Ok(())
}

pub(super) async fn answers(cluster: &Cluster) -> Result<(), String> {
    let mut socket = connect(cluster).await?;
    let mut out = Vec::new();
    resp::xadd(&mut out, STREAM, b"hello");
    socket.write_all(&out).await.map_err(|error| error.to_string())?;
    let mut read = Vec::new();
    while resp::reply(&read)?.is_none() {
        more(&mut socket, &mut read, Duration::ZERO).await?;
    }
    Ok(())
}

async fn connect(cluster: &Cluster) -> Result<TcpStream, String> {
    let socket = TcpStream::connect(cluster.clients[0]).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Receives, and does not sleep before `awake` is over.
async fn more(socket: &mut TcpStream, read: &mut Vec<u8>, awake: Duration) -> Result<(), String> {
    read.reserve(READ_BYTES);
    let until = (!awake.is_zero()).then(|| Instant::now() + awake);
    let received = loop {
        tokio::select! {
            biased;
            received = socket.read_buf(read) => break received,
            () = yield_now(), if until.is_some_and(|until| Instant::now() < until) => {}
        }
    };
    match received {
        Ok(0) => Err("Redis closed the connection".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) async fn drive(
    cluster: &Cluster,
    load: Load,
    (connections, busy_poll): (usize, Duration),
    gauge: &Arc<Gauge>,
) -> Result<(), String> {
    let mut each = Vec::new();
    for in_flight in shares(load.in_flight, connections) {
        let socket = connect(cluster).await?;
        let awake = if in_flight == 1 { busy_poll } else { Duration::ZERO };
        each.push(one(socket, (in_flight, awake), Payloads::new(load.payload), gauge.lane()));
    }
    side_by_side(gauge, each).await
}

async fn one(
    mut socket: TcpStream,
    (in_flight, awake): (usize, Duration),
    mut payloads: Payloads,
    mut lane: Lane,
) -> Result<(), String> {
    let (mut out, mut read) = (Vec::new(), Vec::new());
    let mut flying = VecDeque::with_capacity(in_flight);
    loop {
        while flying.len() < in_flight && lane.goes_on() {
            flying.push_back(lane.sent());
            resp::xadd(&mut out, STREAM, &payloads.next());
        }
        if flying.is_empty() {
            return Ok(());
        }
        // Replies are small, so they have room in the socket's buffers while we write: neither side waits for the other.
        socket.write_all(&out).await.map_err(|error| error.to_string())?;
        out.clear();
        more(&mut socket, &mut read, awake).await?;
        let mut taken = 0;
        while let Some(length) = resp::reply(&read[taken..])? {
            let sent = flying.pop_front().ok_or("Redis replied to what was never asked")?;
            lane.acknowledged(sent);
            taken += length;
        }
        read.drain(..taken);
    }
}
