//! Storage group: consensus, segment writer and segment keeper, which live and die as one.
//!
//! ```text
//!   start: recovery ─► SegmentWriter, SegmentKeeper, Consensus        generation n
//!   a member panics: stop all three ─► wait until each is gone ─► recovery ─► generation n + 1
//!   a check finds damage: stop all three in peace ─► recovery, told where to look                           generation n + 1
//!   recovery finds damage: the Mender repairs it from other nodes ─► recovery        (alone: the node refuses)
//! ```
//!
//! Owns:   the lives of the three, and the threads of writer and keeper.
//! Keeps:  recovery never begins while a member of the last generation lives (S13).
//! Never:  touches clients' connections: appends in flight are answered by their tickets, reads go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::ArbiterHandle;
use loglog_core::{Consensus as Core, Recovery, Settings, Writers, start};
use loglog_proto::{ClusterId, Offset};
use loglog_storage::{DataDir, Known, Mark, MetaState, OpenError, OpenOptions, Recovered, ScanError};
use rand::SeedableRng;
use rand::rngs::StdRng;
use slog::{Logger, info, o, warn};
use tokio::sync::mpsc::UnboundedSender;

use crate::consensus::{self, Consensus, ConsensusParts, ConsensusSlot, Peers};
use crate::faults::Faults;
use crate::guard::Restart;
use crate::measures::Measures;
use crate::node::tree;
use crate::peer::SharedIdentity;
use crate::peer::mender::Mender;
use crate::read_waiters::ReadWaiters;
use crate::segment_keeper::{self, SegmentKeeper};
use crate::segment_writer::{self, SegmentWriter, WriterDesk, WriterParts};
use crate::stats::{ActorStats, Panic, State};
use crate::supervisor::{Child, Handle, Life, Supervisor, stop_all};
use crate::thread::Thread;
use crate::upload_buffer::UploadBuffer;
use crate::view::LogView;

/// The name under which its members stand in the tree.
pub const NAME: &str = "storage-group";

/// Where a part asks for the end of the process: what it was told to keep cannot be kept (S2).
#[derive(Clone, Debug)]
pub struct Fatal {
    to: UnboundedSender<String>,
    is_reported: Arc<AtomicBool>,
}

impl Fatal {
    pub(crate) fn new(to: UnboundedSender<String>) -> Self {
        Self { to, is_reported: Arc::default() }
    }

    /// Ends the node; the first reason is the one that is told.
    pub(crate) fn report(&self, reason: String) {
        self.is_reported.store(true, Ordering::Release);
        // A node that no longer listens is ending already.
        let _ = self.to.send(reason);
    }

    /// Whether the end was asked for: from then on nothing is written or acknowledged.
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported.load(Ordering::Acquire)
    }
}

/// What a group is made with, again in each generation.
pub(crate) struct GroupParts {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) accept_loss: bool,
    /// Memory for the log's end, bytes.
    pub(crate) tail_bytes: usize,
    pub(crate) settings: Settings,
    pub(crate) tick: Duration,
    pub(crate) seed: u64,
    pub(crate) supervisor: Supervisor,
    pub(crate) waiters: Handle<ReadWaiters>,
    pub(crate) uploads: Handle<UploadBuffer>,
    /// Bytes that the upload buffer holds.
    pub(crate) upload_bytes: Arc<AtomicUsize>,
    /// Who the peers are, once that is known.
    pub(crate) peers: Option<Peers>,
    /// Where this node is reached by peers and clients, if that is not as its cluster was configured.
    pub(crate) here: Option<(String, String)>,
    pub(crate) slot: ConsensusSlot,
    pub(crate) view: Arc<LogView>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) fatal: Fatal,
    pub(crate) faults: Faults,
    /// The thread for consensus.
    pub(crate) consensus_arbiter: ArbiterHandle,
    pub(crate) log: Logger,
}

/// What recovery found in the directory.
pub(crate) struct Opened {
    /// Whose log it is.
    pub(crate) state: MetaState,
    /// Where it ends; not all of it need be committed.
    pub(crate) end: Offset,
}

