//! Segment keeper actor: prepares the next segment's file while the disk is idle.
//!
//! Writing over zeros that lie on the disk already makes a sync about a third faster than growing a file, but preparing
//! them while appends stream in would take half the disk from them. So it works in small steps, and only while little is written.
//!
//! Owns:   the spare file.
//! Never:  touches an active segment (S4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message};
use loglog_storage::{KeeperError, LogStart, Prepared, SegmentKeeper as Keeper};
use serde_json::json;
use slog::{debug, info};

use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::storage_group::Fatal;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "segment-keeper";

/// Time between looks at how busy the disk is.
const INTERVAL: Duration = Duration::from_millis(25);
/// Log bytes written between two looks that count as busy.
const BUSY_BYTES: u64 = 256 << 10;
/// Looks left out after a step that failed.
const PAUSE_LOOKS: u32 = 40;

/// The actor.
pub struct SegmentKeeper {
    keeper: Keeper,
    written: Arc<AtomicU64>,
    written_before: u64,
    pause: u32,
    fatal: Fatal,
    faults: Faults,
}

impl SegmentKeeper {
    /// The shell around `keeper`. `written` counts the writer's log bytes.
    pub fn new(keeper: Keeper, written: Arc<AtomicU64>, fatal: Fatal, faults: Faults) -> Self {
        Self { keeper, written, written_before: 0, pause: 0, fatal, faults }
    }

    fn look(&mut self, ctx: &mut Ctx<Self>) {
        let written = self.written.load(Ordering::Relaxed);
        let is_busy = written - self.written_before > BUSY_BYTES;
        self.written_before = written;
        if self.pause > 0 {
            self.pause -= 1;
        } else if !is_busy {
            match self.keeper.prepare_step() {
                Ok(Prepared::More) => {}
                Ok(Prepared::Done) => self.pause = PAUSE_LOOKS,
                Err(error @ KeeperError::NoSpace { .. }) => {
                    self.pause = PAUSE_LOOKS;
                    debug!(ctx.log(), "the next segment is not prepared"; "error" => %error);
                }
                Err(error) => self.fatal.report(format!("cannot prepare a segment: {error}")),
            }
        }
    }
}

impl Actor for SegmentKeeper {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(NAME);
        ctx.show(|keeper| json!({ "spare_bytes": keeper.keeper.spare_bytes() }));
        ctx.run_interval(INTERVAL, Self::look);
    }
}

/// The log begins here now; `meta` says so already, synced (S36).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Trim(pub LogStart);

impl Handler<Trim> for SegmentKeeper {
    type Result = ();

    fn handle(&mut self, Trim(start): Trim, ctx: &mut Self::Context) {
        match self.keeper.trim(start) {
            Ok(report) => info!(ctx.log(), "trimmed the log"; "start" => report.start.get(),
                "segments" => report.segments, "bytes" => report.bytes),
            Err(error) => self.fatal.report(format!("cannot trim the log: {error}")),
        }
    }
}

impl Handler<Fault> for SegmentKeeper {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
