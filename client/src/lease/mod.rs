//! Lease: at most one of many programs holds it; for electing a leader among them, or as a lock.
//!
//! ```text
//!     contender A   take at 100 (only if the log ends at 100) ── renew ── renew ──╳ dies
//!     contender B   sees renewals, waits … none for `time` ──────────────────────────► take at 900 (only if the log ends at 900)
//! ```
//!
//! The recipe, which needs nothing but [`AppendOptions::expect_end`]:
//!
//! - Who holds the lease is what the log says: the last *take* that was not *released*. A holder *renews* it long before `time` is over.
//! - A waiter judges by its own clock: if it has seen neither renewal nor release for `time`, it takes over.
//! - A take or a renewal is appended only if nothing was appended since the state that it was decided on. So of two waiters one fails; and a
//!   renewal that came first makes the take-over fail, and the other way round. An append whose outcome is unknown settles itself: whoever reads
//!   on sees whether it is there, and once anything else is, it cannot come any more.
//! - The **token** of a grant is the offset of its take: each is higher than all before.
//!
//! # What it guarantees, and what not
//!
//! By the log's order there is one holder at a time, always. In time, [`Lease::held`] is some at one contender at most, as long as clocks run
//! equally fast: a holder counts from before it sent, a waiter from when it saw.
//!
//! But a program can be stopped at any place for any time (a full machine, a moved virtual one), also between asking
//! [`Lease::held`] and doing something. Then it acts on a lease that another has by now. No lock service can prevent that; only what is acted on can:
//! **send the token along, and let the resource refuse tokens lower than the highest that it has seen.** What cannot do that must bear two at
//! once for a while. An append to this log can: its condition is the token (`expect_end`), or whoever applies it compares.
//!
//! All contenders of a lease must use the same name and the same `time`. Entries of others may lie between, but each that comes at the wrong moment
//! costs another try: into a log that is appended to without a break, no condition gets through. There, decide by the order of the entries instead: an
//! entry names the grant that it supersedes and counts only if that is the last one (the example `work_queue` does so).
//!
//! Owns:   the contender's side: what it has seen and when, until when it holds.
//! Keeps:  a token is given out only for a take that is in the log and was not superseded when it was looked.
//! Never:  renews by itself, or lets its clock into the log.

#[cfg(test)]
mod lease_test;
mod state;

use std::time::Duration;

use loglog_proto::{Length, Offset};
use tokio::time::{Instant, timeout_at};

use crate::append_error::AppendError;
use crate::log::Log;
use crate::pipeline::AppendOptions;
use crate::state_machine::{Replica, ReplicaError, ReplicaOptions};
use state::{Grants, Word};

/// A log no longer than this is read from its beginning, to know at once whether the lease is free.
const READ_ALL: Length = Length::new(1 << 20);

/// One contender for a lease.
#[derive(Debug)]
pub struct Lease<L> {
    replica: Replica<L, Grants>,
    /// This contender, and no other: drawn at random, so that not even its own earlier life is taken for it.
    me: u64,
    name: String,
    time: Duration,
    /// The newest of the lease's entries, and when this contender saw it. `None`: those before its beginning, which it has not read.
    seen: (Option<Offset>, Instant),
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    token: Offset,
    until: Instant,
}

