//! What recovery says: why it refused, or what it found and did.

use std::path::PathBuf;
use std::time::Duration;

use loglog_proto::{ClusterId, LogId, Offset};

use super::Gap;
use crate::error::IoFailure;
use crate::meta::{Mark, MetaOpenError};

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It holds no log.
    #[error("{} holds no log yet", path.display())]
    NotFormed {
        /// The directory.
        path: PathBuf,
    },
    /// It holds another cluster's log.
    #[error("{} belongs to cluster {found}, not to {expected}", path.display())]
    Cluster {
        /// The directory.
        path: PathBuf,
        /// Asked for.
        expected: ClusterId,
        /// There.
        found: ClusterId,
    },
    /// Bytes that were synced are damaged or missing (S9). The log was not changed; see [`crate::DataDir::repair`].
    #[error(
        "{} is corrupt at log offset {offset}: {detail}; the mark is batch {} ending at {}. Repair it from another \
         node; a node that is alone may be told to accept the loss of everything from there on (it is kept aside)",
        path.display(), gap.mark.index, gap.mark.offset
    )]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where in the log the first damaged batch, or the segment that is not accepted, begins.
        offset: Offset,
        /// What does not hold.
        detail: String,
        /// What another node is to be asked for.
        gap: Box<Gap>,
    },
    /// `meta` is damaged: this node's vote and identity are lost. It must not vote again under its old identity.
    #[error("{} is corrupt at byte {at}: {detail}. Replace this node under a new incarnation", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        at: u64,
        /// What does not hold.
        detail: String,
    },
    /// A call failed.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

impl From<MetaOpenError> for OpenError {
    fn from(error: MetaOpenError) -> Self {
        match error {
            MetaOpenError::Io(failure) => Self::Io(failure),
            MetaOpenError::Corrupt { path, offset, detail } => Self::Meta { path, at: offset, detail },
        }
    }
}

/// What recovery found and did: to be logged, counted and shown.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Segments of the log.
    pub segments: usize,
    /// Those of them that were read entirely.
    pub segments_scanned: usize,
    /// Whole batches met while scanning.
    pub batches_scanned: u64,
    /// Bytes above the mark that were rewritten and synced (S8).
    pub bytes_rewritten: u64,
    /// Where the torn tail began, if there was one.
    pub torn_at: Option<Offset>,
    /// Its bytes, cut and kept aside.
    pub torn_bytes: u64,
    /// Files that keep what was cut.
    pub side_files: Vec<PathBuf>,
    /// What was given up because the loss was accepted.
    pub lost: Option<Loss>,
    /// What was cut because other nodes proved that it was never committed: nothing is lost (S10).
    pub disproved: Option<Loss>,
    /// Segment files in which nothing valid was left, so that they went wholly.
    pub empty_segments_removed: usize,
    /// Segments before the start, left by a trim that was interrupted.
    pub trimmed_segments_removed: usize,
    /// Our own unfinished files.
    pub temporary_files_removed: usize,
    /// A snapshot's installation that was interrupted behind its point of no return was finished (S25).
    pub install_finished: bool,
    /// Slots of `meta` that were not valid, of two; one is what a power cut may leave.
    pub meta_slots_invalid: u32,
    /// Mark pages that were not valid, of two.
    pub mark_pages_invalid: u32,
    /// How long it took.
    pub took: Duration,
}

/// What was cut at damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where the first damaged batch began: the log ends there now.
    pub from: Offset,
    /// The last batch that is left.
    pub last: LogId,
    /// The mark as it was: what lies between `last` and it had been acknowledged.
    pub mark: Mark,
    /// Bytes kept aside.
    pub bytes: u64,
    /// What did not hold.
    pub detail: String,
}
