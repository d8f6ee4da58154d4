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

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor, AsyncContext, Handler, Message};
use loglog_core::{Append, Consensus as Core, Effects};
use loglog_storage::Meta;

use crate::faults::{Fault, Faults, panic_as_told};
use crate::guard::Ctx;
use crate::read_waiters::{Grown, ReadWaiters};
use crate::segment_writer::{SegmentWriter, Write};
use crate::storage_group::Fatal;
use crate::supervisor::Handle;
use crate::ticket::{Ticket, answer_all};
use crate::view::LogView;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "consensus";

/// The actor.
pub struct Consensus {
    core: Core<Ticket>,
    meta: Meta,
    parts: ConsensusParts,
    /// A turn is due, and on its way through the mailbox behind what is queued there.
    is_turn_due: bool,
    /// The mark was saved and not synced since.
    is_mark_loose: bool,
    /// Groups written since the last tick: the disk is busy, the mark can wait.
    groups: u64,
}

/// What the actor works with.
pub struct ConsensusParts {
    /// This life of the storage group (S13).
    pub generation: u64,
    /// Where write groups go.
    pub writer: Handle<SegmentWriter>,
    /// Whom to tell that the log has grown.
    pub waiters: Handle<ReadWaiters>,
    /// Where watermarks are published.
    pub view: Arc<LogView>,
    /// Where the end of this process is asked for.
    pub fatal: Fatal,
    /// Time between Raft's ticks.
    pub tick: Duration,
    /// Injected faults.
    pub faults: Faults,
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

/// Asks for the committed end, no older than now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AskEnd(pub Ticket);

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

#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

impl Consensus {
    /// The shell around `core`.
    pub fn new(core: Core<Ticket>, meta: Meta, parts: ConsensusParts) -> Self {
        Self { core, meta, parts, is_turn_due: false, is_mark_loose: false, groups: 0 }
    }

    /// Has a turn follow what is queued now: the more is queued, the larger the batch.
    fn turn_soon(&mut self, ctx: &mut Ctx<Self>) {
        if !self.is_turn_due {
            self.is_turn_due = true;
            ctx.notify(Turn);
        }
    }

    fn turn(&mut self) {
        let effects = self.core.turn(unix_ms());
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects<Ticket>) {
        let Effects { save, groups, committed, mark, answers } = effects;
        if let Some(state) = save
            && let Err(error) = self.meta.save(*state)
        {
            return self.parts.fatal.report(format!("cannot save term and vote: {error}"));
        }
        for group in groups {
            self.groups += 1;
            // A writer that is gone takes this actor with it: the group restarts as one.
            let _ = self.parts.writer.tell(Write { generation: self.parts.generation, group });
        }
        if let Some(mark) = mark {
            self.is_mark_loose = true;
            if let Err(error) = self.meta.save_mark(mark) {
                return self.parts.fatal.report(format!("cannot save the mark: {error}"));
            }
        }
        self.parts.view.publish_status(self.core.status());
        if let Some(committed) = committed {
            self.parts.view.publish_committed(committed);
            // While the waiters restart, each wait looks at the view again by itself.
            let _ = self.parts.waiters.tell(Grown);
        }
        answer_all(answers);
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
            consensus.turn();
            if std::mem::take(&mut consensus.groups) == 0 {
                consensus.sync_mark();
            }
            consensus.tick_later(ctx);
        });
    }
}

impl Actor for Consensus {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parts.faults.on_start(NAME);
        self.turn();
        self.tick_later(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.sync_mark();
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

impl Handler<AskEnd> for Consensus {
    type Result = ();

    fn handle(&mut self, AskEnd(ticket): AskEnd, ctx: &mut Self::Context) {
        self.core.end(ticket);
        self.turn_soon(ctx);
    }
}

impl Handler<Synced> for Consensus {
    type Result = ();

    fn handle(&mut self, synced: Synced, ctx: &mut Self::Context) {
        if synced.generation != self.parts.generation {
            return;
        }
        self.core.synced(synced.group);
        self.core.set_available(synced.available);
        if synced.is_sealed {
            self.sync_mark();
        }
        self.turn_soon(ctx);
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

    fn handle(&mut self, _turn: Turn, _ctx: &mut Self::Context) {
        self.is_turn_due = false;
        self.turn();
    }
}

impl Handler<Fault> for Consensus {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        panic_as_told(how, ctx);
    }
}

/// Milliseconds since 1970; 0 where the clock is older.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
