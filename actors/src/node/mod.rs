//! Node: serves, restarts what only it can restart, and ends in order.
//!
//! ```text
//!   lock directory ─► bind ─► recover ─► listen          serve until told to stop          close ─► drain ─► sync
//! ```
//!
//! Owns:   the directory's lock, the tree of actors, the decision to give up.
//! Never:  handles a request.

mod error;
mod options;
mod start;
pub(crate) mod tree;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loglog_core::Role;
use loglog_storage::{DataDir, InstallError, Known};
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

pub use self::error::NodeError;
pub use self::options::NodeOptions;
pub(crate) use self::tree::permanent;
use crate::admin::Admin;
use crate::admin::sources::Sources;
use crate::consensus::{HandOver, InstallFailed};
use crate::family::{Failure, Family, Verdict};
use crate::integrity::{Lease, Suspected};
use crate::listener::{Connections, Listener};
use crate::local_port::LocalPort;
use crate::peer::receiver::Received;
use crate::peer::{PeerIdentity, SharedIdentity};
use crate::read_waiters::ReadWaiters;
use crate::services::Services;
use crate::stats::{ActorStats, State};
use crate::storage_group::{self, RecoveryError, StorageGroup};
use crate::supervisor::{ChildEvent, Handle};
use crate::thread::Thread;
use crate::upload_buffer::UploadBuffer;
use crate::watch::Watch;

/// How long a leader that stops waits for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stopping node waits for what is in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(3500);
/// How long it waits for the storage group to end.
const GROUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits until nobody holds the directory any more.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// A node that serves.
pub struct Node {
    sources: Arc<Sources>,
    /// Ends with the node, whatever ends it.
    admin: Option<Admin>,
    services: Arc<Services>,
    listener: Handle<Listener>,
    local: LocalPort,
    connections: Connections,
    uploads: Handle<UploadBuffer>,
    waiters: Handle<ReadWaiters>,
    group: StorageGroup,
    dir: Arc<DataDir>,
    installs: UnboundedReceiver<Received>,
    /// Damage that checks found.
    suspects: UnboundedReceiver<Suspected>,
    identity: SharedIdentity,
    /// The log is being repaired from other nodes; the storage group is down meanwhile.
    mending: Option<JoinHandle<Result<(), RecoveryError>>>,
    /// Held while the damage that a check found is mended: no other check begins.
    lease: Option<Lease>,
    events: UnboundedReceiver<ChildEvent>,
    fatal: UnboundedReceiver<String>,
    family: Family,
    /// The node's own row among its actors.
    stats: Arc<ActorStats>,
    _watch: Watch,
    address: Option<SocketAddr>,
    net: Thread,
    log: Logger,
}

impl Node {
    /// Where clients connect, if anywhere.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where clients in this program connect.
    #[must_use]
    pub fn local(&self) -> LocalPort {
        self.local.clone()
    }

