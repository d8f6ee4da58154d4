//! Disk: what a sync costs on the disk that the nodes write to, without any of our code.
//!
//! Owns:   the measurement: a file of its own that is written once, then again and again in place.
//! Never:  touches a log.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::report::Report;
use crate::exit::{Outcome, Stop};
use crate::table::grouped;

/// The file: small enough to be written at once, larger than what is written between two syncs.
const FILE: usize = 16 << 20;
const SMALL: usize = 4 << 10;
const LARGE: usize = 1 << 20;
/// How long each of both is tried, and how often at least.
const FOR: Duration = Duration::from_millis(250);
const TIMES_MIN: usize = 5;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Disk {
    /// The median of a write of 4 KiB and its `fdatasync`, over blocks that are there already.
    sync_us: f64,
    /// The same with 1 MiB: millions of bytes a second.
    mb_per_s: f64,
}

/// Measures the disk that `within` lies on.
pub(super) fn measure(within: &Path) -> Outcome<Disk> {
    let folder = Folder::make(within)?;
    try_measure(folder.path())
        .map_err(|error| Stop::failed(format!("cannot measure the disk at {}: {error}", within.display())))
}

#[expect(clippy::cast_precision_loss, reason = "few digits are printed")]
fn try_measure(folder: &Path) -> std::io::Result<Disk> {
    let file = File::create(folder.join("disk"))?;
    // No zeroes: nothing on the way should find these bytes easy.
    let bytes: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect();
    for at in (0..FILE).step_by(LARGE) {
        file.write_all_at(&bytes, at as u64)?;
    }
    file.sync_all()?;
    let small = median_us(&file, &bytes[..SMALL])?;
    let large = median_us(&file, &bytes)?;
    Ok(Disk { sync_us: small, mb_per_s: LARGE as f64 / large })
}

fn median_us(file: &File, bytes: &[u8]) -> std::io::Result<f64> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < TIMES_MIN || began.elapsed() < FOR {
        let at = times.len() * bytes.len() % FILE;
        let one = Instant::now();
        file.write_all_at(bytes, at as u64)?;
        file.sync_data()?;
        times.push(one.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// Tells of the disk before and after, where it was measured.
pub(super) fn tell(report: &mut Report, before: Option<Disk>, after: Option<Disk>) {
    let us = |disk: Option<Disk>| disk.map(|disk| disk.sync_us);
    let mb = |disk: Option<Disk>| disk.map(|disk| disk.mb_per_s);
    report.maybe("disk_sync_before_us", us(before));
    report.maybe("disk_sync_after_us", us(after));
    report.maybe("disk_before_mb_per_s", mb(before));
    report.maybe("disk_after_mb_per_s", mb(after));
    if let Some((before, after)) = before.zip(after) {
        let round = super::report::rounded;
        report.row(
            "disk",
            format!(
                "a sync of 4 KiB takes {} us before and {} us after; {} and {} MB/s at 1 MiB a sync",
                grouped(round(before.sync_us)),
                grouped(round(after.sync_us)),
                grouped(round(before.mb_per_s)),
                grouped(round(after.mb_per_s)),
            ),
        );
    }
}
