//! Replica: one copy of a state, brought up to the log and kept there.
//!
//! ```text
//!     open: snapshot ─► catch_up: to the end, or to one's own append ─► next, follow: as entries are committed
//!                                                       └─► snapshot: to the file, when told or every so many bytes
//! ```
//!
//! Owns:   the state, and up to where it has come.
//! Keeps:  all before `at` is applied and nothing behind it, also when a call is given up half-way: its futures may be dropped anywhere.
//! Never:  applies or snapshots anything after an entry that could not be applied.

use std::convert::Infallible;
use std::path::PathBuf;

use futures_util::StreamExt;
use loglog_proto::{ClusterId, Length, Offset};

use super::StateMachine;
use super::error::{ReplicaError, SnapshotError};
use super::file::SnapshotFile;
use super::header::{Applied, Place};
use crate::error::Error;
use crate::log::Log;
use crate::read::{EntriesOptions, Entry, Follow};

/// What a replica is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// The file of its snapshot, in a directory that is there. Beside it come NAME.tmp and NAME.lock. Default: none, and every start applies
    /// all of the log.
    pub snapshot: Option<PathBuf>,
    /// Takes a snapshot by itself after so many bytes of log. Default: only when told.
    pub snapshot_every: Option<Length>,
    /// Where the state that is given to [`Replica::open`] stands: everything before is in it. For states that are kept elsewhere, as in a
    /// database together with this offset; it must be where an entry begins, or the log ends. A snapshot that is there goes before. Default 0: an
    /// empty state.
    pub from: Offset,
    /// How the log is read.
    pub entries: EntriesOptions,
}

/// A state machine that follows a log.
#[derive(Debug)]
pub struct Replica<L, S> {
    log: L,
    cluster: ClusterId,
    state: S,
    place: Place,
    options: ReplicaOptions,
    file: Option<SnapshotFile>,
    /// Where the last snapshot stands, or was tried by itself.
    tried: Offset,
    /// The entry that could not be applied, or in whose apply a panic was.
    stopped: Option<Offset>,
    /// What is read ahead; begins at `place.at`.
    following: Option<Follow>,
}

impl<L: Log, S: StateMachine> Replica<L, S> {
    /// Restores `state`, which is empty yet, from the snapshot if there is one, and looks whether it belongs to the log. Applies nothing: see
    /// [`Replica::catch_up`]. Reads the file in this thread.
    ///
    /// # Errors
    /// The snapshot is damaged, of another log, or in use; the log was trimmed behind it, or has lost what it was made of. None of that cures
    /// itself; [`ReplicaError`] says what to do. Or the log cannot be reached.
    pub async fn open(log: L, mut state: S, options: ReplicaOptions) -> Result<Self, ReplicaError> {
        let cluster = log.cluster().await?;
        let mut place = Place { at: options.from, last: None };
        let file = options.snapshot.clone().map(SnapshotFile::lock).transpose()?;
        if let Some(file) = &file
            && let Some(mut snapshot) = file.read()?
        {
            let (path, found) = (file.path().to_owned(), snapshot.header.cluster);
            if found != cluster {
                return Err(ReplicaError::OtherLog { path, expected: cluster, found });
            }
            state.restore(&mut snapshot.body).map_err(|source| SnapshotError::Restore { path, source })?;
            place = snapshot.header.place;
        }
        belongs(&log, place).await?;
        let tried = place.at;
        Ok(Self { log, cluster, state, place, options, file, tried, stopped: None, following: None })
    }

