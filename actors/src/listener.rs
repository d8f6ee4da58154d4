//! Listener actor: accepts clients.
//!
//! Owns:   the listening socket, the limit on connections, and their names.
//! Keeps:  clients that find no place wait in the kernel's backlog instead of being cut off.
//! Never:  reads a byte from a client.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, StreamHandler};
use actix_rt::ArbiterHandle;
use serde_json::json;
use slog::warn;

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
    socket: Option<std::net::TcpListener>,
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
}

impl Connections {
    /// None yet; at most `max` at a time, in the thread of `arbiter`.
    pub fn new(supervisor: Supervisor, arbiter: ArbiterHandle, max: u64) -> Self {
        Self { supervisor, arbiter, max, next: Arc::new(AtomicU64::new(1)), living: Arc::default() }
    }

    fn open(&self, socket: std::net::TcpStream, services: &Arc<Services>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let child = Child {
            name: format!("connection-{number}"),
            kind: "Connection",
            parent: NAME.to_owned(),
            restart: Restart::Never,
        };
        let (own, count) = (Arc::clone(services), Arc::clone(&services.connections));
        let build = move || Connection::new(number, socket, own, count);
        let handle = self.supervisor.spawn_once(child, &self.arbiter, build);
        self.lock().insert(number, handle.clone());
        let living = Arc::clone(&self.living);
        self.arbiter.spawn(async move {
            handle.ended().await;
            living.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&number);
        });
    }

    fn has_room(&self) -> bool {
        (self.lock().len() as u64) < self.max
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
    /// Accepts from `socket`, which is bound already.
    pub fn new(
        socket: Option<std::net::TcpListener>,
        services: Arc<Services>,
        connections: Connections,
    ) -> Self {
        Self { socket, services, connections, is_failing: false }
    }

    fn listen(&mut self, ctx: &mut Ctx<Self>) -> io::Result<()> {
        let Some(socket) = self.socket.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        socket.set_nonblocking(true)?;
        let (listener, connections) = (tokio::net::TcpListener::from_std(socket)?, self.connections.clone());
        ctx.add_stream(futures_util::stream::unfold(listener, move |listener| {
            let connections = connections.clone();
            async move {
                while !connections.has_room() {
                    actix_rt::time::sleep(PAUSE).await;
                }
                let accepted = listener.accept().await;
                if accepted.is_err() {
                    actix_rt::time::sleep(PAUSE).await;
                }
                Some((accepted.map(|(stream, _)| stream), listener))
            }
        }));
        Ok(())
    }
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

impl StreamHandler<io::Result<tokio::net::TcpStream>> for Listener {
    fn handle(&mut self, accepted: io::Result<tokio::net::TcpStream>, ctx: &mut Self::Context) {
        match accepted.and_then(tokio::net::TcpStream::into_std) {
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
