//! Integrity: somebody says that bytes of this node do not hold. The node looks for itself, and sees to it.
//!
//! ```text
//!   Check ─► refused at once: trimmed, beyond the end, busy, no log
//!        └─► the segment is read, twice where it does not hold ─┬─► sound
//!                                                               ├─► damaged, and nobody has it, or the rest cannot be read: told, served on
//!                                                               └─► a peer gives the batch, checked ─► Suspected ─► the node:
//!                                                                   storage group through recovery and Mender (S10)
//! ```
//!
//! Owns:   one check at a time, from the question to the end of the repair that came of it.
//! Keeps:  a client is believed nothing. What it can cause is that a segment is read; only damage that is really there, twice, and that
//!         another node can mend now, takes the storage group down: not one that would have to wait for it (S10).
//!         A repair that found nothing is not begun again for a while.
//! Never:  runs on the network's thread; writes; repairs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use loglog_proto::check::{Checked, Verdict};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::{LogId, Offset};
use loglog_storage::{DamagedBatch, ReadError, SegmentCheck};
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc::UnboundedSender;

use crate::measures::Measures;
use crate::peer::SharedIdentity;
use crate::peer::bulk::BulkSource;
use crate::view::LogView;

/// So long no repair is begun after one that found nothing to mend: then something else is wrong, and restarts do not cure it.
const FRUITLESS_PAUSE: Duration = Duration::from_secs(600);

/// What checks work with.
#[derive(Debug)]
pub(crate) struct Integrity {
    view: Arc<LogView>,
    identity: SharedIdentity,
    measures: Arc<Measures>,
    /// Where what was found goes.
    node: UnboundedSender<Suspected>,
    is_busy: Arc<AtomicBool>,
    /// When a repair came to nothing last.
    fruitless: Mutex<Option<Instant>>,
    log: Logger,
}

/// Damage that was seen twice and that another node can mend.
#[derive(Debug)]
pub(crate) struct Suspected {
    /// Where the damaged batch begins.
    pub(crate) offset: Offset,
    /// The life of the storage group in which it was seen.
    pub(crate) generation: u64,
    /// No other check begins while this is held.
    pub(crate) lease: Lease,
}

/// The right to check; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<AtomicBool>);

