//! A simulated file system, in memory: the worst one that POSIX allows.
//!
//! ```text
//!     write ─► page cache ─(sync_data)─► disk         power_cut(survival): the disk alone is left, and of the
//!     rename, create, remove ─(sync_dir)─► disk       rest what `survival` says;  kill(): nothing is lost,
//!                                                     nothing becomes durable
//! ```
//!
//! Owns:   the whole file system; its clones share it, [`SimVfs::fork`] copies it.
//! Keeps:  the same operations and the same random numbers give the same disk.
//! Never:  makes anything durable that was not synced, but by the chance of a power cut.

mod inode;
mod pages;
mod state;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;

use self::inode::FileOp;
use self::state::State;
use super::{DirLockGuard, OpenMode, Vfs, VfsFile};

/// What of the unsynced survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// What was done before some moment.
    Prefix,
    /// Any pages, as they were at any moment since their last sync, some of them torn; any names.
    RandomSubset,
}

impl Survival {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::None, Self::All, Self::Prefix, Self::RandomSubset];
}

/// Operations that change something, or try to make it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// A file is made.
    Create,
    /// A write, vectored or not.
    Write,
    /// `sync_data` or `sync_all`.
    Sync,
    /// `set_len`.
    SetLen,
    /// `allocate`.
    Allocate,
    /// A rename.
    Rename,
    /// A name is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
}

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing. A sync that fails loses what was unsynced on the disk, while reads still see it.
    Fail,
    /// It finds the disk full and changes nothing.
    NoSpace,
    /// A write fails after this many bytes.
    Short(usize),
}

/// How many operations there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Of all kinds.
    pub total: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Creations, renames, removals.
    pub names: u64,
    /// Changes of length and reservations.
    pub lengths: u64,
}

impl SimCounts {
    fn add(&mut self, kind: OpKind) {
        self.total += 1;
        match kind {
            OpKind::Write => self.writes += 1,
            OpKind::Sync => self.syncs += 1,
            OpKind::SyncDir => self.dir_syncs += 1,
            OpKind::Create | OpKind::Rename | OpKind::Remove => self.names += 1,
            OpKind::SetLen | OpKind::Allocate => self.lengths += 1,
        }
    }
}

/// A simulated file system. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimVfs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct SimFile {
    sim: SimVfs,
    inode: u64,
    life: u64,
    writable: bool,
}

#[derive(Debug)]
struct SimLock {
    sim: SimVfs,
    dir: PathBuf,
    life: u64,
}

impl DirLockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.sim.state();
        if state.life == self.life {
            state.locks.remove(&self.dir);
        }
    }
}

impl SimVfs {
    /// An empty one, with room without bound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy that goes its own way.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// How many operations there were.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        self.state().counts
    }

    /// After `operations` more, everything fails until [`SimVfs::power_cut`], or until this is called with a higher bound.
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.state();
        state.off_at = Some(state.counts.total.saturating_add(operations));
    }

    /// The machine loses power and comes back: the unsynced survives as `survival` says. Open files and locks are gone.
    pub fn power_cut(&self, survival: Survival, rng: &mut impl Rng) {
        self.state().power_cut(survival, rng);
    }

    /// The process dies and nothing else: the page cache stays, and stays unsynced. Open files and locks are gone.
    pub fn kill(&self) {
        self.state().end_life();
    }

    /// Lets `fault` strike an operation of `kind`, after `after` more of them.
    pub fn inject(&self, kind: OpKind, after: u64, fault: Fault) {
        self.state().faults.push((kind, after, fault));
    }

    /// Gives the disk a size, all files together.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// Flips the bits of `mask` in the byte at `pos`, on the disk and in the page cache.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn corrupt(&self, path: &Path, pos: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(path)?;
        state.inode(inode).corrupt(pos, mask);
        Ok(())
    }

    /// Starts a transcript; gives what an earlier one holds.
    pub fn listen(&self) -> Vec<String> {
        self.state().transcript.replace(Vec::new()).unwrap_or_default()
    }

    /// Puts a file there, durably, replacing what was there.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        self.state().plant(path, bytes);
    }

    /// A file is gone, durably; whoever has it open goes on reading it.
    pub fn lose(&self, path: &Path) {
        self.state().lose(path);
    }

    /// Takes back what was to go wrong, and gives the disk room without bound.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        (state.off_at, state.space) = (None, None);
    }

    /// A file's bytes as the process sees them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let inode = state.find(path)?;
        Ok(state.inode(inode).now.to_vec())
    }
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state();
        let life = state.life;
        let inode = if mode == OpenMode::CreateNew {
            state.begin(OpKind::Create, life)?;
            state.create(path)?
        } else {
            state.alive(life)?;
            state.find(path)?
        };
        state.inode(inode).handles += 1;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { sim: self.clone(), inode, life, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        state.begin(OpKind::Rename, life)?;
        state.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        state.begin(OpKind::Remove, life)?;
        state.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        state.alive(state.life)?;
        if !state.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.alive(state.life)?;
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive(state.life)?;
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        state.begin(OpKind::SyncDir, life)?;
        state.sync_dir(dir);
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        state.alive(state.life)?;
        Ok(state.free())
    }

    fn try_lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLockGuard>> {
        let mut state = self.state();
        state.alive(state.life)?;
        if !state.locks.insert(dir.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { sim: self.clone(), dir: dir.to_owned(), life: state.life }))
    }
}

impl SimFile {
    fn begin(&self, kind: OpKind) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.sim.state();
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let fault = state.begin(kind, self.life)?;
        Ok((state, fault))
    }

    fn sync(&self, how: fn(&mut inode::Inode), verb: &str) -> io::Result<()> {
        match self.begin(OpKind::Sync) {
            Ok((mut state, _)) => {
                state.tell_of(self.inode, |name| format!("{verb} {name}"));
                how(state.inode(self.inode));
                Ok(())
            }
            Err(error) => {
                // With the power off nothing changes any more; else the kernel drops the pages.
                let mut state = self.sim.state();
                if state.alive(self.life).is_ok() {
                    state.inode(self.inode).forget_unsynced();
                }
                Err(error)
            }
        }
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, into: &mut [u8], pos: u64) -> io::Result<usize> {
        let mut state = self.sim.state();
        state.alive(self.life)?;
        Ok(state.inode(self.inode).now.read(into, pos))
    }

    fn write_all_at(&self, bytes: &[u8], pos: u64) -> io::Result<()> {
        let (mut state, fault) = self.begin(OpKind::Write)?;
        if let Some(Fault::Short(n)) = fault {
            let bytes = bytes[..n.min(bytes.len())].to_vec();
            state.change(self.inode, FileOp::Write { pos, bytes })?;
            return Err(io::Error::other("injected short write"));
        }
        state.change(self.inode, FileOp::Write { pos, bytes: bytes.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(inode::Inode::sync_data, "sync")
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(inode::Inode::sync_all, "sync with length")
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.sim.state();
        state.alive(self.life)?;
        Ok(state.inode(self.inode).now.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, _) = self.begin(OpKind::SetLen)?;
        state.change(self.inode, FileOp::SetLen(len))
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        let (mut state, _) = self.begin(OpKind::Allocate)?;
        let old = state.inode(self.inode).now.len();
        if pos + len <= old {
            return Ok(());
        }
        state.change(self.inode, FileOp::SetLen(pos + len))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.sim.state();
        if state.life == self.life
            && let Some(inode) = state.inodes.get_mut(&self.inode)
        {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod sim_test;
