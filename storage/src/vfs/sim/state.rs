//! Names and files of the simulated disk, and what a power cut makes of them.
//!
//! Owns:   names as the process sees them, names as the disk has them, the operations between.
//! Keeps:  a name is durable only after its directory was synced, whatever was synced in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rand::Rng;

use super::inode::{FileOp, Inode};
use super::{Fault, OpKind, SimCounts, Survival};

/// A change of a directory that is not yet durable.
#[derive(Clone, Debug)]
enum DirOp {
    Link { path: PathBuf, inode: u64 },
    Unlink { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf, inode: u64 },
}

impl DirOp {
    fn path(&self) -> &Path {
        match self {
            Self::Link { path, .. } | Self::Unlink { path, .. } | Self::Rename { to: path, .. } => path,
        }
    }

    /// With `half` a rename has given the new name and not yet taken the old one.
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>, half: bool) {
        let mut unlink = |path: &PathBuf, inode: &u64| {
            if names.get(path) == Some(inode) {
                names.remove(path);
            }
        };
        match self {
            Self::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink { path, inode } => unlink(path, inode),
            Self::Rename { from, to, inode } => {
                if !half {
                    unlink(from, inode);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    dir_ops: Vec<(u64, DirOp)>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Numbers all operations.
    next_op: u64,
    pub(super) locks: BTreeSet<PathBuf>,
    /// A kill or power cut ends a life; what the last one held open is closed.
    pub(super) life: u64,
    pub(super) counts: SimCounts,
    /// The total of operations at which the power goes off.
    pub(super) off_at: Option<u64>,
    /// Faults to come: on which kind of operation, after how many more of it.
    pub(super) faults: Vec<(OpKind, u64, Fault)>,
    /// Bytes of the disk; without bound if none.
    pub(super) space: Option<u64>,
    /// What was done, in words, while somebody listens.
    pub(super) transcript: Option<Vec<String>>,
}

/// A path's last part, as text.
pub(super) fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl State {
    /// An operation is about to happen: counts it, and says which fault strikes it.
    pub(super) fn begin(&mut self, kind: OpKind, life: u64) -> io::Result<Option<Fault>> {
        self.alive(life)?;
        self.counts.add(kind);
        let mut struck = None;
        self.faults.retain_mut(|(of, after, fault)| {
            if *of != kind {
                return true;
            }
            if *after == 0 && struck.is_none() {
                struck = Some(*fault);
                return false;
            }
            *after = after.saturating_sub(1);
            true
        });
        match struck {
            Some(Fault::Fail) => Err(io::Error::other(format!("injected failure of {kind:?}"))),
            Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
            other => Ok(other),
        }
    }

    /// Whether the power is on, and a handle from `life` is still open.
    pub(super) fn alive(&self, life: u64) -> io::Result<()> {
        if self.off_at.is_some_and(|at| self.counts.total >= at) {
            return Err(io::Error::other("the power is off"));
        }
        if life != self.life {
            return Err(io::Error::other("the process that opened this is dead"));
        }
        Ok(())
    }

    /// Adds a line to the transcript.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(transcript) = &mut self.transcript {
            transcript.push(line());
        }
    }

    /// As `tell`, about an open file, by the name that it has now.
    pub(super) fn tell_of(&mut self, inode: u64, line: impl FnOnce(String) -> String) {
        if self.transcript.is_some() {
            let name = self.names.iter().find(|(_, number)| **number == inode).map(|(path, _)| short(path));
            self.tell(|| line(name.unwrap_or_else(|| "(unlinked)".to_owned())));
        }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open or named file exists")
    }

    fn number(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.tell(|| format!("create {}", short(path)));
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        if !self.dirs.contains(&parent) {
            return Err(ErrorKind::NotFound.into());
        }
        if self.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.names.insert(path.to_owned(), inode);
        let number = self.number();
        self.dir_ops.push((number, DirOp::Link { path: path.to_owned(), inode }));
        Ok(inode)
    }

    /// Puts a durable file there.
    pub(super) fn plant(&mut self, path: &Path, bytes: &[u8]) {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::planted(bytes));
        self.names.insert(path.to_owned(), inode);
        self.durable_names.insert(path.to_owned(), inode);
    }

    /// A name is gone, durably.
    pub(super) fn lose(&mut self, path: &Path) {
        self.names.remove(path);
        self.durable_names.remove(path);
        self.collect();
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        self.tell(|| format!("rename {} to {}", short(from), short(to)));
        self.names.remove(from);
        self.names.insert(to.to_owned(), inode);
        let number = self.number();
        self.dir_ops.push((number, DirOp::Rename { from: from.to_owned(), to: to.to_owned(), inode }));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find(path)?;
        self.tell(|| format!("remove {}", short(path)));
        self.names.remove(path);
        let number = self.number();
        self.dir_ops.push((number, DirOp::Unlink { path: path.to_owned(), inode }));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        self.tell(|| "sync directory".to_owned());
        let ops = std::mem::take(&mut self.dir_ops);
        for (number, op) in ops {
            if op.path().parent() == Some(dir) {
                op.apply(&mut self.durable_names, false);
            } else {
                self.dir_ops.push((number, op));
            }
        }
        self.collect();
    }

    /// Frees files without a name that nobody has open.
    fn collect(&mut self) {
        let mut used: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        for (_, op) in &self.dir_ops {
            let (DirOp::Link { inode, .. } | DirOp::Unlink { inode, .. } | DirOp::Rename { inode, .. }) = op;
            used.insert(*inode);
        }
        self.inodes.retain(|number, inode| inode.handles > 0 || used.contains(number));
    }

    /// Applies `op` if the disk has room for it.
    pub(super) fn change(&mut self, inode: u64, op: FileOp) -> io::Result<()> {
        let old = self.inode(inode).now.len();
        let new = match &op {
            FileOp::Write { pos, bytes } => old.max(pos + bytes.len() as u64),
            FileOp::SetLen(len) => *len,
        };
        if new.saturating_sub(old) > self.free() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.tell_of(inode, |name| match &op {
            FileOp::Write { pos, bytes } if bytes.iter().all(|byte| *byte == 0) => {
                format!("write zeros to {name} at {pos}, {} bytes", bytes.len())
            }
            FileOp::Write { pos, bytes } => format!("write {name} at {pos}, {} bytes", bytes.len()),
            FileOp::SetLen(len) if *len < old => format!("cut {name} to {len} bytes"),
            FileOp::SetLen(len) => format!("lengthen {name} to {len} bytes"),
        });
        let number = self.number();
        self.inode(inode).apply(number, op);
        Ok(())
    }

    pub(super) fn free(&self) -> u64 {
        let Some(space) = self.space else { return 1 << 40 };
        let used: u64 =
            self.names.values().filter_map(|n| self.inodes.get(n)).map(|inode| inode.now.len()).sum();
        space.saturating_sub(used)
    }

    pub(super) fn power_cut(&mut self, survival: Survival, rng: &mut impl Rng) {
        let mut pending: Vec<u64> = self.inodes.values().flat_map(Inode::pending).collect();
        pending.extend(self.dir_ops.iter().map(|(number, _)| *number));
        pending.sort_unstable();
        let cutoff = match rng.random_range(0..=pending.len()) {
            at if at == pending.len() => u64::MAX,
            at => pending[at],
        };
        for inode in self.inodes.values_mut() {
            inode.power_cut(survival, cutoff, rng);
        }
        for (number, op) in std::mem::take(&mut self.dir_ops) {
            let survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Prefix => number < cutoff,
                Survival::RandomSubset => rng.random(),
            };
            if survives {
                let half = survival == Survival::RandomSubset && rng.random_ratio(1, 4);
                op.apply(&mut self.durable_names, half);
            }
        }
        self.names = self.durable_names.clone();
        self.collect();
        self.off_at = None;
        self.faults.clear();
        self.end_life();
    }

    /// Whatever the process held is gone.
    pub(super) fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
        }
    }
}
