//! Consensus actor: the shell around [`loglog_core::Consensus`].
//!
//! ```text
//!   Appends, AskEnd, Synced, tick ─► core ─► Effects ─► meta saved ─► SegmentWriter
//!                                                   └─► committed ─► LogView, ReadWaiters, answers
//! ```
//!
//! Owns:   the node's `meta` file, the clock ticks, the order in which effects are carried out.
//! Keeps:  term and vote are durable before anything that follows from them leaves this actor (S14).
//! Never:  decides.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message};
use bytes::Bytes;
use loglog_core::consensus::Order;
use loglog_core::effects::Fetch;
use loglog_core::gate::Want;
use loglog_core::{Append, Consensus as Core, Effects, Role, WriteGroup, old_batches};
use loglog_proto::entry::OVERHEAD;
use loglog_proto::error::Refusal;
use loglog_proto::peer::{PeerAccepted, PeerStanding, RaftMessage};
use loglog_proto::{LogId, RaftId, Term};
use loglog_storage::{LogReader, Mark, Member, Meta, NewBatch};
use serde_json::{Value, json};
use slog::{info, warn};
use tokio::sync::oneshot;

use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::measures::Measures;
use crate::peer::fetcher::{FetchPayloads, Fetcher};
use crate::peer::link::Send;
use crate::peer::links::Links;
use crate::peer::pace::Pace;
use crate::peer::receiver::{Receive, SnapshotReceiver};
use crate::read_waiters::{Grown, ReadWaiters};
use crate::segment_keeper::{SegmentKeeper, Trim};
use crate::segment_writer::{SegmentWriter, Write, WriterDesk};
use crate::storage_group::Fatal;
use crate::supervisor::Handle;
use crate::ticket::{Ticket, answer_all};
use crate::upload_buffer::{Unneeded, UploadBuffer, Wanted};
use crate::view::{LogView, PeerStatus};

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "consensus";

/// How often it is looked whether payloads are missing: those that were at the last look, too, are fetched. Uploads of a busy client
/// may come some milliseconds behind the leader's word, and what is fetched meanwhile is carried twice; a writer that does not
/// upload at all is not waited for (see the upload buffer).
const MISSING_INTERVAL: Duration = Duration::from_millis(8);

/// A group of up to so many bytes of log may be written without the writer's thread.
const AT_ONCE_BYTES: usize = 16 << 10;
/// As long as the disk is so fast.
const AT_ONCE_WITHIN: Duration = Duration::from_millis(1);

/// The actor.
pub struct Consensus {
    core: Core<Ticket>,
    meta: Meta,
    parts: ConsensusParts,
    /// A turn is due, and comes behind what is in the mailbox.
    is_turn_due: bool,
    /// The mark was saved and not synced since.
    is_mark_loose: bool,
    /// Groups written since the last tick: the disk is busy, the mark can wait.
    groups: u64,
    /// Groups on their way to the disk.
    unsynced: usize,
    /// How long the last group took that was written without the writer's thread; less the longer ago that is.
    sync_took: Duration,
    /// Role, term and leader as they were told last.
    standing: Option<(Role, Term, Option<RaftId>)>,
    /// Batches whose payloads were missing at the last look.
    missing: HashSet<LogId>,
    /// Whether missing payloads are looked for.
    is_looking: bool,
    /// Where old batches lie that were asked for last.
    places: Arc<old_batches::Places>,
}

/// What the actor works with.
pub struct ConsensusParts {
    /// This life of the storage group (S13).
    pub generation: u64,
    /// Where write groups go.
    pub writer: Handle<SegmentWriter>,
    /// Where a small one is written without going there.
    pub desk: WriterDesk,
    /// Who removes what is trimmed.
    pub keeper: Handle<SegmentKeeper>,
    /// Where the writer finds this actor.
    pub own_slot: ConsensusSlot,
    /// Whom to tell that the log has grown.
    pub waiters: Handle<ReadWaiters>,
    /// Where payloads wait.
    pub uploads: Handle<UploadBuffer>,
    /// Bytes that the upload buffer holds.
    pub upload_bytes: Arc<AtomicUsize>,
    /// The other nodes.
    pub peers: Peers,
    /// Reads old batches for far-behind peers.
    pub reader: LogReader,
    /// Where watermarks are published.
    pub view: Arc<LogView>,
    /// What is counted and timed.
    pub measures: Arc<Measures>,
    /// Where the end of this process is asked for.
    pub fatal: Fatal,
    /// Time between Raft's ticks.
    pub tick: Duration,
    /// Injected faults.
    pub faults: Faults,
}

