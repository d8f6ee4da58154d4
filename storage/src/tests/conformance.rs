//! What a log must do over any file system.

use std::path::Path;
use std::sync::Arc;

use loglog_proto::{Index, LogId, Offset, Term};

use super::kit::{Chain, framed, genesis, open};
use crate::{Mark, NewBatch, OsVfs, Prepared, ReadError, Vfs, vfs::SimVfs};

fn on_both(test: fn(Arc<dyn Vfs>, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(Arc::new(OsVfs), &dir.path().join("log"));
    test(Arc::new(SimVfs::new()), Path::new("/sim/log"));
}

fn all(batches: &[NewBatch]) -> Vec<u8> {
    batches.iter().flat_map(framed).collect()
}

#[test]
fn what_was_written_is_read_and_recovered() {
    on_both(|vfs, path| {
        let mut chain = Chain::new();
        let batches: Vec<NewBatch> =
            (0..20).map(|i| chain.next(1 + i / 7, &[10, 9000, (i * 50) as usize])).collect();
        let bytes = all(&batches);
        {
            let (_dir, mut log) = open(&vfs, path, 40_000);
            let durable = log.writer.write(&batches).unwrap();
            assert_eq!(durable.end.get(), chain.offset);
            assert_eq!(durable.last, LogId { term: Term::new(3), index: Index::new(21) });
            check_reads(&log.reader, &bytes);
        }
        let (_dir, log) = open(&vfs, path, 40_000);
        assert_eq!(log.end.get(), chain.offset);
        assert_eq!(log.tail.len(), 20);
        assert_eq!(log.report.torn_bytes, 0);
        check_reads(&log.reader, &bytes);
    });
}

fn check_reads(reader: &crate::LogReader, bytes: &[u8]) {
    let end = Offset::new(bytes.len() as u64);
    for from in (0..bytes.len()).step_by(997) {
        let found = reader.read(Offset::new(from as u64), 5000, end).unwrap();
        assert!(!found.is_empty());
        assert_eq!(found, &bytes[from..from + found.len()]);
    }
    let mut from = 0;
    while from < bytes.len() {
        let found = reader.read(Offset::new(from as u64), usize::MAX, end).unwrap();
        assert_eq!(found, &bytes[from..from + found.len()]);
        from += found.len();
    }
    assert!(reader.read(end, 10, end).unwrap().is_empty());
    let beyond = reader.read(Offset::new(end.get() + 1), 10, end);
    assert!(matches!(beyond, Err(ReadError::BeyondEnd { end: e }) if e == end));
    let mut entries = 0;
    reader.scan(Offset::ZERO, end, &mut |_| entries += 1).unwrap();
    assert_eq!(entries, 60);
}

#[test]
fn s36_trim_removes_whole_segments_and_readers_go_on() {
    on_both(|vfs, path| {
        let (dir, mut log) = open(&vfs, path, 1000);
        let mut chain = Chain::new();
        let batches: Vec<NewBatch> = (0..20).map(|_| chain.next(1, &[300])).collect();
        log.writer.write(&batches).unwrap();
        while log.keeper.prepare_step().unwrap() == Prepared::More {}
        let mark = Mark { index: log.writer.last().index, offset: log.writer.end() };
        log.meta.save_mark(mark).unwrap();
        let third = log.reader.segments()[2].clone();
        let mut state = log.meta.state().clone();
        state.start = crate::LogStart {
            offset: third.header.base_offset,
            index: third.header.base_index,
            previous_term: third.header.previous_term,
        };
        let start = state.start;
        log.meta.save(state).unwrap();
        let report = log.keeper.trim(start).unwrap();
        assert_eq!((report.segments, report.start), (2, start.offset));
        let trimmed = log.reader.read(Offset::ZERO, 1, mark.offset);
        assert!(matches!(trimmed, Err(ReadError::Trimmed { start: s }) if s == start.offset));
        drop(log);
        drop(dir);
        let (_dir, log) = open(&vfs, path, 1000);
        assert_eq!(log.reader.start(), start.offset);
        assert_eq!((log.end, log.last.index), (mark.offset, mark.index));
        assert!(log.tail.is_empty());
    });
}

#[test]
fn s07_a_directory_has_one_owner() {
    on_both(|vfs, path| {
        let (dir, _log) = open(&vfs, path, 1000);
        let error = crate::DataDir::lock(Arc::clone(&vfs), path).unwrap_err();
        assert!(matches!(&error, crate::LockError::Busy { path: p } if p == path));
        assert!(error.to_string().contains("log is in use"), "{error}");
        assert!(dir.form(&genesis(5)).is_err());
        drop(dir);
        crate::DataDir::lock(vfs, path).unwrap();
    });
}
