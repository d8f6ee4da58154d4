//! Listener actor: accepts clients.
//!
//! Owns:   the listening sockets, the limit on connections, and their names.
//! Keeps:  clients that find no place wait in the kernel's backlog instead of being cut off.
//! Never:  reads a byte from a client.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, StreamHandler};
use actix_rt::ArbiterHandle;
use futures_util::Stream;
use serde_json::json;
use slog::warn;

use crate::client_socket::{ClientSocket, ClientSockets};
use crate::connection::{Connection, Drain};
use crate::faults::{Fault, fail_as_told};
use crate::guard::{Ctx, Restart};
use crate::services::Services;
use crate::supervisor::{Child, Handle, Supervisor};

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "listener";

/// Wait after a failed accept: the process may be out of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The actor.
pub struct Listener {
    /// Taken when it starts.
    sockets: Option<(Option<TcpListener>, Option<UnixListener>)>,
    services: Arc<Services>,
    connections: Connections,
    /// Whether accepting fails, and that was told.
    is_failing: bool,
}

/// The connections that live. Outlives the listener's restarts.
#[derive(Clone)]
pub struct Connections {
    supervisor: Supervisor,
    arbiter: ArbiterHandle,
    max: u64,
    next: Arc<AtomicU64>,
    living: Arc<std::sync::Mutex<BTreeMap<u64, Handle<Connection>>>>,
    /// Of those that live, how many came through a socket: only these take a place that another may want.
    through_sockets: Arc<AtomicU64>,
}

impl Connections {
    /// None yet; at most `max` through sockets at a time, in the thread of `arbiter`.
    pub fn new(supervisor: Supervisor, arbiter: ArbiterHandle, max: u64) -> Self {
        let (next, living, through_sockets) = (Arc::new(AtomicU64::new(1)), Arc::default(), Arc::default());
        Self { supervisor, arbiter, max, next, living, through_sockets }
    }

    /// A connection more; whoever asks sees to it that there is room.
    pub(crate) fn open(&self, socket: ClientSocket, services: &Arc<Services>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let child = Child {
            name: format!("connection-{number}"),
            kind: "Connection",
            parent: NAME.to_owned(),
            restart: Restart::Never,
        };
        let (own, count) = (Arc::clone(services), Arc::clone(&services.connections));
        let place = u64::from(!matches!(socket, ClientSocket::Local(_)));
        let build = move || Connection::new(number, socket, own, count);
        let handle = self.supervisor.spawn_once(child, &self.arbiter, build);
        self.lock().insert(number, handle.clone());
        self.through_sockets.fetch_add(place, Ordering::Relaxed);
        let (living, places) = (Arc::clone(&self.living), Arc::clone(&self.through_sockets));
        self.arbiter.spawn(async move {
            handle.ended().await;
            living.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&number);
            places.fetch_sub(place, Ordering::Relaxed);
        });
    }

    fn has_room(&self) -> bool {
        self.through_sockets.load(Ordering::Relaxed) < self.max
    }

    /// Tells every connection to take no more requests, and waits until the last has ended.
    pub async fn drain(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for connection in &all {
            // One that is gone needs no telling.
            let _ = connection.tell(Drain);
        }
        for connection in all {
            connection.ended().await;
        }
    }

    /// Ends every connection at once.
    pub fn kill(&self) {
        for connection in self.lock().values() {
            connection.kill();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Handle<Connection>>> {
        self.living.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Listener {
    /// Accepts from `sockets`, which are bound already.
    pub(crate) fn new(sockets: &ClientSockets, services: Arc<Services>, connections: Connections) -> Self {
        let tcp = sockets.tcp.as_ref().map(TcpListener::try_clone).transpose();
        let unix = sockets.unix.as_ref().map(|unix| unix.listener.try_clone()).transpose();
        // Without either it fails at its start, and is started again.
        let sockets = tcp.and_then(|tcp| Ok((tcp, unix?))).ok();
        Self { sockets, services, connections, is_failing: false }
    }

    fn listen(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some((tcp, unix)) = self.sockets.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(tcp) = tcp {
            tcp.set_nonblocking(true)?;
            let tcp = Accepting::Tcp(tokio::net::TcpListener::from_std(tcp)?);
            ctx.add_stream(accept_all(tcp, self.connections.clone()));
        }
        if let Some(unix) = unix {
            unix.set_nonblocking(true)?;
            let unix = Accepting::Unix(tokio::net::UnixListener::from_std(unix)?);
            ctx.add_stream(accept_all(unix, self.connections.clone()));
        }
        Ok(())
    }
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    async fn accept(&self) -> io::Result<ClientSocket> {
        match self {
            Self::Tcp(listener) => Ok(ClientSocket::Tcp(listener.accept().await?.0.into_std()?)),
            Self::Unix(listener) => Ok(ClientSocket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

/// Clients, one after the other, as there is room for them.
fn accept_all(from: Accepting, connections: Connections) -> impl Stream<Item = io::Result<ClientSocket>> {
    futures_util::stream::unfold(from, move |from| {
        let connections = connections.clone();
        async move {
            while !connections.has_room() {
                actix_rt::time::sleep(PAUSE).await;
            }
            let accepted = from.accept().await;
            if accepted.is_err() {
                actix_rt::time::sleep(PAUSE).await;
            }
            Some((accepted, from))
        }
    })
}

impl Actor for Listener {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.services.faults.on_start(NAME);
        ctx.show(|listener| {
            json!({
                "connections": listener.connections.lock().len(),
                "connections_max": listener.connections.max,
            })
        });
        // The socket was bound before; what fails here fails again, and the supervisor gives up on it.
        self.listen(ctx).expect("a bound socket can be listened to");
    }
}

impl StreamHandler<io::Result<ClientSocket>> for Listener {
    fn handle(&mut self, accepted: io::Result<ClientSocket>, ctx: &mut Self::Context) {
        match accepted {
            Ok(socket) => {
                self.is_failing = false;
                self.connections.open(socket, &self.services);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(ctx.log(), "cannot accept clients for now"; "error" => %error);
                }
            }
        }
    }
}

impl Handler<Fault> for Listener {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
