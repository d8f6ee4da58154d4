//! Errors of replicas and of their snapshots.
//!
//! Keeps:  each names the file or the position, and says what can be done.

use std::io;
use std::path::PathBuf;

use loglog_proto::{ClusterId, Offset, Term};

use super::ApplyError;
use crate::error::Error;

/// Why a snapshot was not written, or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system failed. A snapshot that was there before is there still.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The state machine could not write its state. A snapshot that was there before is there still.
    #[error("the state cannot be written to {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another replica, here or in another program, has this snapshot.
    #[error("snapshot {} is in use by another replica: give each its own file", path.display())]
    InUse {
        /// The snapshot.
        path: PathBuf,
    },
    /// Not what was written: cut short, changed, or no snapshot at all.
    #[error(
        "snapshot {} is damaged ({what}): put a copy of another replica's in its place; or remove it, and the state is made anew from \
         the log, if that still has its beginning",
        path.display()
    )]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
    /// Made by a later version of this library, or damaged.
    #[error(
        "snapshot {} has version {found}, and this program reads version 1: made by a later program, or damaged",
        path.display()
    )]
    Version {
        /// The snapshot.
        path: PathBuf,
        /// The version found.
        found: u16,
    },
    /// The snapshot is whole, and the state machine cannot read it.
    #[error(
        "the state machine cannot read snapshot {}, which is whole: {source}; was it written by another program, or version?",
        path.display()
    )]
    Restore {
        /// The snapshot.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Why a replica does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The snapshot cannot be used, or was not written. In the latter case the replica may go on.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The snapshot is of another log.
    #[error("snapshot {} was made from the log of cluster {found}, not of {expected}: check the paths, or the address", path.display())]
    OtherLog {
        /// The snapshot.
        path: PathBuf,
        /// The log's cluster.
        expected: ClusterId,
        /// The snapshot's.
        found: ClusterId,
    },
    /// The log does not hold what the state was made of.
    #[error(
        "the state was made of an entry at {offset} of term {term}, and the log has none there: it has lost data, or is damaged; \
         if the log is right, remove the snapshot"
    )]
    OtherHistory {
        /// Where the newest entry began that the state was made of.
        offset: Offset,
        /// Its term.
        term: Term,
    },
    /// Entries that the state lacks are gone.
    #[error(
        "the state stands at {at}, and the log begins at {start}: what lay between was trimmed; start from a newer snapshot, of another replica"
    )]
    Trimmed {
        /// Up to where the state has come.
        at: Offset,
        /// First byte kept of the log.
        start: Offset,
    },
    /// The state knows of more than the log does.
    #[error("the state stands at {at}, and the log ends at {end}: it is another log, or has lost data")]
    BeyondEnd {
        /// Up to where the state has come.
        at: Offset,
        /// Where the log ends.
        end: Offset,
    },
    /// The state machine refused an entry. The replica stops for good; its state may have taken in half of that entry.
    #[error("the entry at {at} cannot be applied: {source}")]
    Apply {
        /// Where the entry begins.
        at: Offset,
        /// What the state machine said.
        source: ApplyError,
    },
    /// An entry could not be applied before. Mend the program and open the replica anew.
    #[error(
        "this replica stopped at the entry at {at}, which could not be applied: mend that and open it anew"
    )]
    Stopped {
        /// Where the entry begins.
        at: Offset,
    },
    /// No snapshot was asked for when the replica was opened.
    #[error("this replica has no snapshot file: name one in its options")]
    NoFile,
    /// The log could not be read. What was applied stays applied; the replica may go on.
    #[error(transparent)]
    Log(#[from] Error),
}

impl ReplicaError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Log(error) => error.is_retryable(),
            Self::Snapshot(SnapshotError::Io { .. } | SnapshotError::InUse { .. }) => true,
            _ => false,
        }
    }
}
