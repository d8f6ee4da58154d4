//! Chunks: entries that come many at a time, given out one by one.
//!
//! Owns:   those of the last read that were not given out yet.
//! Keeps:  what an entry costs here is taking it from a queue; whatever is asynchronous happens once a read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::stream::{BoxStream, Stream, StreamExt};

use super::Entry;
use crate::error::Error;

/// Entries as a stream.
pub(super) struct Chunks {
    ready: VecDeque<Entry>,
    reads: BoxStream<'static, Result<VecDeque<Entry>, Error>>,
}

impl Chunks {
    /// The entries of `reads`.
    pub(super) const fn new(reads: BoxStream<'static, Result<VecDeque<Entry>, Error>>) -> Self {
        Self { ready: VecDeque::new(), reads }
    }
}

impl Stream for Chunks {
    type Item = Result<Entry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match ready!(self.reads.poll_next_unpin(context)) {
                Some(Ok(entries)) => self.ready = entries,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
