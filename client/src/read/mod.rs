//! Reading: raw bytes, entries, following, and finding the tail.
//!
//! Owns:   what is asked of a node and what is made of its bytes.
//! Keeps:  an entry is given out whole and once, in the log's order.
//! Never:  trusts a node's bytes unless told to: each entry's CRC is checked by default, since the server checks nothing.

mod chunks;
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

use chunks::Chunks;
pub use entries::{Entries, EntriesOptions};
pub use entry::Entry;
pub use follow::Follow;
pub use splitter::Splitter;

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::hub::Route;

/// So long is a node waited for that has not got yet what the client knows to be committed.
const LAG_WAIT: Duration = Duration::from_millis(500);

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
        Ok(self.read_from(options).await?.0)
    }

    /// The same, with the connection over which the bytes came: whose they are.
    pub(crate) async fn read_from(&self, options: ReadOptions) -> Result<(Data, Connection), Error> {
        match self.read_once(options).await {
            // A node that lags does not know what it has not got; the leader does.
            Err(error @ Error::BeyondEnd { .. }) if self.hub().has_choice() => match self.end(true).await {
                Ok(end) if end >= options.offset => self.read_once(options).await,
                _ => Err(error),
            },
            answer => answer,
        }
    }

    async fn read_once(&self, options: ReadOptions) -> Result<(Data, Connection), Error> {
        let (min_end, wait) = session(options, self.hub().end());
        let body = RequestBody::Read(Read {
            offset: options.offset,
            limit: options.limit.get(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(READ_WAIT_MS_MAX),
            min_end,
        });
        let answer = self.ask(Route::Any, body, wait).await.map_err(|error| match error {
            Error::Refused(refusal) => Error::from_refused_read(options.offset, refusal),
            error => error,
        })?;
        match &answer.body {
            ResponseBody::Data(data) if data.offset == options.offset => {
                self.hub().heard_end(data.end);
                Ok((data.clone(), answer.connection().clone()))
            }
            _ => Err(answer.unexpected()),
        }
    }
}

/// What a read asks so that it sees what the client has heard of: at least one byte, where `heard`, the newest committed end, says
/// that there is one. Where there is one, waiting is for a node that lags, and another is better asked soon.
fn session(options: ReadOptions, heard: Offset) -> (Option<Offset>, Duration) {
    let ReadOptions { offset, wait, .. } = options;
    let wait = wait.min(Duration::from_millis(READ_WAIT_MS_MAX));
    let seen = (offset <= heard).then(|| heard.min(offset + Length::new(1)));
    let min_end = options.min_end.max(seen);
    let wait = match min_end {
        Some(min_end) if options.min_end.is_none() && min_end > offset => LAG_WAIT,
        Some(min_end) if min_end > offset => wait.max(LAG_WAIT),
        _ => wait,
    };
    (min_end, wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_what_was_heard_of_and_no_more() {
        let read = |offset, min_end: Option<u64>, wait| {
            let (limit, wait) = (Length::new(9), Duration::from_secs(wait));
            let min_end = min_end.map(Offset::new);
            let options = ReadOptions { offset: Offset::new(offset), limit, wait, min_end };
            let (min_end, wait) = session(options, Offset::new(100));
            (min_end.map(Offset::get), wait)
        };
        // There is more: whoever lags is waited for, for a while.
        assert_eq!(read(50, None, 0), (Some(51), LAG_WAIT));
        assert_eq!(read(99, None, 20), (Some(100), LAG_WAIT));
        // At the end: there may be nothing more.
        assert_eq!(read(100, None, 0), (Some(100), Duration::ZERO));
        assert_eq!(read(100, None, 20), (Some(100), Duration::from_secs(20)));
        // Beyond what was heard of: who asks must know.
        assert_eq!(read(101, None, 0), (None, Duration::ZERO));
        assert_eq!(read(50, Some(80), 0), (Some(80), LAG_WAIT));
        assert_eq!(read(101, Some(120), 7), (Some(120), Duration::from_secs(7)));
    }
}
