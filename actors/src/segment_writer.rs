//! Segment writer actor: makes write groups durable, one after the other, in its own thread.
//!
//! ```text
//!     Consensus ─► Write ─► (own thread) ─► desk: one write, one sync ─► Synced ─► Consensus
//!              └──────── a small group, nobody else waiting ─► desk ─► and goes on at once
//! ```
//!
//! Owns:   the desk: the active segment; one write and one sync per group (S3).
//! Keeps:  a group is reported only after its sync; after a failed write or sync nothing is reported any more (S2). Whoever is at the desk
//!         is alone there, and groups are written in their order.
//! Never:  learns what is committed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message};
use loglog_core::{Truncation, WriteGroup};
use loglog_proto::Offset;
use loglog_storage::{LogReader, LogWriter, WriteError};
use serde_json::{Value, json};
use slog::{Logger, info, warn};

use crate::consensus::{Available, ConsensusSlot, Synced};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::measures::Measures;
use crate::storage_group::Fatal;
use crate::view::LogView;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "segment-writer";

/// How often a writer without space looks for some, and how often free space is looked at anyway.
const SPACE_INTERVAL: Duration = Duration::from_millis(200);

/// The file system is asked how much it has left after so many bytes or so long, whichever comes first.
const ASKED_AFTER: u64 = 1 << 20;
const ASKED_WITHIN: Duration = Duration::from_millis(20);

/// The actor.
pub struct SegmentWriter(WriterDesk);

/// Where groups are written, by one at a time.
#[derive(Clone)]
pub struct WriterDesk(Arc<Mutex<Desk>>);

struct Desk {
    writer: LogWriter,
    parts: WriterParts,
    /// Groups that wait for space; empty unless the disk is full.
    held: VecDeque<WriteGroup>,
    /// Whether the want of space was told.
    is_full: bool,
    /// Base of the active segment.
    active: Option<Offset>,
    /// Groups made durable.
    groups: u64,
    /// Bytes that new entries may still take, when the file system was asked, and what was written since.
    free: u64,
    asked: Instant,
    since: u64,
}

/// What the actor works with.
pub struct WriterParts {
    /// This life of the storage group (S13).
    pub generation: u64,
    /// Whom to tell what is durable.
    pub consensus: ConsensusSlot,
    /// Shows when a segment was sealed.
    pub reader: LogReader,
    /// Where free space is published.
    pub view: Arc<LogView>,
    /// Where the end of this process is asked for.
    pub fatal: Fatal,
    /// Log bytes written, for the keeper, which works while the disk is idle.
    pub written: Arc<AtomicU64>,
    /// What is counted and timed.
    pub measures: Arc<Measures>,
    /// Injected faults.
    pub faults: Faults,
}

/// Make this group durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write {
    /// Of which life of the storage group (S13).
    pub generation: u64,
    /// The group.
    pub group: WriteGroup,
}

impl WriterDesk {
    /// A desk for `writer`.
    pub fn new(writer: LogWriter, parts: WriterParts) -> Self {
        let active = parts.reader.segment_base_at_or_before(writer.end());
        Self(Arc::new(Mutex::new(Desk {
            writer,
            parts,
            held: VecDeque::new(),
            is_full: false,
            active,
            groups: 0,
            free: 0,
            asked: Instant::now(),
            since: ASKED_AFTER,
        })))
    }

    /// Writes a group here and now, unless somebody else is at the desk or groups are held: then it is given back.
    ///
    /// # Errors
    /// The group, which is to go to the actor.
    pub fn write_now(&self, group: WriteGroup, log: &Logger) -> Result<Option<Synced>, WriteGroup> {
        let mut desk = match self.0.try_lock() {
            Ok(desk) if desk.held.is_empty() => desk,
            // A panic at the desk ends the group of actors, and this group of entries with it.
            Ok(_) | Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return Err(group),
        };
        desk.held.push_back(group);
        Ok(desk.write_held(log).pop())
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().expect("a panic at the desk ends the actor")
    }
}

