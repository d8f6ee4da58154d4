//! What recovery makes of damage: torn or corrupt (S9), refused or accepted (S10), chained or not (S11).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use loglog_proto::header::SegmentHeader;
use loglog_proto::{ClusterId, Index, Length, Offset, Term};

use super::kit::{Chain, framed, genesis, open};
use crate::vfs::SimVfs;
use crate::{DataDir, Mark, NewBatch, OpenError, OpenOptions, OsVfs, Recovered, Vfs};

const D: &str = "/d";
const G: Length = Length::new(1000);

/// A log of batches with one 68-byte payload, 100 bytes each: of `terms`, its mark behind `marked` of them.
fn log(limit: u64, terms: &[u32], marked: usize) -> (SimVfs, Vec<NewBatch>) {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let (_dir, mut log) = open(&vfs, Path::new(D), limit);
    let mut chain = Chain::new();
    let batches: Vec<NewBatch> = terms.iter().map(|term| chain.next(*term, &[68])).collect();
    log.writer.write(&batches).unwrap();
    log.meta
        .save_mark(Mark { index: Index::new(marked as u64 + 1), offset: Offset::new(marked as u64 * 100) })
        .unwrap();
    log.meta.sync().unwrap();
    (sim, batches)
}

fn segment(base: u64) -> PathBuf {
    Path::new(D).join(crate::names::segment(Offset::new(base)))
}

fn reopen(sim: &SimVfs, accept_loss: bool) -> Result<Recovered, OpenError> {
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    dir.open_with(OpenOptions { cluster: None, accept_loss }, G)
}

/// Refused, with these words, about this file and offset; then accepted, with `left` batches.
fn corrupt(sim: &SimVfs, base: u64, offset: u64, words: &str, left: usize) {
    let error = reopen(sim, false).unwrap_err();
    let text = error.to_string();
    let OpenError::Corrupt { path, offset: found, .. } = error else { panic!("{text}") };
    assert_eq!((path, found), (segment(base), Offset::new(offset)), "{text}");
    assert!(text.contains(words), "{text}");
    assert!(!crate::verify::verify_with(sim, Path::new(D), G).unwrap().is_sound(), "verify sees it too");
    let before = reopen(sim, false).unwrap_err().to_string();
    assert_eq!(before, text, "a refusal changes nothing");
    let accepted = reopen(sim, true).unwrap();
    let loss = accepted.report.lost.expect("said");
    assert_eq!((accepted.end.get(), loss.from.get()), (left as u64 * 100, left as u64 * 100), "{text}");
    assert!(!accepted.report.side_files.is_empty(), "what was cut is kept");
    let again = reopen(sim, false).unwrap();
    assert_eq!((again.end, again.last), (accepted.end, accepted.last));
    assert!(again.meta.mark().offset <= again.end);
}

#[test]
fn s09_damage_below_the_mark_is_corruption() {
    let (sim, _) = log(10_000, &[1; 5], 3);
    sim.corrupt(&segment(0), 64 + 150, 1).unwrap();
    corrupt(&sim, 0, 100, "below the mark", 1);
}

#[test]
fn s09_a_log_short_of_the_mark_is_corruption() {
    let (sim, _) = log(10_000, &[1; 5], 3);
    let bytes = sim.contents(&segment(0)).unwrap();
    sim.plant(&segment(0), &bytes[..64 + 200]);
    let error = reopen(&sim, false).unwrap_err().to_string();
    assert!(error.contains("short of the mark 300"), "{error}");
    assert_eq!(reopen(&sim, true).unwrap().end.get(), 200);
}

#[test]
fn s09_a_missing_log_is_corruption() {
    let (sim, _) = log(10_000, &[1; 5], 3);
    sim.remove(&segment(0)).unwrap();
    assert!(matches!(reopen(&sim, false), Err(OpenError::Corrupt { .. })));
}

