//! `loglogd`: one node of LogLog as a process.
//!
//! Owns:   what a process has and a library has not: flags, signals, the exit code.
//! Never:  holds logic of the node.

use std::process::ExitCode;

use clap::Parser;
use loglog::config::{DaemonArgs, NodeConfig};
use loglog::logging::Logging;
use loglog_actors::{ClusterNode, Node, NodeOptions};
use slog::{Logger, error, info, warn};
use tokio::signal::unix::{SignalKind, signal};

/// The configuration cannot be used.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = DaemonArgs::parse();
    let effective = match args.load() {
        Ok(effective) => effective,
        Err(error) => {
            eprintln!("loglogd: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.print_config {
        print!("{}", effective.to_toml());
        return ExitCode::SUCCESS;
    }
    let logging = Logging::start(effective.config.log.format, &effective.config.log.level);
    let log = logging.logger().clone();
    if let Err(error) = logging.capture_dependencies() {
        warn!(log, "records of dependencies are not shown"; "error" => %error);
    }
    info!(log, "configured"; "values" => effective.summary());
    let descriptors = raise_descriptor_limit(&log);
    let result = actix_rt::System::new().block_on(run(&args, &effective.config, descriptors, &logging));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!(log, "loglogd ends"; "error" => &reason);
            drop(logging);
            eprintln!("loglogd: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(
    args: &DaemonArgs,
    config: &NodeConfig,
    descriptors: u64,
    logging: &Logging,
) -> Result<(), String> {
    let log = logging.logger();
    // Before anything else: a signal that comes while the log is recovered must not kill the process half-way.
    let stop = stop_signal(log.clone()).map_err(|error| format!("cannot listen to signals: {error}"))?;
    tokio::pin!(stop);
    let node = tokio::select! {
        node = Node::start(options(config, descriptors), log.clone()) => node.map_err(|error| error.to_string())?,
        // Nothing is served yet, so nothing is in flight.
        () = &mut stop => return Ok(()),
    };
    let identity = node.identity();
    info!(log, "serving"; "clients" => %node.address(), "data" => %config.data.dir.display(),
        "cluster" => %identity.cluster, "node" => identity.node.get(), "version" => env!("CARGO_PKG_VERSION"));
    match identity.members().map_or(0, |members| members.len()) {
        0 => info!(log, "this node is no member yet: it keeps nothing until it is taken in"),
        1 => info!(
            log,
            "durability: an append is acknowledged after its bytes are synced to this node's disk; a single node has no \
             copy elsewhere"
        ),
        members => info!(
            log,
            "durability: an append is acknowledged after its bytes are synced to the disks of a majority";
            "members" => members
        ),
    }
    let node = node.serve(stop);
    tokio::select! {
        result = node => result.map_err(|error| error.to_string()),
        never = reload_levels(args, logging) => match never {},
    }
}

/// Every connection and every segment that is read needs a file descriptor: takes as many as the system allows.
fn raise_descriptor_limit(log: &Logger) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(log, "the limit of file descriptors stays as it is"; "error" => %error);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Done when the process is asked to stop.
fn stop_signal(log: Logger) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(log, "asked to stop"; "signal" => name);
    })
}

/// Reads the log level anew at each SIGHUP.
async fn reload_levels(args: &DaemonArgs, logging: &Logging) -> std::convert::Infallible {
    let log = logging.logger();
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            warn!(log, "SIGHUP will not change the log level"; "error" => %error);
            return std::future::pending().await;
        }
    };
    loop {
        hangup.recv().await;
        match args.load() {
            Ok(effective) => {
                let level = effective.config.log.level;
                logging.level().set(level.general());
                info!(log, "log level reloaded"; "log.level" => %level);
            }
            Err(error) => {
                warn!(log, "the configuration cannot be read, the log level stays"; "error" => %error)
            }
        }
    }
}

fn options(config: &NodeConfig, descriptors: u64) -> NodeOptions {
    let bytes = |length: loglog_proto::Length| length.as_usize();
    NodeOptions {
        data_dir: config.data.dir.clone(),
        cluster: config.cluster.id,
        node: config.node.id,
        listen_client: config.listen.client,
        listen_peer: config.listen.peer,
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
        // A quarter of the file descriptors is left for segments and peers.
        connections_max: u64::from(config.connection.max).min(descriptors / 4 * 3),
        bulk_bytes_per_second: config.peers.bulk_bytes_per_second.get(),
        free_min: config.data.free_min.get(),
        accept_loss: config.data.accept_loss,
        tick: config.raft.tick,
        are_faults_allowed: config.debug.faults,
        measure: config.actors.measure,
        version: env!("CARGO_PKG_VERSION"),
    }
}
