//! Reading: raw bytes, entries, following, and finding the tail.
//!
//! Owns:   what is asked of a node and what is made of its bytes.
//! Keeps:  an entry is given out whole and once, in the log's order.
//! Never:  trusts a node's bytes unless told to: each entry's CRC is checked by default, since the server checks nothing.

mod entries;
mod entry;
mod follow;
mod splitter;
mod tail;

use std::time::Duration;

use loglog_proto::limits::{READ_BYTES_MAX, READ_WAIT_MS_MAX};
use loglog_proto::request::{Read, RequestBody};
use loglog_proto::response::{Data, ResponseBody};
use loglog_proto::{Length, Offset};

pub use entries::{Entries, EntriesOptions};
pub use entry::Entry;
pub use follow::Follow;

use crate::client::Client;
use crate::error::Error;

/// What one read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The first byte wanted; need not be where an entry begins.
    pub offset: Offset,
    /// The most bytes wanted. A node returns at most 4 MiB, and never more than the rest of a segment.
    pub limit: Length,
    /// How long to wait at the end of the log, at most a minute.
    pub wait: Duration,
    /// Answer only once the node has committed this far: the `end` of an acknowledged append, to read it for sure.
    pub min_end: Option<Offset>,
}

impl ReadOptions {
    /// Reads up to 4 MiB from `offset`, without waiting.
    #[must_use]
    pub const fn at(offset: Offset) -> Self {
        Self { offset, limit: Length::new(READ_BYTES_MAX as u64), wait: Duration::ZERO, min_end: None }
    }
}

impl Client {
    /// Reads committed bytes from `offset`, at most `limit`, often fewer; none at the end of the log.
    ///
    /// # Errors
    /// [`Error::Trimmed`], [`Error::BeyondEnd`], or where no node answers.
    pub async fn read(&self, offset: Offset, limit: Length) -> Result<Data, Error> {
        self.read_with(ReadOptions { limit, ..ReadOptions::at(offset) }).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn read_with(&self, options: ReadOptions) -> Result<Data, Error> {
        let wait = options.wait.min(Duration::from_millis(READ_WAIT_MS_MAX));
        let body = RequestBody::Read(Read {
            offset: options.offset,
            limit: options.limit.get(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(READ_WAIT_MS_MAX),
            min_end: options.min_end,
        });
        let answer = self.ask(body, wait).await.map_err(|error| match error {
            Error::Refused(refusal) => Error::from_refused_read(options.offset, refusal),
            error => error,
        })?;
        match &answer.body {
            ResponseBody::Data(data) if data.offset == options.offset => {
                self.hub().heard_end(data.end);
                Ok(data.clone())
            }
            _ => Err(answer.unexpected()),
        }
    }
}