    /// The state, of all entries before [`Replica::at`].
    #[must_use]
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// Up to where the state has come: all before is applied, nothing behind.
    #[must_use]
    pub const fn at(&self) -> Offset {
        self.place.at
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &L {
        &self.log
    }

    /// Applies all that was committed before this call, anywhere: afterwards the state is no older than the call. Returns [`Replica::at`].
    ///
    /// # Errors
    /// [`ReplicaError`]; what was applied until then stays applied.
    pub async fn catch_up(&mut self) -> Result<Offset, ReplicaError> {
        self.runs()?;
        let end = self.log.end(true).await?;
        if end < self.place.at {
            return Err(ReplicaError::BeyondEnd { at: self.place.at, end });
        }
        self.catch_up_to(end).await?;
        // What is left before it are entries of Raft's own.
        if self.place.at < end {
            self.place.at = end;
        }
        Ok(self.place.at)
    }

    /// Applies all entries that begin before `min_end`: with the `end` of an [`Appended`](crate::Appended), the state has seen that append. Asks
    /// nobody where that is done already. Returns [`Replica::at`].
    ///
    /// # Errors
    /// As [`Replica::catch_up`]; [`Error::BeyondEnd`] where the log does not reach there.
    pub async fn catch_up_to(&mut self, min_end: Offset) -> Result<Offset, ReplicaError> {
        self.runs()?;
        if self.place.at < min_end {
            self.following = None;
            let mut entries = self.log.entries_with(self.place.at..min_end, self.options.entries);
            while let Some(entry) = entries.next().await {
                let entry = entry.map_err(|error| self.unread(error))?;
                self.apply(&entry)?;
            }
        }
        Ok(self.place.at)
    }

    /// Waits for the next entry, applies it and returns it. Goes on through lost connections and changed leaders. To be given up at any time, as by
    /// `tokio::select!` between this and the program's requests.
    ///
    /// # Errors
    /// As [`Replica::catch_up`], but none that a retry would cure.
    pub async fn next(&mut self) -> Result<Entry, ReplicaError> {
        self.runs()?;
        let (log, place, options) = (&self.log, &self.place, &self.options);
        let following = self.following.get_or_insert_with(|| log.follow_with(place.at, options.entries));
        let read = following.next().await.unwrap_or_else(|| {
            let why = "following has ended".to_owned();
            Err(Error::Lost { address: "the log".to_owned(), why })
        });
        let applied = match read {
            Ok(entry) => self.apply(&entry).map(|()| entry),
            Err(error) => Err(self.unread(error)),
        };
        if applied.is_err() {
            // After an error it gives out no more.
            self.following = None;
        }
        applied
    }

    /// [`Replica::next`], for ever.
    ///
    /// # Errors
    /// As [`Replica::next`]: it ends with nothing else.
    pub async fn follow(&mut self) -> Result<Infallible, ReplicaError> {
        loop {
            self.next().await?;
        }
    }

    /// Writes the state to the file, in place of the last snapshot; all is synced at return. Returns the offset that the snapshot stands at: the log may
    /// be trimmed before it as far as this replica goes (see [the order](crate::state_machine#snapshot-then-trim)).
    ///
    /// It writes in this thread, which may take long: within a runtime call it in `tokio::task::block_in_place`, or where nobody waits.
    ///
    /// # Errors
    /// [`ReplicaError::Snapshot`]; the last snapshot is there still, and the replica may go on.
    pub fn snapshot(&mut self) -> Result<Offset, ReplicaError> {
        self.runs()?;
        let file = self.file.as_ref().ok_or(ReplicaError::NoFile)?;
        file.write(self.cluster, self.place, |to| self.state.snapshot(to))?;
        self.tried = self.place.at;
        Ok(self.place.at)
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), ReplicaError> {
        // Until it has returned: a panic, too, leaves a state that nobody knows.
        self.stopped = Some(entry.offset);
        self.state.apply(entry).map_err(|source| ReplicaError::Apply { at: entry.offset, source })?;
        self.stopped = None;
        let last = Some(Applied { offset: entry.offset, term: entry.term });
        self.place = Place { at: entry.end, last };
        let since = entry.end - self.tried;
        if self.file.is_some() && self.options.snapshot_every.is_some_and(|every| since >= every) {
            // If it fails, not again with the very next entry.
            self.tried = entry.end;
            self.snapshot()?;
        }
        Ok(())
    }

    fn runs(&self) -> Result<(), ReplicaError> {
        self.stopped.map_or(Ok(()), |at| Err(ReplicaError::Stopped { at }))
    }

    fn unread(&self, error: Error) -> ReplicaError {
        let at = self.place.at;
        match error {
            Error::Trimmed { offset, start } if offset == at => ReplicaError::Trimmed { at, start },
            Error::BeyondEnd { offset, end } if offset == at => ReplicaError::BeyondEnd { at, end },
            error => ReplicaError::Log(error),
        }
    }
}

/// Whether a state that stands at `place` is one of this log.
async fn belongs(log: &impl Log, place: Place) -> Result<(), ReplicaError> {
    let at = place.at;
    let mut ends = log.ends(false).await?;
    if at > ends.end {
        // This node may lag.
        ends = log.ends(true).await?;
    }
    if at > ends.end {
        return Err(ReplicaError::BeyondEnd { at, end: ends.end });
    }
    if at < ends.start {
        return Err(ReplicaError::Trimmed { at, start: ends.start });
    }
    let Some(last) = place.last.filter(|last| last.offset >= ends.start) else { return Ok(()) };
    let other = ReplicaError::OtherHistory { offset: last.offset, term: last.term };
    match log.entries(last.offset..at).next().await {
        Some(Ok(entry)) if (entry.offset, entry.term) == (last.offset, last.term) => Ok(()),
        // Trimmed meanwhile: nothing to compare with any more.
        Some(Err(Error::Trimmed { start, .. })) if start <= at => Ok(()),
        Some(Err(error)) if error.is_retryable() => Err(error.into()),
        _ => Err(other),
    }
}
