//! A disk that fails, and one that is full (S2).

use std::path::Path;
use std::sync::Arc;

use loglog_proto::Offset;

use super::kit::{Chain, open};
use crate::vfs::{Fault, OpKind, SimVfs};
use crate::{DataDir, KeeperError, LockError, MetaError, NewBatch, Recovered, Vfs, WriteError};

const D: &str = "/d";

fn log(limit: u64) -> (SimVfs, DataDir, Recovered) {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let (dir, log) = open(&vfs, Path::new(D), limit);
    (sim, dir, log)
}

#[test]
fn s02_a_failed_write_or_sync_is_final() {
    for (kind, fault, words) in [
        (OpKind::Write, Fault::Fail, "cannot write to"),
        (OpKind::Write, Fault::Short(10), "cannot write to"),
        (OpKind::Sync, Fault::Fail, "or sync"),
    ] {
        let (sim, _dir, mut log) = log(1000);
        let mut chain = Chain::new();
        log.writer.write(&[chain.next(1, &[10])]).unwrap();
        let end = log.writer.end();
        sim.inject(kind, 0, fault);
        let next = [chain.next(1, &[10])];
        let error = log.writer.write(&next).unwrap_err();
        assert!(matches!(error, WriteError::Failed(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        for _ in 0..2 {
            let again = log.writer.write(&next).unwrap_err();
            assert!(matches!(&again, WriteError::Poisoned { reason } if reason.contains(words)), "{again}");
        }
        let last = log.writer.last();
        let cut = log.writer.truncate(last.index.next(), end, last).unwrap_err();
        assert!(matches!(cut, WriteError::Poisoned { .. }));
        assert_eq!((log.writer.end(), log.reader.end()), (end, end), "nothing counts that was not synced");
    }
}

#[test]
fn s02_a_failed_rename_or_directory_sync_is_final() {
    for kind in [OpKind::Rename, OpKind::SyncDir, OpKind::SetLen] {
        let (sim, _dir, mut log) = log(1000);
        let mut chain = Chain::new();
        log.writer.write(&[chain.next(1, &[10])]).unwrap();
        sim.inject(kind, 0, Fault::Fail);
        let error = log.writer.write(&[chain.next(2, &[10])]).unwrap_err();
        assert!(matches!(error, WriteError::Failed(_)), "{error}");
    }
}

#[test]
fn s02_a_failed_save_of_meta_is_final() {
    let (sim, _dir, mut log) = log(1000);
    sim.inject(OpKind::Sync, 0, Fault::Fail);
    let state = log.meta.state().clone();
    assert!(matches!(log.meta.save(state.clone()), Err(MetaError::Failed(_))));
    assert!(matches!(log.meta.save(state), Err(MetaError::Poisoned { .. })));
    assert!(matches!(log.meta.sync(), Err(MetaError::Poisoned { .. })));
}

#[test]
fn s02_a_full_disk_while_preparing_is_no_failure() {
    let (sim, _dir, mut log) = log(100_000);
    let used = 1 << 30;
    sim.set_space(Some(used));
    let mut chain = Chain::new();
    let batches: Vec<NewBatch> = (0..10).map(|_| chain.next(1, &[8000, 8000])).collect();
    log.writer.write(&batches[..2]).unwrap();
    // The active segment has its space; a new one finds none.
    let more: Vec<NewBatch> = (0..10).map(|_| chain.next(2, &[900, 900])).collect();
    sim.set_space(Some(0));
    assert!(log.writer.available() > 60_000, "what is reserved ahead counts");
    let durable = log.writer.write(&batches[2..6]).unwrap();
    assert_eq!(durable.last, batches[5].log_id);
    let error = log.writer.write(&batches[6..]).unwrap_err();
    match error {
        WriteError::NoSpace { durable, .. } => assert_eq!(durable.last, batches[5].log_id),
        other => panic!("{other}"),
    }
    assert!(matches!(log.keeper.prepare_step(), Err(KeeperError::NoSpace { .. })));
    assert_eq!(log.reader.end(), log.writer.end());
    sim.set_space(None);
    let rest = log.writer.write(&batches[6..]).unwrap();
    assert_eq!(rest.last, batches[9].log_id);
    log.writer.write(&more).unwrap();
    assert_eq!(log.writer.end(), Offset::new(chain.offset));
}

#[test]
fn s02_a_roll_that_finds_no_room_says_how_far_it_got() {
    let (sim, _dir, mut log) = log(1000);
    let mut chain = Chain::new();
    log.writer.write(&[chain.next(1, &[10])]).unwrap();
    let batches = [chain.next(1, &[20]), chain.next(2, &[500]), chain.next(2, &[500])];
    for kind in [OpKind::Create, OpKind::Allocate, OpKind::Write] {
        let after = u64::from(kind == OpKind::Write && log.writer.last().index < batches[0].log_id.index);
        sim.inject(kind, after, Fault::NoSpace);
        let rest = usize::from(log.writer.last().index >= batches[0].log_id.index);
        match log.writer.write(&batches[rest..]).unwrap_err() {
            WriteError::NoSpace { durable, .. } => assert_eq!(durable.last, batches[0].log_id, "{kind:?}"),
            other => panic!("{other}"),
        }
    }
    let durable = log.writer.write(&batches[1..]).unwrap();
    assert_eq!(durable.last, batches[2].log_id);
}

#[test]
fn a_read_only_directory_is_named() {
    let error = LockError::ReadOnly {
        path: Path::new(D).to_owned(),
        source: std::io::ErrorKind::ReadOnlyFilesystem.into(),
    };
    assert!(error.to_string().starts_with("/d cannot be written"), "{error}");
}
