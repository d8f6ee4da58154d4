//! Fetcher actor: gets payloads that no client brought from a peer that holds the batch, or the upload.
//!
//! Owns:   connections for bulk, one to each peer, opened when needed.
//! Keeps:  one fetch of a batch at a time; what comes is checked entry by entry before it is passed on (S34).
//! Never:  decides what is wanted: the gate does, and the upload buffer.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, SpawnHandle};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use loglog_core::chunk::payloads;
use loglog_core::gate::Want;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::peer::{Copy, PeerMessage, Seek};
use loglog_proto::{LogId, RaftId, RequestId, crc32c};
use loglog_storage::Member;
use serde_json::json;
use slog::debug;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::pace::Pace;
use super::traffic::PeerTraffic;
use super::{SharedIdentity, socket};
use crate::consensus::{ConsensusSlot, Payloads};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::supervisor::Handle;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "fetcher";

/// Rounds without a wait before those with one: a batch may be synced between a peer's look at its log and that at its memory.
const ROUNDS_AT_ONCE: u32 = 4;
/// How long one copy may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long one peer is waited for alone: it may be frozen or cut off, while another has the batch.
const HEAD_START: Duration = Duration::from_millis(200);
/// Wait between two rounds over the peers for one batch.
const PAUSE: Duration = Duration::from_millis(2);
/// Batches fetched at a time: each has a connection of its own.
const FETCHES_MAX: u32 = 8;
/// Bytes fetched at a time, unless one batch alone has more: the peer that serves them has appends to see to.
const FETCH_BYTES_MAX: u64 = 1 << 20;
/// When all peers are asked for an upload: their clients may be about to bring it.
const SEEK_AT: [Duration; 3] = [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(50)];
/// How long all of that may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds over the peers before it is left to the gate to ask again.
const ROUNDS: u32 = 20;

/// The actor.
pub struct Fetcher {
    identity: SharedIdentity,
    consensus: ConsensusSlot,
    faults: Faults,
    traffic: Arc<PeerTraffic>,
    pace: Pace,
    running: HashMap<LogId, SpawnHandle>,
    /// From whom, first of all.
    leader: Option<RaftId>,
    slots: Arc<Semaphore>,
    idle: Pool,
    slow: Slow,
}

/// Connections that wait for their next use.
type Pool = Rc<RefCell<HashMap<RaftId, Vec<TcpStream>>>>;

/// Peers that let the last copy wait: they are asked after the others.
type Slow = Rc<RefCell<HashSet<RaftId>>>;

/// Get these payloads, from the leader first.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FetchPayloads {
    /// The batches.
    pub wants: Vec<Want>,
    /// Who has them first.
    pub leader: Option<RaftId>,
}

/// Get a payload that a client uploaded to another node. Nothing is answered where nobody has it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SeekUpload {
    /// Which.
    pub seek: Seek,
    /// Where it goes, with its CRC-32C.
    pub found: oneshot::Sender<(Bytes, u32)>,
}

/// Where the fetcher is found, once there are peers.
#[derive(Clone, Default)]
pub struct FetcherSlot(Arc<Mutex<Option<Handle<Fetcher>>>>);

impl FetcherSlot {
    /// The fetcher; `None` where there are no peers.
    #[must_use]
    pub fn get(&self) -> Option<Handle<Fetcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, fetcher: Handle<Fetcher>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetcher);
    }
}

impl Fetcher {
    /// Fetches from whoever is a member.
    pub fn new(
        identity: SharedIdentity,
        consensus: ConsensusSlot,
        faults: Faults,
        traffic: Arc<PeerTraffic>,
        pace: Pace,
    ) -> Self {
        let (slots, running) = (Arc::new(Semaphore::new(FETCHES_MAX as usize)), HashMap::new());
        Self {
            identity,
            consensus,
            faults,
            traffic,
            pace,
            running,
            leader: None,
            slots,
            idle: Pool::default(),
            slow: Slow::default(),
        }
    }

