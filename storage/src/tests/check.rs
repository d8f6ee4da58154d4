//! A segment of a log in use that somebody doubts: what the check finds, and what recovery does with what is known.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loglog_proto::{Index, Length, Offset, Term};

use super::kit::{Chain, open};
use crate::vfs::{DirLockGuard, OpenMode, SimVfs, VfsFile};
use crate::{DataDir, Gap, Known, Mark, OpenError, OpenOptions, ReadError, Recovered, Vfs};

const D: &str = "/d";
const G: Length = Length::new(1000);

/// Eight batches of 100 bytes in segments of three, three and two, the first batch being 2, all synced; the mark behind `marked` of them.
fn log(marked: u64) -> (SimVfs, DataDir, Recovered) {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let (dir, mut log) = open(&vfs, Path::new(D), 300);
    let mut chain = Chain::new();
    let batches: Vec<_> = (0..8).map(|_| chain.next(1, &[68])).collect();
    log.writer.write(&batches).unwrap();
    log.meta.save_mark(mark(marked)).unwrap();
    log.meta.sync().unwrap();
    (sim, dir, log)
}

fn mark(batches: u64) -> Mark {
    Mark { index: Index::new(batches + 1), offset: Offset::new(batches * 100) }
}

fn segment(base: u64) -> PathBuf {
    Path::new(D).join(crate::names::segment(Offset::new(base)))
}

#[test]
fn a_check_names_the_first_damaged_batch_of_the_segment_and_no_other() {
    let (sim, _dir, log) = log(8);
    let check = |offset| log.reader.check(Offset::new(offset), Offset::new(800)).unwrap();
    for offset in [0, 299, 300, 799] {
        let checked = check(offset);
        assert!(checked.damage.is_none() && checked.misread.is_none(), "{checked:?}");
        assert_eq!(checked.header.base_offset.get(), offset / 300 * 300);
    }
    // In the midst of a sealed segment, twice; in the last one; in a header.
    sim.corrupt(&segment(300), 64 + 150, 1).unwrap();
    sim.corrupt(&segment(300), 64 + 250, 1).unwrap();
    sim.corrupt(&segment(600), 64 + 10, 1).unwrap();
    assert!(check(0).damage.is_none(), "of another segment it says nothing");
    let damage = check(599).damage.unwrap();
    assert_eq!((damage.offset.get(), damage.log_id.index, damage.log_id.term.get()), (400, Index::new(6), 1));
    let damage = check(700).damage.unwrap();
    assert_eq!((damage.offset.get(), damage.log_id.index), (600, Index::new(8)));
    sim.corrupt(&segment(0), 20, 1).unwrap();
    let damage = check(150).damage.unwrap();
    assert_eq!((damage.offset.get(), damage.log_id.index), (0, Index::new(2)));
    // A file that is too short.
    let bytes = sim.contents(&segment(0)).unwrap();
    sim.plant(&segment(0), &bytes[..30]);
    assert_eq!(check(150).damage.unwrap().offset, Offset::ZERO);
}

#[test]
fn a_check_looks_at_nothing_that_is_not_committed() {
    let (sim, _dir, log) = log(4);
    sim.corrupt(&segment(600), 64 + 150, 1).unwrap();
    let check = |offset, committed| log.reader.check(Offset::new(offset), Offset::new(committed));
    assert!(check(650, 700).unwrap().damage.is_none(), "a writer may yet truncate it");
    assert_eq!(check(650, 800).unwrap().damage.unwrap().offset.get(), 700);
    for (offset, committed) in [(700, 700), (701, 700), (800, 800), (u64::MAX, 800)] {
        let refused = check(offset, committed).unwrap_err();
        assert!(matches!(refused, ReadError::BeyondEnd { .. }), "{offset} {committed}: {refused}");
    }
}

/// A disk with a sector that cannot be read, at this position of every file that is opened to be read.
#[derive(Clone, Debug)]
struct BadSector(SimVfs, Arc<AtomicU64>);

#[derive(Debug)]
struct BadFile(Arc<dyn VfsFile>, Arc<AtomicU64>);

