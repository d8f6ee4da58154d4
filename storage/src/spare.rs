//! A segment file that has no name yet: prepared ahead, or made when it is needed.
//!
//! Owns:   a temporary file, from creation to the rename that makes it a segment (S4).
//! Keeps:  it holds zeros and nothing else until the writer puts a header there.
//! Never:  comes from a file that held entries: nothing is recycled, so nothing old can come back to life.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{IoFailure, Meant};
use crate::names;
use crate::shared::Shared;
use crate::vfs::{OpenMode, VfsFile};

/// A file of zeros under a temporary name.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) path: PathBuf,
    /// Bytes from the front that have their place on the disk.
    pub(crate) reserved: u64,
    /// Of those, the zeros that were really written, in whole blocks.
    pub(crate) written: u64,
}

impl Spare {
    pub(crate) fn create(shared: &Shared) -> Result<Self, IoFailure> {
        let path = shared.dir.join(names::spare(shared.fresh_id()));
        let file = shared.vfs.open(&path, OpenMode::CreateNew).meant("create", &path)?;
        Ok(Self { file, path, reserved: 0, written: 0 })
    }

    /// Reserves the first `wanted` bytes, or at least `needed` of them.
    pub(crate) fn reserve(&mut self, needed: u64, wanted: u64) -> Result<(), IoFailure> {
        self.reserved =
            reserve(&*self.file, self.reserved, needed, wanted).meant("reserve space in", &self.path)?;
        Ok(())
    }
}

/// Extends the reserved space of `file` from `reserved` to `wanted` bytes, or at least to `needed`. Says how far it got.
pub(crate) fn reserve(file: &dyn VfsFile, reserved: u64, needed: u64, wanted: u64) -> std::io::Result<u64> {
    if needed <= reserved {
        return Ok(reserved);
    }
    let wanted = wanted.max(needed);
    match file.allocate(reserved, wanted - reserved) {
        Ok(()) => Ok(wanted),
        Err(error) if wanted > needed && crate::error::is_no_space(&error) => {
            file.allocate(reserved, needed - reserved).map(|()| needed)
        }
        Err(error) => Err(error),
    }
}
