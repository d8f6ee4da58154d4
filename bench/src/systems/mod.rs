//! Systems: starting each of them, and the client that suits it best.
//!
//! Owns:   the way from a system to its module, and waiting until it answers.
//! Keeps:  a module starts servers as its system's users are told to where durability counts, and changes nothing else but what
//!         would hold it back here; README.md in this crate lists all of it.

#[cfg(feature = "etcd")]
mod etcd;
mod loglog;
mod nats;
mod redis;
mod resp;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::args::Connections;
use crate::cluster::Cluster;
use crate::gauge::Gauge;
use crate::plan::{Kind, Load, System};
use crate::servers::Server;

/// How long a system may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Starts the servers, which need not answer yet.
pub(crate) fn start(
    system: System,
    server: &Server,
    connections: Connections,
    folder: PathBuf,
) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(folder)?;
    match system.kind {
        Kind::LogLog => loglog::start(&mut cluster, server, system.nodes, connections.busy_poll)?,
        Kind::Redis => redis::start(&mut cluster, server)?,
        Kind::Nats => nats::start(&mut cluster, server, system.nodes)?,
        #[cfg(feature = "etcd")]
        Kind::Etcd => etcd::start(&mut cluster, server, system.nodes)?,
        #[cfg(not(feature = "etcd"))]
        Kind::Etcd => return Err("built without etcd's client".to_owned()),
    }
    Ok(cluster)
}

/// What clients run in: one thread is the fastest for all of them where servers share the cores.
pub(crate) fn runtime(threads: usize) -> Result<Runtime, String> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// Waits until the system has acknowledged something.
pub(crate) async fn answers(system: System, cluster: &mut Cluster) -> Result<(), String> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let last = loop {
        cluster.alive()?;
        let once = async {
            match system.kind {
                Kind::LogLog => loglog::answers(cluster).await,
                Kind::Redis => redis::answers(cluster).await,
                Kind::Nats => nats::answers(cluster).await,
                #[cfg(feature = "etcd")]
                Kind::Etcd => etcd::answers(cluster).await,
                #[cfg(not(feature = "etcd"))]
                Kind::Etcd => Ok(()),
            }
        };
        let last = match tokio::time::timeout(Duration::from_secs(10), once).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => "no answer within 10 s".to_owned(),
        };
        if Instant::now() >= deadline {
            break last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    Err(format!("{system} does not answer: {last}\n{}", cluster.last_words()))
}

/// Appends until the gauge says that it is enough, then waits for what is in flight.
pub(crate) async fn drive(
    system: System,
    cluster: &Cluster,
    load: Load,
    connections: Connections,
    gauge: &Arc<Gauge>,
) -> Result<(), String> {
    match system.kind {
        Kind::LogLog => loglog::drive(cluster, load, connections, gauge).await,
        Kind::Redis => {
            let number = connections.redis_connections.unwrap_or_else(|| redis::connections(load));
            redis::drive(cluster, load, (number, connections.busy_poll), gauge).await
        }
        Kind::Nats => nats::drive(cluster, load, connections.nats_connections, gauge).await,
        #[cfg(feature = "etcd")]
        Kind::Etcd => etcd::drive(cluster, load, connections.etcd_connections, gauge).await,
        #[cfg(not(feature = "etcd"))]
        Kind::Etcd => Err("built without etcd's client".to_owned()),
    }
}

/// Runs what each connection does beside the others, and returns the first error of all, which ends the run for the others.
async fn side_by_side<F>(gauge: &Gauge, each: impl IntoIterator<Item = F>) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut all = tokio::task::JoinSet::new();
    each.into_iter().for_each(|one| drop(all.spawn(one)));
    let mut outcome = Ok(());
    while let Some(ended) = all.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(format!("the load panicked: {error}")));
        if ended.is_err() {
            gauge.give_up();
            outcome = outcome.and(ended);
        }
    }
    outcome
}