    fn fetch(&mut self, want: Want, leader: Option<RaftId>, ctx: &mut Ctx<Self>) {
        if self.running.contains_key(&want.log_id) {
            return;
        }
        let mut peers = self.identity.sources();
        let slow = Rc::clone(&self.slow);
        let (identity, idle, log_id) = (Arc::clone(&self.identity), Rc::clone(&self.idle), want.log_id);
        let (slots, traffic, pace) = (Arc::clone(&self.slots), Arc::clone(&self.traffic), self.pace.clone());
        let fetching = async move {
            let bytes = want.log_len.get();
            let _slots = slots.acquire_many(slots_for(bytes)).await.map_err(io::Error::other)?;
            if want.is_old {
                pace.take(bytes).await;
            }
            let mut last = io::Error::other("there are no peers");
            for round in 0..ROUNDS {
                // A slow peer must not keep us from asking the others again; a large batch may need its time.
                let patience = PATIENCE.min(HEAD_START * (1 << round.min(10)));
                peers.sort_by_key(|peer| (slow.borrow().contains(&peer.id), Some(peer.id) != leader));
                match copy_from_any(&identity, (&idle, &slow), (&peers, leader), &want, patience).await {
                    Ok(payloads) => {
                        traffic.fetched(payloads.iter().map(Bytes::len).sum());
                        return Ok((want, payloads));
                    }
                    Err(error) => last = error,
                }
                if round >= ROUNDS_AT_ONCE {
                    actix_rt::time::sleep(PAUSE).await;
                }
            }
            Err(last)
        };
        let fetch = ctx.spawn(wrap_future::<_, Self>(fetching).map(move |result, fetcher, ctx| {
            fetcher.running.remove(&log_id);
            match result {
                Ok((want, payloads)) => {
                    if let Some(consensus) = fetcher.consensus.get() {
                        // A consensus that is down wants them again when it is up.
                        let _ = consensus.tell(Payloads { want, payloads });
                    }
                }
                Err(error) => {
                    debug!(ctx.log(), "payloads are not to be had yet"; "batch" => %log_id, "error" => %error)
                }
            }
        }));
        self.running.insert(log_id, fetch);
    }
}

/// Copies one batch from the first peer that has it. The next one is asked when one refuses, and beside one that is slow.
async fn copy_from_any(
    identity: &SharedIdentity,
    (idle, slow): (&Pool, &Slow),
    (peers, leader): (&[Member], Option<RaftId>),
    want: &Want,
    patience: Duration,
) -> io::Result<Vec<Bytes>> {
    let (mut waiting, mut asked) = (peers.iter(), FuturesUnordered::new());
    let mut silent = Vec::new();
    let mut last = io::Error::other("there are no peers");
    loop {
        let next = waiting.next();
        if let Some(peer) = next {
            silent.push(peer.id);
            asked.push(
                async move { (peer.id, socket::within(PATIENCE, copy(identity, idle, peer, want)).await) },
            );
        }
        let patience = if next.is_some() { HEAD_START } else { patience };
        match tokio::time::timeout(patience, asked.next()).await {
            Ok(Some((peer, copied))) => {
                slow.borrow_mut().remove(&peer);
                silent.retain(|it| *it != peer);
                match copied {
                    Ok(payloads) => return Ok(payloads),
                    // It is about to have what it sent; another that does not answer would only hold this up.
                    Err(error) if Some(peer) == leader && is_not_yet(&error) => return Err(error),
                    Err(error) => last = error,
                }
            }
            Ok(None) => return Err(last),
            Err(_) => {
                slow.borrow_mut().extend(&silent);
                if next.is_none() {
                    return Err(last);
                }
            }
        }
    }
}

/// Asks a peer for an upload; `None` if it has none that will do.
async fn ask_for(identity: SharedIdentity, idle: Pool, peer: Member, seek: Seek) -> Option<(Bytes, u32)> {
    let pooled = idle.borrow_mut().get_mut(&peer.id).and_then(Vec::pop);
    let mut connection = match pooled {
        Some(connection) => connection,
        None => socket::open(&peer.peer_address, &identity, peer.id).await.ok()?,
    };
    let answer = socket::ask(&mut connection, &PeerMessage::Seek(seek), &mut BytesMut::new()).await.ok()?;
    let found = match answer {
        PeerMessage::Sought(payload) => {
            let crc = crc32c(&payload);
            Some((payload, crc)).filter(|_| seek.crc.is_none_or(|wanted| wanted == crc))
        }
        PeerMessage::Refused(_) => None,
        _ => return None,
    };
    idle.borrow_mut().entry(peer.id).or_default().push(connection);
    found
}

