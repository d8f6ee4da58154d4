//! The real file system.
//!
//! Owns:   every call to the operating system that storage makes.
//! Keeps:  `fdatasync` for data, `fsync` for lengths that shrink and for directories.
//! Never:  retries a failed write or sync; only a call that a signal interrupted.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, AtFlags, FallocateFlags, FlockOperation, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{DirLockGuard, OpenMode, Vfs, VfsFile};
use crate::blocks::BLOCK;
use crate::names;

/// The file system of the operating system.
#[derive(Debug, Default)]
pub struct OsVfs {
    /// Write blocks past the page cache where that can be.
    is_direct: bool,
    /// The locked directory, held open: its syncs must not fail for want of a file descriptor, since a sync that fails is final.
    directory: OnceLock<(PathBuf, File)>,
}

#[derive(Debug)]
struct OsFile {
    file: File,
    /// Past the page cache.
    direct: Option<File>,
}

/// The lock file; the lock goes with it.
#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirLockGuard for OsLock {}

impl OsVfs {
    /// If `is_direct`, blocks are written past the page cache, where the file system can do that.
    #[must_use]
    pub fn new(is_direct: bool) -> Self {
        Self { is_direct, directory: OnceLock::new() }
    }
}

impl Vfs for OsVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        let direct = if self.is_direct && mode != OpenMode::Read { direct(path, &file) } else { None };
        Ok(Arc::new(OsFile { file, direct }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = dir.to_owned();
        while !at.as_os_str().is_empty() && !at.try_exists()? {
            missing.push(at.clone());
            if !at.pop() {
                break;
            }
        }
        fs::create_dir_all(dir)?;
        for created in missing.iter().rev() {
            let parent = created.parent().filter(|p| !p.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.directory.get() {
            Some((path, directory)) if path == dir => directory.sync_all(),
            _ => File::open(dir)?.sync_all(),
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn try_lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLockGuard>> {
        let path = dir.join(names::LOCK);
        // One directory is locked for the life of this; a second one is opened for each sync.
        let _ = self.directory.set((dir.to_owned(), File::open(dir)?));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock(file)))
    }
}

impl VfsFile for OsFile {
    fn read_at(&self, into: &mut [u8], pos: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(into, pos) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, pos)
    }

    fn write_blocks_at(&self, blocks: &[u8], pos: u64) -> io::Result<()> {
        self.direct.as_ref().unwrap_or(&self.file).write_all_at(blocks, pos)
    }

    /// What was written before past the page cache is on its way to the same disk, whose cache is emptied: it goes along. What was written
    /// another way does not.
    fn write_blocks_synced(&self, blocks: &[u8], pos: u64) -> io::Result<()> {
        let written = match &self.direct {
            Some(direct) => loop {
                match rustix::io::pwritev2(direct, &[IoSlice::new(blocks)], pos, ReadWriteFlags::DSYNC) {
                    Err(Errno::INTR) => {}
                    // The file system has no such write: nothing was done.
                    Err(Errno::OPNOTSUPP) => break 0,
                    written => break written?,
                }
            },
            None => 0,
        };
        if written < blocks.len() {
            self.write_blocks_at(&blocks[written..], pos + written as u64)?;
            self.sync_data()?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), pos, len) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn forget_cached(&self) {
        // A hint: where it is not taken, the second reading sees what the first one saw.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    fn os_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// The same file once more, to be written past the page cache; none where the file system cannot, or wants larger blocks than ours.
///
/// What is written once and read from memory, if soon, has no use for a copy in the page cache: making that takes longer than the
/// disk does, and the memory is somebody else's then (`docs/performance.md`).
fn direct(path: &Path, file: &File) -> Option<File> {
    let asked = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let aligns = [asked.stx_dio_mem_align, asked.stx_dio_offset_align];
    let fits = |align: u32| align > 0 && BLOCK.is_multiple_of(align as usize);
    if asked.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || !aligns.into_iter().all(fits) {
        return None;
    }
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BlockBuffer;

    #[test]
    fn blocks_are_there_for_who_reads_and_whatever_was_written_another_way() {
        // Beside the sources, where there is a disk; a temporary folder may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for is_direct in [true, false] {
            let vfs = OsVfs::new(is_direct);
            let path = dir.path().join(is_direct.to_string());
            let file = vfs.open(&path, OpenMode::CreateNew).unwrap();
            let reader = vfs.open(&path, OpenMode::Read).unwrap();
            let mut expected = Vec::new();
            for round in 1..20u8 {
                // What lies there already in the last block, then more.
                let from = expected.len() - expected.len() % BLOCK;
                let added = vec![round; 1000 * usize::from(round)];
                expected.extend(added);
                let mut buffer = BlockBuffer::default();
                buffer.empty_for(expected.len() - from);
                buffer.memory().extend_from_slice(&expected[from..]);
                buffer.fill_block();
                file.write_blocks_synced(buffer.bytes(), from as u64).unwrap();
                if round % 3 == 0 {
                    file.write_all_at(b"another way", 5).unwrap();
                    expected[5..16].copy_from_slice(b"another way");
                }
                let mut found = vec![0; expected.len()];
                super::super::read_exact_at(&*reader, &mut found, 0).unwrap();
                assert!(found == expected, "round {round}");
            }
        }
    }
}
