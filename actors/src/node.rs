//! Node: puts the actors together, restarts what only it can restart, and ends in order.
//!
//! ```text
//!   lock directory ─► bind ─► recover ─► listen          serve until told to stop          close ─► drain ─► sync
//! ```
//!
//! Owns:   the directory's lock, the tree of actors, the decision to give up.
//! Never:  handles a request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use actix_rt::Arbiter;
use loglog_core::upload::UploadLimits;
use loglog_core::{Role, Settings};
use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId};
use loglog_storage::{DataDir, FormError, InstallError, IoFailure, LockError, Membership, OsVfs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::backoff::{Backoff, Decision, Limits};
use crate::consensus::{ConsensusSlot, HandOver, InstallFailed};
use crate::credits::NodeCredits;
use crate::faults::Faults;
use crate::genesis::{self, reached_at};
use crate::guard::Restart;
use crate::listener::{self, Close, Connections, Listener};
use crate::peer::fetcher::FetcherSlot;
use crate::peer::formation::{self, ClusterNode, FormationError};
use crate::peer::links::{LinkParts, Links};
use crate::peer::listener::PeerParts;
use crate::peer::pace::Pace;
use crate::peer::port::PeerPort;
use crate::peer::receiver::{Received, ReceiverParts};
use crate::peer::socket;
use crate::peer::{PeerIdentity, SharedIdentity};
use crate::read_waiters::{self, ReadWaiters};
use crate::services::Services;
use crate::storage_group::{Fatal, GroupParts, Opened, RecoveryError, StorageGroup};
use crate::supervisor::{Child, ChildEvent, ChildEventKind, Handle, Supervisor};
use crate::upload_buffer::{self, UploadBuffer};
use crate::view::LogView;

/// How long an upload waits for its append.
const UPLOAD_EXPIRY: Duration = Duration::from_secs(30);
/// How long a starting node waits until all that it recovered is committed again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an actor, or the storage group, may be restarted, and how fast.
const LIMITS: Limits = Limits {
    restarts_max: 8,
    window: Duration::from_secs(60),
    delay_min: Duration::from_millis(20),
    delay_max: Duration::from_millis(500),
};
/// How long a leader that stops waits for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stopping node waits for what is in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(3500);

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where data lies; made if missing.
    pub data_dir: PathBuf,
    /// Whose log it is; a new directory gets it, another's is refused. A new directory without it draws one.
    pub cluster: Option<ClusterId>,
    /// This node's number.
    pub node: NodeId,
    /// Where clients connect.
    pub listen_client: SocketAddr,
    /// Where peers connect.
    pub listen_peer: SocketAddr,
    /// The nodes of a static cluster, this one among them; none or one: the node is alone. Counts for a new directory.
    pub cluster_nodes: Vec<ClusterNode>,
    /// An empty directory waits to be taken in by the cluster `cluster`; `cluster_nodes` is empty then.
    pub join: bool,
    /// Where clients reach this node, `host:port`, if not where it listens; counts for a node alone.
    pub advertise_client: Option<String>,
    /// Where peers reach this node, as above.
    pub advertise_peer: Option<String>,
    /// Entry bytes of a segment; counts for a new directory.
    pub segment_bytes_max: Length,
    /// Bytes that requests may hold in memory.
    pub upload_bytes_max: usize,
    /// The same for one connection.
    pub connection_bytes_max: u32,
    /// Connections at a time.
    pub connections_max: u64,
    /// How fast this node copies from others what it missed, bytes a second; 0: as fast as it goes.
    pub bulk_bytes_per_second: u64,
    /// Appends are refused below this much free space, bytes.
    pub free_min: u64,
    /// Cut a corrupt log instead of refusing it.
    pub accept_loss: bool,
    /// Time between Raft's ticks.
    pub tick: Duration,
    /// Whether clients may inject faults.
    pub are_faults_allowed: bool,
    /// The program's version, for those who ask.
    pub version: &'static str,
}

/// Why a node ended, other than being told to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The directory is taken or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory cannot be read.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// The directory cannot be made a node's.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The address cannot be listened to.
    #[error("cannot listen on {address} (listen.client): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The peer port cannot be listened to.
    #[error("cannot listen on {address} (listen.peer): {source}")]
    BindPeer {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The cluster cannot form.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The log cannot be opened.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The directory belongs to another node number.
    #[error("{} belongs to node {found}; this is node {expected} (node.id)", path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// What the configuration says.
        expected: NodeId,
        /// What the directory says.
        found: NodeId,
    },
    /// What was to be kept cannot be kept any more.
    #[error(
        "{0}; the process ends, since a disk that failed once cannot be trusted until the log is recovered anew"
    )]
    Disk(String),
    /// An actor failed too often.
    #[error("{actor} panicked too often: {panic}")]
    GaveUp {
        /// Which.
        actor: String,
        /// Its last words.
        panic: String,
    },
}