/// How the other nodes are reached.
#[derive(Clone)]
pub struct Peers {
    /// One link each.
    pub links: Arc<Links>,
    /// Gets payloads that no client brought.
    pub fetcher: Handle<Fetcher>,
    /// Gets a log that takes the place of ours.
    pub receiver: Handle<SnapshotReceiver>,
    /// How fast small payloads of old batches go to them.
    pub pace: Pace,
}

/// Where the consensus actor of the moment is found; empty while the storage group is down.
#[derive(Clone, Default)]
pub struct ConsensusSlot(Arc<Mutex<Option<Handle<Consensus>>>>);

impl ConsensusSlot {
    /// The actor of the moment.
    #[must_use]
    pub fn get(&self) -> Option<Handle<Consensus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, consensus: Option<Handle<Consensus>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = consensus;
    }
}

/// Appends, in the order in which they are to be decided.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Appends(pub Vec<(Ticket, Append)>);

/// Appends that cannot be proposed, and why; a node that does not lead says that instead.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Refusals(pub Vec<(Ticket, Refusal)>);

/// Asks for the committed end, no older than now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AskEnd(pub Ticket);

/// Asks for a batch that is not synced here yet. Nothing is answered where there is none.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Unsynced {
    /// Which.
    pub batch: LogId,
    /// Where it goes.
    pub answer: oneshot::Sender<NewBatch>,
}

/// A write group is durable.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Synced {
    /// Of which life of the storage group (S13).
    pub generation: u64,
    /// The group's number.
    pub group: u64,
    /// Free bytes for new entries, after it.
    pub available: u64,
    /// A segment was sealed: the mark is to be synced.
    pub is_sealed: bool,
}

/// How much room the disk has.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Available(pub u64);

/// What a peer said, in its order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PeerSays {
    /// Who.
    pub from: RaftId,
    /// In which life of its storage.
    pub life: u64,
    /// Raft's messages.
    pub messages: Vec<RaftMessage>,
    /// How it stands.
    pub standing: Option<PeerStanding>,
}

/// A peer accepted our link, and said what it holds.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct PeerAccepts {
    /// Who.
    pub peer: RaftId,
    /// What it said.
    pub accepted: PeerAccepted,
}

/// What an operator asks.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ordered {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// What is asked, all looked up.
    pub order: Order,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// A snapshot was not received.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct InstallFailed;

/// Messages to this peer were lost.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Unreachable(pub RaftId);

/// The payloads of a batch that was wanted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Payloads {
    /// The batch.
    pub want: Want,
    /// In the order of its references.
    pub payloads: Vec<Bytes>,
}

/// Let another node lead, if there is one: this one is going.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct HandOver;

#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

impl Consensus {
    /// The shell around `core`.
    pub fn new(core: Core<Ticket>, meta: Meta, parts: ConsensusParts) -> Self {
        Self {
            core,
            meta,
            parts,
            is_turn_due: false,
            is_mark_loose: false,
            groups: 0,
            unsynced: 0,
            sync_took: Duration::ZERO,
            standing: None,
            missing: HashSet::new(),
            is_looking: false,
            places: Arc::default(),
        }
    }

    /// Has a turn follow what is queued now: the more is queued, the larger the batch.
    fn turn_soon(&mut self, ctx: &mut Ctx<Self>) {
        if !self.is_turn_due {
            self.is_turn_due = true;
            ctx.notify(Turn);
        }
    }

    fn turn(&mut self, ctx: &mut Ctx<Self>) {
        let effects = self.core.turn(unix_ms());
        self.carry_out(effects, ctx);
    }

    /// Sends messages, those to one peer together.
    fn say(&self, life: u64, messages: Vec<RaftMessage>) {
        let mut by_peer: HashMap<RaftId, Vec<RaftMessage>> = HashMap::new();
        for message in messages {
            by_peer.entry(message.to).or_default().push(message);
        }
        for (peer, messages) in by_peer {
            self.parts.peers.links.send(peer, Send { life, messages, standing: None });
        }
    }

