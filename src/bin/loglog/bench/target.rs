//! Target: what is measured, the log at `--endpoints` or nodes of the bench's own.
//!
//! Owns:   the flags that say so; the end of the bench's own nodes, also where it is interrupted.
//! Never:  measures.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loglog::units::parse_duration;
use loglog_client::Client;
use tokio::signal::unix::{SignalKind, signal};

use super::disk::{self, Disk};
use super::nodes::{OwnNodes, Plan};
use super::probe::Probe;
use crate::admin;
use crate::connect::{Endpoints, stop};
use crate::exit::{Exit, Outcome, Stop};

/// How long nodes may take to form a cluster, or to recover a log.
const STARTING: Duration = Duration::from_secs(120);

/// Where to measure.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Where {
    /// Measure nodes of the bench's own, so many, and not the log at --endpoints: processes on this machine that are stopped at the
    /// end, with their data.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=7))]
    pub(super) nodes: Option<u16>,

    /// Below which folder --nodes keep their data [default: .]; without --nodes: the node's folder, if its disk is to be measured as well.
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,

    /// Configuration of --nodes, as loglogd's --set: `--set 'segment.bytes_max=256 MiB'`.
    #[arg(long, value_name = "KEY=VALUE", requires = "nodes")]
    pub(super) set: Vec<String>,

    /// How long a client with one request open on a connection (--in-flight 1) looks for its answer without sleeping. The node's side: --set
    /// 'connection.busy_poll=100 us'.
    #[arg(long, value_name = "TIME", default_value = "0 s", value_parser = parse_duration)]
    pub(super) busy_poll: Duration,

    /// Admin endpoints of the nodes, with commas between, to learn what they use (those of --nodes are known).
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "nodes")]
    pub(super) admin: Vec<String>,
}

/// What is measured.
#[derive(Debug)]
pub(super) struct Target {
    busy_poll: Duration,
    at: Endpoints,
    admins: Vec<String>,
    /// The folder on the disk that is to be measured.
    data: Option<PathBuf>,
    own: Option<OwnNodes>,
}

impl Where {
    /// Opens the target, has `work` measure it, and closes it, whatever came of that. An interrupt ends all of it.
    pub(super) async fn measure<T>(
        &self,
        at: &Endpoints,
        work: impl AsyncFnOnce(&mut Target) -> Outcome<T>,
    ) -> Outcome<T> {
        let failed = |error| Stop::failed(format!("cannot listen to signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let whole = async {
            let mut target = self.open(at).await?;
            let result = work(&mut target).await;
            let closed = target.close().await;
            let result = result?;
            closed.map(|()| result)
        };
        // What is dropped here kills its processes and removes its folder.
        tokio::select! {
            biased;
            _ = terminate.recv() => Err(Stop::failed("interrupted by SIGTERM")),
            _ = interrupt.recv() => Err(Stop::failed("interrupted")),
            result = whole => result,
        }
    }

    async fn open(&self, at: &Endpoints) -> Outcome<Target> {
        let Some(nodes) = self.nodes else {
            let (admins, data) = (self.admin.clone(), self.data.clone());
            return Ok(Target { busy_poll: self.busy_poll, at: at.clone(), admins, data, own: None });
        };
        let plan = Plan { nodes, set: self.set.clone(), patience: STARTING };
        let data = self.data.as_deref().unwrap_or(Path::new("."));
        let own = OwnNodes::start(plan, data).await?;
        let (busy_poll, at) = (self.busy_poll, Endpoints::of(""));
        let mut target = Target { busy_poll, at, admins: Vec::new(), data: None, own: Some(own) };
        target.learn().await?;
        Ok(target)
    }
}

impl Target {
    /// A client of its own connections.
    pub(super) async fn client(&self) -> Outcome<Client> {
        let client = self.at.connect_as(|builder| builder.busy_poll(self.busy_poll));
        client.await.map_err(|failure| match failure {
            Stop::Failure(Exit::Unavailable, message) => Stop::new(
                Exit::Unavailable,
                format!("{message}; or --nodes 1 measures a node of the bench's own"),
            ),
            other => other,
        })
    }

    /// Where a node listens, for benches with a protocol-light client of their own.
    pub(super) fn address(&self) -> Outcome<String> {
        let first = self.at.list().next().unwrap_or_default();
        if first.starts_with("unix:") {
            let message =
                format!("this bench needs a node's host:port, not {first}: see --endpoints or --nodes");
            return Err(Stop::new(Exit::Usage, message));
        }
        Ok(first.to_owned())
    }

    /// The folder on the disk that is written to.
    pub(super) fn data_or_here(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("."))
    }

    /// Ends the bench's own nodes, in order or with kill -9.
    pub(super) async fn end(&mut self, kill: bool) -> Outcome {
        match &mut self.own {
            Some(own) if kill => own.kill(),
            Some(own) => own.stop().await?,
            None => {}
        }
        Ok(())
    }

    /// Starts them again. Returns how long it took until the first of them answered where the log ends, linearizably.
    pub(super) async fn start_again(&mut self) -> Outcome<Duration> {
        let began = Instant::now();
        let Some(own) = &mut self.own else { return Ok(Duration::ZERO) };
        own.start_again().await?;
        self.at = Endpoints::of(&own.endpoints());
        let answering = async { self.client().await?.end(true).await.map_err(|error| stop(&error)) };
        answering.await?;
        let took = began.elapsed();
        self.learn().await?;
        Ok(took)
    }

    /// What the nodes use, as far as is known where to ask.
    pub(super) fn probe(&self) -> Probe {
        Probe::new(self.admins.clone())
    }

    /// How fast the disk is, where that may be tried.
    pub(super) fn disk(&self) -> Outcome<Option<Disk>> {
        self.data.as_deref().map(disk::measure).transpose()
    }

    /// Where each member's clients connect, and who leads; asked of the log itself.
    pub(super) async fn members(&self) -> Outcome<Vec<(String, bool)>> {
        let client = self.client().await?;
        let welcome = client.welcome().await.map_err(|error| stop(&error))?;
        let leads = |node| welcome.leader == Some(node);
        Ok(welcome.members.iter().map(|member| (member.address.clone(), leads(member.node))).collect())
    }

    /// Notes where the nodes of our own are, and waits until all of them can do their work.
    async fn learn(&mut self) -> Outcome {
        let Some(own) = &self.own else { return Ok(()) };
        self.at = Endpoints::of(&own.endpoints());
        self.admins = own.admins();
        self.data = Some(own.folder().to_owned());
        let deadline = Instant::now() + STARTING;
        for node in &self.admins {
            loop {
                let answer = admin::get(node, "/health/ready")?;
                if answer["ready"].as_bool() == Some(true) {
                    break;
                }
                if Instant::now() > deadline {
                    let why = answer["why"].as_str().unwrap_or("it does not say why");
                    return Err(Stop::new(Exit::Unavailable, format!("the bench's own nodes: {why}")));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    async fn close(mut self) -> Outcome {
        match &mut self.own {
            Some(own) => own.stop().await,
            None => Ok(()),
        }
    }
}
