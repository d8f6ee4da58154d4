//! The order of writes, syncs and renames, as the rules tell it (S3 to S6).

use std::path::Path;
use std::sync::Arc;

use loglog_proto::{LogId, Term};

use super::kit::{Chain, open};
use crate::blocks::{block_of, blocks_to};
use crate::vfs::SimVfs;
use crate::{Mark, Prepared, Vfs};

const ZERO: &str = "0000000000000000.seg";

fn sim() -> (SimVfs, Arc<dyn Vfs>) {
    let sim = SimVfs::new();
    (sim.clone(), Arc::new(sim))
}

#[test]
fn s04_a_roll_prepares_seals_renames_syncs_and_only_then_writes() {
    let (sim, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let mut chain = Chain::new();
    sim.listen();
    log.writer.write(&[chain.next(1, &[100])]).unwrap();
    assert_eq!(
        sim.listen(),
        [
            "create segment-0.tmp",
            "lengthen segment-0.tmp to 4096 bytes",
            "write segment-0.tmp at 0, 4096 bytes",
            "sync segment-0.tmp",
            &format!("rename segment-0.tmp to {ZERO}"),
            "sync directory",
            &format!("write {ZERO} at 0, 4096 bytes"),
            &format!("sync {ZERO}"),
        ]
    );
    while log.keeper.prepare_step().unwrap() == Prepared::More {}
    sim.listen();
    log.writer.write(&[chain.next(1, &[10]), chain.next(2, &[10]), chain.next(2, &[10])]).unwrap();
    assert_eq!(
        sim.listen(),
        [
            &format!("write {ZERO} at 0, 4096 bytes"),
            &format!("sync {ZERO}"),
            "write segment-2.tmp at 0, 4096 bytes",
            "sync segment-2.tmp",
            &format!("cut {ZERO} to 238 bytes"),
            &format!("sync with length {ZERO}"),
            "rename segment-2.tmp to 00000000000000ae.seg",
            "sync directory",
            "write 00000000000000ae.seg at 0, 4096 bytes",
            "sync 00000000000000ae.seg",
        ]
    );
}

#[test]
fn s05_truncation_removes_last_first_then_cuts_then_zeroes() {
    let (sim, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let mut chain = Chain::new();
    let first = chain.next(1, &[10]);
    let kept = chain.clone();
    let rest = [chain.next(1, &[20]), chain.next(2, &[10]), chain.next(3, &[10])];
    log.writer.write(&[first]).unwrap();
    log.writer.write(&rest).unwrap();
    sim.listen();
    let last = LogId { term: Term::new(1), index: loglog_proto::Index::new(2) };
    log.writer.truncate(last.index.next(), loglog_proto::Offset::new(kept.offset), last).unwrap();
    assert_eq!(
        sim.listen(),
        [
            "remove 0000000000000088.seg",
            "sync directory",
            "remove 000000000000005e.seg",
            "sync directory",
            &format!("cut {ZERO} to 106 bytes"),
            &format!("sync with length {ZERO}"),
            &format!("write zeros to {ZERO} at 106, 52 bytes"),
            &format!("sync {ZERO}"),
        ]
    );
}

#[test]
fn s06_slots_alternate_synced_and_marks_ride_unsynced() {
    let (sim, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let mut chain = Chain::new();
    let batches = [chain.next(1, &[10]), chain.next(1, &[10]), chain.next(1, &[10])];
    log.writer.write(&batches).unwrap();
    sim.listen();
    let mut state = log.meta.state().clone();
    for term in 2..4 {
        state.term = Term::new(term);
        log.meta.save(state.clone()).unwrap();
    }
    let slots = ["write meta at 0, 4096 bytes", "sync meta", "write meta at 16384, 4096 bytes", "sync meta"];
    assert_eq!(sim.listen(), [slots, slots].concat(), "each into one slot, then into the other");
    let mark = |batch: &crate::NewBatch| Mark { index: batch.log_id.index.previous(), offset: batch.offset };
    log.meta.save_mark(mark(&batches[1])).unwrap();
    log.meta.save_mark(mark(&batches[2])).unwrap();
    log.meta.sync().unwrap();
    log.meta.sync().unwrap();
    log.meta.save_mark(Mark { index: log.writer.last().index, offset: log.writer.end() }).unwrap();
    let marks = ["write meta at 32768, 4096 bytes", "write meta at 32768, 4096 bytes", "sync meta"];
    assert_eq!(sim.listen(), [&marks[..], &["write meta at 36864, 4096 bytes"]].concat());
}

#[test]
#[should_panic(expected = "stays within what is durable")]
fn s06_a_mark_beyond_what_is_durable_is_refused() {
    let (_, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let next = Mark { index: loglog_proto::Index::new(2), offset: loglog_proto::Offset::ZERO };
    log.meta.save_mark(next).unwrap();
}

#[test]
#[should_panic(expected = "a vote is never changed")]
fn s06_a_vote_is_never_changed_within_its_term() {
    let (_, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let mut state = log.meta.state().clone();
    state.vote = Some(state.membership.voters[0].id);
    log.meta.save(state.clone()).unwrap();
    state.vote = None;
    log.meta.save(state).unwrap();
}

#[test]
#[should_panic(expected = "nothing below the mark is cut")]
fn s05_nothing_below_the_mark_is_cut() {
    let (_, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 1000);
    let mut chain = Chain::new();
    log.writer.write(&[chain.next(1, &[10])]).unwrap();
    log.writer.set_floor(log.writer.end());
    let before = log.meta.mark();
    let last = LogId { term: Term::new(1), index: before.index };
    log.writer.truncate(before.index.next(), before.offset, last).unwrap();
}

#[test]
#[should_panic(expected = "meta says first")]
fn s36_nothing_is_unlinked_before_meta_says_so() {
    let (_, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 100);
    let mut chain = Chain::new();
    log.writer.write(&[chain.next(1, &[100]), chain.next(1, &[100])]).unwrap();
    let header = log.reader.segments()[1].header;
    let start = crate::LogStart {
        offset: header.base_offset,
        index: header.base_index,
        previous_term: header.previous_term,
    };
    log.keeper.trim(start).unwrap();
}

#[test]
fn s03_no_write_is_larger_than_a_group_and_each_is_synced_before_the_next() {
    let (sim, vfs) = sim();
    drop(open(&vfs, Path::new("/d"), 4_000_000));
    let dir = crate::DataDir::lock(vfs, Path::new("/d")).unwrap();
    let mut log = dir.open_with(crate::OpenOptions::default(), loglog_proto::Length::new(200_000)).unwrap();
    let mut chain = Chain::new();
    let entry = |bytes: usize| bytes - loglog_proto::entry::OVERHEAD;
    log.writer.write(&[chain.next(1, &[entry(40_000)])]).unwrap();
    sim.listen();
    let sizes = [40_000, 120_000, 80_000, 40_000, 40_000, 160_000, 80_000];
    let batches: Vec<_> = sizes.iter().map(|size| chain.next(1, &[entry(*size)])).collect();
    log.writer.write(&batches).unwrap();
    let sync = format!("sync {ZERO}");
    // Whole blocks: what shares one with a group is written again.
    let write = |at: u64, n: u64| {
        let (from, to) = (block_of(at), blocks_to(at + n));
        format!("write {ZERO} at {from}, {} bytes", to - from)
    };
    let groups = [(40_064, 160_000), (200_064, 160_000), (360_064, 160_000), (520_064, 80_000)];
    let expected = groups.into_iter().flat_map(|(at, bytes)| [write(at, bytes), sync.clone()]);
    assert_eq!(sim.listen(), expected.collect::<Vec<_>>());
}

#[test]
fn small_groups_find_zeros_where_they_are_written() {
    let (sim, vfs) = sim();
    let (_dir, mut log) = open(&vfs, Path::new("/d"), 4_000_000);
    let mut chain = Chain::new();
    log.writer.write(&[chain.next(1, &[100])]).unwrap();
    sim.listen();
    let sync = format!("sync {ZERO}");
    log.writer.write(&[chain.next(1, &[4000])]).unwrap();
    let zeros = format!("write zeros to {ZERO} at 8192, 262144 bytes");
    assert_eq!(sim.listen(), [zeros, format!("write {ZERO} at 0, 8192 bytes"), sync.clone()]);
    for _ in 0..60 {
        log.writer.write(&[chain.next(1, &[4000])]).unwrap();
        let said = sim.listen();
        assert!(said.len() == 2 && said[1] == sync, "{said:?}");
    }
}
