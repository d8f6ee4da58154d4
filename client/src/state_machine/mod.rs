//! State machines: state that is a function of the log, the same in every program that applies the same entries.
//!
//! ```text
//!     log ──entries──► Replica: apply, apply, apply … ──► state ──snapshot──► file ──restore──► Replica, in another life
//! ```
//!
//! [`StateMachine`] is the program's part, [`Replica`] drives it.
//!
//! ```
//! # loglog_client::block_on(async {
//! use std::io::{self, Read, Write};
//!
//! use loglog_client::{ApplyError, Entry, Log, MemoryLog, Replica, ReplicaOptions, StateMachine};
//!
//! /// The sum of all numbers in the log.
//! #[derive(Default)]
//! struct Sum(i64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
//!         self.0 += std::str::from_utf8(&entry.payload)?.parse::<i64>()?;
//!         Ok(())
//!     }
//!
//!     fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
//!         to.write_all(&self.0.to_le_bytes())
//!     }
//!
//!     fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
//!         let mut bytes = [0; 8];
//!         from.read_exact(&mut bytes)?;
//!         self.0 = i64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! let log = MemoryLog::new();
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("sum.snapshot");
//! let options = ReplicaOptions { snapshot: Some(path), ..ReplicaOptions::default() };
//! let mut replica = Replica::open(log.clone(), Sum::default(), options.clone()).await?;
//!
//! log.append("40").await?;
//! let mine = log.append("2").await?;
//! replica.catch_up_to(mine.end).await?; // reads what was just written
//! assert_eq!(replica.state().0, 42);
//!
//! replica.snapshot()?;
//! drop(replica);
//! let replica = Replica::open(log, Sum::default(), options).await?; // nothing is read from the log
//! assert_eq!(replica.state().0, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Snapshot, then trim
//!
//! A snapshot lets a replica start without the log's beginning, so that this can be trimmed. The order that loses nothing:
//!
//! 1. Every replica calls [`Replica::snapshot`], and tells the offset that this returns: what lies before is in a file that is on its disk.
//! 2. Of these offsets the lowest is trimmed before: [`Log::trim`](crate::Log::trim).
//!
//! Whoever trims before a replica's snapshot makes that replica start from a copy of another's ([`ReplicaError::Trimmed`] says so). A new
//! replica, too, needs such a copy from then on; any replica's will do, since the state is a function of the log.
//!
//! Owns:   the file of snapshots (docs/format.md, "Snapshots of state machines"), and up to where the state has come.
//! Keeps:  each data entry is applied once, in order; a state that is not certain is an error.
//! Never:  knows what a state is, or runs in the background.

mod error;
mod file;
#[cfg(test)]
mod file_test;
mod header;
mod replica;
#[cfg(test)]
mod replica_test;

use std::io::{self, Read, Write};

use crate::read::Entry;

pub use error::{ReplicaError, SnapshotError};
pub use replica::{Replica, ReplicaOptions};

/// Why an entry could not be applied: any error, also `"words".into()`.
pub type ApplyError = Box<dyn std::error::Error + Send + Sync>;

/// State that is a function of the log.
pub trait StateMachine {
    /// Takes in the next entry. It sees the data entries only, in the log's order, each once; where the state was restored from a snapshot, those behind it.
    ///
    /// The new state must depend on nothing but the old one and the entry: no clock, no random numbers, no settings, no order of a
    /// `HashMap`. Else the replicas drift apart. Nor do side effects belong here (mails, payments, appends): the same entry is applied
    /// by every replica, and again after each restart by those that take no snapshot. Act on what the state says, from outside.
    ///
    /// # Errors
    /// What makes it impossible to go on: the replica stops for good, with the entry's position. What is merely wrong with an entry (a command
    /// that nobody can obey, another program's entry) is for the state machine to pass over, the same way in every replica.
    fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError>;

    /// Writes all of the state. Neither length nor checksum are needed: the file has both.
    ///
    /// # Errors
    /// What `to` returned, or why the state cannot be written.
    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()>;

    /// Reads what [`StateMachine::snapshot`] wrote, to its end; the bytes have been checked. Called on a state that is as it was given to
    /// [`Replica::open`].
    ///
    /// # Errors
    /// What is written there is no state of this program's, say that of another version.
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;
}
