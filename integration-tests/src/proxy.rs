//! Proxies: between every two nodes, one for each way, so that ways can be cut without root's powers.
//!
//! ```text
//!   node 1 ─► proxy (1, 2) ─► node 2's peer port          cut(1, 2): nothing of what 1 sends reaches 2,
//!   node 2 ─► proxy (2, 1) ─► node 1's peer port          whoever opened the connection; the other way is open
//! ```
//!
//! Owns:   the listening sockets, the connections, a thread that carries the bytes.
//! Keeps:  bytes that a cut swallowed never come later: their connection ends when the way is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::layout::Layout;
use crate::network::Network;

/// From one node to another.
type Way = (u32, u32);

/// How a way is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Bytes are swallowed in silence, as by a network that drops packets.
    #[default]
    Silent,
    /// Connections end, and new ones end at once, as by a firewall that says no.
    Refusing,
}

/// Which ways are cut, and how often any was healed.
#[derive(Clone, Debug, Default)]
struct State {
    cut: BTreeMap<Way, Cut>,
    healed: u64,
}

/// The proxies of a cluster.
#[derive(Debug)]
pub struct Proxies {
    ways: BTreeMap<Way, SocketAddr>,
    state: watch::Sender<State>,
    how: Cut,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxies {
    /// Proxies between all nodes of a layout, every way open. Cuts will be as `how` says.
    ///
    /// # Panics
    /// If they cannot listen.
    #[must_use]
    pub fn new(layout: &Layout, how: Cut) -> Self {
        let (state, watching) = watch::channel(State::default());
        let (stop, stopped) = oneshot::channel();
        let peers: Vec<(u32, String)> = layout.places.iter().map(|(id, it)| (*id, it.peer.clone())).collect();
        let (listening, addresses) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let mut ways = BTreeMap::new();
                for (from, _) in &peers {
                    for (to, peer) in peers.iter().filter(|(to, _)| to != from) {
                        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                        ways.insert((*from, *to), listener.local_addr().expect("an address"));
                        tokio::spawn(accept(listener, (*from, *to), peer.clone(), watching.clone()));
                    }
                }
                listening.send(ways).expect("somebody waits for it");
                // Every connection ends with the runtime.
                let _ = stopped.await;
            });
        });
        let ways = addresses.recv().expect("proxies that listen");
        Self { ways, state, how, stop: Some(stop), thread: Some(thread) }
    }

    /// Where node `from` reaches every other.
    #[must_use]
    pub fn ways_of(&self, from: u32) -> BTreeMap<u32, String> {
        let ways = self.ways.iter().filter(|((it, _), _)| *it == from);
        ways.map(|((_, to), address)| (*to, address.to_string())).collect()
    }
}

impl Network for Proxies {
    fn cut(&self, from: u32, to: u32) {
        self.state.send_modify(|state| {
            state.cut.insert((from, to), self.how);
        });
    }

    fn heal(&self) {
        self.state.send_modify(|state| {
            state.cut.clear();
            state.healed += 1;
        });
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, (from, to): Way, peer: String, state: watch::Receiver<State>) {
    loop {
        let Ok((ours, _)) = listener.accept().await else { continue };
        let (peer, state) = (peer.clone(), state.clone());
        tokio::spawn(async move {
            let refused: BTreeSet<Way> = refused(&state);
            if refused.contains(&(from, to)) || refused.contains(&(to, from)) {
                return;
            }
            let Ok(theirs) = TcpStream::connect(peer).await else { return };
            let _ = (ours.set_nodelay(true), theirs.set_nodelay(true));
            let ((our_read, our_write), (their_read, their_write)) = (ours.into_split(), theirs.into_split());
            // When one ends, so does the other: both sockets close.
            tokio::select! {
                _ = carry((from, to), our_read, their_write, state.clone()) => {}
                _ = carry((to, from), their_read, our_write, state.clone()) => {}
            }
        });
    }
}

fn refused(state: &watch::Receiver<State>) -> BTreeSet<Way> {
    let state = state.borrow();
    state.cut.iter().filter(|(_, how)| **how == Cut::Refusing).map(|(way, _)| *way).collect()
}

/// Carries bytes one way, until an end of the connection closes or a cut ends it.
async fn carry(
    way: Way,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    // When something was swallowed, the count of healings then.
    let mut swallowed = None;
    loop {
        let (cut, healed) = {
            let state = state.borrow_and_update();
            (state.cut.get(&way).copied(), state.healed)
        };
        if cut == Some(Cut::Refusing) || swallowed.is_some_and(|before| before != healed) {
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return Ok(()) },
            read = from.read(&mut chunk) => match read? {
                0 if cut.is_none() => return Ok(()),
                // The end gets lost as well: whoever waits learns it when the way is healed.
                0 => {
                    swallowed = Some(healed);
                    if state.changed().await.is_err() { return Ok(()) }
                }
                _ if cut.is_some() => swallowed = Some(healed),
                read => tokio::select! {
                    written = to.write_all(&chunk[..read]) => written?,
                    // A receiver that takes nothing must not keep a cut from working.
                    _ = state.wait_for(|state| state.cut.contains_key(&way)) => swallowed = Some(healed),
                },
            },
        }
    }
}
