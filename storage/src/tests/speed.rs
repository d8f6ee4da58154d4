//! How fast the writer is, beside what the disk alone can do. Not part of a normal run:
//! `TMPDIR=<a directory on the disk> cargo test --release -p loglog-storage -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loglog_proto::entry::Kind;
use loglog_proto::{Index, LogId, Offset, Term};

use super::kit::{entry, open};
use crate::frame::batch_bytes;
use crate::vfs::OpenMode;
use crate::{NewBatch, OsVfs, Prepared, Vfs};

/// Writes groups of `entries` entries of `size` bytes for a second; prints entries and bytes a second.
fn groups(size: usize, entries: usize, prepared: bool) {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs::default());
    let (_dir, mut log) = open(&vfs, &dir.path().join("log"), 64 << 20);
    let one = entry(Kind::Data, 1, vec![7; size]);
    let (mut index, mut offset, mut groups, mut slowest) = (2, Offset::ZERO, 0u32, Duration::ZERO);
    let mut busy = Duration::ZERO;
    while busy < Duration::from_secs(1) {
        if prepared {
            while log.keeper.prepare_step().unwrap() == Prepared::More {}
        }
        let log_id = LogId { term: Term::new(1), index: Index::new(index) };
        let batch = NewBatch { log_id, offset, entries: vec![one.clone(); entries] };
        offset += batch_bytes(&batch);
        index += 1;
        let begun = Instant::now();
        log.writer.write(&[batch]).unwrap();
        slowest = slowest.max(begun.elapsed());
        busy += begun.elapsed();
        groups += 1;
    }
    let seconds = busy.as_secs_f64();
    println!(
        "{size:>8} B x {entries:>5}, zeros {prepared:>5}: {:>9.0} entries/s {:>7.1} MB/s, {:>6.0} µs a group, slowest {:?}",
        f64::from(groups) * entries as f64 / seconds,
        offset.get() as f64 / seconds / 1e6,
        seconds * 1e6 / f64::from(groups),
        slowest,
    );
}

/// What the disk does alone: writes of `size` bytes and a sync, over zeros.
fn floor(size: usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = OsVfs::default().open(&dir.path().join("floor"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let bytes = vec![7; size];
    let (begun, mut writes) = (Instant::now(), 0u32);
    while begun.elapsed() < Duration::from_secs(1) {
        let at = u64::from(writes) * size as u64 % ((64 << 20) - size as u64);
        file.write_all_at(&bytes, at).unwrap();
        file.sync_data().unwrap();
        writes += 1;
    }
    println!(
        "{size:>8} B written and synced: {:>6.0} µs",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(writes)
    );
}

#[test]
#[ignore = "measures, does not check"]
fn speed() {
    for size in [4 << 10, 64 << 10, 1 << 20] {
        floor(size);
    }
    for prepared in [false, true] {
        groups(100, 1, prepared);
        groups(100, 100, prepared);
        groups(100, 5000, prepared);
        groups(1024, 1000, prepared);
        groups(64 << 10, 16, prepared);
    }
}
