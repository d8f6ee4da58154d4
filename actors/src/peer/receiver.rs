//! Snapshot receiver actor: copies a log of which our own has nothing left that would join it (S25).
//!
//! ```text
//!   Receive ─► a peer that holds the snapshot's last batch ─► chunk by chunk into install files ─► the node puts them in place
//! ```
//!
//! Owns:   one copy at a time.
//! Keeps:  our own log is untouched until the copy is whole and checked; consensus learns of every copy that failed.
//! Never:  puts anything in place: the node does, between two lives of the storage group.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message};
use loglog_core::chunk::Chunk;
use loglog_core::effects::Install;
use loglog_proto::{LogId, Offset};
use loglog_storage::{DataDir, InstallError, Installer, Member, MetaState};
use serde_json::json;
use slog::{info, warn};
use tokio::sync::mpsc::UnboundedSender;

use super::SharedIdentity;
use super::bulk::{BulkError, BulkSource};
use super::pace::Pace;
use super::traffic::PeerTraffic;
use crate::consensus::{ConsensusSlot, InstallFailed};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::storage_group::Fatal;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "snapshot-receiver";

/// The actor.
pub struct SnapshotReceiver {
    parts: ReceiverParts,
    is_busy: bool,
}

/// What it works with.
#[derive(Clone)]
pub struct ReceiverParts {
    /// Who we are to peers.
    pub identity: SharedIdentity,
    /// Whom to tell of a failure.
    pub consensus: ConsensusSlot,
    /// Where the files go.
    pub dir: Arc<DataDir>,
    /// Where the node waits for what is whole.
    pub whole: UnboundedSender<Received>,
    /// How fast.
    pub pace: Pace,
    /// Counts what comes.
    pub traffic: Arc<PeerTraffic>,
    /// Where the end of this process is asked for.
    pub fatal: Fatal,
    /// Injected faults.
    pub faults: Faults,
}

/// Copy this snapshot; `state` is what `meta` holds now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Receive {
    /// Which.
    pub install: Install,
    /// Identity, and what the snapshot does not say.
    pub state: MetaState,
    /// This life of the storage group: another one's recovery removes the files.
    pub generation: u64,
}

/// A snapshot that is whole, to be put in place.
#[derive(Debug)]
pub struct Received {
    /// Its files.
    pub installer: Installer,
    /// Its last batch.
    pub last: LogId,
    /// Where that ends.
    pub end: Offset,
    /// As in [`Receive`].
    pub generation: u64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("no peer gives it; the last one asked, node {node}: {error}")]
    Peers { node: String, error: BulkError },
    #[error("nobody else is a member")]
    Nobody,
    #[error("the copy ends at {found}, the snapshot at {expected}")]
    End { found: Offset, expected: Offset },
    #[error("the copy was broken off: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl SnapshotReceiver {
    /// Receives nothing yet.
    pub const fn new(parts: ReceiverParts) -> Self {
        Self { parts, is_busy: false }
    }

    fn finished(&mut self, result: Result<Received, ReceiveError>, ctx: &Ctx<Self>) {
        self.is_busy = false;
        match result {
            Ok(received) => {
                info!(ctx.log(), "a snapshot is whole"; "last" => %received.last, "end" => received.end.get());
                // A node that is ending wants no snapshot.
                let _ = self.parts.whole.send(received);
            }
            Err(ReceiveError::Install(InstallError::Failed(failure))) => {
                self.parts.fatal.report(format!("cannot write a snapshot: {failure}"));
            }
            Err(error) => {
                warn!(ctx.log(), "a snapshot was not received"; "error" => %error);
                if let Some(consensus) = self.parts.consensus.get() {
                    // A consensus that is down is sent another when it is up.
                    let _ = consensus.tell(InstallFailed);
                }
            }
        }
    }
}

/// Copies all of it, from one peer as long as that goes well, then from the next.
async fn receive(parts: ReceiverParts, receive: Receive) -> Result<Received, ReceiveError> {
    let Receive { install: Install { last, content }, state, generation } = receive;
    let own = parts.identity.raft_id();
    let members = content.membership.voters.iter().chain(&content.membership.learners);
    let peers: Vec<Member> = members.filter(|member| member.id != own).cloned().collect();
    let mut peers = peers.into_iter().map(|peer| BulkSource::new(Arc::clone(&parts.identity), peer));
    let state = MetaState {
        start: content.start,
        membership: content.membership.clone(),
        segment_bytes_max: content.segment_bytes_max,
        ..state
    };
    let (mut first, mut offset) = (content.start.index, content.start.offset);
    let (dir, pace) = (Arc::clone(&parts.dir), parts.pace.clone());
    let mut installer = blocking(move || dir.install(state)).await??;
    let mut source = peers.next().ok_or(ReceiveError::Nobody)?;
    while first <= last.index {
        match source.chunk(first, offset, last).await {
            Ok(chunk) => {
                (first, offset) = (chunk.next, chunk.end());
                parts.traffic.fetched(chunk.bytes.len());
                pace.take(chunk.bytes.len() as u64).await;
                let dir = Arc::clone(&parts.dir);
                installer = blocking(move || put(&dir, installer, &chunk)).await??;
            }
            Err(error) => {
                let node = source.peer().id.to_string();
                source = peers.next().ok_or(ReceiveError::Peers { node, error })?;
            }
        }
    }
    if offset != content.end {
        return Err(ReceiveError::End { found: offset, expected: content.end });
    }
    Ok(Received { installer, last, end: offset, generation })
}

/// Writes a chunk. The directory is held meanwhile, also where this actor is gone by then: nobody else may lock it yet (S13).
fn put(_dir: &Arc<DataDir>, mut installer: Installer, chunk: &Chunk) -> Result<Installer, InstallError> {
    if chunk.offset == chunk.header.base_offset {
        installer.segment(chunk.header)?;
    }
    installer.append(&chunk.bytes)?;
    Ok(installer)
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

impl Actor for SnapshotReceiver {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parts.faults.on_start(NAME);
        ctx.show(|receiver| json!({ "is_copying": receiver.is_busy }));
        // A copy of an earlier life of this actor went with it.
        if let Some(consensus) = self.parts.consensus.get() {
            let _ = consensus.tell(InstallFailed);
        }
    }
}

impl Handler<Receive> for SnapshotReceiver {
    type Result = ();

    fn handle(&mut self, message: Receive, ctx: &mut Self::Context) {
        if self.is_busy {
            return;
        }
        self.is_busy = true;
        let Install { last, content } = &message.install;
        info!(ctx.log(), "receiving a snapshot"; "start" => content.start.offset.get(), "end" => content.end.get(), "last" => %last);
        let receiving = receive(self.parts.clone(), message);
        ctx.spawn(
            wrap_future::<_, Self>(receiving).map(|result, receiver, ctx| receiver.finished(result, ctx)),
        );
    }
}

impl Handler<Fault> for SnapshotReceiver {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
