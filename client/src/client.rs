//! Client: the face of the crate.
//!
//! Owns:   the hub, and the pipelines behind one-shot appends.
//! Keeps:  cloning is cheap; clones share connections and pipelines.
//! Never:  decides what may be retried: the pipelines' state does for appends, `ask` for all else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use loglog_proto::request::RequestBody;
use loglog_proto::response::{Appended, ResponseBody, Status, Welcome};
use loglog_proto::{ClusterId, Length, Offset};

use crate::append_error::AppendError;
use crate::ask::Answer;
use crate::builder::ClientBuilder;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::hub::{Hub, Route};
use crate::pipeline::{AppendOptions, Pipeline, PipelineOptions};

/// A log's client. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hub: Arc<Hub>,
    append: PipelineOptions,
    plain: Shelf,
    /// Apart from the plain ones, and one at a time: a conflict would make all behind it go a second time.
    conditional: Shelf,
}

/// A pipeline that is kept; begun again where the runtime that it ran in took it along.
#[derive(Debug, Default)]
struct Shelf(Mutex<Option<Arc<Pipeline>>>);

impl Shelf {
    fn get(&self, begin: impl FnOnce() -> Pipeline) -> Arc<Pipeline> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = kept.as_ref().filter(|pipeline| !pipeline.is_gone()) {
            return Arc::clone(pipeline);
        }
        Arc::clone(kept.insert(Arc::new(begin())))
    }
}

/// Where the log starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First byte kept.
    pub start: Offset,
    /// Next byte to be committed.
    pub end: Offset,
}

impl Ends {
    /// Bytes of the log that are kept.
    #[must_use]
    pub fn length(&self) -> Length {
        self.end - self.start
    }
}

impl Client {
    /// Connects with defaults. See [`Client::builder`] for more.
    ///
    /// # Errors
    /// [`Error`] says which address failed, and why.
    pub async fn connect(endpoints: impl Into<Endpoints>) -> Result<Self, Error> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// Says how to connect.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn new(hub: Arc<Hub>, append: PipelineOptions) -> Self {
        let (plain, conditional) = (Shelf::default(), Shelf::default());
        Self { shared: Arc::new(Shared { hub, append, plain, conditional }) }
    }

    /// Appends one entry and waits until it is committed. Calls that wait at the same time travel together; for a strict order
    /// among them use a [`Pipeline`].
    ///
    /// # Errors
    /// [`AppendError`] says whether to try again, and whether the entry may be in the log all the same.
    pub async fn append(&self, payload: impl Into<Bytes>) -> Result<Appended, AppendError> {
        self.append_with(payload, AppendOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Client::append`], and [`AppendError::Conflict`] where the log does not end where expected.
    pub async fn append_with(
        &self,
        payload: impl Into<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let Shared { hub, append, plain, conditional } = &*self.shared;
        let pipeline = match options.expect_end {
            None => plain.get(|| Pipeline::start(hub.clone(), *append)),
            Some(_) => conditional
                .get(|| Pipeline::start(hub.clone(), PipelineOptions { entries_max: 1, ..*append })),
        };
        pipeline.append_with(payload, options).await?.await
    }

    /// A pipeline with a writer of its own.
    #[must_use]
    pub fn pipeline(&self, options: PipelineOptions) -> Pipeline {
        Pipeline::start(self.shared.hub.clone(), options)
    }

    /// Where the log starts and ends. A linearizable answer is no older than the question; another may lag behind.
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    pub async fn ends(&self, linearizable: bool) -> Result<Ends, Error> {
        let route = if linearizable { Route::Leader } else { Route::Any };
        match self.ask(route, RequestBody::End { linearizable }, Duration::ZERO).await? {
            Answer { body: ResponseBody::End { start, end }, .. } => {
                self.shared.hub.heard_end(end);
                Ok(Ends { start, end })
            }
            answer => Err(answer.unexpected()),
        }
    }

    /// Where the log ends: the next byte to be committed.
    ///
    /// # Errors
    /// As [`Client::ends`].
    pub async fn end(&self, linearizable: bool) -> Result<Offset, Error> {
        Ok(self.ends(linearizable).await?.end)
    }

    /// How the node is.
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    pub async fn status(&self) -> Result<Status, Error> {
        match self.ask(Route::Any, RequestBody::Status, Duration::ZERO).await? {
            Answer { body: ResponseBody::Status(status), .. } => Ok(*status),
            answer => Err(answer.unexpected()),
        }
    }

    /// What the node said when the connection was opened: cluster, members, limits.
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    pub async fn welcome(&self) -> Result<Welcome, Error> {
        let hub = &self.shared.hub;
        Ok(hub.runtime().within(hub.connection(Route::Any)).await?.welcome().clone())
    }

    /// Whose log it is: its name for ever, which no other log has.
    ///
    /// # Errors
    /// As [`Client::welcome`].
    pub async fn cluster(&self) -> Result<ClusterId, Error> {
        Ok(self.welcome().await?.cluster)
    }

    /// Makes an actor of the node fail, where its `debug.faults` allows. `how` is `handler`, `async` or `started`.
    ///
    /// # Errors
    /// [`Error::Refused`] where faults are not allowed or there is no such actor.
    pub async fn fault(&self, actor: impl Into<String>, how: impl Into<String>) -> Result<(), Error> {
        let body = RequestBody::Fault { actor: actor.into(), how: how.into() };
        let hub = &self.shared.hub;
        let asking = async {
            let connection = hub.connection(Route::Any).await?;
            // Not tried again: twice is not once.
            let after = hub.options().request_timeout;
            let answer = tokio::time::timeout(after, connection.ask(body)).await;
            match answer.map_err(|_| Error::TimedOut { after, last: None })?? {
                ResponseBody::Injected => Ok(()),
                ResponseBody::Refused(refusal) => Err(Error::Refused(refusal)),
                _ => Err(connection.unexpected()),
            }
        };
        hub.runtime().within(asking).await
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// Whether the connection is known to be lost.
    #[cfg(test)]
    pub(crate) fn hub_is_lost(&self) -> bool {
        self.shared.hub.is_lost()
    }
}
