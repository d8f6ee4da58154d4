//! Log: what can be done with a log, wherever it is.
//!
//! Owns:   the trait that programs are written against: a cluster over TCP, a process on this machine over a Unix socket, a node inside the
//!         program ([`Client`] for all three), or this program's memory ([`MemoryLog`](crate::MemoryLog)).
//! Keeps:  whoever implements it passes the same tests (`integration-tests/tests/conformance.rs`).
//! Never:  holds what only a cluster has: members are [`Client::members`]' business.

use std::ops::RangeBounds;

use bytes::Bytes;
use loglog_proto::response::{Appended, Data};
use loglog_proto::{ClusterId, Length, Offset};

use crate::append_error::AppendError;
use crate::client::{Client, Ends};
use crate::error::Error;
use crate::pipeline::{AppendOptions, Pipeline, PipelineOptions};
use crate::read::{Entries, EntriesOptions, Follow, ReadOptions};

/// A strictly ordered, append-only log. Clones are handles on the same log.
///
/// What each method does stands at the method of the same name of [`Client`].
pub trait Log: Clone + Send + Sync + 'static {
    /// [`Client::cluster`].
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    fn cluster(&self) -> impl Future<Output = Result<ClusterId, Error>> + Send;

    /// [`Client::append_with`].
    ///
    /// # Errors
    /// [`AppendError`] says whether to try again, and whether the entry may be in the log all the same.
    fn append_with(
        &self,
        payload: impl Into<Bytes> + Send,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// [`Client::append`].
    ///
    /// # Errors
    /// As [`Log::append_with`].
    fn append(
        &self,
        payload: impl Into<Bytes> + Send,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        self.append_with(payload, AppendOptions::default())
    }

    /// [`Client::pipeline`].
    #[must_use]
    fn pipeline(&self, options: PipelineOptions) -> Pipeline;

    /// [`Client::read_with`].
    ///
    /// # Errors
    /// [`Error::Trimmed`], [`Error::BeyondEnd`], or where no node answers.
    fn read_with(&self, options: ReadOptions) -> impl Future<Output = Result<Data, Error>> + Send;

    /// [`Client::read`].
    ///
    /// # Errors
    /// As [`Log::read_with`].
    fn read(&self, offset: Offset, limit: Length) -> impl Future<Output = Result<Data, Error>> + Send {
        self.read_with(ReadOptions { limit, ..ReadOptions::at(offset) })
    }

    /// [`Client::ends`].
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    fn ends(&self, linearizable: bool) -> impl Future<Output = Result<Ends, Error>> + Send;

    /// [`Client::end`].
    ///
    /// # Errors
    /// As [`Log::ends`].
    fn end(&self, linearizable: bool) -> impl Future<Output = Result<Offset, Error>> + Send {
        async move { Ok(self.ends(linearizable).await?.end) }
    }

    /// [`Client::entries_with`].
    fn entries_with(&self, range: impl RangeBounds<Offset>, options: EntriesOptions) -> Entries;

    /// [`Client::entries`].
    fn entries(&self, range: impl RangeBounds<Offset>) -> Entries {
        self.entries_with(range, EntriesOptions::default())
    }

    /// [`Client::follow_with`].
    fn follow_with(&self, from: Offset, options: EntriesOptions) -> Follow;

    /// [`Client::follow`].
    fn follow(&self, from: Offset) -> Follow {
        self.follow_with(from, EntriesOptions::default())
    }

    /// [`Client::tail_start`].
    ///
    /// # Errors
    /// [`Error`] where no node answers, or its bytes are damaged.
    fn tail_start(&self, count: u64) -> impl Future<Output = Result<Offset, Error>> + Send;

    /// [`Client::trim`]; returns where the log starts then.
    ///
    /// # Errors
    /// [`Error::Refused`] where it is not to be done.
    fn trim(&self, before: Offset) -> impl Future<Output = Result<Offset, Error>> + Send;
}

impl Log for Client {
    fn cluster(&self) -> impl Future<Output = Result<ClusterId, Error>> + Send {
        Self::cluster(self)
    }

    fn append_with(
        &self,
        payload: impl Into<Bytes> + Send,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        Self::append_with(self, payload, options)
    }

    fn pipeline(&self, options: PipelineOptions) -> Pipeline {
        Self::pipeline(self, options)
    }

    fn read_with(&self, options: ReadOptions) -> impl Future<Output = Result<Data, Error>> + Send {
        Self::read_with(self, options)
    }

    fn ends(&self, linearizable: bool) -> impl Future<Output = Result<Ends, Error>> + Send {
        Self::ends(self, linearizable)
    }

    fn entries_with(&self, range: impl RangeBounds<Offset>, options: EntriesOptions) -> Entries {
        Self::entries_with(self, range, options)
    }

    fn follow_with(&self, from: Offset, options: EntriesOptions) -> Follow {
        Self::follow_with(self, from, options)
    }

    fn tail_start(&self, count: u64) -> impl Future<Output = Result<Offset, Error>> + Send {
        Self::tail_start(self, count)
    }

    async fn trim(&self, before: Offset) -> Result<Offset, Error> {
        Ok(Offset::new(Self::trim(self, before).await?.start))
    }
}