    /// Where administrators look in, if anywhere.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.services.identity
    }

    /// Serves until `stop` is done, then ends in order: accepts nobody, finishes what is in flight, syncs. Then the directory is free for another
    /// node, unless a thread hangs in a call to the disk.
    ///
    /// # Errors
    /// [`NodeError`] where it had to give up before.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let dir = Arc::downgrade(&self.dir);
        let ended = self.serve_until(stop).await;
        // Whoever opens the directory next need not wait for threads that are about to end.
        let began = Instant::now();
        while dir.strong_count() > 0 && began.elapsed() < RELEASE_TIMEOUT {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
        ended
    }

    async fn serve_until(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                // Also in the midst of a restart, which a member that hangs may draw out.
                () = &mut stop => return self.stop().await,
                done = self.step() => if let Err(error) = done {
                    return Err(self.give_up(error).await);
                }
            }
        }
    }

    /// Waits for what only the node can see to, and does. After one that was broken off, the node can only be stopped.
    async fn step(&mut self) -> Result<(), NodeError> {
        tokio::select! {
            Some(reason) = self.fatal.recv() => Err(NodeError::Disk(reason)),
            Some(received) = self.installs.recv() => self.install(received).await,
            Some(suspected) = self.suspects.recv() => self.look_again(suspected).await,
            mended = ended(&mut self.mending) => {
                self.mending = None;
                mended?;
                self.recover(None).await
            }
            Some(event) = self.events.recv() => self.heed(event).await,
        }
    }

    /// Nothing is served any more, also where the process goes on: a node may live inside another program.
    async fn give_up(&mut self, error: NodeError) -> NodeError {
        error!(self.log, "the node gives up"; "reason" => %error);
        self.sources.set_serving(false);
        self.stats.set_state(State::Failed);
        self.stop_mending();
        self.local.close();
        self.listener.kill();
        self.connections.kill();
        self.uploads.stop();
        self.waiters.stop();
        self.net.stop();
        self.stop_group(true).await;
        error
    }

    /// Stops the storage group, but for a member that hangs, in a call to the disk perhaps: nobody hears of it any more.
    async fn stop_group(&mut self, drop_queued: bool) {
        if tokio::time::timeout(GROUP_TIMEOUT, self.group.stop(drop_queued)).await.is_err() {
            warn!(self.log, "a member of the storage group hangs and is left behind"; "waited" => ?GROUP_TIMEOUT);
            // It may write yet: nobody else gets the directory before this process is gone, every thread of it (S13).
            std::mem::forget(Arc::clone(&self.dir));
        }
    }

    /// Carries out what is decided about the end of an actor.
    async fn heed(&mut self, event: ChildEvent) -> Result<(), NodeError> {
        if self.mending.is_some() && *event.parent == *storage_group::NAME {
            // It is down already; this is told of the life before.
            return Ok(());
        }
        match self.family.heed(&event, Instant::now()) {
            Verdict::Nothing => Ok(()),
            Verdict::Stop(cause) => Err(self.gave_up(cause)),
            Verdict::Restart { parent, delay, cause, .. } => {
                assert_eq!(*parent, *storage_group::NAME, "the node restarts nothing else");
                self.restart_group(cause, delay).await
            }
        }
    }

    /// Why the node ends. A disk that failed may be what made an actor panic.
    fn gave_up(&mut self, cause: Failure) -> NodeError {
        match self.fatal.try_recv() {
            Ok(reason) => NodeError::Disk(reason),
            Err(_) => NodeError::GaveUp { actor: cause.actor.to_string(), panic: cause.panic.to_string() },
        }
    }

    /// One member is gone: the others go too, and all come back through recovery.
    async fn restart_group(&mut self, cause: Failure, delay: Duration) -> Result<(), NodeError> {
        self.group.failed(&cause.panic);
        self.group.stop(true).await;
        while let Ok(event) = self.events.try_recv() {
            // Members that went down with it, or because of it, are part of the same restart.
            if *event.parent != *storage_group::NAME
                && let Verdict::Stop(cause) = self.family.heed(&event, Instant::now())
            {
                return Err(self.gave_up(cause));
            }
        }
        // A disk that failed is not to be written again by this process (S2).
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        warn!(self.log, "restarting the storage group through recovery"; "member" => &*cause.actor, "delay" => ?delay);
        actix_rt::time::sleep(delay).await;
        self.recover(None).await
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
        self.recover(None).await
    }

    /// A check found damage in the log that is in use: the storage group goes through recovery, which is told where to look, and the
    /// others' copy takes the damage's place (S10).
    ///
    /// It is no failure: nobody's restarts are counted, and none of them can make the node give up. Ended in peace, the group writes and syncs
    /// what is queued, and the mark stands at what is committed; so recovery takes nothing that was committed, or synced and perhaps counted
    /// by a leader, for a torn tail (S9, S1). Appends in flight are answered by their tickets (S28 makes the next try safe), reads go on with
    /// the files of the life before. The old threads are gone before recovery begins (S13); it rewrites what it keeps above the mark (S8).
    async fn look_again(&mut self, suspected: Suspected) -> Result<(), NodeError> {
        let Suspected { offset, generation, lease } = suspected;
        if self.mending.is_some() || generation != self.services.view.generation() {
            // It went through recovery since. What that did not mend, the next reader meets again.
            return Ok(());
        }
        // Without others, or with a `meta` that the next life could not read, recovery would refuse where this life serves on.
        if self.identity.others().is_empty() || self.dir.peek().is_err() {
            error!(self.log, "the damage stays: recovery would not come back from it"; "offset" => offset.get());
            return Ok(());
        }
        // The others go on at once under a leader whose log is whole (S26 in spirit: a leader that leaves hands over first).
        self.hand_over().await;
        warn!(self.log, "the storage group goes through recovery, since the log is damaged: reads go on, this node neither votes nor \
            leads meanwhile"; "offset" => offset.get());
        self.group.stop(false).await;
        let mut is_in_peace = true;
        while let Ok(event) = self.events.try_recv() {
            // A member that panicked meanwhile counts as ever; this restart is his, too.
            match self.family.heed(&event, Instant::now()) {
                Verdict::Nothing => {}
                Verdict::Restart { .. } => is_in_peace = false,
                Verdict::Stop(cause) => return Err(self.gave_up(cause)),
            }
        }
        // A disk that failed is not to be written again by this process (S2).
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        // The last of the others may have left while this one was stopping; now that it is down, the members stay who they are. Without
        // them nobody could repair what recovery would find, so it is not told where to look: it comes back as from any other restart.
        let is_alone = self.identity.others().is_empty();
        let known = if is_alone { None } else { self.group.known(offset, is_in_peace) };
        self.lease = Some(lease);
        self.recover(known).await?;
        if is_alone {
            error!(self.log, "the damage stays: the other members are gone"; "offset" => offset.get());
            return Ok(());
        }
        // What was trimmed meanwhile was not looked at, and is no more.
        let is_there = self.services.view.reader().is_some_and(|reader| reader.start() <= offset);
        if self.mending.is_none() && is_there {
            self.services.integrity.was_fruitless();
        }
        Ok(())
    }

    /// Has the storage group live again; where its log is damaged, once the other nodes have repaired it (S10).
    async fn recover(&mut self, known: Option<Known>) -> Result<(), NodeError> {
        let refused = match self.group.recover(known).await {
            Ok(_) => {
                self.group.run();
                self.lease = None;
                return Ok(());
            }
            Err(refused) => refused,
        };
        match self.group.mender(&refused, known, &self.identity) {
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
        self.sources.set_serving(false);
        self.stop_mending();
        self.hand_over().await;
        self.local.close();
        self.listener.stop();
        tokio::select! {
            drained = tokio::time::timeout(DRAIN_TIMEOUT, self.connections.drain()) => {
                if drained.is_err() {
                    warn!(self.log, "some clients do not take their replies; they are cut off");
                }
            }
            Some(reason) = self.fatal.recv() => return Err(self.give_up(NodeError::Disk(reason)).await),
        }
        self.uploads.stop();
        self.waiters.stop();
        self.stop_group(false).await;
        self.net.stop();
        // A write that failed just now was acknowledged to nobody, but whoever stopped us should know.
        if let Ok(reason) = self.fatal.try_recv() {
            return Err(NodeError::Disk(reason));
        }
        self.stats.set_state(State::Stopped);
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