impl Desk {
    /// Writes what is held, as far as space allows; says what of it is synced.
    fn write_held(&mut self, log: &Logger) -> Vec<Synced> {
        let mut synced = Vec::new();
        while let Some(group) = self.held.front_mut() {
            if self.parts.fatal.is_reported() {
                // Nothing may be acknowledged any more, whatever could still be written (S2).
                self.held.clear();
                break;
            }
            let result = match group.truncate.take() {
                Some(Truncation { first_removed, to, last }) => self.writer.truncate(first_removed, to, last),
                None => Ok(()),
            };
            let (before, began) = (self.writer.end(), self.parts.measures.now());
            let result = result.and_then(|()| self.writer.write(&group.batches));
            let bytes = (self.writer.end() - before).get();
            self.parts.written.fetch_add(bytes, Ordering::Relaxed);
            match result {
                Ok(_) => {
                    let number = group.number;
                    let entries: usize = group.batches.iter().map(|batch| batch.entries.len()).sum();
                    self.parts.measures.synced(began, entries as u64, bytes);
                    self.groups += 1;
                    self.held.pop_front();
                    synced.push(self.report(number, bytes));
                }
                Err(error @ WriteError::NoSpace { .. }) => {
                    let done = self.writer.end();
                    group.batches =
                        group.batches.iter().filter(|batch| batch.offset >= done).cloned().collect();
                    if !std::mem::replace(&mut self.is_full, true) {
                        warn!(log, "the disk is full, waiting for room"; "error" => %error);
                    }
                    break;
                }
                Err(error) => {
                    self.held.clear();
                    self.parts.fatal.report(format!("cannot write the log: {error}"));
                    break;
                }
            }
        }
        synced
    }

    fn observe(&self) -> Value {
        let durable = self.writer.durable();
        json!({
            "segment": self.active.map(Offset::get),
            "written": self.writer.end().get(),
            "durable": durable.end.get(),
            "last": durable.last.to_string(),
            "groups": self.groups,
            "held_groups": self.held.len(),
        })
    }

    /// Bytes that new entries may still take, after so many more were written. The file system is not asked for each group.
    fn available(&mut self, written: u64) -> u64 {
        self.since += written;
        let is_known = self.since < ASKED_AFTER && self.asked.elapsed() < ASKED_WITHIN;
        self.free = if is_known { self.free.saturating_sub(written) } else { self.look() };
        self.free
    }

    fn look(&mut self) -> u64 {
        (self.asked, self.since) = (Instant::now(), 0);
        self.writer.available()
    }

    fn report(&mut self, group: u64, bytes: u64) -> Synced {
        let active = self.parts.reader.segment_base_at_or_before(self.writer.end());
        let is_sealed = active != self.active;
        self.active = active;
        let available = self.available(bytes);
        self.parts.view.publish_available(available);
        Synced { generation: self.parts.generation, group, available, is_sealed }
    }

    /// Writes what is held, and tells consensus.
    fn write_and_tell(&mut self, log: &Logger) {
        for synced in self.write_held(log) {
            if let Some(consensus) = self.parts.consensus.get() {
                // A consensus that is gone takes this actor with it.
                let _ = consensus.tell(synced);
            }
        }
    }

    fn look_at_space(&mut self, log: &Logger) {
        if !self.held.is_empty() {
            self.write_and_tell(log);
            if self.held.is_empty() {
                self.is_full = false;
                info!(log, "the disk has room again");
            }
        }
        self.free = self.look();
        let available = if self.held.is_empty() { self.free } else { 0 };
        self.parts.view.publish_available(available);
        if let Some(consensus) = self.parts.consensus.get() {
            // As above.
            let _ = consensus.tell(Available(available));
        }
    }
}

impl SegmentWriter {
    /// The shell around a desk.
    pub const fn new(desk: WriterDesk) -> Self {
        Self(desk)
    }
}

impl Actor for SegmentWriter {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.lock().parts.faults.on_start(NAME);
        ctx.show(|writer| writer.0.lock().observe());
        ctx.run_interval(SPACE_INTERVAL, |writer, ctx| writer.0.lock().look_at_space(ctx.log()));
    }
}

impl Handler<Write> for SegmentWriter {
    type Result = ();

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) {
        let mut desk = self.0.lock();
        if write.generation != desk.parts.generation {
            return;
        }
        let waits_for_space = !desk.held.is_empty();
        desk.held.push_back(write.group);
        if !waits_for_space {
            desk.write_and_tell(ctx.log());
        }
    }
}

impl Handler<Fault> for SegmentWriter {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        // At the desk, as a write would.
        let _desk = self.0.lock();
        fail_as_told(how, ctx);
    }
}