impl Lease {
    /// The right, where nobody has it.
    fn take(is_busy: &Arc<AtomicBool>) -> Option<Self> {
        let was_busy = is_busy.swap(true, Ordering::Acquire);
        (!was_busy).then(|| Self(Arc::clone(is_busy)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Integrity {
    pub(crate) fn new(
        view: Arc<LogView>,
        identity: SharedIdentity,
        measures: Arc<Measures>,
        node: UnboundedSender<Suspected>,
        log: Logger,
    ) -> Self {
        let (is_busy, fruitless) = (Arc::default(), Mutex::default());
        Self { view, identity, measures, node, is_busy, fruitless, log }
    }

    /// Looks at the segment that holds `offset`, in a task of its own: who asked may go, and what is found is seen to all the same.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(crate) async fn check(self: Arc<Self>, offset: Offset) -> Result<Checked, Refusal> {
        let checking = tokio::spawn(async move { self.look(offset).await });
        checking.await.unwrap_or_else(|error| Err(Refusal::new(Code::Internal, error.to_string())))
    }

    /// The last repair came to nothing: recovery read all of the suspected segment and found it whole.
    pub(crate) fn was_fruitless(&self) {
        *self.fruitless.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        warn!(self.log, "recovery finds no damage where a check found some: no repair is begun on a client's word for a while; \
            have a look with `loglog verify`, and at this machine's memory and disk"; "pause" => ?FRUITLESS_PAUSE);
    }

    async fn look(&self, offset: Offset) -> Result<Checked, Refusal> {
        let (committed, generation) = (self.view.committed(), self.view.generation());
        let down =
            || Refusal::new(Code::Unavailable, "the log is being recovered or repaired: ask again later");
        // Its table is that of the life before while the group is down.
        let reader = self.view.reader().filter(|_| self.view.consensus().is_some()).ok_or_else(down)?;
        let start = reader.start();
        if offset < start {
            return Err(Refusal::trimmed(offset, start));
        }
        if offset >= committed {
            return Err(Refusal::beyond_end(offset, committed));
        }
        let Some(lease) = Lease::take(&self.is_busy) else {
            let message = "another check, or the repair that came of one, goes on: ask again later";
            return Err(Refusal::new(Code::Busy, message));
        };
        let reading = tokio::task::spawn_blocking(move || reader.check(offset, committed));
        let internal = |error: &dyn std::fmt::Display| Refusal::new(Code::Internal, error.to_string());
        let read = reading.await;
        // A snapshot's files, or a repaired one, may have taken the place of what was read: that is no damage.
        if self.view.generation() != generation || self.view.consensus().is_none() {
            return Err(down());
        }
        let SegmentCheck { header, path, damage, misread, unreadable } = match read {
            Ok(Ok(checked)) => checked,
            Ok(Err(ReadError::Trimmed { start })) => return Err(Refusal::trimmed(offset, start)),
            Ok(Err(ReadError::BeyondEnd { end })) => return Err(Refusal::beyond_end(offset, end)),
            Ok(Err(ReadError::Io(failure))) => {
                error!(self.log, "cannot read the log"; "offset" => offset.get(), "error" => %failure);
                return Err(internal(&failure));
            }
            Err(error) => return Err(internal(&error)),
        };
        let segment = header.base_offset;
        let checked = |verdict, damaged_at: Option<Offset>, message: String| Checked {
            verdict,
            segment: segment.get(),
            damaged_at: damaged_at.map(Offset::get),
            message,
        };
        if let Some(misread) = misread {
            warn!(self.log, "bytes of the log were wrong in memory and right on the disk when they were read again";
                "segment" => %path.display(), "offset" => misread.offset.get(), "what" => misread.detail);
        }
        let Some(DamagedBatch { log_id, offset: at, detail }) = damage else {
            info!(self.log, "a client doubted a segment; every batch of it holds"; "segment" => %path.display(),
                "offset" => offset.get());
            let message = format!("the segment at {segment} is sound here, as far as it is committed");
            return Ok(checked(Verdict::Sound, None, message));
        };
        self.measures.found_damage();
        error!(self.log, "the log is damaged: a client said so, and the disk does not hold what was written";
            "segment" => %path.display(), "offset" => at.get(), "batch" => %log_id, "what" => &detail);
        // Recovery reads on, and what it cannot read ends the process (S2), where this life serves all that can be read.
        let mends = match unreadable {
            None => self.who_mends(log_id, at).await,
            Some(why) => Err(format!(
                "what follows it in the file cannot be read, so that a repair would fail ({why}): look at this machine's disk, \
                and replace this node with one on a sound disk: `loglog members replace`"
            )),
        };
        match mends {
            Ok(peer) => {
                let suspected = Suspected { offset: at, generation, lease };
                // A node that no longer listens is ending, and its next start finds this.
                let _ = self.node.send(suspected);
                let message =
                    format!("{detail}; it is repaired from the other nodes now: node {peer} has it");
                Ok(checked(Verdict::Repairing, Some(at), message))
            }
            Err(why) => {
                error!(self.log, "the damage stays for now, and the node serves on"; "offset" => at.get(), "why" => &why);
                Ok(checked(Verdict::Damaged, Some(at), format!("{detail}; {why}")))
            }
        }
    }

    /// A node that gives the very batch, whole: so a repair that is begun now has something to go by. Else why there is none.
    async fn who_mends(&self, batch: LogId, at: Offset) -> Result<u32, String> {
        let fruitless = *self.fruitless.lock().unwrap_or_else(PoisonError::into_inner);
        if fruitless.is_some_and(|since| since.elapsed() < FRUITLESS_PAUSE) {
            return Err("a repair was tried just now and found nothing to mend: look at this machine's memory and disk".into());
        }
        let is_member = self.identity.member(self.identity.raft_id()).is_some();
        let others = self.identity.others();
        if !is_member || others.is_empty() {
            return Err("this node is alone and has nobody to repair it from: put back a whole copy of the file while it is \
                down, or copy what can be read to another log"
                .into());
        }
        let mut said = String::new();
        for peer in others {
            let id = peer.id.node();
            let mut source = BulkSource::new(Arc::clone(&self.identity), peer);
            match source.chunk(batch.index, at, batch).await {
                Ok(_) => return Ok(id.get()),
                Err(error) => said += &format!("; node {id}: {error}"),
            }
        }
        Err(format!("no other node gives a whole copy of it now{said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_given_once_and_again_when_it_came_back() {
        let busy: Arc<AtomicBool> = Arc::default();
        let first = Lease::take(&busy);
        assert!(first.is_some() && Lease::take(&busy).is_none() && Lease::take(&busy).is_none());
        drop(first);
        assert!(Lease::take(&busy).is_some());
    }
}
