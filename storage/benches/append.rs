//! What a write group costs, by size: one write and one sync. On the disk below the target directory, and in memory, where a sync is
//! nothing, to see what the processor has to do with it.
//!
//!     cargo bench -p loglog-storage --bench append

#[expect(dead_code, unreachable_pub, reason = "shared with other benches")]
mod kit;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kit::Log;
use loglog_storage::OsVfs;

/// A log that has grown this far gives way to a new one: a bench writes much more than there may be room for.
const GROWS_TO: u64 = 256 << 20;

fn appends(criterion: &mut Criterion, place: &str, folder: impl Fn() -> tempfile::TempDir) {
    for length in [100, 1 << 10] {
        let (payload, crc) = kit::random(length);
        let mut group = criterion.benchmark_group(format!("append, {length} B, {place}"));
        for entries in [1, 16, 256, 4096] {
            group.throughput(Throughput::Elements(entries));
            group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
                let form = || {
                    let folder = folder();
                    let log = Log::form(Arc::new(OsVfs::default()), &folder.path().join("log"));
                    (folder, log)
                };
                let mut open = form();
                bencher.iter_custom(|iterations| {
                    let mut took = Duration::ZERO;
                    for _ in 0..iterations {
                        if open.1.open.writer.end().get() > GROWS_TO {
                            open = form();
                        }
                        let batches = open.1.batches(&payload, crc, entries);
                        open.1.prepare();
                        let began = Instant::now();
                        open.1.open.writer.write(&batches).expect("written");
                        took += began.elapsed();
                    }
                    took
                });
            });
        }
        group.finish();
    }
}

fn on_disk(criterion: &mut Criterion) {
    appends(criterion, "disk", kit::on_disk);
}

fn in_memory(criterion: &mut Criterion) {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        appends(criterion, "memory", || tempfile::tempdir_in(memory).expect("a folder in memory"));
    } else {
        eprintln!("in memory: skipped, there is no {}", memory.display());
    }
}

criterion_group!(benches, on_disk, in_memory);
criterion_main!(benches);
