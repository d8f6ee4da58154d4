//! Node start: puts the actors together.
//!
//! Owns:   the order in which a node comes up, and who is given what.
//! Never:  serves; what happens once all of them run is in the parent module.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use loglog_core::Settings;
use loglog_core::upload::UploadLimits;
use loglog_proto::{ClusterId, Incarnation, Index};
use loglog_storage::{DataDir, Membership, OsVfs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slog::{Logger, info, warn};
use tokio::sync::mpsc::unbounded_channel;

use super::{GROUP_TIMEOUT, Node, NodeError, NodeOptions, permanent, tree};
use crate::admin::Admin;
use crate::admin::sources::Sources;
use crate::client_socket::{ClientSockets, UnixSocket};
use crate::consensus::ConsensusSlot;
use crate::credits::NodeCredits;
use crate::faults::Faults;
use crate::genesis::{self, reached_at};
use crate::guard::Restart;
use crate::integrity::Integrity;
use crate::listener::{self, Connections, Listener};
use crate::local_port::LocalPort;
use crate::measures::Measures;
use crate::peer::fetcher::FetcherSlot;
use crate::peer::formation;
use crate::peer::links::{LinkParts, Links};
use crate::peer::listener::PeerParts;
use crate::peer::pace::Pace;
use crate::peer::port::PeerPort;
use crate::peer::receiver::ReceiverParts;
use crate::peer::{PeerIdentity, SharedIdentity, socket};
use crate::read_waiters::{self, ReadWaiters};
use crate::registry::Registry;
use crate::services::Services;
use crate::stats::State;
use crate::storage_group::{Fatal, GroupParts, Opened, RecoveryError, StorageGroup};
use crate::supervisor::Supervisor;
use crate::thread::Thread;
use crate::upload_buffer::{self, UploadBuffer};
use crate::view::LogView;
use crate::watch::Watch;

/// How long an upload waits for its append.
const UPLOAD_EXPIRY: Duration = Duration::from_secs(30);
/// How long a starting node waits until all that it recovered is committed again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl Node {
    /// Recovers the log and starts to serve. Must run in an actix system.
    ///
    /// # Errors
    /// [`NodeError`] says what stands in the way; nothing was changed, save by recovery.
    pub async fn start(options: NodeOptions, log: Logger) -> Result<Self, NodeError> {
        let began = Instant::now();
        let mut rng = StdRng::from_os_rng();
        let dir = Arc::new(DataDir::lock(Arc::new(OsVfs::new(options.direct_io)), &options.data_dir)?);
        let (tcp, address) = match options.listen_client {
            Some(address) => bind(address).map(|(socket, address)| (Some(socket), Some(address)))?,
            None => (None, None),
        };
        let unix = options.listen_unix.as_ref().map(|(path, mode)| {
            UnixSocket::bind(path, *mode).map_err(|source| NodeError::BindUnix { path: path.clone(), source })
        });
        let sockets = Arc::new(ClientSockets { tcp, unix: unix.transpose()? });
        let registry = Registry::new(options.measure);
        let stats = registry.part(tree::NAME, "Node", None, Restart::Never);
        let measures = Arc::new(Measures::new(options.measure));
        let watch = Watch::begin(registry.clone(), Arc::clone(&measures), log.clone());
        let (supervisor, events) = Supervisor::with_registry(log.clone(), rng.random(), registry);
        let (fatal_sender, mut fatal) = unbounded_channel();
        let fatal_handle = Fatal::new(fatal_sender);
        let net = Thread::start();
        let consensus_arbiter = net.handle();
        let (view, slot, faults) =
            (Arc::new(LogView::default()), ConsensusSlot::default(), Faults::default());
        let (upload_bytes, waiting_reads, traffic) = (Arc::default(), Arc::default(), Arc::default());
        let connections_now: Arc<AtomicU64> = Arc::default();
        let sources = Arc::new(Sources {
            node: options.node,
            version: options.version,
            began,
            identity: OnceLock::new(),
            is_serving: AtomicBool::new(false),
            registry: supervisor.registry().clone(),
            view: Arc::clone(&view),
            traffic: Arc::clone(&traffic),
            measures: Arc::clone(&measures),
            connections: Arc::clone(&connections_now),
            upload_bytes: Arc::clone(&upload_bytes),
            waiting_reads: Arc::clone(&waiting_reads),
            segment_bytes_max: options.segment_bytes_max,
            faults: faults.clone(),
            are_faults_allowed: options.are_faults_allowed,
            config: options.config.clone(),
            log: options.log_control.clone(),
        });
        // Before anything takes time: it tells how the start goes.
        let admin = match options.listen_admin {
            Some(address) => Some(
                Admin::start(address, Arc::clone(&sources), log.clone())
                    .map_err(|source| NodeError::BindAdmin { address, source })?,
            ),
            None => None,
        };
        if let Some(admin) = &admin {
            info!(log, "the admin endpoint answers"; "admin" => %admin.address());
        }
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
            tail_bytes: options.tail_bytes_max,
            settings: Settings { free_min: options.free_min, ..Settings::default() },
            tick: options.tick,
            seed: rng.random(),
            supervisor: supervisor.clone(),
            waiters: waiters.clone(),
            uploads: uploads.clone(),
            upload_bytes: Arc::clone(&upload_bytes),
            peers: None,
            here: None,
            slot: slot.clone(),
            view: Arc::clone(&view),
            measures: Arc::clone(&measures),
            fatal: fatal_handle.clone(),
            faults: faults.clone(),
            consensus_arbiter,
            log: log.clone(),
        });
        let (whole, installs) = unbounded_channel();
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
                linked: Mutex::default(),
                life: AtomicU64::new(0),
            });
            let links = Arc::new(Links::new(LinkParts {
                identity: Arc::clone(&identity),
                consensus: slot.clone(),
                view: Arc::clone(&view),
                traffic: Arc::clone(&traffic),
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
            peers = form(&options, &dir, port, &mut rng, &log).await?;
        }
        let known = dir.peek().map_err(RecoveryError::Open)?;
        let mut peers = peers.unwrap_or_else(|| port(known.cluster, known.incarnation));
        peers.know(&known.membership);
        // Set once, here.
        let _ = sources.identity.set(Arc::clone(peers.identity()));
        let Opened { state, end } = open(&mut group, peers.identity()).await?;
        if state.node != options.node {
            let (path, expected, found) = (options.data_dir.clone(), options.node, state.node);
            return Err(NodeError::OtherNode { path, expected, found });
        }
        let Membership { voters, learners, .. } = &state.membership;
        let is_alone = voters.len() == 1 && learners.is_empty();
        match open_peer_port(&mut peers, &options) {
            Ok(()) => {}
            // It can serve all the same; only nobody can be taken in.
            Err(NodeError::NoPeerPort) if is_alone => {}
            Err(error) if is_alone => {
                warn!(log, "no port for peers: this node can take in no others"; "error" => %error)
            }
            Err(error) => return Err(error),
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
        let here = (!options.is_cluster() && (options.listen_peer.is_some() || address.is_some()))
            .then(|| (identity.address.clone(), reached_at(options.advertise_client.as_ref(), address)));
        group.set_peers(peers.start(&state.membership, receiver), here.clone());
        group.run();
        // From here on there is a writer: who gives this start up must not leave the directory to another node while that one may write (S13).
        let running = Running(Some(Arc::clone(&dir)));
        // A client that knew more of the log before a restart is not to be told that it ends earlier. (A panic
        // meanwhile is seen to once the node serves: then clients wait instead.)
        let began_waiting = Instant::now();
        while is_alone && view.committed() < end && began_waiting.elapsed() < COMMIT_TIMEOUT {
            if let Ok(reason) = fatal.try_recv() {
                // A member that hangs keeps the directory.
                if tokio::time::timeout(GROUP_TIMEOUT, group.stop(true)).await.is_ok() {
                    running.seen_to();
                }
                return Err(NodeError::Disk(reason));
            }
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }

        let (found, suspects) = unbounded_channel();
        let integrity = Arc::new(Integrity::new(
            Arc::clone(&view),
            Arc::clone(&identity),
            Arc::clone(&measures),
            found,
            log.clone(),
        ));
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
            busy_poll: options.busy_poll,
            connections: connections_now,
            upload_bytes,
            waiting_reads,
            traffic: Arc::clone(&traffic),
            measures,
            integrity,
            data_dir: options.data_dir.clone(),
            began,
            version: options.version,
        });
        let connections = Connections::new(supervisor.clone(), net.handle(), options.connections_max);
        let listener = {
            let (services, connections, sockets) =
                (Arc::clone(&services), connections.clone(), Arc::clone(&sockets));
            supervisor.spawn(permanent(listener::NAME, "Listener"), &net.handle(), move || {
                Listener::new(&sockets, Arc::clone(&services), connections.clone())
            })
        };
        faults.enlist(listener::NAME, &listener);
        let local = LocalPort::new(connections.clone(), Arc::clone(&services));
        sources.set_serving(true);
        stats.set_state(State::Running);
        running.seen_to();
        Ok(Self {
            sources,
            admin,
            services,
            listener,
            local,
            connections,
            uploads,
            waiters,
            group,
            dir,
            installs,
            suspects,
            identity: Arc::clone(peers.identity()),
            mending: None,
            lease: None,
            events,
            fatal,
            family: tree::family(rng),
            stats,
            _watch: watch,
            address,
            net,
            log,
        })
    }
}

