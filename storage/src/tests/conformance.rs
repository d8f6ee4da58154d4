//! What a log must do over any file system.

use std::path::Path;
use std::sync::Arc;

use loglog_proto::{Index, LogId, Offset, Term};

use super::kit::{Chain, framed, genesis, open};
use crate::{DataDir, Mark, NewBatch, OpenOptions, OsVfs, Prepared, ReadError, Vfs, vfs::SimVfs};

fn on_both(test: fn(Arc<dyn Vfs>, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(Arc::new(OsVfs::default()), &dir.path().join("log"));
    // Beside the sources, where there is a disk; a temporary folder may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    test(Arc::new(OsVfs::new(true)), &dir.path().join("log"));
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

/// How far the log is, as the model of the tests below.
fn end_of(chain: &Chain) -> Offset {
    Offset::new(chain.offset)
}

#[test]
fn s05_truncation_makes_room_for_another_term() {
    on_both(|vfs, path| {
        let mut chain = Chain::new();
        let (owner, mut log) = open(&vfs, path, 1000);
        let kept = [chain.next(1, &[100]), chain.next(1, &[100])];
        let fork = chain.clone();
        log.writer.write(&kept).unwrap();
        let gone: Vec<NewBatch> = (0..30).map(|i| chain.next(1 + i / 12, &[100, 50])).collect();
        log.writer.write(&gone).unwrap();
        let last = kept[1].log_id;
        log.writer.truncate(last.index.next(), end_of(&fork), last).unwrap();
        assert_eq!((log.writer.last(), log.writer.end()), (last, end_of(&fork)));
        assert_eq!(log.reader.term_at(last.index.next()), None);
        assert!(matches!(
            log.reader.read(Offset::new(fork.offset + 1), 1, end_of(&chain)),
            Err(ReadError::BeyondEnd { end }) if end == end_of(&fork)
        ));
        let mut chain = fork;
        // The same term goes on in the same segment, as if nothing had happened; the next term opens its own.
        let new = [chain.next(1, &[100]), chain.next(4, &[100]), chain.next(4, &[100])];
        log.writer.write(&new).unwrap();
        assert_eq!(log.reader.segments().len(), 2);
        let bytes = [all(&kept), all(&new)].concat();
        drop((log, owner));
        let (_owner, log) = open(&vfs, path, 1000);
        assert_eq!(log.end, end_of(&chain));
        let mut read = Vec::new();
        while (read.len() as u64) < chain.offset {
            let at = Offset::new(read.len() as u64);
            read.extend_from_slice(&log.reader.read(at, usize::MAX, log.end).unwrap());
        }
        assert_eq!(read, bytes);
        assert_eq!(log.reader.term_at(Index::new(5)), Some(Term::new(4)));
        assert_eq!(log.reader.term_at(Index::new(1)), Some(Term::new(1)), "genesis");
    });
}

#[test]
fn s05_what_was_cut_is_not_read_from_memory() {
    on_both(|vfs, path| {
        drop(open(&vfs, path, 1 << 20));
        let dir = DataDir::lock(Arc::clone(&vfs), path).unwrap();
        let mut log = dir.open(OpenOptions { tail_bytes: 1 << 20, ..OpenOptions::default() }).unwrap();
        let mut chain = Chain::new();
        let kept = [chain.next(1, &[5000])];
        let mut fork = chain.clone();
        log.writer.write(&kept).unwrap();
        log.writer.write(&[chain.next(1, &[3000]), chain.next(1, &[100])]).unwrap();
        log.writer.truncate(kept[0].log_id.index.next(), end_of(&fork), kept[0].log_id).unwrap();
        // Otherwise cut, and in the same segment, so that one read spans what stayed and what is new.
        let new = [fork.next(1, &[100]), fork.next(1, &[3000])];
        for batch in &new {
            log.writer.write(std::slice::from_ref(batch)).unwrap();
        }
        let (bytes, end) = ([all(&kept), all(&new)].concat(), end_of(&fork));
        for from in [0, 5032, 5040, bytes.len() - 50] {
            let mut read = Vec::new();
            while from + read.len() < bytes.len() {
                let at = Offset::new((from + read.len()) as u64);
                read.extend_from_slice(&log.reader.read(at, usize::MAX, end).unwrap());
            }
            assert!(read == bytes[from..], "from {from}");
        }
        assert!(
            log.reader.read_from_memory(Offset::new(5032), 3132, end, 4000).unwrap().is_some(),
            "it is there"
        );
    });
}

#[test]
fn s05_truncation_to_nothing_leaves_an_empty_log() {
    on_both(|vfs, path| {
        let mut chain = Chain::new();
        let (owner, mut log) = open(&vfs, path, 1000);
        let before = log.last;
        log.writer.write(&[chain.next(2, &[100]), chain.next(3, &[100])]).unwrap();
        log.writer.truncate(Index::new(2), Offset::ZERO, before).unwrap();
        assert!(log.reader.segments().is_empty());
        drop((log, owner));
        let (_owner, mut log) = open(&vfs, path, 1000);
        assert_eq!((log.last, log.end), (before, Offset::ZERO));
        log.writer.write(&[Chain::new().next(4, &[7])]).unwrap();
    });
}

#[test]
fn s35_the_segment_files_do_not_depend_on_how_the_log_was_written() {
    on_both(|vfs, path| {
        let batches = |chain: &mut Chain| -> Vec<NewBatch> {
            (0..40).map(|i| chain.next(1 + i / 15, &[(i as usize * 37) % 300])).collect()
        };
        let mut files = Vec::new();
        for way in 0..3 {
            let path = path.join(way.to_string());
            let (owner, mut log) = open(&vfs, &path, 1500);
            let all = batches(&mut Chain::new());
            match way {
                0 => {
                    log.writer.write(&all).unwrap();
                }
                1 => {
                    for batch in &all {
                        log.writer.write(std::slice::from_ref(batch)).unwrap();
                    }
                }
                _ => {
                    while log.keeper.prepare_step().unwrap() == Prepared::More {}
                    log.writer.write(&all[..33]).unwrap();
                    let last = all[17].log_id;
                    log.writer.truncate(last.index.next(), all[18].offset, last).unwrap();
                    drop((log, owner));
                    let (_owner, mut log) = open(&vfs, &path, 1500);
                    log.writer.write(&all[18..]).unwrap();
                }
            }
            let report = crate::verify_on(&*vfs, &path).unwrap();
            assert!(report.is_sound(), "{:?}", report.findings);
            assert_eq!(report.batches, 40);
            let end = report.segments.last().unwrap().end;
            files.push((report.segments.iter().map(|s| (s.header, s.end, s.crc)).collect::<Vec<_>>(), end));
        }
        assert_eq!(files[0], files[1]);
        assert_eq!(files[0], files[2]);
    });
}

#[test]
fn s35_a_new_limit_counts_from_the_next_segment() {
    on_both(|vfs, path| {
        let (_owner, mut log) = open(&vfs, path, 500);
        let mut chain = Chain::new();
        log.writer.write(&[chain.next(1, &[68])]).unwrap();
        log.writer.change_segment_limit(end_of(&chain), loglog_proto::Length::new(200));
        let more: Vec<NewBatch> = (0..9).map(|_| chain.next(1, &[68])).collect();
        log.writer.write(&more).unwrap();
        let bases: Vec<u64> = log.reader.segments().iter().map(|s| s.header.base_offset.get()).collect();
        assert_eq!(bases, [0, 500, 700, 900]);
        // Undone by a cut before the change.
        let first = LogId { term: Term::new(1), index: Index::new(1) };
        log.writer.truncate(Index::new(2), Offset::ZERO, first).unwrap();
        let mut chain = Chain::new();
        let again: Vec<NewBatch> = (0..9).map(|_| chain.next(1, &[68])).collect();
        log.writer.write(&again).unwrap();
        assert_eq!(log.reader.segments().len(), 2);
    });
}

#[test]
fn s13_readers_of_the_last_generation_go_on() {
    on_both(|vfs, path| {
        let (owner, mut log) = open(&vfs, path, 1000);
        let mut chain = Chain::new();
        let batches: Vec<NewBatch> = (0..20).map(|_| chain.next(1, &[300])).collect();
        log.writer.write(&batches).unwrap();
        let (old, committed) = (log.reader.clone(), end_of(&chain));
        let bytes = all(&batches);
        drop((log.writer, log.keeper, log.meta));
        let mut next = owner.open(crate::OpenOptions::default()).unwrap();
        next.writer.write(&[chain.next(2, &[300])]).unwrap();
        for from in (0..bytes.len()).step_by(101) {
            let found = old.read(Offset::new(from as u64), 500, committed).unwrap();
            assert_eq!(found, &bytes[from..from + found.len()]);
        }
        assert!(
            old.read(committed, 10, end_of(&chain)).unwrap().is_empty(),
            "it knows its own generation only"
        );
    });
}

#[test]
fn s36_a_reader_keeps_a_file_that_trim_unlinks() {
    on_both(|vfs, path| {
        let (_owner, mut log) = open(&vfs, path, 200);
        let mut chain = Chain::new();
        let batches: Vec<NewBatch> = (0..8).map(|_| chain.next(1, &[100])).collect();
        log.writer.write(&batches).unwrap();
        let end = end_of(&chain);
        let held = log.reader.locate(Offset::ZERO, usize::MAX, end).unwrap().unwrap();
        log.meta.save_mark(Mark { index: log.writer.last().index, offset: end }).unwrap();
        let header = log.reader.segments()[2].header;
        let start = crate::LogStart {
            offset: header.base_offset,
            index: header.base_index,
            previous_term: header.previous_term,
        };
        let mut state = log.meta.state().clone();
        state.start = start;
        log.meta.save(state).unwrap();
        log.keeper.trim(start).unwrap();
        let mut bytes = vec![0; held.len];
        held.file.read_at(&mut bytes, held.position).unwrap();
        assert_eq!(bytes, all(&batches)[..held.len]);
        assert_eq!(log.reader.term_at(header.base_index.previous()), Some(header.previous_term));
        assert_eq!(log.reader.term_at(Index::new(2)), None);
        assert!(log.reader.scan(start.offset, end, &mut |_| ()).is_ok());
    });
}

#[test]
fn s07_a_directory_of_a_log_is_not_formed_again() {
    on_both(|vfs, path| {
        let (owner, mut log) = open(&vfs, path, 200);
        log.writer.write(&[Chain::new().next(1, &[5])]).unwrap();
        drop(log);
        vfs.remove(&path.join("meta")).unwrap();
        for error in [owner.check_new().unwrap_err(), owner.form(&genesis(200)).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("0000000000000000.seg but no meta"), "{error}");
        }
    });
}