#[test]
fn s09_a_mark_that_is_no_batch_end_is_corruption() {
    for (index, offset) in [(4, 250), (5, 300), (3, 300)] {
        let (sim, batches) = log(10_000, &[1; 5], 0);
        let bytes: Vec<u8> = batches.iter().flat_map(framed).collect();
        assert_eq!(bytes.len(), 500);
        let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
        let (_dir, mut log) = open(&vfs, Path::new(D), 10_000);
        log.meta.save_mark(Mark { index: Index::new(index), offset: Offset::new(offset) }).unwrap();
        drop((log, _dir));
        assert!(matches!(reopen(&sim, false), Err(OpenError::Corrupt { .. })), "{index} {offset}");
    }
}

#[test]
fn s09_a_torn_tail_is_kept_aside_and_cut() {
    let (sim, batches) = log(10_000, &[1; 5], 3);
    sim.corrupt(&segment(0), 64 + 350, 1).unwrap();
    let found = reopen(&sim, false).unwrap();
    assert_eq!((found.end.get(), found.tail.len()), (300, 0));
    assert_eq!((found.report.torn_bytes, found.report.torn_at), (200, Some(Offset::new(300))));
    assert_eq!(found.report.side_files, [Path::new(D).join("torn-000000000000012c-0.bak")]);
    let mut bytes: Vec<u8> = batches[3..].iter().flat_map(framed).collect();
    bytes[50] ^= 1;
    assert_eq!(sim.contents(&found.report.side_files[0]).unwrap(), bytes);
    assert_eq!(sim.contents(&segment(0)).unwrap()[364..], [0; 200], "zeros behind the cut");
    drop(found);
    let again = reopen(&sim, false).unwrap();
    assert_eq!(again.report.torn_bytes, 0);
}

#[test]
fn s09_an_entry_more_than_a_group_beyond_proves_corruption() {
    let (sim, _) = log(100_000, &[1; 14], 2);
    sim.corrupt(&segment(0), 64 + 250, 1).unwrap();
    corrupt(&sim, 0, 200, "more than a write group beyond", 2);
    let (sim, _) = log(100_000, &[1; 12], 2);
    sim.corrupt(&segment(0), 64 + 250, 1).unwrap();
    assert_eq!(reopen(&sim, false).unwrap().end.get(), 200, "within a group it is torn");
}

#[test]
fn s09_a_later_segment_proves_that_the_one_before_was_synced() {
    let (sim, _) = log(300, &[1; 7], 1);
    sim.corrupt(&segment(0), 64 + 250, 1).unwrap();
    corrupt(&sim, 0, 200, "a later segment", 2);
}

#[test]
fn s09_an_unfinished_batch_is_torn() {
    let (sim, _) = log(100_000, &[1; 3], 1);
    let mut chain = Chain { index: 5, offset: 300 };
    let batch = framed(&chain.next(1, &[10, 10]));
    let mut bytes = sim.contents(&segment(0)).unwrap();
    bytes[364..364 + 42].copy_from_slice(&batch[..42]);
    sim.plant(&segment(0), &bytes);
    let found = reopen(&sim, false).unwrap();
    assert_eq!((found.end.get(), found.report.torn_bytes), (300, 42));
    assert_eq!(found.tail.len(), 2);
}

#[test]
fn s09_an_entry_of_another_term_is_no_entry_of_this_segment() {
    let (sim, _) = log(100_000, &[1; 3], 1);
    let mut chain = Chain { index: 5, offset: 300 };
    let mut bytes = sim.contents(&segment(0)).unwrap();
    bytes[364..464].copy_from_slice(&framed(&chain.next(2, &[68])));
    sim.plant(&segment(0), &bytes);
    let found = reopen(&sim, false).unwrap();
    assert_eq!((found.end.get(), found.report.torn_bytes), (300, 100));
}

#[test]
fn s35_a_segment_without_a_whole_batch_is_as_if_never_made() {
    let (sim, _) = log(300, &[1; 4], 3);
    sim.corrupt(&segment(300), 64 + 50, 1).unwrap();
    let found = reopen(&sim, false).unwrap();
    assert_eq!(
        (found.end.get(), found.report.empty_segments_removed, found.report.torn_bytes),
        (300, 1, 100)
    );
    assert!(sim.contents(&segment(300)).is_err());
    assert_eq!(found.last.index, Index::new(4));
}

