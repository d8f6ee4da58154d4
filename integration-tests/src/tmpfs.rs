//! Tmpfs: a small file system of a test's own, for disks that fill up.
//!
//! Owns:   the mount, undone when this is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one over `at`. `None`, with a word why, unless tests may use root's powers here.
    ///
    /// # Panics
    /// If they may, but mounting does not work.
    #[must_use]
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        if std::env::var("LOGLOG_ROOT_TESTS").as_deref() != Ok("1") {
            println!("skipped: mounts a tmpfs; run as root with LOGLOG_ROOT_TESTS=1");
            return None;
        }
        let option = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at).status();
        assert!(status.expect("mount runs").success(), "LOGLOG_ROOT_TESTS=1 promises that mounting works");
        Some(Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
