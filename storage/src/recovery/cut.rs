//! What recovery does to the bytes of a segment file: look, keep aside, rewrite.
//!
//! Owns:   side files.
//! Keeps:  a side file is durable before what it holds is cut (S7).
//! Never:  decides what is cut.

use std::path::{Path, PathBuf};

use loglog_proto::entry::{EntryRef, PREFIX, Prefix, SUFFIX};
use loglog_proto::header::HEADER;
use loglog_proto::{Length, Offset, Term};

use super::Recovery;
use super::survey::Found;
use crate::error::{IoFailure, Meant, to_usize};
use crate::names;
use crate::scan::position;
use crate::vfs::{OpenMode, VfsFile, read_exact_at, read_full_at};

/// Bytes handled at once.
const CHUNK: u64 = 1 << 20;

/// Behind the last byte of the file that is not zero, or `from` if there is none in `from..len`.
pub(crate) fn used_end(file: &dyn VfsFile, path: &Path, from: u64, len: u64) -> Result<u64, IoFailure> {
    let mut used = from;
    let mut chunk = Vec::new();
    let mut at = from;
    while at < len {
        chunk.resize(to_usize((len - at).min(CHUNK)), 0);
        let found = read_full_at(file, &mut chunk, at).meant("read", path)?;
        if let Some(last) = chunk[..found].iter().rposition(|byte| *byte != 0) {
            used = at + last as u64 + 1;
        }
        if found < chunk.len() {
            break;
        }
        at += found as u64;
    }
    Ok(used)
}

/// A segment's file in which to look for entries at any alignment.
pub(crate) struct Search<'a> {
    pub(crate) file: &'a dyn VfsFile,
    pub(crate) path: &'a Path,
    pub(crate) base: Offset,
    /// Only entries of this term count.
    pub(crate) term: Term,
}

impl Search<'_> {
    /// Offset of the first valid entry at or behind `from`, in the file's first `used` bytes.
    pub(crate) fn valid_entry(&self, from: Offset, used: u64) -> Result<Option<Offset>, IoFailure> {
        let mut window = Vec::new();
        let mut at = position(self.base, from);
        while at + PREFIX as u64 <= used {
            window.resize(to_usize((used - at).min(CHUNK)), 0);
            let found = read_full_at(self.file, &mut window, at).meant("read", self.path)?;
            if found < PREFIX {
                break;
            }
            for head in 0..=found - PREFIX {
                let pos = at + head as u64;
                let offset = self.base + Length::new(pos - HEADER as u64);
                let Ok(prefix) = Prefix::decode(offset, &window[head..]) else { continue };
                if prefix.term == self.term && self.is_entry(offset, &prefix)? {
                    return Ok(Some(offset));
                }
            }
            at += (found - PREFIX) as u64 + 1;
        }
        Ok(None)
    }

    /// Whether the entry that `prefix` announces at `offset` is there, wholly. The cheap test first.
    fn is_entry(&self, offset: Offset, prefix: &Prefix) -> Result<bool, IoFailure> {
        let pos = position(self.base, offset);
        let len = prefix.entry_len();
        let mut suffix = [0; SUFFIX];
        let behind = pos + len.get() - SUFFIX as u64;
        let found = read_full_at(self.file, &mut suffix, behind).meant("read", self.path)?;
        if found < SUFFIX || suffix[..4] != prefix.payload_len.to_le_bytes() {
            return Ok(false);
        }
        let mut bytes = vec![0; len.as_usize()];
        let found = read_full_at(self.file, &mut bytes, pos).meant("read", self.path)?;
        Ok(EntryRef::decode(offset, &bytes[..found]).is_ok())
    }
}

/// Copies `from..to` of a segment's file into a side file, durably.
pub(super) fn copy_aside(
    recovery: &Recovery<'_>,
    file: &dyn VfsFile,
    segment: &Found,
    from: u64,
    to: u64,
) -> Result<PathBuf, IoFailure> {
    let offset = segment.header.base_offset + Length::new(from - HEADER as u64);
    let path = free_name(recovery, |number| names::torn(offset, number))?;
    let side = recovery.vfs.open(&path, OpenMode::CreateNew).meant("create", &path)?;
    let mut at = from;
    let mut chunk = Vec::new();
    while at < to {
        chunk.resize(to_usize((to - at).min(CHUNK)), 0);
        read_exact_at(file, &mut chunk, at).meant("read", &segment.path)?;
        side.write_all_at(&chunk, at - from).meant("write", &path)?;
        at += chunk.len() as u64;
    }
    side.sync_all().meant("sync", &path)?;
    recovery.vfs.sync_dir(recovery.dir).meant("sync", recovery.dir)?;
    Ok(path)
}

/// Gives a segment's file a side file's name, durably.
pub(super) fn rename_aside(recovery: &mut Recovery<'_>, base: Offset, path: &Path) -> Result<(), IoFailure> {
    let aside = free_name(recovery, |number| names::lost(base, number))?;
    recovery.vfs.rename(path, &aside).meant("rename to", &aside)?;
    recovery.vfs.sync_dir(recovery.dir).meant("sync", recovery.dir)?;
    recovery.report.side_files.push(aside);
    Ok(())
}

fn free_name(recovery: &Recovery<'_>, name: impl Fn(u32) -> String) -> Result<PathBuf, IoFailure> {
    let mut number = 0;
    loop {
        let path = recovery.dir.join(name(number));
        if !recovery.vfs.exists(&path).meant("look for", &path)? {
            return Ok(path);
        }
        number += 1;
    }
}

/// Rewrites the segment's bytes from `from` to its end, in place, a write group at a time; syncs them and the length.
pub(super) fn rewrite(
    file: &dyn VfsFile,
    segment: &Found,
    from: Offset,
    group_bytes_max: Length,
) -> Result<u64, IoFailure> {
    let base = segment.header.base_offset;
    let path = &segment.path;
    let mut chunk = Vec::new();
    let (mut at, mut unsynced, mut rewritten) = (from, 0, 0);
    while at < segment.end {
        chunk.resize(to_usize((segment.end - at).get().min(CHUNK).min(group_bytes_max.get())), 0);
        read_exact_at(file, &mut chunk, position(base, at)).meant("read", path)?;
        if unsynced + chunk.len() as u64 > group_bytes_max.get() {
            file.sync_data().meant("sync", path)?;
            unsynced = 0;
        }
        file.write_all_at(&chunk, position(base, at)).meant("rewrite", path)?;
        unsynced += chunk.len() as u64;
        rewritten += chunk.len() as u64;
        at += Length::of(chunk.len());
    }
    file.sync_all().meant("sync", path)?;
    Ok(rewritten)
}
