//! The data directory: locked, formed, opened.
//!
//! Owns:   the lock; the way from a directory to a running log.
//! Keeps:  one owner at a time (S7); a directory is formed wholly or not at all.
//! Never:  touches a foreign file, or another cluster's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::limits::WRITE_GROUP_BYTES_MAX;
use loglog_proto::{ClusterId, Length, LogId, Offset, Sequence, WriterId};

use crate::error::{IoFailure, Meant};
use crate::keeper::SegmentKeeper;
use crate::meta::{Mark, Meta, MetaError, MetaState};
use crate::names;
use crate::reader::LogReader;
use crate::recovery::{self, OpenError, RecoveryReport};
use crate::vfs::{DirLockGuard, Vfs};
use crate::writer::LogWriter;

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    _lock: Box<dyn DirLockGuard>,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another node in this one, has it.
    #[error("{} is in use by another node", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("{} cannot be written ({source}); a node needs its data directory to write", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Anything else.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why a directory was not formed.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// It is, already.
    #[error("{} holds a log already", path.display())]
    Formed {
        /// The directory.
        path: PathBuf,
    },
    /// It holds segments without a `meta`: something was lost or mixed up.
    #[error("{} holds {segment} but no meta; it is no new directory", path.display())]
    Segments {
        /// The directory.
        path: PathBuf,
        /// One of the segments.
        segment: String,
    },
    /// `meta` was not written.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A call failed.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// How to open a directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Refuse a directory of another cluster.
    pub cluster: Option<ClusterId>,
    /// Cut a corrupt log at its first damaged batch instead of refusing it; what is cut is kept aside.
    pub accept_loss: bool,
    /// Check every entry from the segment on that holds this offset, even where the mark lies far behind: something there was found
    /// damaged.
    pub scan_from: Option<Offset>,
    /// Cut a log that is damaged exactly here, above the mark: other nodes proved that nothing from here on was ever committed (S10).
    pub uncommitted_from: Option<Offset>,
    /// What the process knows of this log from a life of it that ended in peace.
    pub known: Option<Known>,
    /// So much memory keeps the end of the log for readers, bytes.
    pub tail_bytes: usize,
}

/// What is known of a log by the process that has just had it open, and found damage in it. All three only make recovery stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Something in the segment that holds this offset is damaged: it is read in full, wherever the mark stands.
    pub suspect: Offset,
    /// What was handed out as committed: the mark is raised to it, so that damage below it is corruption, never a torn tail (S9).
    pub committed: Mark,
    /// What was synced, and may have been counted towards a quorum: a log that ends short of it is damaged, not torn (S9).
    pub durable: Offset,
}

/// A directory brought back to life.
#[derive(Debug)]
pub struct Recovered {
    /// Term, vote, membership, start, mark.
    pub meta: Meta,
    /// Adds to the log.
    pub writer: LogWriter,
    /// Prepares and removes segments.
    pub keeper: SegmentKeeper,
    /// Reads the log.
    pub reader: LogReader,
    /// Every batch above the mark, all rewritten and synced (S8).
    pub tail: Vec<RecoveredBatch>,
    /// Control batches at or below the mark that the scan met on its way: at least all those of the last segment.
    /// Needed to know the segment limit (S35): `meta` may take a new limit over only once a segment that begins behind
    /// the change is at or below the mark; until then it is found here or in `tail`.
    pub controls: Vec<RecoveredBatch>,
    /// The last batch in the log; in an empty one the batch before its start.
    pub last: LogId,
    /// Behind the last batch.
    pub end: Offset,
    /// What recovery found and did.
    pub report: RecoveryReport,
}

/// A batch that recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredBatch {
    /// Term and index.
    pub log_id: LogId,
    /// Where it begins.
    pub offset: Offset,
    /// Where it ends.
    pub end: Offset,
    /// Its entries.
    pub entries: Vec<RecoveredEntry>,
}

/// An entry that recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// What it is for.
    pub kind: Kind,
    /// Who appended it.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
    /// Where it begins.
    pub offset: Offset,
    /// Bytes of its content.
    pub payload_len: u32,
    /// CRC-32C of its content.
    pub payload_crc: u32,
    /// Its content; empty for data, which stays on the disk.
    pub payload: Bytes,
}

impl DataDir {
    /// Takes the directory, which is created where it is missing, for this owner alone.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn lock(vfs: Arc<dyn Vfs>, path: &Path) -> Result<Self, LockError> {
        let refused = |what: &'static str| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::WouldBlock => LockError::Busy { path: path.to_owned() },
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    LockError::ReadOnly { path: path.to_owned(), source }
                }
                _ => LockError::Io(IoFailure { what, path: path.to_owned(), source }),
            }
        };
        vfs.create_dir_all(path).map_err(refused("create"))?;
        let lock = vfs.try_lock_dir(path).map_err(refused("lock"))?;
        Ok(Self { vfs, path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// Whether it holds a log.
    ///
    /// # Errors
    /// Those of looking.
    pub fn is_formed(&self) -> Result<bool, IoFailure> {
        let meta = self.path.join(names::META);
        self.vfs.exists(&meta).meant("look for", &meta)
    }

    /// Who the directory says this node is, without opening the log; nothing is touched.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn peek(&self) -> Result<MetaState, OpenError> {
        Ok(Meta::peek(&*self.vfs, &self.path.join(names::META))?.0)
    }

    /// Makes it hold a log, beginning at `state.start`; the mark stands before it. On return that is durable.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn form(&self, state: &MetaState) -> Result<(), FormError> {
        self.check_new()?;
        Ok(Meta::form(&*self.vfs, &self.path, state)?)
    }

    /// Whether it may be made to hold a log: neither `meta` nor a segment is there.
    ///
    /// # Errors
    /// [`FormError`] says what is.
    pub fn check_new(&self) -> Result<(), FormError> {
        if self.is_formed()? {
            return Err(FormError::Formed { path: self.path.clone() });
        }
        for name in self.vfs.list(&self.path).meant("list", &self.path)? {
            if let names::Name::Segment(base) = names::Name::of(&name) {
                return Err(FormError::Segments { path: self.path.clone(), segment: names::segment(base) });
            }
        }
        Ok(())
    }

    /// Brings the log back to life: reads, checks, cuts a torn tail, rewrites and syncs what it keeps above the mark
    /// (S8 to S11). May be called again for the next generation, once the threads of the last one have ended (S13);
    /// readers of the last one go on.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing is lost by an attempt that failed.
    pub fn open(&self, options: OpenOptions) -> Result<Recovered, OpenError> {
        self.open_with(options, WRITE_GROUP_BYTES_MAX)
    }

    /// [`DataDir::open`] with a G of a test's own: always the same for one directory.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    #[doc(hidden)]
    pub fn open_with(&self, options: OpenOptions, group_bytes_max: Length) -> Result<Recovered, OpenError> {
        recovery::open(Arc::clone(&self.vfs), &self.path, options, group_bytes_max)
    }
}

impl RecoveredBatch {
    /// It as a mark.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { index: self.log_id.index, offset: self.end }
    }
}