/// Why it is not known who holds the lease.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReplicaError),
    /// An entry of the lease could not be appended, or it is not known whether it was: the next call finds out.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl<L: Log> Lease<L> {
    /// A contender for the lease `name` of this log. `time` is how long a grant lasts without a renewal: some seconds, as a rule; it bounds how long nobody
    /// holds the lease after a holder has died, and should be many times what an append takes.
    ///
    /// Who begins in a log of over 1 MiB does not read it, and takes the lease for held for one `time`.
    ///
    /// # Errors
    /// [`LeaseError::Read`].
    pub async fn open(log: L, name: impl Into<String>, time: Duration) -> Result<Self, LeaseError> {
        let name = name.into();
        let ends = log.ends(true).await.map_err(ReplicaError::from)?;
        let is_all = ends.start == Offset::ZERO && ends.length() <= READ_ALL;
        let from = if is_all { Offset::ZERO } else { ends.end };
        let grants = Grants::new(&name, is_all);
        let replica =
            Replica::open(log, grants, ReplicaOptions { from, ..ReplicaOptions::default() }).await?;
        Ok(Self { replica, me: rand::random(), name, time, seen: (None, Instant::now()), held: None })
    }

    /// Takes the lease if it is free, or not renewed for its time. Returns the token, or `None` where another holds it. Who holds it already renews it.
    ///
    /// # Errors
    /// [`LeaseError`]; calling again is right, and finds out whether the lease was taken.
    pub async fn try_acquire(&mut self) -> Result<Option<Offset>, LeaseError> {
        loop {
            self.look().await?;
            if self.replica.state().is_held_by(self.me) {
                return self.renew().await;
            }
            if self.free_at().is_some_and(|at| Instant::now() < at) {
                return Ok(None);
            }
            let word = Word::Take { holder: self.me, time: self.time };
            if let Some(token) = self.append(word).await? {
                return Ok(Some(token));
            }
        }
    }

    /// Waits until the lease can be taken, and takes it. Returns the token. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// As [`Lease::try_acquire`].
    pub async fn acquire(&mut self) -> Result<Offset, LeaseError> {
        loop {
            if let Some(token) = self.try_acquire().await? {
                return Ok(token);
            }
            // Free in between: another look.
            let Some(at) = self.free_at() else { continue };
            // Whatever comes may be a renewal or a release.
            if let Ok(next) = timeout_at(at, self.replica.next()).await {
                next?;
            }
        }
    }

    /// Makes the grant last for another `time` from now. Returns its token, or `None` where the lease was lost to another. To be called every third of
    /// `time`, or oftener.
    ///
    /// # Errors
    /// [`LeaseError`]; until [`Lease::held`] is none there is time to call again.
    pub async fn renew(&mut self) -> Result<Option<Offset>, LeaseError> {
        loop {
            self.look().await?;
            let Some(token) = self.replica.state().token_of(self.me) else {
                self.held = None;
                return Ok(None);
            };
            if let Some(token) = self.append(Word::Renew { token }).await? {
                return Ok(Some(token));
            }
        }
    }

    /// Gives the lease back, so that the next need not wait. Nothing where it is lost already.
    ///
    /// # Errors
    /// [`LeaseError`]: then it may be held until its time is over. This contender holds it no more either way.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        self.held = None;
        loop {
            self.look().await?;
            let Some(token) = self.replica.state().token_of(self.me) else { return Ok(()) };
            // On condition, too: one that is late must not end a grant that was renewed since.
            if self.append(Word::Release { token }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The token, as long as the grant lasts by this contender's clock: for a last look before each thing that only the holder may do. Asks nobody.
    #[must_use]
    pub fn held(&self) -> Option<Offset> {
        self.held.filter(|held| Instant::now() < held.until).map(|held| held.token)
    }

    /// Brings what is known up to the log.
    async fn look(&mut self) -> Result<(), LeaseError> {
        self.replica.catch_up().await?;
        let newest = self.replica.state().newest();
        if newest != self.seen.0 {
            // After it came, never before: so a waiter waits too long rather than too short.
            self.seen = (newest, Instant::now());
        }
        Ok(())
    }

    /// When the lease may be taken; `None` for now.
    fn free_at(&self) -> Option<Instant> {
        self.replica.state().lasts(self.time).map(|time| self.seen.1 + time)
    }

    /// Appends if nothing was appended since the last look, and returns the grant's token; `None` if something was.
    async fn append(&mut self, word: Word) -> Result<Option<Offset>, LeaseError> {
        let sent = Instant::now();
        let options = AppendOptions { expect_end: Some(self.replica.at()) };
        let place = match self.replica.log().append_with(word.encode(&self.name), options).await {
            Ok(place) => place,
            Err(AppendError::Conflict { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let until = sent + self.time;
        let (token, held) = match word {
            Word::Take { .. } => (place.offset, Some(Held { token: place.offset, until })),
            Word::Renew { token } => (token, Some(Held { token, until })),
            Word::Release { token } => (token, None),
        };
        self.held = held;
        Ok(Some(token))
    }
}
