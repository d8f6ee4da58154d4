//! What recovery makes of damage: torn or corrupt (S9), refused or accepted (S10), chained or not (S11).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use loglog_proto::header::SegmentHeader;
use loglog_proto::{ClusterId, Index, Length, Offset, Term};

use super::kit::{Chain, framed, genesis, open};
use crate::vfs::SimVfs;
use crate::{DataDir, Gap, Mark, NewBatch, OpenError, OpenOptions, OsVfs, Recovered, Vfs};

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
    dir.open_with(OpenOptions { accept_loss, ..OpenOptions::default() }, G)
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

/// Repairs from a peer, gap by gap, until the log opens; returns the gaps and what is kept aside.
fn repair(sim: &SimVfs, peer: &Recovered, scan_from: Option<u64>) -> (Vec<Gap>, Vec<PathBuf>) {
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let (mut gaps, mut aside) = (Vec::new(), Vec::new());
    let options = OpenOptions { scan_from: scan_from.map(Offset::new), ..OpenOptions::default() };
    while let Err(error) = dir.open_with(options, G) {
        let OpenError::Corrupt { gap, .. } = error else { panic!("{error}") };
        gaps.push((*gap).clone());
        assert!(gaps.len() < 5, "no end of it: {gaps:?}");
        if let Some(header) = gap.excess {
            aside.extend(dir.repair(header, gap.offset).unwrap().finish().unwrap());
            continue;
        }
        let info = peer.reader.segment_of_index(gap.first).unwrap();
        let (term, until) = (gap.term.is_none_or(|term| term == info.header.term), gap.until);
        assert!(term && until.is_none_or(|it| peer.reader.term_at(it.last.index) == Some(it.last.term)));
        let bytes = peer.reader.read(gap.offset, usize::MAX, info.end).unwrap();
        let mut other = bytes.to_vec();
        other[40] ^= 1;
        let mut repair = dir.repair(info.header, gap.offset).unwrap();
        assert!(repair.append(&bytes[..bytes.len() - 1]).is_err(), "not whole");
        assert!(repair.append(&other).is_err(), "damaged too");
        for batch in bytes.chunks(100) {
            repair.append(batch).unwrap();
        }
        let damaged = sim.contents(&info.path).ok();
        let kept = repair.finish().unwrap();
        if let Some(damaged) = damaged {
            assert_eq!(sim.contents(&kept[0]).unwrap(), damaged, "the damaged file is kept");
        }
        aside.extend(kept);
    }
    (gaps, aside)
}

#[test]
fn s10_a_peers_copy_repairs_what_is_damaged() {
    fn cut(sim: &SimVfs, base: u64, len: usize) {
        let bytes = sim.contents(&segment(base)).unwrap();
        sim.plant(&segment(base), &bytes[..len]);
    }
    type Harm = fn(&SimVfs);
    type Expected = (u64, bool, Option<u64>);
    // What is done to three segments of three, three and two batches of 100 bytes, the first batch being 2; how many batches the mark covers;
    // the first batch of the gap, its term if that is known, the last batch if that is known.
    let harms: [(Harm, usize, Expected); 12] = [
        (|sim| sim.corrupt(&segment(0), 64 + 150, 1).unwrap(), 2, (3, true, Some(4))),
        (|sim| sim.corrupt(&segment(300), 70, 1).unwrap(), 2, (5, true, Some(7))),
        (|sim| sim.corrupt(&segment(300), 20, 1).unwrap(), 2, (5, true, Some(7))),
        (|sim| sim.remove(&segment(300)).unwrap(), 2, (5, false, Some(7))),
        (|sim| sim.remove(&segment(0)).unwrap(), 7, (2, false, Some(4))),
        (|sim| sim.plant(&segment(0), &[0; 364]), 2, (2, false, Some(4))),
        (|sim| cut(sim, 300, 64 + 200), 7, (7, false, Some(7))),
        (|sim| cut(sim, 300, 64 + 250), 2, (7, true, Some(7))),
        (|sim| sim.plant(&segment(600), b"no header"), 7, (8, false, None)),
        (|sim| sim.remove(&segment(600)).unwrap(), 7, (8, false, None)),
        (|sim| cut(sim, 600, 64 + 100), 8, (9, false, None)),
        (|sim| sim.corrupt(&segment(600), 70, 1).unwrap(), 8, (8, true, None)),
    ];
    for (at, (harm, marked, expected)) in harms.into_iter().enumerate() {
        let (sim, batches) = log(300, &[1; 8], marked);
        let peer = reopen(&sim.fork(), false).unwrap();
        harm(&sim);
        let (gaps, _) = repair(&sim, &peer, None);
        let gap = &gaps[0];
        let until = gap.until.map(|until| until.last.index.get());
        assert_eq!((gap.first.get(), gap.term.is_some(), until), expected, "harm {at}: {gap:?}");
        assert_eq!(gap.offset.get(), (gap.first.get() - 2) * 100);
        assert_eq!(gap.term_at(Index::new(1)), Some(Term::new(1)));
        assert_eq!(gap.is_below_mark(), gap.first.get() <= marked as u64 + 1);
        is_whole(&sim, &batches);
    }
}