/// Whether a peer has said that it does not hold the batch.
fn is_not_yet(error: &io::Error) -> bool {
    let refusal = error.get_ref().and_then(|error| error.downcast_ref::<Refusal>());
    refusal.is_some_and(|refusal| refusal.code == Code::NotUploaded)
}

/// How many of the [`FETCHES_MAX`] a batch of that many bytes counts for.
fn slots_for(bytes: u64) -> u32 {
    let slots = bytes.div_ceil(FETCH_BYTES_MAX / u64::from(FETCHES_MAX));
    u32::try_from(slots).map_or(FETCHES_MAX, |slots| slots.clamp(1, FETCHES_MAX))
}

/// Copies one batch from a peer.
async fn copy(identity: &SharedIdentity, idle: &Pool, peer: &Member, want: &Want) -> io::Result<Vec<Bytes>> {
    let pooled = idle.borrow_mut().get_mut(&peer.id).and_then(Vec::pop);
    let mut connection = match pooled {
        Some(connection) => connection,
        None => socket::open(&peer.peer_address, identity, peer.id).await?,
    };
    let copy = Copy {
        id: RequestId::new(1),
        first: want.log_id.index,
        last: want.log_id,
        offset: want.offset,
        limit: want.log_len.get(),
    };
    match socket::ask(&mut connection, &PeerMessage::Copy(copy), &mut BytesMut::new()).await? {
        PeerMessage::Copied(copied) => {
            idle.borrow_mut().entry(peer.id).or_default().push(connection);
            payloads(want, &copied.bytes).map_err(io::Error::other)
        }
        PeerMessage::Refused(refusal) => {
            idle.borrow_mut().entry(peer.id).or_default().push(connection);
            Err(io::Error::other(refusal))
        }
        other => Err(socket::unexpected(other)),
    }
}

impl Actor for Fetcher {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(NAME);
        ctx.show(|fetcher| {
            json!({
                "in_flight": fetcher.running.len(),
                "fetches": fetcher.traffic.fetches(),
                "bytes": fetcher.traffic.fetched_bytes(),
            })
        });
    }
}

impl Handler<FetchPayloads> for Fetcher {
    type Result = ();

    fn handle(&mut self, fetch: FetchPayloads, ctx: &mut Self::Context) {
        if self.leader != fetch.leader {
            // What another leader sent is not wanted any more, and it may hold its place for long if that one is frozen.
            for (_, running) in self.running.drain() {
                ctx.cancel_future(running);
            }
            self.leader = fetch.leader;
        }
        for want in fetch.wants {
            self.fetch(want, fetch.leader, ctx);
        }
    }
}

impl Handler<SeekUpload> for Fetcher {
    type Result = ();

    fn handle(&mut self, SeekUpload { seek, found }: SeekUpload, ctx: &mut Self::Context) {
        let (identity, idle, peers) =
            (Arc::clone(&self.identity), Rc::clone(&self.idle), self.identity.sources());
        let traffic = Arc::clone(&self.traffic);
        let seeking = async move {
            let began = Instant::now();
            for at in SEEK_AT {
                tokio::time::sleep_until(began + at).await;
                let asked = peers.iter().map(|peer| {
                    Box::pin(ask_for(Arc::clone(&identity), Rc::clone(&idle), peer.clone(), seek))
                });
                let mut answers: FuturesUnordered<_> = asked.collect();
                while let Some(answer) = answers.next().await {
                    if let Some((payload, crc)) = answer {
                        traffic.fetched(payload.len());
                        let _ = found.send((payload, crc));
                        // The others' answers are taken still: else their connections could not be used again.
                        return answers.for_each(|_| std::future::ready(())).await;
                    }
                }
            }
        };
        // A peer that does not answer is given up with all that is left of the search.
        let seeking = async move { drop(tokio::time::timeout(SEEK_TIMEOUT, seeking).await) };
        ctx.spawn(wrap_future::<_, Self>(seeking));
    }
}

impl Handler<Fault> for Fetcher {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_are_fetched_together_and_large_ones_alone() {
        let slots = [1, 128 << 10, (128 << 10) + 1, 1 << 20, 16 << 20, u64::MAX].map(slots_for);
        assert_eq!(slots, [1, 1, 2, 8, 8, 8]);
    }
}
