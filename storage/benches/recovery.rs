//! What it takes to open a log whose mark stands at its end, by the log's size: only the last segment is read, so that it takes the same
//! for all. From the page cache: what a disk adds is the reading of that segment.
//!
//!     cargo bench -p loglog-storage --bench recovery

#[expect(dead_code, unreachable_pub, reason = "shared with other benches")]
mod kit;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kit::Log;
use loglog_storage::{DataDir, OpenOptions, OsVfs};

/// In the last segment of each log: what is in it is what counts.
const IN_LAST: u64 = 16 << 20;

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(20);
    let (payload, crc) = kit::random(1 << 10);
    for segments in [0, 1, 4, 16] {
        let folder = kit::on_disk();
        let (dir, size) = log_of(segments, &folder.path().join("log"), &payload, crc);
        group.bench_function(BenchmarkId::from_parameter(format!("{} MiB", size >> 20)), |bencher| {
            bencher.iter(|| dir.open(OpenOptions::default()).expect("opened"));
        });
    }
    group.finish();
}

/// A log of so many full segments and another, and its size.
fn log_of(full: usize, path: &Path, payload: &Bytes, crc: u32) -> (DataDir, u64) {
    let mut log = Log::form(Arc::new(OsVfs::default()), path);
    loop {
        let (segments, end) = (log.open.reader.segments(), log.open.writer.end());
        let in_last = segments.last().map_or(0, |last| (end - last.header.base_offset).get());
        if segments.len() == full + 1 && in_last >= IN_LAST {
            log.mark();
            return (log.dir, end.get());
        }
        let batches = log.batches(payload, crc, 512);
        log.open.writer.write(&batches).expect("written");
    }
}

criterion_group!(benches, recovery);
criterion_main!(benches);
