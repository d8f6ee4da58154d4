//! What a failed call to the operating system says.
//!
//! Owns:   [`IoFailure`]: what was meant, where, and what came back.
//! Never:  decides whether a failure is final; the operation that failed does (S2).

use std::io;
use std::path::{Path, PathBuf};

/// One failed call to the operating system.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct IoFailure {
    /// What was meant, as a verb.
    pub what: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What came back.
    pub source: io::Error,
}

impl IoFailure {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        is_no_space(&self.source)
    }
}

/// Whether `error` says that the disk, or the owner's share of it, is full, or that there is no file descriptor left to make a file
/// with: room for later, no failure of the disk.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    let no_descriptor =
        [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || no_descriptor.contains(&error.raw_os_error())
}

/// Adds what was meant, and where, to a failed call.
pub(crate) trait Meant<T> {
    fn meant(self, what: &'static str, path: &Path) -> Result<T, IoFailure>;
}

impl<T> Meant<T> for io::Result<T> {
    fn meant(self, what: &'static str, path: &Path) -> Result<T, IoFailure> {
        self.map_err(|source| IoFailure { what, path: path.to_owned(), source })
    }
}

/// A file length or position as an index into memory.
///
/// # Panics
/// Where memory is smaller: callers bound the value first.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by the caller")
}
