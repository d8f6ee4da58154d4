//! What it takes to open a log whose mark stands at its end, by the log's size: only the last segment is read, so that it takes the same
//! for all. From the page cache: what a disk adds is the reading of that segment.
//!
//!     cargo bench -p loglog-storage --bench recovery

#[expect(dead_code, unreachable_pub, reason = "shared with other benches")]
mod kit;

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kit::Log;
use loglog_storage::{DataDir, OpenOptions, OsVfs};

/// In the last segment of each log: what is in it is what counts.
const IN_LAST: u64 = 16 << 20;
const SEGMENT: u64 = 64 << 20;

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(20);
    let (payload, crc) = kit::random(1 << 10);
    for segments in [0, 1, 4, 16] {
        let size = segments * SEGMENT + IN_LAST;
        let folder = kit::on_disk();
        let dir = log_of(size, &folder.path().join("log"), &payload, crc);
        group.bench_function(BenchmarkId::from_parameter(format!("{} MiB", size >> 20)), |bencher| {
            bencher.iter(|| dir.open(OpenOptions::default()).expect("opened"));
        });
    }
    group.finish();
}

fn log_of(size: u64, path: &std::path::Path, payload: &bytes::Bytes, crc: u32) -> DataDir {
    let mut log = Log::form(Arc::new(OsVfs::default()), path);
    while log.open.writer.end().get() < size {
        let batches = log.batches(payload, crc, 512);
        log.open.writer.write(&batches).expect("written");
    }
    log.mark();
    log.dir
}

criterion_group!(benches, recovery);
criterion_main!(benches);
