//! Admin: introspection over HTTP, from a thread of its own, so that it answers when others are stuck.
//!
//! ```text
//!   browser, loglog actors, Prometheus ──HTTP──► thread "admin" ──looks at──► Sources: counters, watermarks, settings
//! ```
//!
//! Owns:   the port, its thread, the bounds on what a client of it may use.
//! Keeps:  it ends with the node; it handles no signals, since the program around the node may be another's.
//! Never:  asks an actor and waits for it.

mod answers;
mod api;
mod guard;
mod health;
mod metrics;
mod page;
mod refused;
pub mod sources;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix_web::http::KeepAlive;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer, web};
use rustix::net::sockopt::set_tcp_user_timeout;
use slog::{Logger, error};
use tokio::sync::oneshot;

use self::guard::Guard;
use self::metrics::Metrics;
use self::sources::Sources;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may leave unread what it was sent, milliseconds.
const UNREAD_TIMEOUT_MS: u32 = 5000;
/// How long a client may take to close after the last answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of the thread is waited for. It takes milliseconds, since no handler waits for anything.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The running endpoint. Dropping it closes the port.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl Admin {
    /// Listens on `address` and serves what `sources` show.
    ///
    /// # Errors
    /// The address cannot be listened to, or there is no thread to be had.
    pub fn start(address: SocketAddr, sources: Arc<Sources>, log: Logger) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let served = actix_rt::System::new().block_on(serve(socket, address, sources, stopped));
            if let Err(error) = served {
                error!(log, "the admin endpoint is gone"; "error" => %error);
            }
            // Nobody waits any more: fine.
            let _ = end.send(());
        })?;
        Ok(Self { address, stop: Some(stop), ended })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A thread that is gone already has nothing left to stop.
            let _ = stop.send(());
        }
        // So that the port is free when this returns.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}

async fn serve(
    socket: TcpListener,
    address: SocketAddr,
    sources: Arc<Sources>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let metrics = web::Data::new(Metrics::new(Arc::clone(&sources)));
    let sources = web::Data::from(sources);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(sources.clone())
            .app_data(metrics.clone())
            .wrap(Guard::new(address))
            .configure(api::routes)
            .configure(page::routes)
            .default_service(web::to(api::not_found))
    })
    .workers(1)
    .worker_max_blocking_threads(1)
    .max_connections(CONNECTIONS_MAX)
    .backlog(64)
    .client_request_timeout(HEAD_TIMEOUT)
    .client_disconnect_timeout(CLOSE_TIMEOUT)
    // A second request on a connection would be waited for without an end, once its first byte is there.
    .keep_alive(KeepAlive::Disabled)
    .on_connect(|connection, _| {
        if let Some(stream) = connection.downcast_ref::<TcpStream>() {
            // Where it cannot be had, the client is waited for: no worse than without.
            let _ = set_tcp_user_timeout(stream, UNREAD_TIMEOUT_MS);
        }
    })
    .shutdown_timeout(1)
    .disable_signals()
    .listen(socket)?
    .run();
    let handle = server.handle();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => ended,
        // Also when the node is gone without a word.
        _ = stopped => tokio::join!(handle.stop(false), server).1,
    }
}
