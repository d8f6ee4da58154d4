//! Lives of a node: formed, started through recovery, ended by a kill, a power cut or a failure of its own.
//!
//! Owns:   the order in which a start does things, as `actors/src/storage_group.rs` has it.
//! Keeps:  a generation's messages reach no other (S13).

use std::sync::Arc;

use loglog_core::{Consensus, Recovery, Settings, start};
use loglog_proto::{Index, RaftId};
use loglog_storage::vfs::Survival;
use loglog_storage::{
    DataDir, LogStart, Member, Membership, MetaState, OpenError, OpenOptions, Recovered, ScanError, Vfs,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slog::Logger;

use super::dials::Fault;
use super::node::{At, Event, Life, Mending, Node, State, uploads};
use super::queue::{MS, Micros, SECOND};
use super::world::{FREE_MIN, GROUP, TAIL_BYTES, World, cluster};

/// Time between Raft's ticks.
pub(super) const TICK: Micros = 100 * MS;
/// How often a writer looks for space.
const SPACE: Micros = 200 * MS;

impl World {
    /// A new node of the first cluster.
    pub(super) fn form(&mut self, id: RaftId, voters: &[Member]) -> At {
        let membership = Membership { index: Index::new(1), voters: voters.to_vec(), learners: Vec::new() };
        self.judge.nodes_at_start += 1;
        self.make(id, membership, LogStart::GENESIS)
    }

    /// A new node that waits to be taken in.
    pub(super) fn join(&mut self, id: RaftId) -> At {
        let membership = Membership { index: Index::ZERO, voters: Vec::new(), learners: Vec::new() };
        let at = self.make(id, membership, LogStart::NOTHING);
        self.queue.push(0, Event::Start { at });
        at
    }

    fn make(&mut self, id: RaftId, membership: Membership, start: LogStart) -> At {
        let mut node = Node::new(id);
        let state = MetaState {
            cluster: cluster(),
            node: id.node(),
            incarnation: id.incarnation(),
            term: start.previous_term,
            vote: None,
            membership,
            start,
            segment_bytes_max: self.segment,
        };
        let dir = DataDir::lock(node.vfs(), &node.dir).expect("an empty disk");
        dir.form(&state).expect("an empty directory");
        drop(dir);
        node.synced_mark = start.mark();
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        self.by_id.insert(id, at);
        at
    }

    /// A process starts on a node.
    pub(super) fn start(&mut self, at: At) {
        let node = &mut self.nodes[at];
        if !matches!(node.state, State::Down) {
            return;
        }
        node.uploads = uploads();
        node.paused_until = 0;
        match DataDir::lock(node.vfs(), &node.dir) {
            Ok(dir) => self.recover(at, dir, OpenOptions::default()),
            Err(error) => self.fail(at, &format!("cannot lock: {error}")),
        }
    }

    /// The storage group lives again, as after a panic of one of its members.
    pub(super) fn restart_in_place(&mut self, at: At, generation: u64) {
        let node = &mut self.nodes[at];
        if node.generation != generation {
            return;
        }
        let State::Up(life) = std::mem::replace(&mut node.state, State::Down) else { return };
        let Life { dir, .. } = *life;
        self.recover(at, dir, OpenOptions::default());
    }

    /// Recovery, then a life; or a repair, where the log is damaged.
    pub(super) fn recover(&mut self, at: At, dir: DataDir, options: OpenOptions) {
        let node = &mut self.nodes[at];
        node.generation += 1;
        node.dies_after = None;
        match dir.open_with(OpenOptions { tail_bytes: TAIL_BYTES, ..options }, GROUP) {
            Ok(recovered) => match start::rebuild_writers(&recovered, false) {
                Ok((writers, _)) => self.run(at, dir, recovered, writers),
                Err(ScanError::Corrupt { offset, .. }) => {
                    self.begin_mending(at, dir, OpenOptions { scan_from: Some(offset), ..options });
                }
                Err(error) => self.fail(at, &format!("cannot scan: {error}")),
            },
            Err(OpenError::Corrupt { .. }) => self.begin_mending(at, dir, options),
            Err(error) => self.fail(at, &format!("cannot open: {error}")),
        }
    }

    fn begin_mending(&mut self, at: At, dir: DataDir, options: OpenOptions) {
        let node = &mut self.nodes[at];
        if !node.is_damaged {
            return self.violate(format!("node {at} finds damage, and none was done"));
        }
        let generation = node.generation;
        node.state = State::Mending(Mending { dir, options });
        self.tell(|| format!("node {at} mends its log"));
        self.queue.push(200 * MS, Event::Mend { at, generation });
    }

    fn run(&mut self, at: At, dir: DataDir, recovered: Recovered, writers: loglog_core::Writers) {
        let seed = self.rng.random();
        let stagger = self.rng.random_range(0..TICK);
        let node = &mut self.nodes[at];
        let generation = node.generation;
        let Recovered { meta, writer, keeper, reader, tail, .. } = recovered;
        // What was synced once is never forgotten (S6); what recovery chose it has synced (S8).
        let (was, vote) = ((node.synced_mark, node.synced_vote), (meta.state().term, meta.state().vote));
        (node.synced_mark, node.synced_vote) = (meta.mark(), vote);
        let is_vote_kept = vote.0 > was.1.0 || vote.0 == was.1.0 && (was.1.1.is_none() || vote.1 == was.1.1);
        if meta.mark() < was.0 || !is_vote_kept {
            let now = (meta.mark(), vote);
            return self.violate(format!("node {at} had synced {was:?}, and comes back with {now:?}"));
        }
        // Who was damaged may have been told that its tail was never committed (S10).
        let (end, was) = (writer.end(), std::mem::replace(&mut node.synced_end, writer.end()));
        if end < was && !node.is_damaged {
            return self
                .violate(format!("node {at} had synced its log up to {was}, and comes back with {end}"));
        }
        let recovery = Recovery {
            meta: meta.state().clone(),
            mark: meta.mark(),
            tail,
            terms: start::terms_of(&reader),
            writers,
        };
        let settings = Settings { free_min: FREE_MIN, group_bytes: GROUP, ..Settings::default() };
        let logger = Logger::root(slog::Discard, slog::o!());
        let judged = reader.start();
        let mut core = Consensus::new(settings, recovery, StdRng::seed_from_u64(seed), &logger);
        core.set_available(writer.available());
        let active = reader.segment_base_at_or_before(writer.end());
        let (end, mark) = (writer.end(), meta.mark());
        node.state = State::Up(Box::new(Life {
            dir,
            meta,
            writer,
            keeper,
            reader,
            core,
            held: std::collections::VecDeque::new(),
            is_writing: false,
            groups: 0,
            is_mark_loose: false,
            active,
            is_turn_due: false,
            is_looking: false,
            missing: std::collections::HashSet::new(),
            places: loglog_core::old_batches::Places::default(),
            receiving: None,
            judged,
        }));
        if node.is_damaged {
            // It would not be up if anything were missing still.
            node.is_damaged = false;
            self.mended += 1;
        }
        self.tell(|| format!("node {at} is up: generation {generation} mark {} end {end}", mark.offset));
        self.judge_committed(at, mark.offset);
        self.queue.push(stagger, Event::Tick { at, generation });
        self.queue.push(SPACE, Event::Space { at, generation });
        self.links_of(at);
        self.turn(at);
    }

    /// The process ends, and with it all that it held in memory; what was unsynced survives as `survival` says, all of it in the page
    /// cache if that is none.
    pub(super) fn end_life(&mut self, at: At, survival: Option<Survival>) {
        // Power that is about to fail does.
        let survival = survival.or_else(|| self.nodes[at].is_power_failing.then(|| self.draw_survival()));
        let node = &mut self.nodes[at];
        node.generation += 1;
        node.dies_after = None;
        node.is_power_failing = false;
        let state = std::mem::replace(&mut node.state, State::Down);
        match survival {
            None => node.disk.kill(),
            Some(survival) => {
                let mut rng = StdRng::seed_from_u64(self.rng.random());
                node.disk.power_cut(survival, &mut rng);
                node.is_disk_faulty = false;
            }
        }
        drop(state);
        self.tell(|| format!("node {at} died: {survival:?}"));
        if std::mem::take(&mut self.nodes[at].fails_again) {
            // Within what this recovery really does: else it would nearly always be over before.
            let operations = self.rng.random_range(0..self.rehearse_recovery(at));
            self.nodes[at].is_power_failing = true;
            self.nodes[at].disk.power_off_after(operations);
        }
        let delay = if self.is_stormy { self.rng.random_range(0..8 * SECOND) } else { 100 * MS };
        self.queue.push(delay, Event::Start { at });
    }

    /// How many storage operations the next recovery takes: it is tried on a copy of the disk.
    fn rehearse_recovery(&self, at: At) -> u64 {
        let node = &self.nodes[at];
        let copy = node.disk.fork();
        let before = copy.counts().total;
        if let Ok(dir) = DataDir::lock(Arc::new(copy.clone()), &node.dir) {
            // What it comes to does not matter here.
            let _ = dir.open_with(OpenOptions::default(), GROUP);
        }
        (copy.counts().total - before).max(1)
    }

    /// The process gives up: it cannot keep what it was told to (S2).
    pub(super) fn fail(&mut self, at: At, why: &str) {
        self.tell(|| format!("node {at} gives up: {why}"));
        let node = &mut self.nodes[at];
        if node.is_power_failing {
            let is_recovering = matches!(node.state, State::Down);
            self.count(if is_recovering { Fault::CrashInRecovery } else { Fault::CrashInDisk });
            let survival = self.draw_survival();
            return self.end_life(at, Some(survival));
        }
        if node.is_disk_faulty && why.contains("injected") {
            let is = |what: &str| why.contains(what);
            self.count(if is("injected failure of Sync") {
                Fault::FailedSync
            } else if is("injected failure of Write") || is("injected short write") {
                Fault::FailedWrite
            } else {
                Fault::FailedCall
            });
            if self.rng.random_bool(0.5) {
                // What the next life finds in the page cache is not on the disk: the power tells.
                return self.start_and_lose_power(at);
            }
        } else if !(node.is_full && why.contains("space")) {
            return self.violate(format!("node {at} gives up, and nothing was done to it: {why}"));
        }
        self.end_life(at, None);
    }

    /// A node comes back at once, and its power fails soon.
    fn start_and_lose_power(&mut self, at: At) {
        self.end_life(at, None);
        self.start(at);
        let (generation, delay) = (self.nodes[at].generation, self.rng.random_range(0..3 * SECOND));
        self.queue.push(delay, Event::PowerFails { at, generation });
    }

    pub(super) fn power_fails(&mut self, at: At, generation: u64) {
        if self.nodes[at].generation == generation && self.nodes[at].is_up() {
            self.count(Fault::PowerCut);
            let survival = self.draw_survival();
            self.end_life(at, Some(survival));
        }
    }

    pub(super) fn draw_survival(&mut self) -> Survival {
        Survival::ALL[self.rng.random_range(0..4)]
    }

    /// Whether the disk has room; looked at now and then.
    pub(super) fn look_at_space(&mut self, at: At, generation: u64) {
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let waits = !life.held.is_empty() && !life.is_writing;
        self.queue.push(SPACE, Event::Space { at, generation });
        if waits {
            self.write(at, generation);
        }
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let available = if life.held.is_empty() { life.writer.available() } else { 0 };
        life.core.set_available(available);
        self.turn_soon(at);
    }

    /// Whether the file system of a node is as it should be, from now on.
    pub(super) fn mend_disk(&mut self, at: At) {
        let node = &mut self.nodes[at];
        node.disk.heal();
        (node.is_disk_faulty, node.is_full, node.fails_again, node.is_power_failing) =
            (false, false, false, false);
    }

    /// Bytes that all files of a node take.
    pub(super) fn used(&self, at: At) -> u64 {
        let node = &self.nodes[at];
        let vfs: Arc<dyn Vfs> = node.vfs();
        node.disk.set_space(Some(u64::MAX >> 1));
        let free = vfs.free_bytes(&node.dir).unwrap_or(0);
        node.disk.set_space(None);
        (u64::MAX >> 1) - free
    }
}
