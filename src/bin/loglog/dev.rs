//! `loglog dev`: a whole cluster in this one process, to try things out.
//!
//! Owns:   where its nodes listen and keep their data.
//! Never:  is meant for data that matters: one process, one disk, one machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use loglog::config::NodeConfig;
use loglog::logging::{LevelSpec, LogFormat, Logging};
use loglog_actors::{ClusterNode, Node, NodeOptions};
use loglog_proto::{ClusterId, NodeId};
use tokio::sync::watch;

use crate::exit::{Outcome, Stop};

/// Every cluster of this command has it; it is never reached from another machine.
const CLUSTER: u64 = 0x0000_1091_09de_0001;
/// Ports of the first node; those of the next are 100 higher.
const FIRST_PORT: u16 = 19194;
const PORT_STEP: u16 = 100;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,

    /// Where data lies, one folder a node; kept between runs.
    #[arg(long, value_name = "DIR", default_value = "./loglog-dev")]
    data: PathBuf,

    /// What the nodes log to standard error.
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    log: LevelSpec,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let logging = Logging::start(LogFormat::Auto, &args.log);
    actix_rt::System::new().block_on(serve(args, &logging))
}

async fn serve(args: &Args, logging: &Logging) -> Outcome {
    let nodes: Vec<ClusterNode> = (0..args.nodes)
        .map(|at| ClusterNode {
            id: NodeId::new(u32::from(at) + 1).expect("counted from 1"),
            peer: address(at, 1).to_string(),
            client: address(at, 0).to_string(),
        })
        .collect();
    let starts = (0..args.nodes).map(|at| {
        let log = logging.logger().new(slog::o!("node" => at + 1));
        Node::start(options(args, at, &nodes), log)
    });
    let mut started = Vec::new();
    for node in futures_util::future::join_all(starts).await {
        started.push(node.map_err(|error| Stop::failed(error.to_string()))?);
    }
    let endpoints: Vec<&str> = nodes.iter().map(|node| node.client.as_str()).collect();
    tell(&endpoints, args);
    let (stop, stopped) = watch::channel(false);
    let serving = started.into_iter().map(|node| {
        let mut stopped = stopped.clone();
        node.serve(async move {
            // The sender lives as long as this process serves.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        })
    });
    actix_rt::spawn(async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
        }
        // Nobody listens any more: the nodes have ended by themselves.
        let _ = stop.send(true);
        Ok::<(), std::io::Error>(())
    });
    let results = futures_util::future::join_all(serving).await;
    results.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(Stop::failed(error.to_string())))
}

fn tell(endpoints: &[&str], args: &Args) {
    let list = endpoints.join(",");
    eprintln!(
        "{} nodes in this process, data in {}; ctrl-c stops them\n",
        endpoints.len(),
        args.data.display()
    );
    for (number, endpoint) in endpoints.iter().enumerate() {
        eprintln!("  node {}  {endpoint}", number + 1);
    }
    eprintln!("\ntry, in another terminal:\n");
    eprintln!("  export LOGLOG_ENDPOINTS={list}");
    eprintln!("  echo hello | loglog append");
    eprintln!("  loglog tail -f");
    eprintln!("  loglog status");
    eprintln!("  loglog members list\n");
}

fn address(at: u16, offset: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + at * PORT_STEP + offset))
}

fn options(args: &Args, at: u16, nodes: &[ClusterNode]) -> NodeOptions {
    let config = NodeConfig::default();
    NodeOptions {
        data_dir: args.data.join((at + 1).to_string()),
        cluster: ClusterId::new(CLUSTER),
        node: nodes[usize::from(at)].id,
        listen_client: address(at, 0),
        listen_peer: address(at, 1),
        cluster_nodes: nodes.to_vec(),
        join: false,
        advertise_client: None,
        advertise_peer: None,
        segment_bytes_max: config.segment.bytes_max,
        upload_bytes_max: config.upload.bytes_max.as_usize(),
        connection_bytes_max: u32::try_from(config.connection.bytes_max.get()).unwrap_or(u32::MAX),
        connections_max: u64::from(config.connection.max),
        bulk_bytes_per_second: config.peers.bulk_bytes_per_second.get(),
        free_min: config.data.free_min.get(),
        accept_loss: false,
        tick: config.raft.tick,
        are_faults_allowed: false,
        measure: config.actors.measure,
        version: env!("CARGO_PKG_VERSION"),
    }
}