#[test]
fn s10_a_peers_copy_repairs_what_is_damaged() {
    type Harm = fn(&SimVfs);
    let harms: [Harm; 4] = [
        |sim| sim.corrupt(&segment(0), 64 + 150, 1).unwrap(),
        |sim| sim.corrupt(&segment(300), 70, 1).unwrap(),
        |sim| sim.corrupt(&segment(300), 20, 1).unwrap(),
        |sim| sim.remove(&segment(300)).unwrap(),
    ];
    for harm in harms {
        let (sim, batches) = log(300, &[1; 8], 2);
        let peer = sim.fork();
        harm(&sim);
        let Err(OpenError::Corrupt { offset, batch, .. }) = reopen(&sim, false) else { panic!("refused") };
        let peer = reopen(&peer, false).unwrap();
        // Where a header is damaged the next segment may be the one that does not fit: the hole is what is asked for.
        let offset = if offset == Offset::new(600) { Offset::new(300) } else { offset };
        let info = peer.reader.segments().into_iter().rfind(|s| s.header.base_offset <= offset).unwrap();
        assert!(batch.is_none_or(|batch| peer.reader.term_at(batch.index) == Some(batch.term)));
        let bytes = peer.reader.read(offset, usize::MAX, info.end).unwrap();
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
        assert!(dir.repair(info.header, offset, &bytes[..bytes.len() - 1]).is_err(), "not whole");
        let mut other = bytes.to_vec();
        other[40] ^= 1;
        assert!(dir.repair(info.header, offset, &other).is_err(), "damaged too");
        let damaged = sim.contents(&info.path).ok();
        let aside = dir.repair(info.header, offset, &bytes).unwrap();
        assert_eq!(aside.map(|path| sim.contents(&path).unwrap()), damaged, "the damaged file is kept");
        drop(dir);
        sim.power_cut(crate::vfs::Survival::None, &mut rand::rng());
        let found = reopen(&sim, false).unwrap();
        assert_eq!(found.end, Offset::new(800));
        let mut read = Vec::new();
        while read.len() < 800 {
            read.extend_from_slice(
                &found.reader.read(Offset::new(read.len() as u64), 999, found.end).unwrap(),
            );
        }
        assert_eq!(read, batches.iter().flat_map(framed).collect::<Vec<u8>>());
    }
}

fn header(sim: &SimVfs, base: u64) -> SegmentHeader {
    SegmentHeader::decode(&sim.contents(&segment(base)).unwrap()).unwrap()
}

fn set_header(sim: &SimVfs, base: u64, header: &SegmentHeader) {
    let mut bytes = sim.contents(&segment(base)).unwrap();
    bytes[..64].copy_from_slice(&header.encode());
    sim.plant(&segment(base), &bytes);
}

#[test]
fn s11_a_segment_that_does_not_continue_the_one_before_is_refused() {
    type Change = fn(&mut SegmentHeader);
    let changes: [(Change, &str); 6] = [
        (|h| h.cluster = ClusterId::new(1).unwrap(), "cluster id"),
        (|h| h.base_offset = Offset::new(301), "base offset"),
        (|h| h.base_index = Index::new(6), "begins with batch 6"),
        (|h| h.base_index = Index::new(1), "base index"),
        (|h| h.previous_term = Term::new(0), "previous term"),
        (|h| h.term = Term::new(0), "term"),
    ];
    for (change, words) in changes {
        let (sim, _) = log(300, &[1; 5], 3);
        let mut changed = header(&sim, 300);
        change(&mut changed);
        set_header(&sim, 300, &changed);
        corrupt(&sim, 300, 300, words, 3);
    }
}

