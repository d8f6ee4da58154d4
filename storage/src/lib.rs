//! LogLog's log on disk: segments, meta, recovery, truncation, trim.
//!
//! ```text
//!     DataDir ── lock, form, open ──► Recovered
//!                                      ├─ Meta            term, vote, identity, membership, start; the mark
//!                                      ├─ LogWriter       one write and one sync per group; rolls; truncates
//!                                      ├─ SegmentKeeper   prepares the next segment; unlinks trimmed ones
//!                                      └─ LogReader       bytes by offset, entries by scan; cloned at will
//! ```
//!
//! Owns:   every byte in the data directory. `docs/format.md` describes them.
//! Keeps:  what was reported durable is there after any crash, at its offset, once, with its bytes.
//! Never:  knows Raft's roles, actors or clients; learns what is committed beyond the mark and a floor.

mod blocks;
pub mod check;
pub mod checkpoint;
pub mod dir;
pub mod error;
mod frame;
pub mod inspect;
pub mod install;
pub mod keeper;
mod limits;
pub mod meta;
mod names;
pub mod reader;
pub mod recovery;
pub mod repair;
mod scan;
mod shared;
mod spare;
mod tail;
pub mod verify;
pub mod vfs;
pub mod writer;

pub use check::{DamagedBatch, SegmentCheck};
pub use checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint};
pub use dir::{DataDir, FormError, Known, LockError, OpenOptions, Recovered, RecoveredBatch, RecoveredEntry};
pub use error::IoFailure;
pub use inspect::{InspectedEntry, Item, inspect, inspect_on};
pub use install::{InstallError, Installer};
pub use keeper::{KeeperError, Prepared, SegmentKeeper, TrimReport};
pub use meta::{LogStart, Mark, Member, Membership, Meta, MetaError, MetaState};
pub use reader::{Located, LogReader, ReadError, ScanError, SegmentInfo};
pub use recovery::{Gap, Loss, OpenError, RecoveryReport, Until};
pub use repair::{Repair, RepairError};
pub use verify::{Finding, VerifiedSegment, VerifyReport, verify, verify_on};
pub use vfs::{OsVfs, Vfs, VfsFile};
pub use writer::{Durable, LogWriter, NewBatch, NewEntry, WriteError};

#[cfg(test)]
mod tests;
