//! Disk: what the disk below the servers can do, just before each of them runs.
//!
//! Owns:   a file that is written over and over: new blocks would measure the file system's bookkeeping too.
//! Never:  stands for what a server could reach: it says whether the disk was the same in two runs, and how near they came.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngCore;
use serde::Serialize;

/// The file's size.
const AREA: usize = 32 << 20;
const LARGE: usize = 1 << 20;
const SMALL: usize = 4 << 10;
/// How long each of both is measured, at most.
const LONGEST: Duration = Duration::from_millis(400);
const SMALL_MAX: usize = 400;

/// The disk's limits.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Disk {
    /// The median of a 4 KiB write and its fdatasync, over written blocks.
    pub(crate) sync_4k_p50_us: f64,
    /// 1 MiB writes, each with its fdatasync, over written blocks.
    pub(crate) sync_1m_mb_per_s: f64,
}

pub(crate) fn measure(folder: &Path) -> Result<Disk, String> {
    let path = folder.join("disk");
    let failed = |error: std::io::Error| format!("measuring the disk in {}: {error}", folder.display());
    let measured = run(&path).map_err(failed);
    let removed = fs::remove_file(&path).map_err(failed);
    measured.and_then(|disk| removed.map(|()| disk))
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs few digits")]
fn run(path: &Path) -> std::io::Result<Disk> {
    let mut bytes = vec![0; LARGE];
    rand::rng().fill_bytes(&mut bytes);
    let file = File::create_new(path)?;
    for at in (0..AREA).step_by(LARGE) {
        file.write_all_at(&bytes, at as u64)?;
    }
    file.sync_all()?;

    let (began, mut small) = (Instant::now(), Vec::new());
    while small.len() < SMALL_MAX && began.elapsed() < LONGEST {
        let at = (small.len() * SMALL) % AREA;
        let one = Instant::now();
        file.write_all_at(&bytes[..SMALL], at as u64)?;
        file.sync_data()?;
        small.push(one.elapsed().as_secs_f64() * 1e6);
    }

    let (began, mut large) = (Instant::now(), 0);
    while began.elapsed() < LONGEST {
        file.write_all_at(&bytes, (large * LARGE % AREA) as u64)?;
        file.sync_data()?;
        large += 1;
    }
    let rate = (large * LARGE) as f64 / began.elapsed().as_secs_f64() / 1e6;
    Ok(Disk { sync_4k_p50_us: crate::stats::median(small).unwrap_or_default(), sync_1m_mb_per_s: rate })
}

/// Whether that folder is in memory, where nothing is durable and every figure is worthless.
pub(crate) fn in_memory(folder: &Path) -> bool {
    /// `TMPFS_MAGIC` of Linux.
    const TMPFS: u32 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(TMPFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_limits_and_is_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = measure(folder.path()).expect("measured");
        assert!(disk.sync_4k_p50_us > 0.0 && disk.sync_1m_mb_per_s > 0.0, "{disk:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
