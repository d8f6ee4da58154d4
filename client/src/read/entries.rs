//! Entries of a range, as a stream.
//!
//! Owns:   where the range ends and what was read ahead.
//! Keeps:  one read is on its way while the last one's entries are handed out.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt, try_unfold};
use loglog_proto::entry::EntryError;
use loglog_proto::response::Data;
use loglog_proto::{Length, Offset};
use tokio::task::JoinHandle;

use super::splitter::Splitter;
use super::{Chunks, Entry, ReadOptions};
use crate::client::Client;
use crate::connection::Connection;
use crate::damage::Sources;
use crate::error::Error;

/// How entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesOptions {
    /// Bytes asked for at once. Default 1 MiB.
    pub chunk: Length,
    /// Whether each entry's CRC is checked. Default yes: the server checks nothing when it is read from.
    pub checked: bool,
}

impl Default for EntriesOptions {
    fn default() -> Self {
        Self { chunk: Length::new(1 << 20), checked: true }
    }
}

/// Data entries, in the log's order. After an error it ends.
#[must_use = "streams do nothing unless polled"]
pub struct Entries(Chunks);

impl Client {
    /// The data entries that begin in `range`, at whose start an entry must begin. Without an upper bound: up to the end of the log as it is
    /// when the first of them is asked for.
    pub fn entries(&self, range: impl RangeBounds<Offset>) -> Entries {
        self.entries_with(range, EntriesOptions::default())
    }

    /// The same with options.
    pub fn entries_with(&self, range: impl RangeBounds<Offset>, options: EntriesOptions) -> Entries {
        let next = |offset: Offset| offset + Length::new(1);
        let from = match range.start_bound() {
            Bound::Included(from) => Some(*from),
            Bound::Excluded(from) => Some(next(*from)),
            Bound::Unbounded => None,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => Some(next(*to)),
            Bound::Excluded(to) => Some(*to),
            Bound::Unbounded => None,
        };
        let reading = Reading { client: self.clone(), options, from, to, at: None };
        let runtime = self.hub().runtime().clone();
        let next = move |reading: Reading| {
            let runtime = runtime.clone();
            async move { runtime.within(reading.next()).await }
        };
        Entries(Chunks::new(try_unfold(reading, next).boxed()))
    }
}

struct Reading {
    client: Client,
    options: EntriesOptions,
    /// `None`: the start of the log.
    from: Option<Offset>,
    to: Option<Offset>,
    at: Option<Place>,
}

struct Place {
    to: Offset,
    splitter: Splitter,
    sources: Sources,
    ahead: Option<Ahead>,
    /// What ends the reading, once what was whole before it is handed out.
    failed: Option<Error>,
}

/// A read on its way, given up when dropped.
struct Ahead(JoinHandle<Result<(Data, Connection), Error>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reading {
    /// The entries of the next read.
    async fn next(mut self) -> Result<Option<(VecDeque<Entry>, Self)>, Error> {
        let mut place = match self.at.take() {
            Some(place) => place,
            None => self.begin().await?,
        };
        match self.step(&mut place).await {
            Ok(Some(entries)) => {
                self.at = Some(place);
                Ok(Some((entries, self)))
            }
            end => {
                place.sources.settled().await;
                end.map(|_| None)
            }
        }
    }

    async fn step(&self, place: &mut Place) -> Result<Option<VecDeque<Entry>>, Error> {
        place.sources.reset();
        let mut ready = VecDeque::new();
        loop {
            if !ready.is_empty() {
                ready.truncate(ready.partition_point(|entry: &Entry| entry.offset < place.to));
                return Ok((!ready.is_empty()).then_some(ready));
            }
            // First: damage behind what was asked for is nobody's business here.
            if place.splitter.at() >= place.to {
                return Ok(None);
            }
            if let Some(error) = place.failed.take() {
                return Err(error);
            }
            let wanted = place.splitter.wanted();
            let (data, connection) = match place.ahead.take() {
                Some(mut ahead) => (&mut ahead.0).await.unwrap_or_else(|stopped| {
                    Err(Error::Lost { address: "the client's own task".to_owned(), why: stopped.to_string() })
                })?,
                None => self.client.read_from(self.options.read(wanted)).await?,
            };
            if data.bytes.is_empty() {
                // Beyond the committed end, if the node does not lag: from now on the client knows where that is.
                let end = self.client.end(true).await?;
                if end > wanted {
                    continue;
                }
                if end < place.to {
                    return Err(Error::BeyondEnd { offset: place.to, end });
                }
                // An entry ends where the log does: what began here is none.
                let (at, found) = (place.splitter.at(), (wanted - place.splitter.at()).as_usize());
                let short = EntryError::Short { at, needed: found + 1, found };
                place.sources.met(&mut place.splitter, &ready, short)?;
                continue;
            }
            let next = wanted + Length::of(data.bytes.len());
            if next < place.to {
                let (client, read) = (self.client.clone(), self.options.read(next));
                place.ahead = Some(Ahead(tokio::spawn(async move { client.read_from(read).await })));
            }
            place.failed = place.sources.feed(&mut place.splitter, (data, connection), &mut ready).err();
            if place.splitter.wanted() != next {
                // What was read ahead does not follow: another node is asked first.
                place.ahead = None;
            }
        }
    }

    async fn begin(&self) -> Result<Place, Error> {
        let (from, to) = match (self.from, self.to) {
            (Some(from), Some(to)) => (from, to),
            (from, to) => {
                let ends = self.client.ends(true).await?;
                (from.unwrap_or(ends.start), to.unwrap_or(ends.end))
            }
        };
        let sources = Sources::new(self.client.hub(), from);
        let sources = if self.from.is_none() { sources.at_start() } else { sources };
        let splitter = Splitter::new(from, self.options.checked);
        Ok(Place { to, splitter, sources, ahead: None, failed: None })
    }
}

impl EntriesOptions {
    const fn read(self, offset: Offset) -> ReadOptions {
        ReadOptions { limit: self.chunk, ..ReadOptions::at(offset) }
    }
}

impl Stream for Entries {
    type Item = Result<Entry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entries")
    }
}