#[test]
fn s11_a_gap_is_refused() {
    let (sim, _) = log(300, &[1; 8], 3);
    sim.remove(&segment(300)).unwrap();
    corrupt(&sim, 600, 600, "base offset 600; 300 would continue", 3);
    let (sim, _) = log(300, &[1; 8], 3);
    sim.remove(&segment(0)).unwrap();
    corrupt(&sim, 300, 300, "the log starts at offset 0", 0);
}

#[test]
fn s11_a_sealed_file_of_another_length_is_refused() {
    let (sim, _) = log(300, &[1; 8], 3);
    let bytes = sim.contents(&segment(0)).unwrap();
    sim.plant(&segment(0), &[&bytes[..], &[0; 5]].concat());
    corrupt(&sim, 0, 300, "a later segment", 3);
}

#[test]
fn a_damaged_header_is_named() {
    let (sim, _) = log(300, &[1; 5], 3);
    sim.corrupt(&segment(300), 20, 1).unwrap();
    corrupt(&sim, 300, 300, "segment header has CRC", 3);
}

#[test]
fn s06_one_damaged_slot_or_mark_page_is_survived_two_are_not() {
    let meta = Path::new(D).join("meta");
    for (one, other) in [(30, 16384 + 30), (32768 + 20, 36864 + 20)] {
        let (sim, _) = log(300, &[1; 5], 3);
        sim.corrupt(&meta, one, 1).unwrap();
        let found = reopen(&sim, false).unwrap();
        assert_eq!(found.report.meta_slots_invalid + found.report.mark_pages_invalid, 1);
        drop(found);
        sim.corrupt(&meta, other, 1).unwrap();
        let error = reopen(&sim, false).unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
    }
}

#[test]
fn s07_foreign_files_are_left_alone_and_own_temporaries_removed() {
    let (sim, _) = log(300, &[1; 5], 3);
    for name in ["notes.txt", "x.tmp", "0.seg", "segment-7.tmp", "meta.tmp"] {
        sim.plant(&Path::new(D).join(name), b"bytes");
    }
    let found = reopen(&sim, false).unwrap();
    assert_eq!(found.report.temporary_files_removed, 2);
    for name in ["notes.txt", "x.tmp", "0.seg"] {
        assert_eq!(sim.contents(&Path::new(D).join(name)).unwrap(), b"bytes");
    }
}

#[test]
fn another_clusters_directory_is_refused() {
    let (sim, _) = log(300, &[1; 5], 3);
    let dir = DataDir::lock(Arc::new(sim), Path::new(D)).unwrap();
    let options = OpenOptions { cluster: ClusterId::new(9), accept_loss: false };
    let error = dir.open(options).unwrap_err();
    assert_eq!(error.to_string(), "/d belongs to cluster 000000000000abcd, not to 0000000000000009");
    let mine = OpenOptions { cluster: Some(genesis(1).cluster), accept_loss: false };
    dir.open(mine).unwrap();
}

#[test]
fn an_empty_directory_is_not_formed() {
    let sim = SimVfs::new();
    let dir = DataDir::lock(Arc::new(sim), Path::new(D)).unwrap();
    assert!(!dir.is_formed().unwrap());
    assert!(matches!(dir.open(OpenOptions::default()), Err(OpenError::NotFormed { .. })));
}

/// The real G, on a real file system.
#[test]
fn s09_the_real_group_decides_on_real_files() {
    for (behind, corrupt) in [(20, false), (34, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs::default());
        let (owner, mut log) = open(&vfs, &path, 64 << 20);
        let mut chain = Chain::new();
        for _ in 0..=behind {
            log.writer.write(&[chain.next(1, &[1 << 20])]).unwrap();
        }
        drop((owner, log));
        let file = path.join(crate::names::segment(Offset::ZERO));
        let file = vfs.open(&file, crate::vfs::OpenMode::ReadWrite).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, 1000).unwrap();
        file.write_all_at(&[!byte[0]], 1000).unwrap();
        let owner = DataDir::lock(vfs, &path).unwrap();
        match owner.open(OpenOptions::default()) {
            Ok(found) => assert!(!corrupt && found.end == Offset::ZERO),
            Err(error) => assert!(corrupt, "{error}"),
        }
    }
}
