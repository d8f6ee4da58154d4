//! A seeded workload on a log, and the model of what it has been promised.

use std::path::Path;
use std::sync::Arc;

use loglog_proto::entry::Kind;
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{Index, Length, LogId, Offset, RaftId, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kit::{batch, entry, framed, genesis};
use crate::frame::batch_bytes;
use crate::vfs::SimVfs;
use crate::{
    DataDir, KeeperError, LockError, LogStart, Mark, MetaError, MetaState, NewBatch, OpenError, OpenOptions,
    Recovered, WriteError,
};

pub(super) const DIR: &str = "/sim/log";
/// G of these tests: small, so that groups are split and S9 is decided by it.
pub(super) const GROUP: Length = Length::new(8 << 10);

/// What the workload was promised, and what is in flight.
#[derive(Clone, Debug)]
pub(super) struct Model {
    seed: u64,
    limit: u64,
    formed: bool,
    /// Acknowledged batches, from index 2 on, trimmed ones included.
    log: Vec<NewBatch>,
    /// Batches of a write that has not returned.
    pending: Vec<NewBatch>,
    /// A truncation to so many batches that has not returned.
    truncating: Option<usize>,
    /// States that may be found: the acknowledged one, or the one in flight.
    states: Vec<MetaState>,
    /// The lowest mark that may be found, and the highest.
    marks: (Mark, Mark),
}

/// The workload was interrupted.
#[derive(Debug)]
pub(super) struct Interrupted;

impl From<WriteError> for Interrupted {
    fn from(_: WriteError) -> Self {
        Self
    }
}

impl From<MetaError> for Interrupted {
    fn from(_: MetaError) -> Self {
        Self
    }
}

impl From<KeeperError> for Interrupted {
    fn from(_: KeeperError) -> Self {
        Self
    }
}

pub(super) fn reopen(sim: &SimVfs) -> Result<(DataDir, Recovered), OpenError> {
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(DIR)).map_err(|error| match error {
        LockError::Io(failure) => OpenError::Io(failure),
        other => panic!("{other}"),
    })?;
    let recovered = dir.open_with(OpenOptions::default(), GROUP)?;
    Ok((dir, recovered))
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let limit = [700, 2500, 6000, 30_000][usize::try_from(seed % 4).unwrap()];
        let mark = LogStart::GENESIS.mark();
        Self {
            seed,
            limit,
            formed: false,
            log: Vec::new(),
            pending: Vec::new(),
            truncating: None,
            states: vec![genesis(limit)],
            marks: (mark, mark),
        }
    }

    fn state(&self) -> &MetaState {
        &self.states[0]
    }

    fn end(&self) -> u64 {
        self.log.last().map_or(0, |last| (last.offset + batch_bytes(last)).get())
    }

    fn mark_after(&self, batches: usize) -> Mark {
        let offset = match batches {
            0 => Offset::ZERO,
            n => self.log[n - 1].offset + batch_bytes(&self.log[n - 1]),
        };
        Mark { index: Index::new(batches as u64 + 1), offset }
    }

    fn last_term(&self) -> u32 {
        self.log.last().map_or(1, |last| last.log_id.term.get())
    }

    /// The batch `index` in `term`: its sizes depend on the index alone, so that what replaces it lies on it exactly.
    fn make(&self, term: u32, index: u64, offset: u64) -> NewBatch {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (index << 20));
        if rng.random_ratio(1, 8) {
            let kind = if rng.random() { Kind::Noop } else { Kind::Control };
            let log_id = LogId { term: Term::new(term), index: Index::new(index) };
            let payload = vec![term.to_le_bytes()[0]; rng.random_range(0..40)];
            return NewBatch { log_id, offset: Offset::new(offset), entries: vec![entry(kind, 0, payload)] };
        }
        let largest = if rng.random_ratio(1, 10) { 1200 } else { 400 };
        let sizes: Vec<usize> = (0..rng.random_range(1..4)).map(|_| rng.random_range(0..largest)).collect();
        if rng.random_ratio(1, 60) {
            batch(term, index, offset, &[4000])
        } else {
            batch(term, index, offset, &sizes)
        }
    }

    /// Runs `steps` steps on `sim`, or until it fails.
    pub(super) fn run(&mut self, sim: &SimVfs, steps: u32) -> Result<(), Interrupted> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(DIR)).map_err(|_| Interrupted)?;
        dir.form(self.state()).map_err(|_| Interrupted)?;
        self.formed = true;
        let mut log = dir.open_with(OpenOptions::default(), GROUP).map_err(|_| Interrupted)?;
        let mut owner = Some(dir);
        for _ in 0..steps {
            match rng.random_range(0..100) {
                0..45 => self.write(&mut log, &mut rng)?,
                45..53 => self.save_term(&mut log, &mut rng)?,
                53..63 => self.truncate(&mut log, &mut rng)?,
                // Every other workload lets its tail grow beyond a group.
                63..82 if self.seed % 8 < 4 || rng.random_ratio(1, 12) => {
                    self.save_mark(&mut log, &mut rng)?
                }
                63..82 => self.write(&mut log, &mut rng)?,
                82..88 => self.trim(&mut log, &mut rng)?,
                88..94 => {
                    log.keeper.prepare_step()?;
                }
                _ => {
                    drop(owner.take());
                    if rng.random() {
                        sim.kill();
                    }
                    let (dir, recovered) = reopen(sim).map_err(|error| match error {
                        OpenError::Io(_) => Interrupted,
                        other => panic!("{other}"),
                    })?;
                    self.check(sim, &recovered);
                    assert_eq!(recovered.end.get(), self.end(), "nothing is lost without a power cut");
                    (owner, log) = (Some(dir), recovered);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, log: &mut Recovered, rng: &mut StdRng) -> Result<(), Interrupted> {
        let current = self.state().term.get();
        let (mut index, mut offset) = (self.log.len() as u64 + 2, self.end());
        let mut term = if rng.random() { self.last_term() } else { current };
        for _ in 0..rng.random_range(1..6) {
            if term < current && rng.random_ratio(1, 6) {
                term += 1;
            }
            let batch = self.make(term, index, offset);
            index += 1;
            offset += batch_bytes(&batch).get();
            self.pending.push(batch);
        }
        log.writer.write(&self.pending)?;
        self.log.append(&mut self.pending);
        Ok(())
    }

    fn save(&mut self, log: &mut Recovered, state: MetaState) -> Result<(), Interrupted> {
        self.states.push(state.clone());
        log.meta.save(state)?;
        self.states.remove(0);
        self.marks.0 = self.marks.1;
        Ok(())
    }

    fn save_term(&mut self, log: &mut Recovered, rng: &mut StdRng) -> Result<(), Interrupted> {
        let mut state = self.state().clone();
        state.term = Term::new(state.term.get() + 1);
        state.vote =
            rng.random::<bool>().then(|| RaftId::from_raw(1 << 32 | u64::from(state.term.get())).unwrap());
        self.save(log, state)
    }

    fn truncate(&mut self, log: &mut Recovered, rng: &mut StdRng) -> Result<(), Interrupted> {
        let floor = usize::try_from(self.marks.1.index.get()).unwrap() - 1;
        if floor == self.log.len() {
            return Ok(());
        }
        self.save_term(log, rng)?;
        let kept = rng.random_range(floor..self.log.len());
        let to = self.mark_after(kept);
        let term = match kept {
            0 => Term::new(1),
            n => self.log[n - 1].log_id.term,
        };
        self.truncating = Some(kept);
        log.writer.truncate(to.index.next(), to.offset, LogId { term, index: to.index })?;
        self.log.truncate(kept);
        self.truncating = None;
        Ok(())
    }

    fn save_mark(&mut self, log: &mut Recovered, rng: &mut StdRng) -> Result<(), Interrupted> {
        let floor = usize::try_from(self.marks.1.index.get()).unwrap() - 1;
        let mark = self.mark_after(rng.random_range(floor..=self.log.len()));
        self.marks.1 = mark;
        log.meta.save_mark(mark)?;
        log.writer.set_floor(mark.offset);
        if rng.random_ratio(1, 3) {
            log.meta.sync()?;
            self.marks.0 = mark;
        }
        Ok(())
    }

    fn trim(&mut self, log: &mut Recovered, rng: &mut StdRng) -> Result<(), Interrupted> {
        let segments = log.reader.segments();
        let bases = segments.iter().filter(|s| s.header.base_offset <= self.marks.1.offset).count();
        if bases == 0 {
            return Ok(());
        }
        let header = segments[rng.random_range(0..bases)].header;
        let start = LogStart {
            offset: header.base_offset,
            index: header.base_index,
            previous_term: header.previous_term,
        };
        let mut state = self.state().clone();
        state.start = start;
        self.save(log, state)?;
        log.keeper.trim(start)?;
        Ok(())
    }

    /// Where a recovered log stands against what was promised.
    pub(super) fn check(&self, sim: &SimVfs, found: &Recovered) {
        assert!(self.states.contains(found.meta.state()), "meta is what was saved: {:?}", found.meta.state());
        let start = found.meta.state().start;
        let mark = found.meta.mark();
        assert!(mark >= self.marks.0.min(start.mark()), "the mark never sinks: {mark:?}");
        assert!(
            mark >= self.marks.0 && mark <= self.marks.1,
            "the mark is one that was saved: {mark:?} {:?}",
            self.marks
        );
        let mut possible = self.log.clone();
        possible.extend(self.pending.iter().cloned());
        let count = usize::try_from(found.last.index.get()).unwrap() - 1;
        let least = self.truncating.unwrap_or(self.log.len());
        assert!(count >= least, "{count} of {least} acknowledged batches are there");
        assert!(count <= possible.len(), "no batch that was never written: {count} of {}", possible.len());
        possible.truncate(count);
        assert_eq!(
            found.end.get(),
            possible.last().map_or(0, |last| (last.offset + batch_bytes(last)).get())
        );
        assert_eq!(found.last.term, possible.last().map_or(Term::new(1), |last| last.log_id.term));
        let above: Vec<(LogId, Offset)> =
            possible.iter().filter(|b| b.log_id.index > mark.index).map(|b| (b.log_id, b.offset)).collect();
        let tail: Vec<(LogId, Offset)> = found.tail.iter().map(|b| (b.log_id, b.offset)).collect();
        assert_eq!(tail, above, "the tail is what lies above the mark");
        self.check_bytes(sim, found, &possible, start);
    }

    fn check_bytes(&self, sim: &SimVfs, found: &Recovered, log: &[NewBatch], start: LogStart) {
        let bytes: Vec<u8> = log.iter().flat_map(framed).collect();
        let end = Offset::new(bytes.len() as u64);
        let mut at = start.offset;
        while at < end {
            let some = found.reader.read(at, usize::MAX, end).expect("readable");
            let from = usize::try_from(at.get()).unwrap();
            assert_eq!(some, &bytes[from..from + some.len()], "the bytes are those written");
            at += Length::of(some.len());
        }
        let expected: Vec<SegmentHeader> = segments_of(log, self.limit)
            .into_iter()
            .filter(|header| header.base_offset >= start.offset)
            .collect();
        let segments = found.reader.segments();
        let headers: Vec<SegmentHeader> = segments.iter().map(|segment| segment.header).collect();
        assert_eq!(headers, expected, "S35: segments are a function of the log");
        for segment in segments.iter().filter(|segment| segment.sealed) {
            let len = sim.contents(&segment.path).unwrap().len() as u64;
            assert_eq!(
                len,
                HEADER as u64 + (segment.end - segment.header.base_offset).get(),
                "S35: exact length"
            );
        }
    }

    /// What a power cut left is opened, checked, and goes on.
    pub(super) fn check_after_crash(&self, sim: &SimVfs) {
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(DIR)).expect("the lock is free");
        if !dir.is_formed().unwrap() {
            assert!(!self.formed, "what was formed stays formed");
            return;
        }
        let mut found = dir.open_with(OpenOptions::default(), GROUP).expect("a power cut corrupts nothing");
        self.check(sim, &found);
        let (end, last, mark, state) = (found.end, found.last, found.meta.mark(), found.meta.state().clone());
        // S8: what recovery reported is on the disk, whatever comes now; and the log goes on from there.
        let next = self.make(last.term.get().max(1), last.index.get() + 1, end.get());
        let onward = sim.fork();
        found.writer.write(&[next]).expect("the log goes on");
        let aside: Vec<_> =
            found.report.side_files.iter().map(|path| (path, sim.contents(path).unwrap())).collect();
        assert_eq!(aside.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), found.report.torn_bytes);
        drop((found.writer, found.reader, dir));
        let mut rng = StdRng::seed_from_u64(self.seed);
        onward.power_cut(crate::vfs::Survival::None, &mut rng);
        for (path, bytes) in aside {
            assert_eq!(
                onward.contents(path).ok(),
                Some(bytes),
                "S7: what was cut is kept aside, on the disk"
            );
        }
        let (_dir, again) = reopen(&onward).expect("what was recovered can be recovered again");
        assert_eq!((again.end, again.last), (end, last), "S8: what was recovered is on the disk");
        assert_eq!(again.meta.state(), &state, "S8: the chosen slot is on the disk");
        assert!(again.meta.mark() >= mark, "S8: the mark is on the disk");
        sim.power_cut(crate::vfs::Survival::None, &mut rng);
        let (_dir, again) = reopen(sim).expect("the log went on");
        assert_eq!(again.last.index, last.index.next(), "what was written after recovery is there");
    }
}

/// The segments that a log has, whoever wrote it (S35).
fn segments_of(log: &[NewBatch], limit: u64) -> Vec<SegmentHeader> {
    let mut headers: Vec<SegmentHeader> = Vec::new();
    let mut previous_term = Term::new(1);
    for batch in log {
        let opens = headers.last().is_none_or(|header| {
            header.term != batch.log_id.term || (batch.offset - header.base_offset).get() >= limit
        });
        if opens {
            headers.push(SegmentHeader {
                cluster: genesis(limit).cluster,
                base_offset: batch.offset,
                base_index: batch.log_id.index,
                term: batch.log_id.term,
                previous_term,
            });
        }
        previous_term = batch.log_id.term;
    }
    headers
}
