//! Reads of one connection: which wait for the log to grow, which wait for their turn.
//!
//! Owns:   the order of reads; one runs at a time, and only while the client takes its replies, so that a client that
//!         never reads them costs what one read returns and no more.
//! Never:  touches a file.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::{READ_BYTES_MAX, READ_WAIT_MS_MAX};
use loglog_proto::request::Read;
use loglog_proto::{Offset, RequestId};

/// Reads a connection may have open.
pub(crate) const READS_MAX: usize = 1024;

/// A read that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRead {
    pub(crate) read: Read,
    pub(crate) deadline: Instant,
}

/// What to do with a read now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is in the queue of those that can run.
    Run,
    /// It waits until the log is committed to `end`.
    Wait { end: Offset, timeout: Duration },
    /// There is nothing to read: an empty answer.
    Nothing,
    /// It is refused.
    Refuse(Refusal),
}

/// The reads.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    open: HashMap<RequestId, OpenRead>,
    ready: VecDeque<RequestId>,
}

impl Reads {
    /// Takes a new read.
    pub(crate) fn open(&mut self, id: RequestId, read: Read, now: Instant) -> Result<(), Refusal> {
        if read.limit == 0 {
            return Err(Refusal::new(Code::BadRequest, "a read of 0 bytes: ask for at least 1"));
        }
        if self.open.len() >= READS_MAX {
            let message = format!("{READS_MAX} reads are open on this connection already");
            return Err(Refusal::new(Code::Busy, message));
        }
        if self.open.contains_key(&id) {
            return Err(Refusal::new(Code::BadRequest, "a read with this request id is open already"));
        }
        let wait = Duration::from_millis(read.wait_ms.min(READ_WAIT_MS_MAX));
        self.open.insert(id, OpenRead { read, deadline: now + wait });
        Ok(())
    }

    /// Looks at a read that is new or was woken. Unless it waits or runs, it is closed by this.
    /// The log is kept from `start` on: what was trimmed is gone for readers at once, though its file may be there for a moment.
    pub(crate) fn look(
        &mut self,
        id: RequestId,
        (start, committed): (Offset, Offset),
        now: Instant,
    ) -> Option<Step> {
        let OpenRead { read, deadline } = *self.open.get(&id)?;
        let wanted = read.min_end.unwrap_or(Offset::ZERO);
        let step = if read.offset < start {
            Step::Refuse(Refusal::trimmed(read.offset, start))
        } else if committed < wanted || read.offset == committed {
            let timeout = deadline.saturating_duration_since(now);
            if timeout.is_zero() {
                if committed < wanted {
                    let message = format!("this node has committed up to {committed}, not yet to {wanted}");
                    Step::Refuse(Refusal::new(Code::TimedOut, message))
                } else {
                    Step::Nothing
                }
            } else {
                Step::Wait { end: wanted.max(Offset::new(read.offset.get().saturating_add(1))), timeout }
            }
        } else if read.offset > committed {
            Step::Refuse(Refusal::beyond_end(read.offset, committed))
        } else {
            self.ready.push_back(id);
            Step::Run
        };
        if matches!(step, Step::Nothing | Step::Refuse(_)) {
            self.open.remove(&id);
        }
        Some(step)
    }

    /// The next read to run, and how many bytes it gets at most.
    pub(crate) fn next(&mut self) -> Option<(RequestId, Offset, usize)> {
        let id = self.ready.pop_front()?;
        let OpenRead { read, .. } = self.open.remove(&id)?;
        let limit = usize::try_from(read.limit).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
        Some((id, read.offset, limit))
    }

    /// Closes one read.
    pub(crate) fn forget(&mut self, id: RequestId) {
        self.open.remove(&id);
    }

    /// Closes every read that still waits; gives their ids. Those that can run, run.
    pub(crate) fn close_waiting(&mut self) -> Vec<RequestId> {
        let ready = &self.ready;
        self.open.extract_if(|id, _| !ready.contains(id)).map(|(id, _)| id).collect()
    }

    /// Reads that are not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId::new(1);

    fn step(offset: u64, wait_ms: u64, min_end: Option<u64>, committed: u64) -> Step {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let read =
            Read { offset: Offset::new(offset), limit: 10, wait_ms, min_end: min_end.map(Offset::new) };
        reads.open(ID, read, now).unwrap();
        reads.look(ID, (Offset::new(3), Offset::new(committed)), now).unwrap()
    }

    #[test]
    fn a_read_runs_waits_or_is_refused_by_where_it_lies() {
        let wait = |end| Step::Wait { end: Offset::new(end), timeout: Duration::from_millis(5) };
        assert_eq!(step(5, 0, None, 10), Step::Run);
        assert_eq!(step(3, 0, None, 10), Step::Run);
        let (gone, start) = (Offset::new(2), Offset::new(3));
        assert_eq!(step(2, 5, Some(20), 10), Step::Refuse(Refusal::trimmed(gone, start)));
        assert_eq!(step(10, 0, None, 10), Step::Nothing);
        assert_eq!(step(10, 5, None, 10), wait(11));
        assert_eq!(
            step(11, 5, None, 10),
            Step::Refuse(Refusal::beyond_end(Offset::new(11), Offset::new(10)))
        );
        assert_eq!(step(5, 5, Some(20), 10), wait(20));
        assert!(matches!(step(5, 0, Some(20), 10), Step::Refuse(refusal) if refusal.code == Code::TimedOut));
        assert_eq!(step(15, 5, Some(12), 10), wait(16));
    }

    #[test]
    fn a_read_of_nothing_is_refused() {
        let read = Read { offset: Offset::ZERO, limit: 0, wait_ms: 0, min_end: None };
        assert_eq!(Reads::default().open(ID, read, Instant::now()).unwrap_err().code, Code::BadRequest);
    }
}