impl Vfs for BadSector {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let file = self.0.open(path, mode)?;
        Ok(if mode == OpenMode::Read { Arc::new(BadFile(file, Arc::clone(&self.1))) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.0.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
    fn try_lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLockGuard>> {
        self.0.try_lock_dir(dir)
    }
}

impl VfsFile for BadFile {
    fn read_at(&self, into: &mut [u8], pos: u64) -> io::Result<usize> {
        let bad = self.1.load(Ordering::Relaxed);
        match (pos..pos + into.len() as u64).contains(&bad) {
            true => Err(io::Error::other("a bad sector")),
            false => self.0.read_at(into, pos),
        }
    }
    fn write_all_at(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, pos)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.0.allocate(pos, len)
    }
}

/// Found by a reviewer: a check stopped at the damage, and the recovery that came of it read on and ended the process.
#[test]
fn s10_a_check_that_finds_damage_says_whether_the_rest_of_the_file_can_be_read() {
    let (sim, bad) = (SimVfs::new(), Arc::new(AtomicU64::new(u64::MAX)));
    let vfs: Arc<dyn Vfs> = Arc::new(BadSector(sim.clone(), Arc::clone(&bad)));
    let (_dir, mut log) = open(&vfs, Path::new(D), 8 << 20);
    let mut chain = Chain::new();
    let batches: Vec<_> = (0..20).map(|_| chain.next(1, &[100_000])).collect();
    log.writer.write(&batches).unwrap();
    let end = log.reader.end();
    let check = || log.reader.check(Offset::ZERO, end);
    sim.corrupt(&segment(0), 64 + 100_100, 1).unwrap();
    let checked = check().unwrap();
    assert!(checked.damage.is_some() && checked.unreadable.is_none(), "{checked:?}");
    for at in [1_000_000, 64 + end.get() - 1] {
        bad.store(at, Ordering::Relaxed);
        let checked = check().unwrap();
        assert!(checked.damage.is_some(), "{checked:?}");
        assert!(checked.unreadable.unwrap().contains("a bad sector"));
    }
    bad.store(u64::MAX, Ordering::Relaxed);
    sim.corrupt(&segment(0), 64 + 100_100, 1).unwrap();
    assert!(check().unwrap().damage.is_none());
}

/// The gap that a recovery with this knowledge tells of; none if it opens.
fn gap(sim: &SimVfs, known: Option<Known>) -> Option<Gap> {
    let dir = DataDir::lock(Arc::new(sim.fork()), Path::new(D)).unwrap();
    match dir.open_with(OpenOptions { known, ..OpenOptions::default() }, G) {
        Ok(_) => None,
        Err(OpenError::Corrupt { gap, .. }) => Some(*gap),
        Err(error) => panic!("{error}"),
    }
}

fn known(suspect: u64, committed: u64, durable: u64) -> Option<Known> {
    Some(Known { suspect: Offset::new(suspect), committed: mark(committed), durable: Offset::new(durable) })
}

#[test]
fn s10_a_suspected_segment_far_below_the_mark_is_read_and_no_other() {
    let (sim, _, _) = log(8);
    sim.corrupt(&segment(0), 64 + 150, 1).unwrap();
    assert!(gap(&sim, None).is_none(), "a start reads the last segments only");
    assert!(gap(&sim, known(300, 8, 800)).is_none(), "it is another one");
    let found = gap(&sim, known(299, 8, 800)).unwrap();
    assert_eq!(
        (found.first, found.offset, found.term),
        (Index::new(3), Offset::new(100), Some(Term::new(1)))
    );
    assert_eq!(found.until.map(|until| until.last.index), Some(Index::new(4)));
    assert!(found.is_below_mark());
    // The very first batch of a segment, where nothing of it is left.
    sim.corrupt(&segment(300), 64 + 10, 1).unwrap();
    let found = gap(&sim, known(300, 8, 800)).unwrap();
    assert_eq!((found.first, found.offset), (Index::new(5), Offset::new(300)));
}

#[test]
fn s09_what_this_process_committed_or_synced_is_never_taken_for_a_torn_tail() {
    let (sim, _, _) = log(6);
    sim.corrupt(&segment(600), 64 + 110, 1).unwrap();
    assert!(gap(&sim, None).is_none(), "after a power cut it is one");
    assert!(gap(&sim, known(0, 6, 600)).is_none(), "and where nothing is known of it");
    let committed = gap(&sim, known(0, 8, 800)).unwrap();
    assert!(committed.offset == Offset::new(700) && committed.is_below_mark(), "{committed:?}");
    let synced = gap(&sim, known(0, 6, 800)).unwrap();
    assert!(synced.offset == Offset::new(700) && !synced.is_below_mark(), "{synced:?}");
    assert_eq!(synced.term, Some(Term::new(1)));

    // The first batch of the last segment: the file is not taken for one that was never written to.
    let (sim, _, _) = log(6);
    sim.corrupt(&segment(600), 64 + 10, 1).unwrap();
    let synced = gap(&sim, known(0, 6, 800)).unwrap();
    assert_eq!((synced.offset.get(), synced.first), (600, Index::new(8)));
    // A last file that is gone.
    let (sim, _, _) = log(6);
    sim.remove(&segment(600)).unwrap();
    assert!(gap(&sim, None).is_none());
    assert_eq!(gap(&sim, known(0, 6, 800)).unwrap().offset.get(), 600);
}

#[test]
fn s06_the_mark_that_is_known_is_saved() {
    let (sim, dir, log) = log(2);
    drop((log, dir));
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let opened = dir.open_with(OpenOptions { known: known(0, 7, 800), ..OpenOptions::default() }, G).unwrap();
    assert_eq!(opened.meta.mark(), mark(7));
    drop((opened, dir));
    sim.power_cut(crate::vfs::Survival::None, &mut rand::rng());
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    assert_eq!(dir.open_with(OpenOptions::default(), G).unwrap().meta.mark(), mark(7));
    // An older one changes nothing.
    let opened = dir.open_with(OpenOptions { known: known(0, 3, 300), ..OpenOptions::default() }, G);
    assert_eq!(opened.unwrap().meta.mark(), mark(7));
}