/// A storage group that nobody has yet who would stop it: if none comes, its directory stays locked for as long as this process lives.
struct Running(Option<Arc<DataDir>>);

impl Running {
    fn seen_to(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Makes an empty directory this node's. A static cluster forms with the peer port open: that port is given back then.
async fn form(
    options: &NodeOptions,
    dir: &DataDir,
    port: impl FnOnce(ClusterId, Incarnation) -> PeerPort,
    rng: &mut StdRng,
    log: &Logger,
) -> Result<Option<PeerPort>, NodeError> {
    let mut peers = None;
    let state = if options.is_cluster() {
        let cluster = formation::check(&options.cluster_nodes, options.node, options.cluster)?;
        let drawn = || draw(|| Incarnation::new(rng.random()));
        let incarnation = formation::incarnation(&options.data_dir, drawn)?;
        let peers = peers.insert(port(cluster, incarnation));
        open_peer_port(peers, options)?;
        let membership = formation::gather(&options.cluster_nodes, peers.identity(), log).await?;
        genesis::formed(options, cluster, incarnation, membership)
    } else {
        let incarnation = draw(|| Incarnation::new(rng.random()));
        match options.cluster {
            Some(cluster) if options.join => genesis::joining(options, cluster, incarnation),
            cluster => {
                let cluster = cluster.unwrap_or_else(|| draw(|| ClusterId::new(rng.random())));
                genesis::alone(options, cluster, incarnation)
            }
        }
    };
    dir.form(&state)?;
    formation::forget(&options.data_dir);
    info!(log, "made a new log"; "cluster" => %state.cluster, "dir" => %options.data_dir.display());
    Ok(peers)
}

/// Recovers the log; where it is damaged, once the other nodes have repaired it (S10).
async fn open(group: &mut StorageGroup, identity: &SharedIdentity) -> Result<Opened, NodeError> {
    loop {
        match group.recover(None).await {
            Ok(opened) => return Ok(opened),
            Err(refused) => match group.mender(&refused, None, identity) {
                Some(mender) => mender.mend().await?,
                None => return Err(refused.into()),
            },
        }
    }
}

fn open_peer_port(peers: &mut PeerPort, options: &NodeOptions) -> Result<(), NodeError> {
    let address = options.listen_peer.ok_or(NodeError::NoPeerPort)?;
    peers.open(address).map_err(|source| NodeError::BindPeer { address, source })
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
