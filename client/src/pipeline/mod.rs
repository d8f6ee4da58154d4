//! Pipeline: many appends on their way at once, in strict order, each exactly once.
//!
//! ```text
//!     append ─► byte budget ─► driver task: state (decides) ─► connection
//!     Ticket ◄──────────────── completion ◄──┘         ◄─ replies ─┘
//! ```
//!
//! Owns:   the callers' side: budget, tickets, options.
//! Keeps:  memory for waiting payloads stays under the budget; a payload's CRC is made where it was handed in.
//! Never:  decides what a reply means: [`state`] does.

mod driver;
mod silence;
pub(crate) mod state;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use loglog_proto::Offset;
use loglog_proto::limits::{PAYLOAD_BYTES_MAX, WRITER_SEQUENCES_MAX};
use loglog_proto::response::Appended;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::unconstrained;
use tokio::time::Instant;

use crate::append_error::AppendError;
use crate::hub::Hub;
use crate::runtime::Runtime;
use driver::{Command, Completion, Driver};

/// What an append costs beside its payload, bytes: about what it takes in memory while it waits.
const APPEND_COST: usize = 256;

/// What bounds a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Bytes of appends that wait for their outcome (each counts 256 beside its payload). Default 32 MiB. An append larger than
    /// this waits until it is alone. Uploads to other nodes share these bytes; for a slow node no more than this waits, and never
    /// over 16 MiB.
    pub bytes_max: usize,
    /// Appends on their way to the node at once, at most 4,096. Default 1,024.
    pub entries_max: usize,
    /// How long an append is tried, from its call. Default 30 s; `None`: until it has an outcome.
    pub timeout: Option<Duration>,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self { bytes_max: 32 << 20, entries_max: 1024, timeout: Some(Duration::from_secs(30)) }
    }
}

/// What one append asks beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// Append only if the entry will lie at this offset: that is, if nothing was appended since the log ended there.
    pub expect_end: Option<Offset>,
}

/// Appends in strict order: of two calls the first one's entry comes first, whatever is lost and sent again meanwhile.
///
/// Dropping it does not stop what was handed in.
#[derive(Debug)]
pub struct Pipeline {
    commands: mpsc::UnboundedSender<Command>,
    budget: Arc<Semaphore>,
    options: PipelineOptions,
    runtime: Runtime,
    handed_in: AtomicU64,
}

/// An append on its way. Resolves to its place once that is committed; dropping it does not stop the append.
#[derive(Debug)]
#[must_use = "the append's outcome is told to nobody else but `flush`"]
pub struct Ticket {
    outcome: oneshot::Receiver<Result<Appended, AppendError>>,
    /// Whether taking the outcome is one of the 128 steps after which the runtime has a task yield. Every other one is none: a task that
    /// takes outcomes and appends again hands in up to 256 appends that travel together. With 128 there were twice the system calls; with
    /// all that are in flight client and nodes would take turns (docs/performance.md).
    is_step: bool,
}

impl Pipeline {
    pub(crate) fn start(hub: Arc<Hub>, options: PipelineOptions) -> Self {
        let options = PipelineOptions {
            bytes_max: options.bytes_max.clamp(APPEND_COST, Semaphore::MAX_PERMITS.min(u32::MAX as usize)),
            entries_max: options.entries_max.clamp(1, WRITER_SEQUENCES_MAX),
            ..options
        };
        let budget = Arc::new(Semaphore::new(options.bytes_max));
        // Unbounded, since the budget bounds what is in it.
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = hub.runtime().clone();
        let driver = Driver::new(hub, options, budget.clone(), receiver);
        runtime.spawn(driver.run());
        Self { commands, budget, options, runtime, handed_in: AtomicU64::new(0) }
    }

    /// Whether its task is gone, with the runtime that it ran in.
    pub(crate) fn is_gone(&self) -> bool {
        self.commands.is_closed()
    }

    /// Hands in an append. Waits only for room in the byte budget; the [`Ticket`] waits for the outcome.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`], or [`AppendError::NoRoom`] if there was none in time: nothing was sent.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Ticket, AppendError> {
        self.append_with(payload, AppendOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Pipeline::append`].
    pub async fn append_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Ticket, AppendError> {
        let payload = payload.into();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLarge { length: payload.len(), max: PAYLOAD_BYTES_MAX });
        }
        let crc = loglog_proto::crc32c(&payload);
        let (cost, called) = self.room(payload.len()).await?;
        let (to, outcome) = oneshot::channel();
        let completion = Completion { to, cost };
        let wish = Command::Append { completion, payload, crc, expect_end: options.expect_end, called };
        self.commands.send(wish).map_err(|_| AppendError::Closed { may_have_happened: false })?;
        let is_step = self.handed_in.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        Ok(Ticket { outcome, is_step })
    }

    /// Waits until every append handed in before has its outcome.
    ///
    /// # Errors
    /// The first that an append met since the last flush, whoever holds its ticket.
    pub async fn flush(&self) -> Result<(), AppendError> {
        let (to, done) = oneshot::channel();
        let _ = self.commands.send(Command::Flush(to));
        done.await.unwrap_or(Err(AppendError::Closed { may_have_happened: true }))
    }

    /// Takes room from the budget. Returns how much, which the driver gives back, and when that was asked for, if it took time.
    async fn room(&self, payload: usize) -> Result<(u32, Option<Instant>), AppendError> {
        let cost = (payload + APPEND_COST).min(self.options.bytes_max);
        let cost = u32::try_from(cost).expect("the budget is clamped to 32 bits");
        let closed = AppendError::Closed { may_have_happened: false };
        if let Ok(room) = self.budget.try_acquire_many(cost) {
            room.forget();
            return Ok((cost, None));
        }
        let called = Instant::now();
        let room = self.budget.acquire_many(cost);
        let room = match self.options.timeout {
            None => room.await,
            Some(after) => {
                let in_time = self.runtime.within(async { tokio::time::timeout(after, room).await });
                in_time.await.map_err(|_| AppendError::NoRoom { after })?
            }
        };
        room.map_err(|_| closed)?.forget();
        Ok((cost, Some(called)))
    }
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.is_step {
            true => Pin::new(&mut self.outcome).poll(context),
            false => Pin::new(&mut unconstrained(&mut self.outcome)).poll(context),
        };
        outcome.map(|outcome| outcome.unwrap_or(Err(AppendError::Closed { may_have_happened: true })))
    }
}
