//! Snapshots (S25): installed wholly or not at all, wherever the power goes.

use std::path::Path;
use std::sync::Arc;

use loglog_proto::{Incarnation, Index, LogId, NodeId, Offset, RaftId, Term};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::kit::{Chain, genesis, open};
use crate::vfs::{SimVfs, Survival};
use crate::{
    DataDir, InstallError, Installer, LogStart, Mark, MetaState, NewBatch, OpenError, OpenOptions, Recovered,
    Vfs,
};

const D: &str = "/d";

/// A snapshot's source: a trimmed log. Its start, its mark, and what lies between.
fn source() -> (Recovered, MetaState, Mark) {
    let vfs: Arc<dyn Vfs> = Arc::new(SimVfs::new());
    let (_dir, mut log) = open(&vfs, Path::new(D), 500);
    let mut chain = Chain::new();
    let batches: Vec<NewBatch> = (0..30).map(|i| chain.next(1 + i / 8, &[68])).collect();
    log.writer.write(&batches).unwrap();
    let header = log.reader.segments()[3].header;
    let mut state = genesis(500);
    state.term = Term::new(7);
    state.start = LogStart {
        offset: header.base_offset,
        index: header.base_index,
        previous_term: header.previous_term,
    };
    state.membership.index = Index::new(9);
    let mark = Mark { index: batches[27].log_id.index, offset: batches[28].offset };
    (log, state, mark)
}

/// A node far behind, with a log of its own that is partly another one.
fn target() -> SimVfs {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let (_dir, mut log) = open(&vfs, Path::new(D), 500);
    let mut chain = Chain::new();
    let batches: Vec<NewBatch> = (0..40).map(|i| chain.next(1 + i / 11, &[68])).collect();
    log.writer.write(&batches).unwrap();
    log.meta.save_mark(Mark { index: Index::new(4), offset: Offset::new(300) }).unwrap();
    sim
}

fn lock(sim: &SimVfs) -> DataDir {
    DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap()
}

fn install(dir: &DataDir, source: &Recovered, state: &MetaState, mark: Mark) -> Result<(), InstallError> {
    let mut old = dir.open(OpenOptions::default()).map_err(|error| match error {
        OpenError::Io(failure) => InstallError::Failed(failure),
        other => panic!("{other}"),
    })?;
    receive(dir, source, state, mark)?.commit(&mut old.meta, mark)
}

fn receive(
    dir: &DataDir,
    source: &Recovered,
    state: &MetaState,
    mark: Mark,
) -> Result<Installer, InstallError> {
    let mut installer = dir.install(state.clone())?;
    let mut at = state.start.offset;
    for segment in source.reader.segments() {
        if segment.header.base_offset < state.start.offset || segment.header.base_offset >= mark.offset {
            continue;
        }
        installer.segment(segment.header)?;
        while at < segment.end.min(mark.offset) {
            let bytes = source.reader.read(at, 90, mark.offset).unwrap();
            installer.append(&bytes)?;
            at = installer.end();
        }
    }
    Ok(installer)
}

fn check(found: &Recovered, source: &Recovered, state: &MetaState, mark: Mark, done: bool) {
    if found.meta.state() == state {
        assert_eq!((found.meta.mark(), found.end, found.last.index), (mark, mark.offset, mark.index));
        let mut entries = 0;
        found.reader.scan(state.start.offset, mark.offset, &mut |_| entries += 1).unwrap();
        let mut at = state.start.offset;
        while at < mark.offset {
            let bytes = found.reader.read(at, 100, mark.offset).unwrap();
            assert_eq!(bytes, source.reader.read(at, 100, mark.offset).unwrap()[..bytes.len()]);
            at += loglog_proto::Length::of(bytes.len());
        }
        assert_eq!(entries as u64, mark.index.get() - state.start.index.get() + 1);
    } else {
        assert!(!done, "what was installed stays installed");
        assert_eq!((found.end.get(), found.last.index.get()), (4000, 41));
        assert_eq!(found.tail.len() as u64, 41 - found.meta.mark().index.get());
    }
}

#[test]
fn s25_a_snapshot_is_installed_wholly_or_not_at_all() {
    let (source, state, mark) = source();
    let before = target();
    let mut cuts = 0;
    for operations in 0.. {
        let sim = before.fork();
        sim.kill();
        let dir = lock(&sim);
        sim.power_off_after(operations);
        let done = install(&dir, &source, &state, mark).is_ok();
        for survival in Survival::ALL {
            for seed in 0..3 {
                let sim = sim.fork();
                sim.power_cut(survival, &mut StdRng::seed_from_u64(seed ^ operations << 8));
                for within in 0.. {
                    let again = sim.fork();
                    again.power_off_after(within);
                    let Ok(dir) = DataDir::lock(Arc::new(again.clone()), Path::new(D)) else { continue };
                    if dir.open(OpenOptions::default()).is_ok() {
                        break;
                    }
                    cuts += 1;
                    drop(dir);
                    again.power_cut(survival, &mut StdRng::seed_from_u64(within));
                    let found = lock(&again).open(OpenOptions::default()).unwrap();
                    check(&found, &source, &state, mark, done);
                }
                let found = lock(&sim).open(OpenOptions::default()).unwrap();
                check(&found, &source, &state, mark, done);
                cuts += 1;
            }
        }
        if done {
            break;
        }
    }
    println!("{cuts} power cuts during an installation");
    assert!(cuts > 1000, "{cuts}");
}