/// After a power cut the log is these batches.
fn is_whole(sim: &SimVfs, batches: &[NewBatch]) {
    sim.power_cut(crate::vfs::Survival::None, &mut rand::rng());
    let found = reopen(sim, false).unwrap();
    let (mut read, all) = (Vec::new(), batches.iter().flat_map(framed).collect::<Vec<u8>>());
    while read.len() < all.len() {
        let at = Offset::new(read.len() as u64);
        read.extend_from_slice(&found.reader.read(at, 999, found.end).unwrap());
    }
    assert_eq!((read, found.end.get()), (all.clone(), all.len() as u64));
    assert!(crate::verify::verify_with(sim, Path::new(D), G).unwrap().is_sound());
}

/// One round of a repair.
fn attempt(sim: &SimVfs, peer: &Recovered) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).map_err(|error| words(&error))?;
    match dir.open_with(OpenOptions::default(), G) {
        Ok(_) => Ok(()),
        Err(OpenError::Corrupt { gap, .. }) => {
            let info = peer.reader.segment_of_index(gap.first).unwrap();
            let bytes = peer.reader.read(gap.offset, usize::MAX, info.end).unwrap();
            let mut repair = dir.repair(info.header, gap.offset).map_err(|error| words(&error))?;
            repair.append(&bytes).map_err(|error| words(&error))?;
            repair.finish().map_err(|error| words(&error)).map(drop)
        }
        Err(error) => Err(words(&error)),
    }
}