/// A node that serves.
pub struct Node {
    services: Arc<Services>,
    listener: Handle<Listener>,
    connections: Connections,
    uploads: Handle<UploadBuffer>,
    waiters: Handle<ReadWaiters>,
    group: StorageGroup,
    dir: Arc<DataDir>,
    installs: UnboundedReceiver<Received>,
    identity: SharedIdentity,
    /// The log is being repaired from other nodes; the storage group is down meanwhile.
    mending: Option<JoinHandle<Result<(), RecoveryError>>>,
    events: UnboundedReceiver<ChildEvent>,
    fatal: UnboundedReceiver<String>,
    group_backoff: Backoff,
    rng: StdRng,
    address: SocketAddr,
    net: Arbiter,
    log: Logger,
}

impl Node {
    /// Recovers the log and starts to serve. Must run in an actix system.
    ///
    /// # Errors
    /// [`NodeError`] says what stands in the way; nothing was changed, save by recovery.
    pub async fn start(options: NodeOptions, log: Logger) -> Result<Self, NodeError> {
        let began = Instant::now();
        let mut rng = StdRng::from_os_rng();
        let dir = Arc::new(DataDir::lock(Arc::new(OsVfs::default()), &options.data_dir)?);
        let (socket, address) = bind(options.listen_client)?;
        let (supervisor, events) = Supervisor::new(log.clone(), rng.random());
        let (fatal_sender, mut fatal) = unbounded_channel();
        let fatal_handle = Fatal::new(fatal_sender);
        let net = Arbiter::new();
        let consensus_arbiter = net.handle();
        let (view, slot, faults) =
            (Arc::new(LogView::default()), ConsensusSlot::default(), Faults::default());
        let (upload_bytes, waiting_reads, traffic) = (Arc::default(), Arc::default(), Arc::default());
        let fetcher = FetcherSlot::default();

        let uploads = {
            let limits = UploadLimits {
                bytes_max: options.upload_bytes_max,
                client_bytes_max: options.connection_bytes_max as usize,
                expiry_ms: u64::try_from(UPLOAD_EXPIRY.as_millis()).unwrap_or(u64::MAX),
            };
            let (slot, faults, bytes) = (slot.clone(), faults.clone(), Arc::clone(&upload_bytes));
            let (view, fetcher) = (Arc::clone(&view), fetcher.clone());
            supervisor.spawn(permanent(upload_buffer::NAME, "UploadBuffer"), &net.handle(), move || {
                let (view, fetcher) = (Arc::clone(&view), fetcher.clone());
                UploadBuffer::new(limits, slot.clone(), view, fetcher, faults.clone(), Arc::clone(&bytes))
            })
        };
        let waiters = {
            let (view, faults, count) = (Arc::clone(&view), faults.clone(), Arc::clone(&waiting_reads));
            supervisor.spawn(permanent(read_waiters::NAME, "ReadWaiters"), &net.handle(), move || {
                ReadWaiters::new(Arc::clone(&view), faults.clone(), Arc::clone(&count))
            })
        };
        faults.enlist(upload_buffer::NAME, &uploads);
        faults.enlist(read_waiters::NAME, &waiters);

        let mut group = StorageGroup::new(GroupParts {
            dir: Arc::clone(&dir),
            cluster: options.cluster,
            accept_loss: options.accept_loss,
            settings: Settings { free_min: options.free_min, ..Settings::default() },
            tick: options.tick,
            seed: rng.random(),
            supervisor: supervisor.clone(),
            waiters: waiters.clone(),
            uploads: uploads.clone(),
            peers: None,
            here: None,
            slot: slot.clone(),
            view: Arc::clone(&view),
            fatal: fatal_handle.clone(),
            faults: faults.clone(),
            consensus_arbiter,
            log: log.clone(),
        });
        let (whole, installs) = unbounded_channel();
        let is_cluster = options.cluster_nodes.len() > 1;
        let bind_peer = |source| NodeError::BindPeer { address: options.listen_peer, source };
        let pace = Pace::new(options.bulk_bytes_per_second);
        let port = |cluster, incarnation| {
            let identity = Arc::new(PeerIdentity {
                cluster,
                node: options.node,
                incarnation,
                segment_bytes_max: options.segment_bytes_max,
                address: peer_address(&options),
                patience: socket::patience(options.tick, Settings::default().election_ticks),
                membership: RwLock::new(None),
                introduced: Mutex::default(),
                life: AtomicU64::new(0),
            });
            let links = Arc::new(Links::new(LinkParts {
                identity: Arc::clone(&identity),
                consensus: slot.clone(),
                supervisor: supervisor.clone(),
                arbiter: net.handle(),
                faults: faults.clone(),
            }));
            PeerPort::new(PeerParts {
                identity,
                consensus: slot.clone(),
                view: Arc::clone(&view),
                supervisor: supervisor.clone(),
                arbiter: net.handle(),
                next: Arc::default(),
                links,
                living: Arc::default(),
                uploads: uploads.clone(),
                fetcher: fetcher.clone(),
                traffic: Arc::clone(&traffic),
                pace: pace.clone(),
                faults: faults.clone(),
            })
        };
        let mut peers = None;
        if !dir.is_formed()? {
            // Before anybody hears of this node: what has segments and no `meta` is no new node.
            dir.check_new()?;
            let state = if is_cluster {
                let cluster = formation::check(&options.cluster_nodes, options.node, options.cluster)?;
                let drawn = || draw(|| Incarnation::new(rng.random()));
                let incarnation = formation::incarnation(&options.data_dir, drawn)?;
                let peers = peers.insert(port(cluster, incarnation));
                peers.open(options.listen_peer).map_err(bind_peer)?;
                let membership = formation::gather(&options.cluster_nodes, peers.identity(), &log).await?;
                genesis::formed(&options, cluster, incarnation, membership)
            } else {
                let incarnation = draw(|| Incarnation::new(rng.random()));
                match options.cluster {
                    Some(cluster) if options.join => genesis::joining(&options, cluster, incarnation),
                    cluster => {
                        let cluster = cluster.unwrap_or_else(|| draw(|| ClusterId::new(rng.random())));
                        genesis::alone(&options, cluster, incarnation)
                    }
                }
            };
            dir.form(&state)?;
            formation::forget(&options.data_dir);
            info!(log, "made a new log"; "cluster" => %state.cluster, "dir" => %options.data_dir.display());
        }
        let known = dir.peek().map_err(RecoveryError::Open)?;
        let mut peers = peers.unwrap_or_else(|| port(known.cluster, known.incarnation));
        peers.know(&known.membership);
        let Opened { state, end } = loop {
            match group.recover().await {
                Ok(opened) => break opened,
                Err(refused) => match group.mender(&refused, peers.identity()) {
                    Some(mender) => mender.mend().await?,
                    None => return Err(refused.into()),
                },
            }
        };
        if state.node != options.node {
            let (path, expected, found) = (options.data_dir.clone(), options.node, state.node);
            return Err(NodeError::OtherNode { path, expected, found });
        }
        let Membership { voters, learners, .. } = &state.membership;
        let is_alone = voters.len() == 1 && learners.is_empty();
        match peers.open(options.listen_peer) {
            Ok(()) => {}
            // It can serve all the same; only nobody can be taken in.
            Err(error) if is_alone => warn!(log, "no port for peers: this node can take in no others";
                "address" => %options.listen_peer, "error" => %error),
            Err(error) => return Err(bind_peer(error)),
        }
        if state.membership.index == Index::ZERO {
            info!(log, "waiting to be taken in"; "add_it_with" => format!(
                "loglog members add {} --peer {} --client {}", options.node, peers.identity().address,
                reached_at(options.advertise_client.as_ref(), address)));
        }
        let identity = Arc::clone(peers.identity());
        let receiver = ReceiverParts {
            identity: Arc::clone(&identity),
            consensus: slot.clone(),
            dir: Arc::clone(&dir),
            whole,
            pace: pace.clone(),
            traffic: Arc::clone(&traffic),
            fatal: fatal_handle,
            faults: faults.clone(),
        };
        // What a static cluster is configured with stands; any other node says where it is reached.
        let here = (!is_cluster)
            .then(|| (identity.address.clone(), reached_at(options.advertise_client.as_ref(), address)));
        group.set_peers(peers.start(&state.membership, receiver), here.clone());
        group.run();
        // A client that knew more of the log before a restart is not to be told that it ends earlier. (A panic
        // meanwhile is seen to once the node serves: then clients wait instead.)
        let began_waiting = Instant::now();
        while is_alone && view.committed() < end && began_waiting.elapsed() < COMMIT_TIMEOUT {
            if let Ok(reason) = fatal.try_recv() {
                return Err(NodeError::Disk(reason));
            }
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }

        let services = Arc::new(Services {
            identity,
            client_address: here.map(|(_, client)| client),
            view,
            uploads: uploads.clone(),
            waiters: waiters.clone(),
            consensus: slot,
            registry: supervisor.registry().clone(),
            faults: faults.clone(),
            are_faults_allowed: options.are_faults_allowed,
            credits: NodeCredits::new(options.upload_bytes_max, options.connection_bytes_max),
            connection_bytes_max: options.connection_bytes_max,
            connections: Arc::default(),
            upload_bytes,
            waiting_reads,
            traffic: Arc::clone(&traffic),
            data_dir: options.data_dir.clone(),
            began,
            version: options.version,
        });
        let connections = Connections::new(supervisor.clone(), net.handle(), options.connections_max);
        let listener = {
            let (services, connections) = (Arc::clone(&services), connections.clone());
            supervisor.spawn(permanent(listener::NAME, "Listener"), &net.handle(), move || {
                Listener::new(socket.try_clone().ok(), Arc::clone(&services), connections.clone())
            })
        };
        faults.enlist(listener::NAME, &listener);
        Ok(Self {
            services,
            listener,
            connections,
            uploads,
            waiters,
            group,
            dir,
            installs,
            identity: Arc::clone(peers.identity()),
            mending: None,
            events,
            fatal,
            group_backoff: Backoff::new(LIMITS),
            rng,
            address,
            net,
            log,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.services.identity
    }

    /// Serves until `stop` is done, then ends in order: accepts nobody, finishes what is in flight, syncs.
    ///
    /// # Errors
    /// [`NodeError`] where it had to give up before.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return self.stop().await,
                Some(reason) = self.fatal.recv() => return Err(self.give_up(NodeError::Disk(reason)).await),
                Some(received) = self.installs.recv() => {
                    if let Err(error) = self.install(received).await {
                        return Err(self.give_up(error).await);
                    }
                }
                mended = ended(&mut self.mending) => {
                    self.mending = None;
                    let recovered = match mended {
                        Ok(()) => self.recover().await,
                        Err(error) => Err(error.into()),
                    };
                    if let Err(error) = recovered {
                        return Err(self.give_up(error).await);
                    }
                }
                Some(event) = self.events.recv() => {
                    if let Err(error) = self.heed(event).await {
                        return Err(self.give_up(error).await);
                    }
                }
            }
        }
    }

    /// Nothing is served any more, also where the process goes on: a node may live inside another program.
    async fn give_up(&mut self, error: NodeError) -> NodeError {
        error!(self.log, "the node gives up"; "reason" => %error);
        self.stop_mending();
        self.listener.kill();
        self.connections.kill();
        self.group.stop(true).await;
        error
    }

    async fn heed(&mut self, event: ChildEvent) -> Result<(), NodeError> {
        match event.kind {
            ChildEventKind::Ended { panic: Some(panic) } if StorageGroup::has(&event.name) => {
                self.restart_group(&event.name, panic.to_string()).await
            }
            ChildEventKind::GaveUp { panic } => {
                Err(NodeError::GaveUp { actor: event.name.to_string(), panic: panic.to_string() })
            }
            ChildEventKind::Restarted { .. } | ChildEventKind::Ended { .. } => Ok(()),
        }
    }

    /// One member is gone: the others go too, and all come back through recovery.
    async fn restart_group(&mut self, name: &str, panic: String) -> Result<(), NodeError> {
        if self.mending.is_some() {
            // It is down already; this is told of the life before.
            return Ok(());
        }
        self.group.stop(true).await;
        // Members that went down with it, or because of it, are part of the same restart.
        while let Ok(event) = self.events.try_recv() {
            if !StorageGroup::has(&event.name)
                && let ChildEventKind::GaveUp { panic } = event.kind
            {
                return Err(NodeError::GaveUp { actor: event.name.to_string(), panic: panic.to_string() });
            }
        }
        // A disk that failed is not to be written again by this process (S2).
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        match self.group_backoff.on_panic(Instant::now(), &mut self.rng) {
            Decision::GiveUp => Err(NodeError::GaveUp { actor: name.to_owned(), panic }),
            Decision::RestartAfter(delay) => {
                warn!(self.log, "restarting the storage group through recovery"; "member" => name, "delay" => ?delay);
                actix_rt::time::sleep(delay).await;
                self.recover().await
            }
        }
    }

    /// Puts a snapshot in place, between two lives of the storage group (S25).
    async fn install(&mut self, received: Received) -> Result<(), NodeError> {
        let Received { installer, last, end, generation } = received;
        if self.mending.is_some() || generation != self.services.view.generation() {
            // A repair goes on, or a recovery has removed the files: whoever leads sends another snapshot if one is needed.
            if let Some(consensus) = self.services.consensus.get() {
                let _ = consensus.tell(InstallFailed);
            }
            return Ok(());
        }
        self.group.stop(false).await;
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        let (dir, ours) = (Arc::clone(&self.dir), self.services.view.reader());
        let installing = tokio::task::spawn_blocking(move || {
            let ours = ours.expect("a log was recovered before a snapshot came");
            dir.finish_install(installer, last, end, &ours)
        });
        match installing.await {
            Ok(Ok(())) => {
                info!(self.log, "a snapshot took the place of the log"; "last" => %last)
            }
            // The old log is still there; the leader sends another snapshot if one is needed.
            Ok(Err(error @ (InstallError::Invalid { .. } | InstallError::NoSpace { .. }))) => {
                warn!(self.log, "a snapshot is not put in place"; "error" => %error);
            }
            Ok(Err(error)) => {
                return Err(NodeError::Disk(format!("cannot put a snapshot in place: {error}")));
            }
            Err(error) => {
                return Err(NodeError::Disk(format!("putting a snapshot in place broke off: {error}")));
            }
        }
        self.recover().await
    }

    /// Has the storage group live again; where its log is damaged, once the other nodes have repaired it (S10).
    async fn recover(&mut self) -> Result<(), NodeError> {
        let refused = match self.group.recover().await {
            Ok(_) => {
                self.group.run();
                return Ok(());
            }
            Err(refused) => refused,
        };
        match self.group.mender(&refused, &self.identity) {
            // On its own, so that the node can be stopped, and goes on serving reads.
            Some(mender) => self.mending = Some(actix_rt::spawn(mender.mend())),
            None => return Err(refused.into()),
        }
        Ok(())
    }

    fn stop_mending(&mut self) {
        if let Some(mending) = self.mending.take() {
            mending.abort();
        }
    }

    /// A leader that is going lets another lead first, so that clients need not wait for an election.
    async fn hand_over(&self) {
        let leads = || self.services.view.consensus().is_some_and(|it| it.role == Role::Leader);
        if self.services.identity.others().is_empty() || !leads() {
            return;
        }
        let Some(consensus) = self.services.consensus.get() else { return };
        // A consensus that is down leads nobody.
        let _ = consensus.tell(HandOver);
        let began = Instant::now();
        while leads() && began.elapsed() < HAND_OVER_TIMEOUT {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
        info!(self.log, "handed over"; "leads_still" => leads(), "took" => ?began.elapsed());
    }

    async fn stop(mut self) -> Result<(), NodeError> {
        info!(self.log, "stopping: finishing what is in flight");
        self.stop_mending();
        self.hand_over().await;
        // A listener that is down accepts nobody either.
        let _ = self.listener.tell(Close);
        tokio::select! {
            drained = tokio::time::timeout(DRAIN_TIMEOUT, self.connections.drain()) => {
                if drained.is_err() {
                    warn!(self.log, "some clients do not take their replies; they are cut off");
                }
            }
            Some(reason) = self.fatal.recv() => return Err(NodeError::Disk(reason)),
        }
        self.uploads.stop();
        self.waiters.stop();
        self.group.stop(false).await;
        self.net.stop();
        // A write that failed just now was acknowledged to nobody, but whoever stopped us should know.
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        info!(self.log, "stopped");
        Ok(())
    }
}

/// How a repair came out; never, while there is none.
async fn ended(mending: &mut Option<JoinHandle<Result<(), RecoveryError>>>) -> Result<(), RecoveryError> {
    match mending {
        Some(mending) => {
            mending.await.unwrap_or_else(|error| Err(RecoveryError::Panicked(error.to_string())))
        }
        None => std::future::pending().await,
    }
}

/// A child that is restarted in place.
pub(crate) fn permanent(name: &str, kind: &'static str) -> Child {
    let restart = Restart::InPlace(LIMITS);
    Child { name: name.to_owned(), kind, parent: "node".to_owned(), restart }
}

/// Where peers reach a node: as its cluster was configured, as it was told, or where it listens.
fn peer_address(options: &NodeOptions) -> String {
    let configured = options.cluster_nodes.iter().find(|node| node.id == options.node);
    let configured = configured.map(|node| &node.peer);
    reached_at(configured.or(options.advertise_peer.as_ref()), options.listen_peer)
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let bound = TcpListener::bind(address).and_then(|socket| {
        let address = socket.local_addr()?;
        Ok((socket, address))
    });
    bound.map_err(|source| NodeError::Bind { address, source })
}

fn draw<T>(mut one: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(drawn) = one() {
            return drawn;
        }
    }
}
