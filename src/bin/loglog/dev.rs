//! `loglog dev`: a whole cluster in this one process, to try things out.
//!
//! Owns:   where its nodes listen and keep their data.
//! Never:  is meant for data that matters: one process, one disk, one machine.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use loglog::config::{Effective, Sources};
use loglog::logging::{LevelSpec, LogFormat, Logging};
use loglog::options::node_options;
use loglog_actors::Node;
use tokio::sync::watch;

use crate::exit::{Outcome, Stop};

/// Every cluster of this command has it; it is never reached from another machine.
const CLUSTER: &str = "0000109109de0001";
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
    let mut starts = Vec::new();
    for at in 0..args.nodes {
        let log = logging.logger().new(slog::o!("node" => at + 1));
        starts.push(Node::start(node_options(&configured(args, at)?, Some(logging)), log));
    }
    let mut started: Vec<Node> = Vec::new();
    for node in futures_util::future::join_all(starts).await {
        started.push(node.map_err(|error| Stop::failed(error.to_string()))?);
    }
    tell(&started, args);
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

fn tell(nodes: &[Node], args: &Args) {
    let endpoints: Vec<String> =
        nodes.iter().filter_map(Node::address).map(|address| address.to_string()).collect();
    let list = endpoints.join(",");
    eprintln!(
        "{} nodes in this process, data in {}; ctrl-c stops them\n",
        endpoints.len(),
        args.data.display()
    );
    for (number, (endpoint, node)) in endpoints.iter().zip(nodes).enumerate() {
        let page = node.admin_address().map(|page| format!("  http://{page}/")).unwrap_or_default();
        eprintln!("  node {}  {endpoint}{page}", number + 1);
    }
    eprintln!("\ntry, in another terminal:\n");
    eprintln!("  export LOGLOG_ENDPOINTS={list}");
    eprintln!("  echo hello | loglog append");
    eprintln!("  loglog tail -f");
    eprintln!("  loglog status");
    eprintln!("  loglog members list");
    if let Some(page) = nodes.first().and_then(Node::admin_address) {
        eprintln!("  loglog actors --admin {page}");
    }
    eprintln!();
}

fn address(at: u16, offset: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + at * PORT_STEP + offset))
}

/// Where a node's admin endpoint goes. It is there to be looked at, so where the port is taken any other does.
fn admin(at: u16) -> SocketAddr {
    let wanted = address(at, 2);
    match TcpListener::bind(wanted) {
        Ok(_) => wanted,
        Err(error) => {
            eprintln!("loglog: no admin endpoint on {wanted} ({error}): it gets another port");
            SocketAddr::from(([127, 0, 0, 1], 0))
        }
    }
}

/// A node's configuration, as if it had been written down.
fn configured(args: &Args, at: u16) -> Outcome<Effective> {
    let member = |at: u16| {
        let (peer, client) = (address(at, 1), address(at, 0));
        format!("{{ id = {}, peer = \"{peer}\", client = \"{client}\" }}", at + 1)
    };
    let members: Vec<String> = (0..args.nodes).map(member).collect();
    let set = vec![
        format!("cluster.id={CLUSTER}"),
        format!("cluster.nodes=[{}]", members.join(", ")),
        format!("node.id={}", at + 1),
        format!("listen.client={}", address(at, 0)),
        format!("listen.peer={}", address(at, 1)),
        format!("listen.admin={}", admin(at)),
        format!("log.level={}", args.log),
    ];
    // The environment's variables are a daemon's: they would be the same for all nodes.
    let sources = Sources { file: None, environment: Some(Default::default()), set };
    let mut effective = sources.load().map_err(|error| Stop::failed(error.to_string()))?;
    // A path need not be a text.
    effective.config.data.dir = args.data.join((at + 1).to_string());
    Ok(effective)
}