#[test]
fn s10_a_power_cut_during_a_repair_leaves_the_damaged_file_or_the_repaired_one() {
    let (sim, batches) = log(300, &[1; 8], 8);
    let peer = reopen(&sim.fork(), false).unwrap();
    sim.plant(&segment(600), b"no header");
    let mut cuts = 0;
    for operations in 0.. {
        let attempted = sim.fork();
        attempted.power_off_after(operations);
        let done = attempt(&attempted, &peer).is_ok();
        for survival in crate::vfs::Survival::ALL {
            let after = attempted.fork();
            after.power_cut(survival, &mut rand::rng());
            match reopen(&after, false) {
                Err(OpenError::Corrupt { gap, .. }) => assert!(!done && gap.first == Index::new(8)),
                Err(error) => panic!("{error}"),
                Ok(found) => assert_eq!(found.end, Offset::new(800)),
            }
            attempt(&after, &peer).unwrap();
            is_whole(&after, &batches);
            cuts += 1;
        }
        if done {
            break;
        }
    }
    println!("{cuts} power cuts during a repair");
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn s10_several_gaps_are_repaired_one_after_the_other() {
    let (sim, batches) = log(300, &[1, 1, 1, 2, 2, 3, 3, 3], 8);
    let peer = reopen(&sim.fork(), false).unwrap();
    sim.remove(&segment(300)).unwrap();
    sim.plant(&segment(500), b"no header");
    sim.corrupt(&segment(0), 64 + 10, 1).unwrap();
    let (gaps, _) = repair(&sim, &peer, Some(0));
    assert_eq!(gaps.len(), 3);
    is_whole(&sim, &batches);
}

#[test]
fn s10_a_sealed_file_that_is_too_long_needs_no_peer() {
    let (sim, batches) = log(300, &[1; 8], 3);
    let bytes = sim.contents(&segment(0)).unwrap();
    sim.plant(&segment(0), &[&bytes[..], &[7; 5]].concat());
    let peer = reopen(&log(300, &[], 0).0, false).unwrap();
    let (gaps, aside) = repair(&sim, &peer, None);
    assert!(gaps.len() == 1 && gaps[0].excess.is_some(), "{gaps:?}");
    assert_eq!(aside.len(), 1);
    is_whole(&sim, &batches);
}

#[test]
fn s10_damage_far_below_the_mark_is_found_where_it_is_suspected() {
    let (sim, batches) = log(300, &[1; 8], 8);
    let peer = reopen(&sim.fork(), false).unwrap();
    sim.corrupt(&segment(0), 64 + 150, 1).unwrap();
    assert!(reopen(&sim, false).is_ok(), "a start reads the last segments only");
    let (gaps, _) = repair(&sim, &peer, Some(250));
    assert_eq!((gaps.len(), gaps[0].first, gaps[0].offset), (1, Index::new(3), Offset::new(100)));
    is_whole(&sim, &batches);
}

#[test]
fn s10_a_file_that_claims_a_place_within_a_repaired_segment_is_kept_aside() {
    let (sim, batches) = log(300, &[1; 5], 5);
    let peer = reopen(&sim.fork(), false).unwrap();
    let bytes = sim.contents(&segment(300)).unwrap();
    sim.remove(&segment(300)).unwrap();
    sim.plant(&segment(400), &bytes);
    let (_, aside) = repair(&sim, &peer, None);
    assert_eq!(aside, [Path::new(D).join("lost-0000000000000190-0.bak")]);
    is_whole(&sim, &batches);
}

#[test]
fn s10_what_peers_disproved_is_cut_and_nothing_else() {
    let (sim, batches) = log(300, &[1; 8], 2);
    sim.corrupt(&segment(300), 64 + 150, 1).unwrap();
    let open = |uncommitted_from| {
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
        let uncommitted_from = Some(Offset::new(uncommitted_from));
        dir.open_with(OpenOptions { uncommitted_from, ..OpenOptions::default() }, G)
    };
    for elsewhere in [0, 200, 300, 500] {
        assert!(matches!(open(elsewhere), Err(OpenError::Corrupt { .. })), "{elsewhere}");
    }
    let cut = open(400).unwrap();
    let report = &cut.report;
    assert!(report.lost.is_none() && report.disproved.as_ref().is_some_and(|it| it.from.get() == 400));
    assert_eq!((report.side_files.len(), cut.meta.mark().index), (2, Index::new(3)));
    drop(cut);
    is_whole(&sim, &batches[..4]);

    let (sim, _) = log(300, &[1; 8], 5);
    sim.corrupt(&segment(300), 64 + 50, 1).unwrap();
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let options = OpenOptions { uncommitted_from: Some(Offset::new(300)), ..OpenOptions::default() };
    assert!(matches!(dir.open_with(options, G), Err(OpenError::Corrupt { .. })), "never below the mark");
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
        sim.corrupt(&meta, one as u64, 1).unwrap();
        let found = reopen(&sim, false).unwrap();
        assert_eq!(found.report.meta_slots_invalid + found.report.mark_pages_invalid, 1);
        drop(found);
        for at in [one, other] {
            // What the start has mended is damaged again.
            let mut bytes = sim.contents(&meta).unwrap();
            bytes[at..at + 2].copy_from_slice(&[0xAA, 0x55]);
            sim.plant(&meta, &bytes);
        }
        let error = reopen(&sim, false).unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
    }
}

