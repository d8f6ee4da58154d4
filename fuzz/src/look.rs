//! What must hold of every directory, whatever lies in it.
//!
//! Owns:   the checks: verify, inspect, recovery, its repetition, a power cut behind it, writing on, and reading all of it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use loglog_core::start::{rebuild_writers, terms_of};
use loglog_proto::{Length, LogId, Offset, Term};
use loglog_storage::verify::{VerifyReport, verify_with};
use loglog_storage::vfs::{SimVfs, Survival};
use loglog_storage::{DataDir, Item, OpenError, OpenOptions, Recovered, Vfs, inspect_on};
use rand::SeedableRng as _;

use crate::base::{DIR, GROUP, batch, batch_len, read_back};

const ACCEPT: OpenOptions = OpenOptions {
    cluster: None,
    accept_loss: true,
    scan_from: None,
    uncommitted_from: None,
    known: None,
    tail_bytes: 0,
};

fn lock(sim: &SimVfs) -> DataDir {
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    DataDir::lock(vfs, Path::new(DIR)).expect("nobody else has it")
}

/// Looks at a directory in every way there is.
pub fn look(sim: &SimVfs) {
    let before = read_back(sim);
    let report = verify_with(sim, Path::new(DIR), GROUP).expect("it can be read");
    show(sim);
    assert_eq!(read_back(sim), before, "who only looks changes nothing");
    let dir = lock(sim);
    let found = match dir.open_with(OpenOptions::default(), GROUP) {
        Ok(found) => found,
        Err(OpenError::Corrupt { gap, .. }) => {
            let is_told = !report.is_sound() || report.is_installing;
            assert!(is_told, "verify finds what recovery refuses: {:?}", report.findings);
            let _ = (gap.term_at(gap.first), gap.is_below_mark());
            again(&dir, sim);
            match dir.open_with(ACCEPT, GROUP) {
                Ok(found) => found,
                Err(error) => panic!("a loss that is accepted ends in a log that opens: {error}"),
            }
        }
        Err(OpenError::Meta { .. }) => {
            assert!(!report.is_sound(), "verify finds what recovery refuses: {:?}", report.findings);
            match dir.open_with(ACCEPT, GROUP) {
                Ok(found) => found,
                Err(OpenError::Meta { .. }) => return,
                Err(error) => panic!("neither a log nor a damaged meta: {error}"),
            }
        }
        Err(OpenError::NotFormed { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    let lossless = found.report.lost.is_none();
    if lossless && let Some(mark) = report.mark.filter(|_| !report.is_installing) {
        assert!(found.end >= mark.offset && found.last.index >= mark.index, "nothing below the mark is lost");
        assert!(found.meta.mark() >= mark, "the mark never sinks");
    }
    let bytes = read_all(&found, &report);
    let (end, last, tail) = (found.end, found.last, found.tail.clone());
    drop((found, dir));
    // What recovery handed out is on the disk (S8), and recovery of it finds the same.
    sim.power_cut(Survival::None, &mut rand::rngs::SmallRng::seed_from_u64(1));
    let dir = lock(sim);
    let found = dir.open_with(OpenOptions::default(), GROUP).expect("what was recovered opens");
    assert_eq!((found.end, found.last, &found.tail), (end, last, &tail), "recovery finds what recovery left");
    assert_eq!(found.report.torn_bytes, 0, "nothing is torn any more");
    assert_eq!(read_all(&found, &report), bytes);
    drop(found);
    write_on(&dir, sim);
}

/// A refusal is the same each time, and takes nothing away.
fn again(dir: &DataDir, sim: &SimVfs) {
    let text = |error: OpenError| error.to_string();
    let first = dir.open_with(OpenOptions::default(), GROUP).map_err(text).expect_err("refused before");
    let between = read_back(sim);
    let second = dir.open_with(OpenOptions::default(), GROUP).map_err(text).expect_err("refused before");
    assert_eq!((first, between), (second, read_back(sim)), "a refusal changes nothing");
}

/// Every byte behind a header is part of exactly one item.
fn show(sim: &SimVfs) {
    let (mut at, mut until) = (Offset::ZERO, None::<Offset>);
    inspect_on(sim, Path::new(DIR), &mut |item| {
        let (offset, len) = match item {
            Item::Segment { header, len, .. } => {
                assert!(until.is_none_or(|until| until <= at), "the last segment was shown to its end");
                let base = header.as_ref().ok().map(|header| header.base_offset);
                let base = base.filter(|base| base.get().checked_add(*len).is_some());
                at = base.unwrap_or_default();
                until = base.map(|base| base + Length::new(len.saturating_sub(64)));
                return ControlFlow::Continue(());
            }
            Item::Entry(entry) => (entry.offset, Length::of(entry.payload.len() + 32)),
            Item::Damage { offset, len, .. } | Item::Zeros { offset, len } => (*offset, *len),
            Item::Meta { .. } | Item::Other { .. } => return ControlFlow::Continue(()),
        };
        if until.is_some() {
            assert_eq!(offset, at, "no byte is left out, none shown twice");
            at = offset + len;
        }
        ControlFlow::Continue(())
    })
    .expect("it can be read");
}

/// All bytes of a log that opened, read in two ways.
fn read_all(found: &Recovered, report: &VerifyReport) -> Vec<u8> {
    let (reader, start, end) = (&found.reader, found.reader.start(), found.end);
    let (mut at, mut bytes) = (start, Vec::new());
    while at < end {
        let piece = reader.read(at, 1 << 20, end).expect("the log is there");
        assert!(!piece.is_empty(), "a read before the end brings something");
        at += Length::of(piece.len());
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(at, end);
    let (mut scanned, mut batches) = (start, 0);
    let scan = reader.scan(start, end, &mut |entry| {
        assert_eq!(entry.offset, scanned, "entries follow each other");
        scanned = entry.end();
        batches += u64::from(entry.prefix.last_of_batch);
    });
    match scan {
        Ok(()) => {
            assert_eq!(scanned, end);
            let first = found.meta.state().start.index;
            let counted = found.last.index.get() + 1 - first.get();
            // Of a sealed segment a scan asks less than verify does.
            assert!(batches == counted || !report.is_sound(), "every batch is counted: {batches}, {counted}");
        }
        // Sealed segments below the mark are not read at start.
        Err(error) => assert!(!report.is_sound() || report.is_installing, "{error}"),
    }
    let _ = (terms_of(reader), rebuild_writers(found, true).expect("damage is accepted"));
    if let Some(first) = found.tail.first() {
        assert!(
            first.end > found.meta.mark().offset && found.tail.last().is_some_and(|last| last.end == end)
        );
    }
    bytes
}

/// The log takes more, cuts it off again, and is what it was.
fn write_on(dir: &DataDir, sim: &SimVfs) {
    let mut found = dir.open_with(OpenOptions::default(), GROUP).expect("it opened before");
    let (end, last) = (found.end, found.last);
    let term = Term::new(last.term.get().max(1));
    let next = LogId { term, index: last.index.next() };
    let first = batch(next, end, &[40, 0]);
    let behind = Offset::new(end.get() + batch_len(&first).get());
    let newer = LogId { term: Term::new(term.get().saturating_add(1)), index: next.index.next() };
    let second = batch(newer, behind, &[100]);
    found.writer.write(&[first, second]).expect("room without bound");
    assert_eq!(found.reader.last(), newer);
    found.writer.truncate(newer.index, behind, next).expect("above the mark");
    drop(found);
    sim.kill();
    let dir = lock(sim);
    let found = dir.open_with(OpenOptions::default(), GROUP).expect("it opened before");
    assert_eq!((found.last, found.end), (next, behind), "what was written is there, what was cut is not");
}
