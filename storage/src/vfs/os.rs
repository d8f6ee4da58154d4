//! The real file system.
//!
//! Owns:   every call to the operating system that storage makes.
//! Keeps:  `fdatasync` for data, `fsync` for lengths that shrink and for directories.
//! Never:  retries a failed write or sync; only a call that a signal interrupted.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{DirLockGuard, OpenMode, Vfs, VfsFile};
use crate::names;

/// The most slices that one `pwritev` takes (IOV_MAX on Linux).
const SLICES_MAX: usize = 1024;

/// The file system of the operating system.
#[derive(Debug, Default)]
pub struct OsVfs {
    /// The locked directory, held open: its syncs must not fail for want of a file descriptor, since a sync that fails is final.
    directory: OnceLock<(PathBuf, File)>,
}

#[derive(Debug)]
struct OsFile(File);

/// The lock file; the lock goes with it.
#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirLockGuard for OsLock {}

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
        Ok(Arc::new(OsFile(options.open(path)?)))
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
            match self.0.read_at(into, pos) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, pos)
    }

    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], pos: u64) -> io::Result<()> {
        let mut at = pos;
        for some in slices.chunks(SLICES_MAX) {
            let wanted: usize = some.iter().map(|slice| slice.len()).sum();
            let written = loop {
                match rustix::io::pwritev(&self.0, some, at) {
                    Err(Errno::INTR) => {}
                    result => break result?,
                }
            };
            if written < wanted {
                write_rest(&self.0, some, written, at)?;
            }
            at += wanted as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), pos, len) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn forget_cached(&self) {
        // A hint: where it is not taken, the second reading sees what the first one saw.
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }

    fn os_file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

/// After a short write: what is left, slice by slice. `done` bytes of `slices` already lie at `pos`.
fn write_rest(file: &File, slices: &[IoSlice<'_>], done: usize, pos: u64) -> io::Result<()> {
    let mut skip = done;
    let mut at = pos;
    for slice in slices {
        let passed = skip.min(slice.len());
        skip -= passed;
        if passed < slice.len() {
            file.write_all_at(&slice[passed..], at + passed as u64)?;
        }
        at += slice.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vectored_write_of_many_slices_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsVfs::default().open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        file.write_all_vectored_at(&slices, 5).unwrap();
        let mut found = vec![0; 12_000];
        super::super::read_exact_at(&*file, &mut found, 5).unwrap();
        assert_eq!(found, parts.concat());
    }

    #[test]
    fn the_rest_after_a_short_write_lands_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create_new(dir.path().join("f")).unwrap();
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        file.write_all_at(b"abcd", 0).unwrap();
        write_rest(&file, &slices, 4, 0).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"abcdefg");
    }
}
