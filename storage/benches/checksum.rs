//! What the one checksum of format and protocol costs, by size.
//!
//!     cargo bench -p loglog-storage --bench checksum

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("CRC-32C");
    for length in [8_usize, 32, 100, 1 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let bytes = vec![0xa5; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), &bytes, |bencher, bytes| {
            bencher.iter(|| loglog_proto::crc32c(black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, checksum);
criterion_main!(benches);
