//! The tail: walking backwards from the end to where the last entries begin.
//!
//! Keeps:  every entry walked over is checked, whatever its kind.

use bytes::{Bytes, BytesMut};
use loglog_proto::entry::{EntryError, Kind, SUFFIX, len_from_suffix};
use loglog_proto::{Length, Offset, walk};

use super::ReadOptions;
use crate::client::{Client, Ends};
use crate::connection::Connection;
use crate::damage::{Sources, note};
use crate::error::Error;

/// Bytes asked for at once.
const CHUNK: Length = Length::new(256 << 10);

impl Client {
    /// Where the last `count` data entries begin: reading from there to the end gives exactly those, or all there are.
    ///
    /// # Errors
    /// [`Error`] where no node answers, or its bytes are damaged.
    pub async fn tail_start(&self, count: u64) -> Result<Offset, Error> {
        let ends = self.ends(true).await?;
        self.tail_start_before(ends, count).await
    }

    /// The same, walking back from `ends.end`, where an entry must end.
    ///
    /// # Errors
    /// As [`Client::tail_start`].
    pub async fn tail_start_before(&self, ends: Ends, count: u64) -> Result<Offset, Error> {
        let walking = async {
            let mut sources = Sources::new(self.hub(), ends.end);
            let start = self.walk_back(ends, count, &mut sources).await;
            sources.settled().await;
            start
        };
        self.hub().runtime().within(walking).await
    }

    async fn walk_back(&self, ends: Ends, count: u64, sources: &mut Sources) -> Result<Offset, Error> {
        let (mut at, mut left) = (ends.end, count);
        // Bytes that end at `at`, and who gave them.
        let (mut bytes, mut from) = (Bytes::new(), Vec::new());
        while left > 0 && at > ends.start {
            let last = match walk::last_entry(at, &bytes) {
                Ok(last) => last,
                Err(what) => {
                    sources.met_before(at, &from, what)?;
                    bytes = Bytes::new();
                    continue;
                }
            };
            let Some(entry) = last else {
                let needed = bytes.last_chunk::<SUFFIX>().and_then(len_from_suffix).unwrap_or_default();
                let begin = at.saturating_back(needed.max(CHUNK)).max(ends.start);
                if begin + Length::of(bytes.len()) == at {
                    // There are no more bytes, yet the entry is not whole.
                    let what = EntryError::Short { at: begin, needed: needed.as_usize(), found: bytes.len() };
                    sources.met_before(at, &from, what)?;
                    bytes = Bytes::new();
                    continue;
                }
                (bytes, from) = match self.read_between(begin, at).await {
                    // What is gone cannot be among the last.
                    Err(Error::Trimmed { start, .. }) if start <= at => {
                        let ends = Ends { start, end: at };
                        return Box::pin(self.tail_start_before(ends, left)).await;
                    }
                    Err(Error::Trimmed { start, .. }) => return Ok(start),
                    bytes => bytes?,
                };
                continue;
            };
            at = entry.offset;
            sources.reset();
            left -= u64::from(entry.prefix.kind == Kind::Data);
            let kept = bytes.len() - entry.len().as_usize();
            bytes.truncate(kept);
        }
        Ok(at)
    }

    async fn read_between(&self, from: Offset, to: Offset) -> Result<(Bytes, Vec<Connection>), Error> {
        let (mut bytes, mut given_by) = (BytesMut::new(), Vec::new());
        let mut at = from;
        while at < to {
            let read = ReadOptions { limit: to - at, min_end: Some(to), ..ReadOptions::at(at) };
            let (data, connection) = self.read_from(read).await?;
            note(&mut given_by, &connection);
            if data.bytes.is_empty() {
                return Err(Error::BeyondEnd { offset: to, end: data.end });
            }
            at += Length::of(data.bytes.len());
            if bytes.is_empty() && at == to {
                return Ok((data.bytes, given_by));
            }
            bytes.extend_from_slice(&data.bytes);
        }
        Ok((bytes.freeze(), given_by))
    }
}
