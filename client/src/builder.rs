//! Builder: what a client is told before it connects.

use std::time::Duration;

use loglog_proto::ClusterId;

use crate::client::Client;
use crate::damage::{Damage, OnDamage};
use crate::endpoints::{Endpoint, Endpoints};
use crate::error::Error;
use crate::hub::{Hub, HubOptions, Route};
use crate::local::LocalEndpoint;
use crate::pipeline::PipelineOptions;

/// What a [`Client`] is told before it connects.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Endpoints,
    cluster: Option<ClusterId>,
    connect_timeout: Duration,
    request_timeout: Duration,
    refresh: Duration,
    append: PipelineOptions,
    on_damage: OnDamage,
    busy_poll: Duration,
}

/// A client that is in use asks its node this often who the members are: often enough that a new one gets uploads while it still
/// matters, seldom enough to cost nothing.
const REFRESH: Duration = Duration::from_secs(5);

/// Longer than that nobody can mean to look.
const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self {
            endpoints: Endpoints::default(),
            cluster: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            refresh: REFRESH,
            append: PipelineOptions::default(),
            on_damage: OnDamage::default(),
            busy_poll: Duration::ZERO,
        }
    }

    /// Where nodes listen. One that answers is enough.
    pub fn endpoints(mut self, endpoints: impl Into<Endpoints>) -> Self {
        self.endpoints = endpoints.into();
        self
    }

    /// The cluster that is meant. Default: that of the first node that answers.
    pub fn cluster(mut self, cluster: ClusterId) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// How long one connection may take to open. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long everything but an append is tried, beside the time a read was told to wait. After a quarter of it without an
    /// answer another node is asked, where there is one. Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long [`Client::append`] is tried. Default 30 s; `None`: until it has an outcome.
    pub fn append_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.append.timeout = timeout;
        self
    }

    /// What bounds the pipeline behind [`Client::append`].
    pub fn append_options(mut self, options: PipelineOptions) -> Self {
        self.append = options;
        self
    }

    /// Is called for each node that gave bytes that do not hold, when it is known what became of the offer to repair them: beside the reading,
    /// which goes on with another node's bytes. Unchecked and raw reading notices nothing.
    pub fn on_damage(mut self, tell: impl Fn(&Damage) + Send + Sync + 'static) -> Self {
        self.on_damage = OnDamage::new(tell);
        self
    }

    /// For a program that appends or asks one thing after the other and waits for each: so long after a lone request was sent its
    /// connection looks for the answer without sleeping, which saves the time of being woken (docs/performance.md). It takes a core of the
    /// runtime for as long, 1 s at most. Node and client gain most together: see `connection.busy_poll`. Meant for a runtime of one thread,
    /// as the client's own: in one of many, another thread may be the one that is woken. Default zero: it sleeps.
    pub fn busy_poll(mut self, span: Duration) -> Self {
        self.busy_poll = span.min(BUSY_POLL_MAX);
        self
    }

    /// How often the client asks who the members are.
    #[cfg(test)]
    pub(crate) fn refresh(mut self, every: Duration) -> Self {
        self.refresh = every;
        self
    }

    /// Connects. Whatever is begun within a tokio runtime (connections, pipelines) runs there, all else on a thread of the client's own.
    ///
    /// # Errors
    /// [`Error`] says which address failed, and why.
    pub async fn connect(self) -> Result<Client, Error> {
        let parse = |address: &str| {
            Endpoint::parse(address).map_err(|why| Error::Endpoint { address: address.to_owned(), why })
        };
        let endpoints = self.endpoints.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::NoEndpoint);
        }
        let client = self.over(endpoints);
        let hub = client.hub();
        hub.runtime().within(hub.connection(Route::Any)).await?;
        Ok(client)
    }

    /// A client of a node in this program, instead of any endpoint. It connects when it is used for the first time; where its tasks run,
    /// [`ClientBuilder::connect`] says.
    #[must_use]
    pub fn local(self, node: LocalEndpoint) -> Client {
        self.over(vec![Endpoint::Local(node)])
    }

    fn over(self, endpoints: Vec<Endpoint>) -> Client {
        let options = HubOptions {
            endpoints,
            cluster: self.cluster,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            refresh: self.refresh,
            on_damage: self.on_damage,
            busy_poll: self.busy_poll,
            // Silence for two of these ends a connection.
            quiet: (self.request_timeout / 2).max(Duration::from_millis(1)),
        };
        Client::new(Hub::new(options), self.append)
    }
}
