//! Following: entries as they are committed, for ever.
//!
//! Owns:   where the next entry begins; nothing else survives a lost connection, and nothing else is needed.
//! Keeps:  no entry twice, none left out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, try_unfold};
use loglog_proto::Offset;
use tokio::time::sleep;

use super::splitter::Splitter;
use super::{Chunks, EntriesOptions, Entry, ReadOptions};
use crate::backoff;
use crate::client::Client;
use crate::damage::Sources;
use crate::error::Error;

/// So long one read waits for more. Short of what a node allows, so that a dead one is noticed.
const WAIT: Duration = Duration::from_secs(20);
/// The same where there is another node to ask.
const WAIT_WITH_CHOICE: Duration = Duration::from_secs(2);
/// After so many reads in a row that brought nothing another node is asked: this one may be cut off and not know it.
const EMPTY_READS: u32 = 5;

/// Data entries as they are committed. It outlives connections, and ends only with an error that no retry would cure, as
/// [`Error::Trimmed`].
#[must_use = "streams do nothing unless polled"]
pub struct Follow(Chunks);

impl Client {
    /// The data entries from `from` on, where an entry must begin or the log must end; waits for more at the end.
    pub fn follow(&self, from: Offset) -> Follow {
        self.follow_with(from, EntriesOptions::default())
    }

    /// The same with options.
    pub fn follow_with(&self, from: Offset, options: EntriesOptions) -> Follow {
        let splitter = Splitter::new(from, options.checked);
        let sources = Sources::new(self.hub(), from);
        let following =
            Following { client: self.clone(), options, splitter, sources, failed: None, began: false };
        let runtime = self.hub().runtime().clone();
        let next = move |following: Following| {
            let runtime = runtime.clone();
            async move { runtime.within(following.next()).await }
        };
        Follow(Chunks::new(try_unfold(following, next).boxed()))
    }
}

struct Following {
    client: Client,
    options: EntriesOptions,
    splitter: Splitter,
    sources: Sources,
    /// What ends the reading, once what was whole before it is handed out.
    failed: Option<Error>,
    /// Whether a node has answered a read: from then on a node whose end lies before our place only lags.
    began: bool,
}

impl Following {
    /// The entries of the next read that brings some.
    async fn next(mut self) -> Result<Option<(VecDeque<Entry>, Self)>, Error> {
        match self.step().await {
            Ok(entries) => Ok(Some((entries, self))),
            Err(error) => {
                self.sources.settled().await;
                Err(error)
            }
        }
    }

    async fn step(&mut self) -> Result<VecDeque<Entry>, Error> {
        let (mut failures, mut empty, mut ready) = (0, 0, VecDeque::new());
        self.sources.reset();
        loop {
            if !ready.is_empty() {
                return Ok(ready);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let wanted = self.splitter.wanted();
            let min_end = self.began.then_some(wanted);
            let wait = if self.client.hub().has_choice() { WAIT_WITH_CHOICE } else { WAIT };
            let limit = self.options.chunk;
            match self.client.read_from(ReadOptions { offset: wanted, limit, wait, min_end }).await {
                Ok((data, connection)) => {
                    (self.began, failures) = (true, 0);
                    empty = if data.bytes.is_empty() { empty + 1 } else { 0 };
                    if empty >= EMPTY_READS {
                        empty = 0;
                        self.client.hub().read_elsewhere();
                        // A log ends with a whole entry: one that has begun here has a damaged length.
                        self.sources.doubt(&self.splitter);
                        self.splitter.restart(&ready);
                    }
                    if !data.bytes.is_empty() {
                        self.failed =
                            self.sources.feed(&mut self.splitter, (data, connection), &mut ready).err();
                    }
                }
                Err(error)
                    if error.is_retryable() || (self.began && matches!(error, Error::BeyondEnd { .. })) =>
                {
                    let pause = backoff::wait(failures, &mut rand::rng());
                    failures += 1;
                    sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Stream for Follow {
    type Item = Result<Entry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Follow")
    }
}
