//! `loglogd`: one node of LogLog as a process.
//!
//! Owns:   what a process has and a library has not: flags, signals, the exit code.
//! Never:  holds logic of the node.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use loglog::config::{DaemonArgs, Effective};
use loglog::logging::Logging;
use loglog::options::node_options;
use loglog_actors::Node;
use slog::{Logger, error, info, warn};
use tokio::signal::unix::{SignalKind, signal};

/// Entries are allocated by one thread and freed by another, in great numbers: this takes a tenth less of the processor than the C
/// library's (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration cannot be used.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = DaemonArgs::parse();
    let effective = match args.load() {
        Ok(effective) => effective,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.print_config {
        print!("{}", effective.to_toml());
        return ExitCode::SUCCESS;
    }
    let listen = &effective.config.listen;
    if listen.client.is_none() && listen.unix.is_none() {
        complain(&"no client could reach this node: set 'listen.client' or 'listen.unix'");
        return ExitCode::from(EXIT_USAGE);
    }
    let logging = Logging::start(effective.config.log.format, &effective.config.log.level);
    let log = logging.logger().clone();
    if let Err(error) = logging.capture_dependencies() {
        warn!(log, "records of dependencies are not shown"; "error" => %error);
    }
    info!(log, "configured"; "values" => effective.summary());
    let descriptors = raise_descriptor_limit(&log);
    let result = actix_rt::System::new().block_on(run(&args, &effective, descriptors, &logging));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!(log, "loglogd ends"; "error" => &reason);
            drop(logging);
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Where standard error goes may be full or gone: a panic would hide the exit code that tells why we end.
fn complain(reason: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "loglogd: {reason}");
}

async fn run(
    args: &DaemonArgs,
    effective: &Effective,
    descriptors: u64,
    logging: &Logging,
) -> Result<(), String> {
    let log = logging.logger();
    let mut options = node_options(effective, Some(logging));
    // A quarter of the file descriptors is left for segments and peers.
    options.connections_max = options.connections_max.min(descriptors / 4 * 3);
    // Before anything else: a signal that comes while the log is recovered must not kill the process half-way.
    let stop = stop_signal(log.clone()).map_err(|error| format!("cannot listen to signals: {error}"))?;
    tokio::pin!(stop);
    let _too_large =
        survive_file_size_limit().map_err(|error| format!("cannot listen to signals: {error}"))?;
    let node = tokio::select! {
        node = Node::start(options, log.clone()) => node.map_err(|error| error.to_string())?,
        // Nothing is served yet, so nothing is in flight.
        () = &mut stop => return Ok(()),
    };
    let identity = node.identity();
    let admin = node.admin_address().map_or("off".to_owned(), |address| address.to_string());
    let clients = [
        node.address().map(|address| address.to_string()),
        effective.config.listen.unix.as_ref().map(|path| format!("unix:{}", path.display())),
    ];
    let clients: Vec<String> = clients.into_iter().flatten().collect();
    info!(log, "serving"; "clients" => clients.join(","), "admin" => admin, "data" => %effective.config.data.dir.display(),
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

/// A write beyond the limit of file sizes (`ulimit -f`) shall fail with a reason, and not kill the process without a word.
fn survive_file_size_limit() -> std::io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
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
                info!(log, "log level reloaded"; "log.level" => %level);
                logging.level().set(level);
            }
            Err(error) => {
                warn!(log, "the configuration cannot be read, the log level stays"; "error" => %error)
            }
        }
    }
}