/// The header of the segment at `base` with another base index, its checksum right: a file of another log, say.
fn renumber(sim: &SimVfs, base: u64, index: u64) {
    let mut bytes = sim.contents(&segment(base)).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    let header = SegmentHeader { base_index: Index::new(index), ..header };
    bytes[..64].copy_from_slice(&header.encode());
    sim.plant(&segment(base), &bytes);
}

#[test]
fn s11_a_header_that_counts_wrongly_is_found_by_the_segment_before_it() {
    for index in [3, 4, 6, 900] {
        let (sim, _) = log(300, &[1; 6], 6);
        renumber(&sim, 300, index);
        let error = reopen(&sim, false).unwrap_err();
        let OpenError::Corrupt { gap, .. } = error else { panic!("{error}") };
        assert_eq!((gap.first, gap.offset), (Index::new(5), Offset::new(300)), "{index}");
        let found = reopen(&sim, true).unwrap();
        assert_eq!((found.last.index, found.end), (Index::new(4), Offset::new(300)), "{index}");
        assert_eq!(found.meta.mark(), Mark { index: Index::new(4), offset: Offset::new(300) });
    }
}

/// Both mark pages say this, their checksums right.
fn mark(sim: &SimVfs, index: u64, offset: u64) {
    let path = Path::new(D).join("meta");
    let mut bytes = sim.contents(&path).unwrap();
    for page in [32 << 10, 36 << 10] {
        bytes[page + 16..page + 24].copy_from_slice(&index.to_le_bytes());
        bytes[page + 24..page + 32].copy_from_slice(&offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[page..page + 32]);
        bytes[page + 32..page + 36].copy_from_slice(&crc.to_le_bytes());
    }
    sim.plant(&path, &bytes);
}

#[test]
fn s10_a_mark_that_contradicts_itself_never_panics() {
    for (index, offset) in [(2, 1000), (3, 601), (900, 100), (9, 0), (1, 100), (u64::MAX, 600), (7, u64::MAX)]
    {
        let (sim, _) = log(300, &[1; 6], 6);
        mark(&sim, index, offset);
        assert!(!crate::verify::verify_with(&sim, Path::new(D), G).unwrap().is_sound(), "{index} {offset}");
        assert!(reopen(&sim, false).is_err(), "{index} {offset}");
        let found = reopen(&sim, true).unwrap();
        let (end, mark) = (found.end, found.meta.mark());
        assert!(mark.offset <= end && mark.index <= found.last.index, "{index} {offset}: {mark:?}");
        drop(found);
        assert_eq!(reopen(&sim, false).unwrap().end, end, "{index} {offset}");
    }
}

#[test]
fn s10_a_last_segment_cut_to_its_header_below_the_mark_stays_and_is_repaired() {
    let cut = || {
        let (sim, _) = log(300, &[1, 1, 1, 2, 2], 5);
        let bytes = sim.contents(&segment(300)).unwrap();
        sim.plant(&segment(300), &bytes[..64]);
        sim
    };
    let sim = cut();
    let error = reopen(&sim, false).unwrap_err();
    let OpenError::Corrupt { path, gap, .. } = error else { panic!("{error}") };
    assert_eq!((path, gap.first, gap.offset), (segment(300), Index::new(5), Offset::new(300)));
    assert_eq!((gap.term, gap.excess), (Some(Term::new(2)), None));
    assert_eq!(sim.contents(&segment(300)).unwrap().len(), 64, "a refusal removes nothing (S7)");
    let (peer, _) = log(300, &[1, 1, 1, 2, 2], 5);
    let (gaps, _) = repair(&sim, &reopen(&peer, false).unwrap(), None);
    assert_eq!(gaps.len(), 1);
    assert_eq!(reopen(&sim, false).unwrap().end.get(), 500);
    let found = reopen(&cut(), true).unwrap();
    assert_eq!((found.end.get(), found.report.side_files.len()), (300, 1), "what is cut is kept aside");
}