    /// Reads batches that are no longer in memory, off this thread (S17).
    fn read_old(&self, fetch: Fetch, ctx: &mut Ctx<Self>) {
        let (reader, places) = (self.parts.reader.clone(), Arc::clone(&self.places));
        let pace = self.parts.peers.pace.clone();
        let reading = async move {
            let read = move || old_batches::read(&reader, &places, fetch.first, fetch.last);
            let result = tokio::task::spawn_blocking(read).await;
            if let Ok(Ok(batches)) = &result {
                let small: usize = batches.iter().map(|batch| batch.inline.len()).sum();
                if small > 0 {
                    pace.take(small as u64).await;
                }
            }
            result
        };
        ctx.spawn(wrap_future::<_, Self>(reading).map(move |result, consensus, ctx| {
            let batches = match result {
                Ok(Ok(batches)) => batches,
                Ok(Err(error)) => {
                    warn!(ctx.log(), "cannot read old batches for a peer"; "first" => fetch.first.get(), "error" => %error);
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            consensus.core.fetched(fetch.number, batches);
            consensus.turn_soon(ctx);
        }));
    }

    /// Asks peers for what clients should have brought by now.
    fn fetch_missing(&mut self) {
        let wants = self.core.wanted();
        // What was not missing at the last look may be on its way from its client still.
        let (known, fresh) =
            wants.into_iter().partition::<Vec<_>, _>(|want| self.missing.contains(&want.log_id));
        self.missing = known.iter().chain(&fresh).map(|want| want.log_id).collect();
        if !known.is_empty() {
            // A fetcher that is down is asked again at the next look.
            let _ = self
                .parts
                .peers
                .fetcher
                .tell(FetchPayloads { wants: known, leader: self.core.status().leader });
        }
    }

    /// From when on there is somebody to fetch from.
    fn look_for_missing(&mut self, ctx: &mut Ctx<Self>) {
        if !self.is_looking && !self.parts.peers.links.is_empty() {
            self.is_looking = true;
            ctx.run_interval(MISSING_INTERVAL, |consensus, _| consensus.fetch_missing());
        }
    }

    /// Shows how the other members stand.
    fn publish_peers(&self) {
        let (committed, parts) = (self.core.status().committed, &self.parts);
        let peers = self.core.peers().into_iter();
        let peers = peers.map(|peer| PeerStatus::of(peer, committed, &parts.reader, parts.tick));
        self.parts.view.publish_peers(peers.collect());
    }

    fn observe(&self) -> Value {
        let status = self.core.status();
        json!({
            "role": format!("{:?}", status.role).to_lowercase(),
            "term": status.term.get(),
            "leader": status.leader.map(|leader| leader.node().get()),
            "commit_index": status.committed.index.get(),
            "committed": status.committed.offset.get(),
            "durable": status.durable.get(),
            "in_flight_batches": status.in_flight,
            "queued": status.queued,
            "writers": status.writers,
            "generation": self.parts.generation,
        })
    }

    fn carry_out(&mut self, effects: Effects<Ticket>, ctx: &mut Ctx<Self>) {
        if self.parts.fatal.is_reported() {
            // Nothing is acknowledged any more (S2): the tickets in these effects answer for themselves.
            return;
        }
        let Effects {
            save,
            mut groups,
            members,
            messages,
            standing,
            wants,
            fetches,
            committed,
            mut mark,
            ..
        } = effects;
        let Effects { inline, trim, install, hands_over, answers, .. } = effects;
        if let Some(state) = save
            && let Err(error) = self.meta.save(*state)
        {
            return self.parts.fatal.report(format!("cannot save term and vote: {error}"));
        }
        self.groups += groups.len() as u64;
        self.unsynced += groups.len();
        // What is written at once is so behind everything else that this turn brought.
        let at_once = if self.is_for_now(&groups) { groups.pop() } else { None };
        groups.into_iter().for_each(|group| self.write(group));
        if let Some(state) = trim {
            if !self.save_mark(mark.take()) {
                return;
            }
            let start = state.start;
            // This syncs the mark as well, before anything is unlinked (S36).
            if let Err(error) = self.meta.save(*state) {
                return self.parts.fatal.report(format!("cannot save the log's start: {error}"));
            }
            self.is_mark_loose = false;
            // A keeper that is gone takes this actor with it; recovery removes what it left.
            let _ = self.parts.keeper.tell(Trim(start));
        }
        let status = self.core.status();
        let life = status.accepted.life;
        if let Some(membership) = members {
            info!(ctx.log(), "the members changed"; "index" => membership.index.get(),
                "voters" => nodes(&membership.voters), "learners" => nodes(&membership.learners));
            self.parts.peers.links.follow(&membership);
        }
        self.look_for_missing(ctx);
        self.say(life, messages);
        if let Some(standing) = standing {
            self.parts.peers.links.tell_all(life, standing);
        }
        if let Some(install) = install {
            let (state, generation) = (self.meta.state().clone(), self.parts.generation);
            let receive = Receive { install: *install, state, generation };
            // A receiver that restarts says that it failed.
            let _ = self.parts.peers.receiver.tell(receive);
        }
        if !wants.is_empty() {
            // Lost wants are asked for again by the look at what is missing.
            let _ = self.parts.uploads.tell(Wanted(wants));
        }
        // Seldom: clients do not upload what comes inline.
        if !inline.is_empty() && self.parts.upload_bytes.load(Ordering::Relaxed) > 0 {
            // Lost, they stay until they expire.
            let _ = self.parts.uploads.tell(Unneeded(inline));
        }
        for fetch in fetches {
            self.read_old(fetch, ctx);
        }
        if let Some((successor, reason)) = hands_over {
            warn!(ctx.log(), "another node is asked to lead"; "successor" => successor.node().get(), "why" => %reason);
        }
        let standing = (status.role, status.term, status.leader);
        if self.standing != Some(standing) {
            if let Some(leader) = status.leader {
                self.parts.measures.led_by(leader);
            }
            self.standing = Some(standing);
            info!(ctx.log(), "this node's standing"; "role" => ?status.role, "term" => status.term.get(),
                "leader" => status.leader.map(|leader| leader.node().get()));
        }
        self.parts.view.publish_status(status);
        if let Some(committed) = committed {
            self.parts.view.publish_committed(committed);
            // While the waiters restart, each wait looks at the view again by itself.
            let _ = self.parts.waiters.tell(Grown);
        }
        answer_all(answers);
        // Behind the answers: a mark that is older than it might be costs a recovery some more reading.
        if !self.save_mark(mark) {
            return;
        }
        if let Some(group) = at_once {
            self.write_now(group, ctx);
        }
    }

    /// False: it failed, and the process ends.
    fn save_mark(&mut self, mark: Option<Mark>) -> bool {
        let Some(mark) = mark else { return true };
        self.is_mark_loose = true;
        let saved = self.meta.save_mark(mark);
        if let Err(error) = &saved {
            self.parts.fatal.report(format!("cannot save the mark: {error}"));
        }
        saved.is_ok()
    }

    fn write(&self, group: WriteGroup) {
        // A writer that is gone takes this actor with it: the group restarts as one.
        let _ = self.parts.writer.tell(Write { generation: self.parts.generation, group });
    }

    /// Whether a group is written without the writer's thread: that takes as long as two threads take to wake each other, and nobody is
    /// kept waiting meanwhile who would not wait for this group anyway. Not by a leader of others: whatever its disk does, they are to
    /// hear of it.
    fn is_for_now(&self, groups: &[WriteGroup]) -> bool {
        let [group] = groups else { return false };
        let bytes = |batch: &NewBatch| {
            batch.entries.iter().map(|entry| entry.payload.len() + OVERHEAD).sum::<usize>()
        };
        self.unsynced == 1
            && group.truncate.is_none()
            && (self.parts.peers.links.is_empty() || self.core.status().role == Role::Follower)
            && self.sync_took < AT_ONCE_WITHIN
            && group.batches.iter().map(bytes).sum::<usize>() <= AT_ONCE_BYTES
    }

    fn write_now(&mut self, group: WriteGroup, ctx: &mut Ctx<Self>) {
        let began = Instant::now();
        match self.parts.desk.write_now(group, ctx.log()) {
            Ok(Some(synced)) => {
                self.synced(synced);
                self.sync_took = began.elapsed();
                // At once: who waits for it has waited long enough.
                self.turn(ctx);
            }
            // It is held until there is room, or the process ends.
            Ok(None) => {}
            Err(group) => self.write(group),
        }
    }

    fn synced(&mut self, synced: Synced) {
        self.unsynced -= 1;
        self.core.synced(synced.group);
        self.core.set_available(synced.available);
        if synced.is_sealed {
            self.sync_mark();
        }
    }

    fn sync_mark(&mut self) {
        if self.is_mark_loose {
            self.is_mark_loose = false;
            if let Err(error) = self.meta.sync() {
                self.parts.fatal.report(format!("cannot sync the mark: {error}"));
            }
        }
    }

    fn tick_later(&self, ctx: &mut Ctx<Self>) {
        // Armed anew after each tick: time lost to a stall is not made up for in a burst (S18).
        ctx.run_later(self.parts.tick, |consensus, ctx| {
            consensus.core.tick();
            consensus.turn(ctx);
            if std::mem::take(&mut consensus.groups) == 0 {
                consensus.sync_mark();
            }
            consensus.publish_peers();
            consensus.tick_later(ctx);
        });
    }
}

impl Actor for Consensus {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parts.faults.on_start(NAME);
        ctx.show(Self::observe);
        // Before the first group is on its way: the writer may be through with it before anybody else goes on.
        self.parts.own_slot.set(Some(ctx.this()));
        self.parts.peers.links.set_life(self.core.status().accepted.life);
        self.turn(ctx);
        self.tick_later(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        if !self.parts.fatal.is_reported() {
            self.sync_mark();
        }
    }
}

impl Handler<Appends> for Consensus {
    type Result = ();

    fn handle(&mut self, Appends(appends): Appends, ctx: &mut Self::Context) {
        for (ticket, append) in appends {
            self.core.append(ticket, append);
        }
        self.turn_soon(ctx);
    }
}

impl Handler<Refusals> for Consensus {
    type Result = ();

    fn handle(&mut self, Refusals(refusals): Refusals, ctx: &mut Self::Context) {
        for (ticket, refusal) in refusals {
            self.core.refuse(ticket, refusal);
        }
        self.turn_soon(ctx);
    }
}

impl Handler<AskEnd> for Consensus {
    type Result = ();

    fn handle(&mut self, AskEnd(ticket): AskEnd, ctx: &mut Self::Context) {
        self.core.end(ticket);
        self.turn_soon(ctx);
    }
}

impl Handler<Unsynced> for Consensus {
    type Result = ();

    fn handle(&mut self, Unsynced { batch, answer }: Unsynced, _ctx: &mut Self::Context) {
        if let Some(batch) = self.core.unsynced(batch) {
            // A peer that is gone needs it no more.
            let _ = answer.send(batch.clone());
        }
    }
}

impl Handler<Synced> for Consensus {
    type Result = ();

    fn handle(&mut self, synced: Synced, ctx: &mut Self::Context) {
        if synced.generation == self.parts.generation {
            self.synced(synced);
            // By and by the disk may be as fast as it was.
            self.sync_took /= 2;
            self.turn_soon(ctx);
        }
    }
}

impl Handler<Available> for Consensus {
    type Result = ();

    fn handle(&mut self, Available(bytes): Available, ctx: &mut Self::Context) {
        self.core.set_available(bytes);
        self.turn_soon(ctx);
    }
}

impl Handler<Turn> for Consensus {
    type Result = ();

    fn handle(&mut self, _turn: Turn, ctx: &mut Self::Context) {
        let begun = ctx.begin::<Turn>();
        self.is_turn_due = false;
        self.turn(ctx);
        ctx.end(begun);
    }
}

impl Handler<PeerSays> for Consensus {
    type Result = ();

    fn handle(&mut self, says: PeerSays, ctx: &mut Self::Context) {
        let PeerSays { from, life, messages, standing } = says;
        if let Some(standing) = standing {
            self.core.stands(from, standing);
        }
        for message in messages {
            if let Err(error) = self.core.step(life, message) {
                warn!(ctx.log(), "a peer is not heard"; "error" => %error);
            }
        }
        self.turn_soon(ctx);
    }
}

impl Handler<PeerAccepts> for Consensus {
    type Result = ();

    fn handle(&mut self, PeerAccepts { peer, accepted }: PeerAccepts, ctx: &mut Self::Context) {
        self.core.accepted(peer, accepted);
        self.turn_soon(ctx);
    }
}

impl Handler<Ordered> for Consensus {
    type Result = ();

    fn handle(&mut self, Ordered { ticket, order, dry_run }: Ordered, ctx: &mut Self::Context) {
        self.core.manage(ticket, order, dry_run);
        self.turn_soon(ctx);
    }
}

impl Handler<InstallFailed> for Consensus {
    type Result = ();

    fn handle(&mut self, _failed: InstallFailed, ctx: &mut Self::Context) {
        self.core.install_failed();
        self.turn_soon(ctx);
    }
}

impl Handler<HandOver> for Consensus {
    type Result = ();

    fn handle(&mut self, _hand_over: HandOver, ctx: &mut Self::Context) {
        self.core.hand_over();
        self.turn_soon(ctx);
    }
}

impl Handler<Unreachable> for Consensus {
    type Result = ();

    fn handle(&mut self, Unreachable(peer): Unreachable, ctx: &mut Self::Context) {
        self.core.unreachable(peer);
        self.turn_soon(ctx);
    }
}

impl Handler<Payloads> for Consensus {
    type Result = ();

    fn handle(&mut self, Payloads { want, payloads }: Payloads, ctx: &mut Self::Context) {
        if let Err(error) = self.core.payloads(&want, payloads) {
            warn!(ctx.log(), "payloads are thrown away and fetched"; "error" => %error);
        }
        self.turn_soon(ctx);
    }
}

impl Handler<Fault> for Consensus {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}

/// Their numbers, for people.
fn nodes(members: &[Member]) -> String {
    members.iter().map(|member| member.id.node().to_string()).collect::<Vec<_>>().join(" ")
}

/// Milliseconds since 1970; 0 where the clock is older.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