/// The group.
pub(crate) struct StorageGroup {
    parts: GroupParts,
    /// Its own row among the actors.
    stats: Arc<ActorStats>,
    generation: u64,
    /// Between recovery and the start of what it found.
    recovered: Option<(Recovered, Writers)>,
    members: Option<Members>,
}

struct Members {
    /// Consensus first.
    lives: [Life; 3],
    threads: [Thread; 2],
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// What is on disk is damaged; nothing was changed.
    #[error("{0}: start once with data.accept_loss = true to do so")]
    Corrupt(OpenError),
    /// Recovery refused.
    #[error(transparent)]
    Open(OpenError),
    /// The writers' table cannot be rebuilt.
    #[error(
        "a sealed segment is damaged: {0}. Put back a whole copy of the file, or start with data.accept_loss = true \
         to serve it as it is"
    )]
    Scan(#[from] ScanError),
    /// Bytes that were committed are gone.
    #[error("the log ends at {end} after recovery, but it was committed up to {committed}")]
    Shrunk {
        /// What recovery found.
        end: Offset,
        /// What was committed before.
        committed: Offset,
    },
    /// Recovery itself broke.
    #[error("recovery panicked: {0}")]
    Panicked(String),
}

impl RecoveryError {
    fn of(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { .. } => Self::Corrupt(error),
            error => Self::Open(error),
        }
    }

    /// What is wrong, without what a node that is alone can do about it.
    pub(crate) fn damage(&self) -> String {
        match self {
            Self::Corrupt(error) => error.to_string(),
            Self::Scan(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl StorageGroup {
    pub(crate) fn new(parts: GroupParts) -> Self {
        let restart = Restart::Permanent(tree::LIMITS);
        let stats = parts.supervisor.registry().part(NAME, "Group", Some(tree::NAME), restart);
        Self { parts, stats, generation: 0, recovered: None, members: None }
    }

    /// A member has failed, and all of it is to be restarted.
    pub(crate) fn failed(&self, panic: &Panic) {
        self.stats.show_panic(panic.clone());
        self.stats.count_restart();
        self.parts.supervisor.registry().count_group_restart(NAME);
        self.stats.set_state(State::Backoff);
    }

    /// What this process knows of its log, for a recovery that is to look for damage at `suspect`; to be asked after [`StorageGroup::stop`].
    /// Where a member did not end in peace, a truncation may be half done: then what was synced is for the disk to say, and what was
    /// committed, which is never truncated, is certain all the same.
    pub(crate) fn known(&self, suspect: Offset, is_in_peace: bool) -> Option<Known> {
        assert!(self.members.is_none(), "what is known no longer changes");
        let view = &self.parts.view;
        let committed = Mark { index: view.committed_index(), offset: view.committed() };
        let durable = if is_in_peace { view.reader()?.end() } else { committed.offset };
        Some(Known { suspect, committed, durable })
    }

    /// Recovers the log for the next generation; nothing runs yet.
    pub(crate) async fn recover(&mut self, known: Option<Known>) -> Result<Opened, RecoveryError> {
        assert!(self.members.is_none(), "the last generation is gone before recovery begins (S13)");
        self.stats.set_state(State::Starting);
        let (dir, cluster, tail_bytes) =
            (Arc::clone(&self.parts.dir), self.parts.cluster, self.parts.tail_bytes);
        // What was accepted is the damage there was when the process started, not what comes later (S10).
        // In a cluster the others have what is damaged here; what one node cuts off, it may have acknowledged (S10).
        let accept_damage = self.parts.accept_loss && self.is_alone();
        let accept_loss = accept_damage && self.generation == 0;
        let opened = tokio::task::spawn_blocking(move || {
            let recovered = dir
                .open(OpenOptions { cluster, accept_loss, known, tail_bytes, ..OpenOptions::default() })
                .map_err(RecoveryError::of)?;
            let (writers, damage) = start::rebuild_writers(&recovered, accept_damage)?;
            Ok::<_, RecoveryError>((recovered, writers, damage))
        });
        let (recovered, writers, damage) =
            opened.await.map_err(|error| RecoveryError::Panicked(error.to_string()))??;
        let committed = self.parts.view.committed();
        if recovered.end < committed {
            return Err(RecoveryError::Shrunk { end: recovered.end, committed });
        }
        self.generation += 1;
        self.log_recovery(&recovered);
        if let Some(damage) = damage {
            warn!(self.parts.log, "a sealed segment is damaged and served as it is, as told by data.accept_loss: \
                appends sent again from before its end are refused as of an unknown writer"; "damage" => %damage);
        }
        let opened = Opened { state: recovered.meta.state().clone(), end: recovered.end };
        self.recovered = Some((recovered, writers));
        Ok(opened)
    }

    /// What repairs the log from the other nodes, if damage is why a recovery refused and there are others (S10).
    pub(crate) fn mender(
        &self,
        refused: &RecoveryError,
        known: Option<Known>,
        identity: &SharedIdentity,
    ) -> Option<Mender> {
        let options = OpenOptions { cluster: self.parts.cluster, known, ..OpenOptions::default() };
        let (dir, measures) = (Arc::clone(&self.parts.dir), Arc::clone(&self.parts.measures));
        Mender::new(dir, options, refused, identity, measures, &self.parts.log)
    }

    /// Whether the log has no other member; also where that cannot be told.
    fn is_alone(&self) -> bool {
        let known = self.parts.dir.peek();
        let alone =
            known.map_or(true, |it| it.membership.voters.len() < 2 && it.membership.learners.is_empty());
        if !alone && self.parts.accept_loss && self.generation == 0 {
            warn!(
                self.parts.log,
                "data.accept_loss is for a node that is alone and does nothing here: a member of a cluster \
                repairs its log from the others"
            );
        }
        alone
    }

    /// Stops every member, consensus first, and waits until they are gone.
    ///
    /// In peace, `drop_queued` is false: what is queued is handled, the mark is synced. Who waits no longer may ask again.
    pub(crate) async fn stop(&mut self, drop_queued: bool) {
        self.tell_down();
        if self.stats.state() != State::Backoff {
            self.stats.set_state(State::Stopped);
        }
        let Some(members) = &self.members else { return };
        stop_all(&members.lives, drop_queued).await;
        let Some(Members { threads, .. }) = self.members.take() else { return };
        // A turn that was under way has told how it stands.
        self.tell_down();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                thread.join();
            }
        });
        // The threads run nothing of ours any more, whatever joining them came to.
        let _ = joined.await;
    }

    fn tell_down(&self) {
        self.parts.slot.set(None);
        self.parts.view.publish_down();
        if let Some(peers) = &self.parts.peers {
            peers.links.set_life(0);
        }
    }

    /// Who the peers are, once that is known, and where they find this node.
    pub(crate) fn set_peers(&mut self, peers: Peers, here: Option<(String, String)>) {
        (self.parts.peers, self.parts.here) = (Some(peers), here);
    }

    /// Starts the generation that was recovered.
    ///
    /// # Panics
    /// If none was, or it is not known who the peers are.
    pub(crate) fn run(&mut self) {
        let (recovered, writers) = self.recovered.take().expect("the log was recovered");
        let torn_bytes = recovered.report.torn_bytes;
        let Recovered { meta, writer, keeper, reader, tail, .. } = recovered;
        let parts = &self.parts;
        let peers = parts.peers.clone().expect("the peers are known");
        // A snapshot may have changed them.
        peers.links.follow(&meta.state().membership);
        let here = parts.here.clone();
        let recovery = Recovery {
            meta: meta.state().clone(),
            mark: meta.mark(),
            tail,
            terms: start::terms_of(&reader),
            writers,
        };
        let (settings, generation, written) = (parts.settings, self.generation, Arc::new(AtomicU64::new(0)));
        let threads = [Thread::start(), Thread::start()];
        let slot = ConsensusSlot::default();
        parts.view.recovered(generation, reader.clone(), torn_bytes);
        parts.view.publish_committed(loglog_core::Committed {
            index: recovery.mark.index,
            offset: recovery.mark.offset,
        });

        let writer_parts = WriterParts {
            generation,
            consensus: slot.clone(),
            reader: reader.clone(),
            view: Arc::clone(&parts.view),
            fatal: parts.fatal.clone(),
            written: Arc::clone(&written),
            measures: Arc::clone(&parts.measures),
            faults: parts.faults.clone(),
        };
        let available = writer.available();
        parts.view.publish_available(available);
        let desk = WriterDesk::new(writer, writer_parts);
        let writer = {
            let desk = desk.clone();
            parts.supervisor.spawn_once(
                member(segment_writer::NAME, "SegmentWriter"),
                &threads[0].handle(),
                move || SegmentWriter::new(desk),
            )
        };
        let (fatal, faults) = (parts.fatal.clone(), parts.faults.clone());
        let keeper = parts.supervisor.spawn_once(
            member(segment_keeper::NAME, "SegmentKeeper"),
            &threads[1].handle(),
            move || SegmentKeeper::new(keeper, written, fatal, faults),
        );
        let consensus_parts = ConsensusParts {
            generation,
            writer: writer.clone(),
            desk,
            own_slot: slot.clone(),
            waiters: parts.waiters.clone(),
            uploads: parts.uploads.clone(),
            upload_bytes: Arc::clone(&parts.upload_bytes),
            peers,
            keeper: keeper.clone(),
            reader: reader.clone(),
            view: Arc::clone(&parts.view),
            measures: Arc::clone(&parts.measures),
            fatal: parts.fatal.clone(),
            tick: parts.tick,
            faults: parts.faults.clone(),
        };
        let rng = StdRng::seed_from_u64(parts.seed.wrapping_add(generation));
        let log = parts.log.new(o!("actor" => consensus::NAME, "generation" => generation));
        let consensus = parts.supervisor.spawn_once(
            member(consensus::NAME, "Consensus"),
            &parts.consensus_arbiter,
            move || {
                let mut core = Core::new(settings, recovery, rng, &log);
                core.set_available(available);
                if let Some((peer, client)) = here {
                    core.set_addresses(peer, client);
                }
                Consensus::new(core, meta, consensus_parts)
            },
        );
        parts.faults.enlist(consensus::NAME, &consensus);
        parts.faults.enlist(segment_writer::NAME, &writer);
        parts.faults.enlist(segment_keeper::NAME, &keeper);
        let lives = [consensus.life(), writer.life(), keeper.life()];
        parts.slot.set(Some(consensus));
        self.members = Some(Members { lives, threads });
        self.stats.set_state(State::Running);
    }

    fn log_recovery(&self, recovered: &Recovered) {
        let report = &recovered.report;
        info!(self.parts.log, "log recovered";
            "generation" => self.generation, "end" => recovered.end.get(), "last" => %recovered.last,
            "segments" => report.segments, "scanned" => report.segments_scanned,
            "rewritten_bytes" => report.bytes_rewritten, "took" => ?report.took);
        if report.torn_bytes > 0 {
            warn!(self.parts.log, "cut a torn tail: an unfinished write, nothing of it was acknowledged";
                "offset" => report.torn_at.map(Offset::get), "bytes" => report.torn_bytes,
                "kept_aside" => ?report.side_files);
        }
        if let Some(loss) = &report.lost {
            warn!(self.parts.log, "cut a corrupt log as told by data.accept_loss: ENTRIES ARE LOST";
                "from" => loss.from.get(), "bytes" => loss.bytes, "why" => &loss.detail,
                "kept_aside" => ?report.side_files);
        }
    }
}

fn member(name: &str, kind: &'static str) -> Child {
    Child { name: name.to_owned(), kind, parent: NAME.to_owned(), restart: Restart::Group }
}
