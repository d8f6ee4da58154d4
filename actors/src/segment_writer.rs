//! Segment writer actor: makes write groups durable, one after the other, in its own thread.
//!
//! Owns:   the active segment; one write and one sync per group (S3).
//! Keeps:  a group is reported only after its sync; after a failed write or sync nothing is reported any more (S2).
//! Never:  learns what is committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message};
use loglog_core::{Truncation, WriteGroup};
use loglog_proto::Offset;
use loglog_storage::{LogReader, LogWriter, WriteError};
use serde_json::{Value, json};
use slog::{info, warn};

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

/// The actor.
pub struct SegmentWriter {
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

impl SegmentWriter {
    /// The shell around `writer`.
    pub fn new(writer: LogWriter, parts: WriterParts) -> Self {
        let active = parts.reader.segment_base_at_or_before(writer.end());
        Self { writer, parts, held: VecDeque::new(), is_full: false, active, groups: 0 }
    }

    /// Writes what is held, as far as space allows.
    fn write_held(&mut self, ctx: &mut Ctx<Self>) {
        while let Some(group) = self.held.front_mut() {
            if self.parts.fatal.is_reported() {
                // Nothing may be acknowledged any more, whatever could still be written (S2).
                return self.held.clear();
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
                    self.report(number);
                }
                Err(error @ WriteError::NoSpace { .. }) => {
                    let done = self.writer.end();
                    group.batches =
                        group.batches.iter().filter(|batch| batch.offset >= done).cloned().collect();
                    if !std::mem::replace(&mut self.is_full, true) {
                        warn!(ctx.log(), "the disk is full, waiting for room"; "error" => %error);
                    }
                    return;
                }
                Err(error) => {
                    self.held.clear();
                    return self.parts.fatal.report(format!("cannot write the log: {error}"));
                }
            }
        }
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

    fn report(&mut self, group: u64) {
        let active = self.parts.reader.segment_base_at_or_before(self.writer.end());
        let is_sealed = active != self.active;
        self.active = active;
        let available = self.writer.available();
        self.parts.view.publish_available(available);
        if let Some(consensus) = self.parts.consensus.get() {
            // A consensus that is gone takes this actor with it.
            let _ = consensus.tell(Synced { generation: self.parts.generation, group, available, is_sealed });
        }
    }

    fn look_at_space(&mut self, ctx: &mut Ctx<Self>) {
        if !self.held.is_empty() {
            self.write_held(ctx);
            if self.held.is_empty() {
                self.is_full = false;
                info!(ctx.log(), "the disk has room again");
            }
        }
        let available = if self.held.is_empty() { self.writer.available() } else { 0 };
        self.parts.view.publish_available(available);
        if let Some(consensus) = self.parts.consensus.get() {
            // As above.
            let _ = consensus.tell(Available(available));
        }
    }
}

impl Actor for SegmentWriter {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parts.faults.on_start(NAME);
        ctx.show(Self::observe);
        ctx.run_interval(SPACE_INTERVAL, Self::look_at_space);
    }
}

impl Handler<Write> for SegmentWriter {
    type Result = ();

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) {
        if write.generation != self.parts.generation {
            return;
        }
        let waits_for_space = !self.held.is_empty();
        self.held.push_back(write.group);
        if !waits_for_space {
            self.write_held(ctx);
        }
    }
}

impl Handler<Fault> for SegmentWriter {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
