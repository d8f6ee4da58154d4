//! Folder: a place on disk for as long as a bench runs.
//!
//! Owns:   the folder. It goes, with all that is in it, when this is dropped.
//! Never:  touches what was there before.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::exit::{Outcome, Stop};

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new one below `within`, which must be there.
    pub(super) fn make(within: &Path) -> Outcome<Self> {
        // A process may need several, one after the other or at once.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = within.join(format!("loglog-bench-{}-{number}", std::process::id()));
        let failed =
            |error| Stop::failed(format!("cannot make {}: {error} (--data says where)", path.display()));
        std::fs::create_dir(&path).map_err(failed)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("loglog: {} is left behind: {error}", self.0.display());
        }
    }
}