#[test]
fn s10_one_accepted_loss_covers_damage_in_the_segment_that_becomes_the_last() {
    let (sim, _) = log(300, &[1; 9], 9);
    sim.corrupt(&segment(600), 64 + 50, 1).unwrap();
    sim.corrupt(&segment(300), 64 + 150, 1).unwrap();
    let error = reopen(&sim, false).unwrap_err();
    let OpenError::Corrupt { offset, .. } = error else { panic!("{error}") };
    assert_eq!(offset, Offset::new(400), "the first damage of both");
    let found = reopen(&sim, true).unwrap();
    assert_eq!((found.end.get(), found.last.index, found.meta.mark().index.get()), (400, Index::new(5), 5));
    drop(found);
    assert!(reopen(&sim, false).unwrap().report.lost.is_none(), "it need not be accepted again");
}

#[test]
fn s25_an_installation_that_makes_no_sense_removes_nothing() {
    for (index, offset) in [(5, 0), (2, 100), (1, 600)] {
        let (sim, _) = log(300, &[1; 6], 6);
        let path = Path::new(D).join("meta");
        let mut bytes = sim.contents(&path).unwrap();
        for slot in [0, 16 << 10] {
            let slot = &mut bytes[slot..];
            slot[44..48].copy_from_slice(&1u32.to_le_bytes());
            slot[84..92].copy_from_slice(&u64::to_le_bytes(index));
            slot[92..100].copy_from_slice(&u64::to_le_bytes(offset));
            let body = u32::from_le_bytes(*slot[16..].first_chunk().unwrap()) as usize;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..20]), &slot[24..24 + body]);
            slot[20..24].copy_from_slice(&crc.to_le_bytes());
        }
        sim.plant(&path, &bytes);
        for accept in [false, true] {
            assert!(matches!(reopen(&sim, accept), Err(OpenError::Meta { .. })), "{index} {offset}");
        }
        assert!(!crate::verify::verify_with(&sim, Path::new(D), G).unwrap().is_sound());
        assert!(sim.contents(&segment(300)).unwrap().len() >= 364, "{index} {offset}");
    }
}

#[test]
fn s12_a_loss_below_the_last_change_of_members_is_accepted_for_good() {
    let (sim, _) = log(300, &[1; 6], 6);
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let mut found = dir.open_with(OpenOptions::default(), G).unwrap();
    let mut state = found.meta.state().clone();
    state.membership.index = Index::new(6);
    found.meta.save(state.clone()).unwrap();
    drop((found, dir));
    sim.remove(&segment(300)).unwrap();
    assert!(reopen(&sim, false).is_err());
    let found = reopen(&sim, true).unwrap();
    assert_eq!(
        (found.end.get(), found.last.index, found.meta.state().membership.index.get()),
        (300, Index::new(4), 4)
    );
    assert_eq!(found.meta.state().membership.voters, state.membership.voters);
    drop(found);
    assert!(reopen(&sim, false).unwrap().report.lost.is_none(), "it need not be accepted again");
}

