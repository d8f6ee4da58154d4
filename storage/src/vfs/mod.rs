//! The seam to the file system: what the log needs of one, and nothing more.
//!
//! ```text
//!     log ─► Vfs, VfsFile ─┬─► OsVfs    the real one
//!                          └─► SimVfs   in memory; cuts power, kills, breaks
//! ```
//!
//! Owns:   the two traits.
//! Keeps:  nothing is durable before `sync_data`, `sync_all` (a file) or `sync_dir` (names) has returned.
//! Never:  retries a sync (S2).

mod os;
mod sim;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use os::OsVfs;
pub use sim::{Fault, OpKind, SimCounts, SimVfs, Survival};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file that must not exist yet, to read and write.
    CreateNew,
}

/// Held while the directory is ours; dropping it gives the directory up.
pub trait DirLockGuard: Send + Sync + fmt::Debug {}

/// A file system.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Opens a file. A file newly created has a durable name only after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says: `NotFound`, `AlreadyExists`, `PermissionDenied`, `StorageFull`…
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// Gives a file another name in the same directory, atomically replacing what had that name.
    /// Durable after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Whoever has the file open goes on reading it. Durable after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Whether a file or directory of that name is there.
    ///
    /// # Errors
    /// As the operating system says.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Creates a directory and those above it, durably.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes all names of a directory durable.
    ///
    /// # Errors
    /// As the operating system says. A failure is final (S2).
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written in a directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the directory for this owner alone, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` where another owner has it; else as the operating system says.
    fn try_lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLockGuard>>;
}

/// An open file. Shared: every call names its position.
#[expect(clippy::len_without_is_empty, reason = "it asks the file system")]
pub trait VfsFile: Send + Sync + fmt::Debug {
    /// Reads some bytes at `pos`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, into: &mut [u8], pos: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `pos`. Nothing of it is durable yet.
    ///
    /// # Errors
    /// As the operating system says; then any part may have been written. A failure is final (S2).
    fn write_all_at(&self, bytes: &[u8], pos: u64) -> io::Result<()>;

    /// The same for whole blocks at a block's address and position, which may go past the page cache.
    ///
    /// # Errors
    /// As [`VfsFile::write_all_at`].
    fn write_blocks_at(&self, blocks: &[u8], pos: u64) -> io::Result<()> {
        self.write_all_at(blocks, pos)
    }

    /// [`VfsFile::write_blocks_at`], then [`VfsFile::sync_data`], as one call where the system has one.
    ///
    /// # Errors
    /// Of both.
    fn write_blocks_synced(&self, blocks: &[u8], pos: u64) -> io::Result<()> {
        self.write_blocks_at(blocks, pos)?;
        self.sync_data()
    }

    /// Makes all written bytes durable, and a length that has grown. Not a length that has shrunk.
    ///
    /// # Errors
    /// As the operating system says. A failure is final: what was written may be gone (S2).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes and length durable, a length that has shrunk included.
    ///
    /// # Errors
    /// As [`VfsFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space, so that a later write there cannot run out of it; lengthens the file with zeros where needed.
    /// Does nothing where the file system cannot reserve.
    ///
    /// # Errors
    /// `StorageFull`: nothing of the file's content has changed.
    fn allocate(&self, pos: u64, len: u64) -> io::Result<()>;

    /// Lets go of what is cached of the file and is on the disk already, so that the next reading asks the disk. No more than a hint.
    fn forget_cached(&self) {}

    /// The file of the operating system, for calls like `sendfile`; none where there is none beneath.
    fn os_file(&self) -> Option<&File> {
        None
    }
}

/// Reads until `into` is full or the file ends; returns how much there was.
pub(crate) fn read_full_at(file: &dyn VfsFile, into: &mut [u8], pos: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], pos + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Fills `into` wholly.
pub(crate) fn read_exact_at(file: &dyn VfsFile, into: &mut [u8], pos: u64) -> io::Result<()> {
    let wanted = into.len();
    let found = read_full_at(file, into, pos)?;
    if found == wanted {
        return Ok(());
    }
    let what = format!("{wanted} bytes wanted at position {pos}, {found} there");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
}