#[test]
fn s25_a_snapshot_that_is_not_what_it_says_is_refused() {
    let (source, state, mark) = source();
    let sim = target();
    sim.kill();
    let dir = lock(&sim);
    let short = Mark { index: mark.index.next(), offset: mark.offset };
    let error = install(&dir, &source, &state, short).unwrap_err();
    assert!(matches!(error, InstallError::Invalid { .. }), "{error}");
    let mut old = dir.open(OpenOptions::default()).unwrap();
    let mut installer = dir.install(state.clone()).unwrap();
    let headers: Vec<_> = source.reader.segments().iter().map(|segment| segment.header).collect();
    assert!(installer.segment(headers[4]).is_err(), "not the first");
    installer.segment(headers[3]).unwrap();
    let mut bytes = source.reader.read(state.start.offset, 300, mark.offset).unwrap().to_vec();
    bytes[150] ^= 1;
    installer.append(&bytes).unwrap();
    let end = Mark { index: Index::new(state.start.index.get() + 2), offset: installer.end() };
    let error = installer.commit(&mut old.meta, end).unwrap_err();
    assert!(error.to_string().contains("CRC"), "{error}");
    drop(old);
    check(&dir.open(OpenOptions::default()).unwrap(), &source, &state, mark, false);
}

#[test]
fn s25_a_snapshot_drops_nothing_that_is_held_behind_it() {
    let (source, state, mark) = source();
    let sim = target();
    sim.kill();
    let dir = lock(&sim);
    let ours = dir.open(OpenOptions::default()).unwrap().reader;
    // Another leader brought that batch, and more behind it.
    let held = LogId { term: ours.term_at(mark.index).unwrap(), index: mark.index };
    let installer = receive(&dir, &source, &state, mark).unwrap();
    let error = dir.finish_install(installer, held, mark.offset, &ours).unwrap_err();
    assert!(error.to_string().contains("our own log holds"), "{error}");
    check(&dir.open(OpenOptions::default()).unwrap(), &source, &state, mark, false);
}

#[test]
fn s25_a_vote_given_while_a_snapshot_is_received_is_kept() {
    let (source, state, mark) = source();
    let sim = target();
    sim.kill();
    let dir = lock(&sim);
    let Recovered { mut meta, reader, .. } = dir.open(OpenOptions::default()).unwrap();
    let installer = receive(&dir, &source, &state, mark).unwrap();
    let vote = Some(RaftId::new(NodeId::new(2).unwrap(), Incarnation::new(3).unwrap()));
    meta.save(MetaState { term: Term::new(9), vote, ..meta.state().clone() }).unwrap();
    let last = LogId { term: source.reader.term_at(mark.index).unwrap(), index: mark.index };
    dir.finish_install(installer, last, mark.offset, &reader).unwrap();
    let state = MetaState { term: Term::new(9), vote, ..state };
    check(&dir.open(OpenOptions::default()).unwrap(), &source, &state, mark, true);
}

#[test]
fn s25_a_slot_that_rots_after_an_installation_brings_it_not_back() {
    let (source, state, mark) = source();
    let sim = target();
    sim.kill();
    let dir = lock(&sim);
    drop(dir.open(OpenOptions::default()).unwrap());
    let installer = receive(&dir, &source, &state, mark).unwrap();
    {
        let (mut meta, _) = crate::meta::Meta::open(&sim, Path::new(D), false).unwrap();
        installer.commit(&mut meta, mark).unwrap();
    }
    // The log grows, over several segments; neither mark nor slot is saved.
    let mut log = dir.open(OpenOptions::default()).unwrap();
    let mut chain = Chain { index: mark.index.get() + 1, offset: mark.offset.get() };
    let batches: Vec<NewBatch> = (0..20).map(|_| chain.next(7, &[68])).collect();
    log.writer.write(&batches).unwrap();
    let end = log.writer.end();
    drop((log, dir));
    for at in [30, 16384 + 30] {
        let copy = sim.fork();
        copy.corrupt(&Path::new(D).join("meta"), at, 1).unwrap();
        let found = lock(&copy).open(OpenOptions::default()).unwrap();
        assert_eq!((found.end, found.report.install_finished), (end, false), "flip at {at}");
    }
}