#[test]
fn s12_verify_misses_a_change_of_members_that_was_applied() {
    let (sim, _) = log(300, &[1; 6], 0);
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let mut found = dir.open_with(OpenOptions::default(), G).unwrap();
    let mut state = found.meta.state().clone();
    state.membership.index = Index::new(6);
    found.meta.save(state).unwrap();
    drop((found, dir));
    assert!(crate::verify::verify_with(&sim, Path::new(D), G).unwrap().is_sound());
    sim.remove(&segment(300)).unwrap();
    assert!(reopen(&sim, false).is_err());
    assert!(!crate::verify::verify_with(&sim, Path::new(D), G).unwrap().is_sound());
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
    let options = OpenOptions { cluster: ClusterId::new(9), ..OpenOptions::default() };
    let error = dir.open(options).unwrap_err();
    assert_eq!(error.to_string(), "/d belongs to cluster 000000000000abcd, not to 0000000000000009");
    let mine = OpenOptions { cluster: Some(genesis(1).cluster), ..OpenOptions::default() };
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

#[test]
fn s06_a_slot_that_rots_takes_no_vote_and_no_members_with_it() {
    use loglog_proto::{Incarnation, NodeId, RaftId};
    let (sim, _) = log(300, &[1; 6], 0);
    let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
    let mut found = dir.open_with(OpenOptions::default(), G).unwrap();
    let mut state = found.meta.state().clone();
    state.term = Term::new(9);
    state.vote = Some(RaftId::new(NodeId::new(2).unwrap(), Incarnation::new(3).unwrap()));
    state.membership.index = Index::new(6);
    found.meta.save(state.clone()).unwrap();
    found.meta.save_mark(Mark { index: Index::new(7), offset: Offset::new(600) }).unwrap();
    found.meta.sync().unwrap();
    drop((found, dir));
    for at in [30, 16384 + 30] {
        let copy = sim.fork();
        copy.corrupt(&Path::new(D).join("meta"), at, 1).unwrap();
        let found = reopen(&copy, false).unwrap();
        assert_eq!((found.meta.state(), found.report.meta_slots_invalid), (&state, 1), "flip at {at}");
        drop(found);
        // And the next start finds both whole again.
        assert_eq!(reopen(&copy, false).unwrap().report.meta_slots_invalid, 0, "flip at {at}");
    }
}

/// Found by fuzzing: behind the largest number that was believed, the next save was not believed any more.
#[test]
fn s06_numbers_go_on_behind_the_last_of_all() {
    let (sim, _) = log(300, &[1; 6], 0);
    let path = Path::new(D).join("meta");
    for largest in [u64::MAX, 1 << 62, (1 << 63) - 1] {
        let copy = sim.fork();
        let mut bytes = copy.contents(&path).unwrap();
        for (at, number) in [(0, largest - 1), (16384, largest)] {
            let slot = &mut bytes[at..];
            slot[8..16].copy_from_slice(&number.to_le_bytes());
            let body = u32::from_le_bytes(slot[16..20].try_into().unwrap()) as usize;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..20]), &slot[24..24 + body]);
            slot[20..24].copy_from_slice(&crc.to_le_bytes());
        }
        for (at, number) in [(32768, largest - 1), (36864, largest)] {
            let page = &mut bytes[at..];
            page[8..16].copy_from_slice(&number.to_le_bytes());
            let crc = crc32c::crc32c(&page[..32]);
            page[32..36].copy_from_slice(&crc.to_le_bytes());
        }
        copy.plant(&path, &bytes);
        for save in 1..5 {
            let mut found = reopen(&copy, false).unwrap();
            let mut state = found.meta.state().clone();
            state.term = Term::new(100 + save);
            let mark =
                Mark { index: Index::new(1 + u64::from(save)), offset: Offset::new(100 * u64::from(save)) };
            found.meta.save_mark(mark).unwrap();
            found.meta.save(state.clone()).unwrap();
            drop(found);
            let found = reopen(&copy, false).unwrap();
            assert_eq!((found.meta.state(), found.meta.mark()), (&state, mark), "{largest}, save {save}");
            assert_eq!((found.report.meta_slots_invalid, found.report.mark_pages_invalid), (0, 0));
        }
    }
}
