//! Repair: damaged bytes of a segment are replaced by another node's copy of them (S10).
//!
//! ```text
//!     open ─► Corrupt { gap } ─► ask a peer that holds those batches ─► repair ─► open ─► … until it opens
//!
//!     our file  ──────────▓▓▓▓▓▓▓▓▓─────────        kept aside whole, synced
//!     the copy            █████████                 checked
//!     new file  ──────────█████████─────────        temporary name, sync, rename, sync (S4)
//! ```
//!
//! Owns:   one replacement.
//! Keeps:  bytes before and behind the range stay ours; the damaged file is kept aside; the replacement is there
//!         wholly or not at all.
//! Never:  asks whether the peer may be believed: that it holds the damaged batches is the caller's to check. Whether
//!         all is well then, the next [`DataDir::open`] says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use loglog_proto::Offset;
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::walk::whole_batches;

use crate::dir::DataDir;
use crate::error::{IoFailure, Meant, to_usize};
use crate::names::{self, Name};
use crate::recovery::survey::read_header;
use crate::scan::position;
use crate::vfs::{OpenMode, Vfs, VfsFile, read_exact_at};

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

/// A replacement under way. Dropped before its end it leaves our file as it was.
#[derive(Debug)]
pub struct Repair {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    header: SegmentHeader,
    from: Offset,
    end: Offset,
    temporary: PathBuf,
    new: Arc<dyn VfsFile>,
    ours: Option<(Arc<dyn VfsFile>, u64)>,
}

impl DataDir {
    /// Begins to replace the bytes from `from` on in the segment with this header, which is the peer's: one of ours that is damaged is
    /// replaced too. To be called after [`DataDir::open`] refused and before it is called again.
    ///
    /// # Errors
    /// [`RepairError`]; our file is still there.
    pub fn repair(&self, header: SegmentHeader, from: Offset) -> Result<Repair, RepairError> {
        let (vfs, dir) = (Arc::clone(self.vfs()), self.path().to_owned());
        if from < header.base_offset {
            return Err(invalid(format!("{from} lies before the segment")));
        }
        let path = dir.join(names::segment(header.base_offset));
        let ours = match vfs.exists(&path).meant("look for", &path)? {
            true => {
                let file = vfs.open(&path, OpenMode::Read).meant("open", &path)?;
                let len = file.len().meant("ask the length of", &path)?;
                Some((file, len))
            }
            false => None,
        };
        let len = ours.as_ref().map_or(0, |(_, len)| *len);
        if len.max(HEADER as u64) < position(header.base_offset, from) {
            return Err(invalid(format!("it begins at {from}, behind the end of what is there")));
        }
        let temporary = dir.join(names::spare(0));
        if vfs.exists(&temporary).meant("look for", &temporary)? {
            vfs.remove(&temporary).meant("remove", &temporary)?;
        }
        let new = vfs.open(&temporary, OpenMode::CreateNew).meant("create", &temporary)?;
        new.write_all_at(&header.encode(), 0).meant("write", &temporary)?;
        Ok(Repair { vfs, dir, header, from, end: from, temporary, new, ours })
    }
}

impl Repair {
    /// Whose bytes are replaced.
    #[must_use]
    pub const fn header(&self) -> SegmentHeader {
        self.header
    }

    /// Behind the last byte of the copy.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// Adds whole batches from the peer's copy.
    ///
    /// # Errors
    /// [`RepairError::Invalid`] leaves out these bytes and keeps those before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), RepairError> {
        let whole = whole_batches(self.end, bytes, self.header.term, u64::MAX);
        if let Some(stop) = whole.stop {
            return Err(invalid(stop.to_string()));
        }
        if (whole.end - self.end).as_usize() != bytes.len() {
            return Err(invalid("it does not end with a batch".to_owned()));
        }
        let at = position(self.header.base_offset, self.end);
        self.new.write_all_at(bytes, at).meant("write", &self.temporary)?;
        self.end = whole.end;
        Ok(())
    }

    /// Puts the new file in place of ours, durably. Says what is kept aside: our file, and files that began within what the new one
    /// holds now.
    ///
    /// # Errors
    /// As for a call that failed.
    pub fn finish(self) -> Result<Vec<PathBuf>, RepairError> {
        let Self { vfs, dir, header, from, end, temporary, new, ours } = self;
        let base = header.base_offset;
        let path = dir.join(names::segment(base));
        let mut aside = Vec::new();
        if let Some((ours, len)) = &ours {
            copy(&**ours, &*new, HEADER as u64..position(base, from).min(*len), &temporary)?;
            if !is_sealed_at(&*vfs, &dir, &header, end)? {
                copy(&**ours, &*new, position(base, end).min(*len)..*len, &temporary)?;
            }
            aside.push(keep_aside(&*vfs, &dir, &**ours, *len, base)?);
        }
        new.sync_all().meant("sync", &temporary)?;
        // Before the rename: what is in the way after a crash in between is damage still, and repaired again.
        for (stale, path) in segments_within(&*vfs, &dir, base, end)? {
            let to = free_name(&*vfs, &dir, stale)?;
            vfs.rename(&path, &to).meant("rename to", &to)?;
            aside.push(to);
        }
        vfs.rename(&temporary, &path).meant("rename to", &path)?;
        vfs.sync_dir(&dir).meant("sync", &dir)?;
        Ok(aside)
    }
}

fn invalid(detail: String) -> RepairError {
    RepairError::Invalid { detail }
}

/// Whether the next segment begins at `end`: then whatever our file holds from there on was never part of the log.
fn is_sealed_at(vfs: &dyn Vfs, dir: &Path, header: &SegmentHeader, end: Offset) -> Result<bool, IoFailure> {
    let path = dir.join(names::segment(end));
    if end == header.base_offset || !vfs.exists(&path).meant("look for", &path)? {
        return Ok(false);
    }
    let (_, next) = read_header(vfs, &path)?;
    Ok(next.is_ok_and(|next| next.base_offset == end && next.previous_term == header.term))
}

/// Segment files that begin behind `base` and before `end`.
fn segments_within(
    vfs: &dyn Vfs,
    dir: &Path,
    base: Offset,
    end: Offset,
) -> Result<Vec<(Offset, PathBuf)>, IoFailure> {
    let mut found = Vec::new();
    for name in vfs.list(dir).meant("list", dir)? {
        if let Name::Segment(at) = Name::of(&name)
            && base < at
            && at < end
        {
            found.push((at, dir.join(&name)));
        }
    }
    Ok(found)
}

/// The whole damaged file, under a side file's name, durably.
fn keep_aside(
    vfs: &dyn Vfs,
    dir: &Path,
    ours: &dyn VfsFile,
    len: u64,
    base: Offset,
) -> Result<PathBuf, IoFailure> {
    let path = free_name(vfs, dir, base)?;
    let side = vfs.open(&path, OpenMode::CreateNew).meant("create", &path)?;
    copy(ours, &*side, 0..len, &path)?;
    side.sync_all().meant("sync", &path)?;
    vfs.sync_dir(dir).meant("sync", dir)?;
    Ok(path)
}

fn free_name(vfs: &dyn Vfs, dir: &Path, base: Offset) -> Result<PathBuf, IoFailure> {
    let mut number = 0;
    loop {
        let path = dir.join(names::lost(base, number));
        if !vfs.exists(&path).meant("look for", &path)? {
            return Ok(path);
        }
        number += 1;
    }
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
