//! Repair: damaged bytes of a segment are replaced by another node's copy of them (S10).
//!
//! ```text
//!     open ─► Corrupt ─► ask a peer that holds that batch ─► repair ─► open ─► … until it opens
//!
//!     our file  ──────────▓▓▓▓▓▓▓▓▓─────────        kept aside whole, synced
//!     the copy            █████████                 checked
//!     new file  ──────────█████████─────────        temporary name, sync, rename, sync (S4)
//! ```
//!
//! Owns:   one replacement.
//! Keeps:  bytes before and behind the range stay ours; the damaged file is kept aside; the replacement is there
//!         wholly or not at all.
//! Never:  asks whether the peer may be believed: that it holds the damaged batch at (index, term) is the caller's to
//!         check. Whether all is well then, the next [`DataDir::open`] says.

use std::path::{Path, PathBuf};

use loglog_proto::entry::{EntryError, EntryRef};
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{Length, Offset};

use crate::dir::DataDir;
use crate::error::{IoFailure, Meant, to_usize};
use crate::names;
use crate::scan::position;
use crate::vfs::{OpenMode, VfsFile, read_exact_at};

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// Why nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// What was sent is not whole batches of that segment.
    #[error("the copy is refused: {detail}")]
    Invalid {
        /// What does not hold.
        detail: String,
    },
    /// A call failed. A full disk can be tried again; all else is final (S2).
    #[error(transparent)]
    Failed(#[from] IoFailure),
}

impl From<EntryError> for RepairError {
    fn from(error: EntryError) -> Self {
        Self::Invalid { detail: error.to_string() }
    }
}

impl DataDir {
    /// Replaces the bytes from `from` on, in the segment with this header, by `bytes`: whole batches from a peer's copy
    /// of it. Header and `from` are those of the peer; a header of ours that is damaged is replaced too. To be called
    /// after [`DataDir::open`] refused and before it is called again. Says where the damaged file is kept.
    ///
    /// # Errors
    /// [`RepairError`]; our file is still there.
    pub fn repair(
        &self,
        header: SegmentHeader,
        from: Offset,
        bytes: &[u8],
    ) -> Result<Option<PathBuf>, RepairError> {
        check(&header, from, bytes)?;
        let vfs = self.vfs();
        let path = self.path().join(names::segment(header.base_offset));
        let temporary = self.path().join(names::spare(0));
        if vfs.exists(&temporary).meant("look for", &temporary)? {
            vfs.remove(&temporary).meant("remove", &temporary)?;
        }
        let ours = match vfs.exists(&path).meant("look for", &path)? {
            true => Some(vfs.open(&path, OpenMode::Read).meant("open", &path)?),
            false => None,
        };
        let len = ours.as_ref().map_or(Ok(0), |file| file.len()).meant("ask the length of", &path)?;
        let at = position(header.base_offset, from);
        if len.max(HEADER as u64) < at {
            let detail = format!("it begins at {from}, behind the end of what is there");
            return Err(RepairError::Invalid { detail });
        }
        let new = vfs.open(&temporary, OpenMode::CreateNew).meant("create", &temporary)?;
        new.write_all_at(&header.encode(), 0).meant("write", &temporary)?;
        new.write_all_at(bytes, at).meant("write", &temporary)?;
        let aside = match &ours {
            Some(ours) => {
                copy(&**ours, &*new, HEADER as u64..at.min(len), &temporary)?;
                copy(&**ours, &*new, (at + bytes.len() as u64).min(len)..len, &temporary)?;
                Some(self.keep_aside(&**ours, len, header.base_offset)?)
            }
            None => None,
        };
        new.sync_all().meant("sync", &temporary)?;
        vfs.rename(&temporary, &path).meant("rename to", &path)?;
        vfs.sync_dir(self.path()).meant("sync", self.path())?;
        Ok(aside)
    }

    /// The whole damaged file, under a side file's name, durably.
    fn keep_aside(&self, ours: &dyn VfsFile, len: u64, base: Offset) -> Result<PathBuf, IoFailure> {
        let vfs = self.vfs();
        let mut number = 0;
        let path = loop {
            let path = self.path().join(names::lost(base, number));
            if !vfs.exists(&path).meant("look for", &path)? {
                break path;
            }
            number += 1;
        };
        let side = vfs.open(&path, OpenMode::CreateNew).meant("create", &path)?;
        copy(ours, &*side, 0..len, &path)?;
        side.sync_all().meant("sync", &path)?;
        vfs.sync_dir(self.path()).meant("sync", self.path())?;
        Ok(path)
    }
}

/// Valid entries of the segment's term, to the end of a batch.
fn check(header: &SegmentHeader, from: Offset, bytes: &[u8]) -> Result<(), RepairError> {
    let refused = |detail: String| Err(RepairError::Invalid { detail });
    if from < header.base_offset {
        return refused(format!("{from} lies before the segment"));
    }
    let (mut at, mut whole) = (from, false);
    while at < from + Length::of(bytes.len()) {
        let entry = EntryRef::decode(at, &bytes[(at - from).as_usize()..])?;
        if entry.prefix.term != header.term {
            return refused(format!("the entry at {at} has term {}", entry.prefix.term));
        }
        whole = entry.prefix.last_of_batch;
        at = entry.end();
    }
    if whole { Ok(()) } else { refused("it does not end with a batch".to_owned()) }
}

/// Copies a range to the same position.
fn copy(
    from: &dyn VfsFile,
    to: &dyn VfsFile,
    range: std::ops::Range<u64>,
    path: &Path,
) -> Result<(), IoFailure> {
    let mut chunk = Vec::new();
    let mut at = range.start;
    while at < range.end {
        chunk.resize(to_usize((range.end - at).min(CHUNK)), 0);
        read_exact_at(from, &mut chunk, at).meant("read for", path)?;
        to.write_all_at(&chunk, at).meant("write", path)?;
        at += chunk.len() as u64;
    }
    Ok(())
}
