//! Hub: finds the node to talk to and keeps the connections.
//!
//! Owns:   the connection to the leader and the one for reads (often the same), what is known of the members and when they were
//!         asked for last, the newest end heard of, the upload lanes.
//! Keeps:  after the first welcome only nodes of that cluster will do: what a pipeline knows holds for one log only.
//! Never:  waits between tries: whoever asks does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use loglog_proto::request::{PROTOCOL_VERSION, RequestBody};
use loglog_proto::response::{ResponseBody, Welcome};
use loglog_proto::{ClusterId, Offset};
use tokio::time::{Instant, timeout};

use crate::connection::Connection;
use crate::damage::{Offers, OnDamage};
use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::members::{Members, leads};
use crate::runtime::Runtime;
use crate::search;
use crate::upload::Uploads;

/// What a client was told about its cluster.
#[derive(Clone, Debug)]
pub(crate) struct HubOptions {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// How often to ask who the members are.
    pub(crate) refresh: Duration,
    pub(crate) quiet: Duration,
    pub(crate) on_damage: OnDamage,
    pub(crate) busy_poll: Duration,
}

/// Shared by a client and its pipelines.
#[derive(Debug)]
pub(crate) struct Hub {
    options: HubOptions,
    members: Mutex<Members>,
    /// When the members were asked for last.
    refreshed: Mutex<Instant>,
    leader: Slot,
    reader: Slot,
    /// The newest committed end that any answer named.
    end: AtomicU64,
    uploads: Uploads,
    runtime: Runtime,
    offers: Offers,
}

/// Which node will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The one that takes appends and knows the newest end.
    Leader,
    /// Whichever answers.
    Any,
}

/// A connection that is kept.
#[derive(Debug, Default)]
struct Slot {
    connection: Mutex<Option<Connection>>,
    /// Held while connecting, so that all who need the connection wait for the same one.
    opening: tokio::sync::Mutex<()>,
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Arc<Self> {
        Arc::new_cyclic(|hub: &Weak<Self>| Self {
            members: Mutex::new(Members::new(options.endpoints.clone(), options.cluster)),
            options,
            refreshed: Mutex::new(Instant::now()),
            leader: Slot::default(),
            reader: Slot::default(),
            end: AtomicU64::new(0),
            uploads: Uploads::new(hub.clone()),
            runtime: Runtime::default(),
            offers: Offers::default(),
        })
    }

    pub(crate) fn options(&self) -> &HubOptions {
        &self.options
    }

    /// Where what a call begins runs.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    pub(crate) fn offers(&self) -> &Offers {
        &self.offers
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest committed end heard of.
    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Relaxed))
    }

    /// Notes a committed end.
    pub(crate) fn heard_end(&self, end: Offset) {
        self.end.fetch_max(end.get(), Ordering::Relaxed);
    }

    /// Takes what the node at `endpoint` said when it was greeted.
    pub(crate) fn learn(&self, endpoint: &Endpoint, welcome: &Welcome) {
        self.heard_end(welcome.end);
        let learnt = {
            let mut members = self.members();
            members.learn(endpoint, welcome);
            members.learnt().to_vec()
        };
        self.uploads.members_are(learnt);
    }

    /// Something is sent over `connection`: if it is time, asks in the background who the members are now, since no node says so unasked.
    pub(crate) fn refresh(self: &Arc<Self>, connection: &Connection) {
        {
            let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            if refreshed.elapsed() < self.options.refresh {
                return;
            }
            *refreshed = Instant::now();
        }
        let (hub, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            let cluster = hub.members().cluster();
            let hello = RequestBody::Hello { version: PROTOCOL_VERSION, cluster, credentials: None };
            // Without an answer nothing is known that was not known before, and the next one will do.
            if let Ok(Ok(ResponseBody::Welcome(welcome))) =
                timeout(hub.options.request_timeout, connection.ask(hello)).await
                && cluster.is_none_or(|cluster| cluster == welcome.cluster)
            {
                hub.learn(connection.endpoint(), &welcome);
            }
        });
    }

    /// Whether there is another node to turn to.
    pub(crate) fn has_choice(&self) -> bool {
        !self.members().is_one()
    }

    #[cfg(test)]
    pub(crate) fn is_lost(&self) -> bool {
        self.leader.open().or_else(|| self.reader.open()).is_none()
    }

    /// A connection to a node that will do, opened if there is none.
    pub(crate) async fn connection(&self, route: Route) -> Result<Connection, Error> {
        if let Some(open) = self.open(route) {
            return Ok(open);
        }
        let slot = self.slot(route);
        let _only_one = slot.opening.lock().await;
        if let Some(open) = self.open(route) {
            return Ok(open);
        }
        let found = search::search(self, route).await?;
        slot.set(&found);
        Ok(found)
    }

    /// What is open already.
    fn open(&self, route: Route) -> Option<Connection> {
        match route {
            Route::Any => self
                .reader
                .open()
                .or_else(|| self.leader.open().filter(|leader| !self.members().is_passed(leader.endpoint()))),
            Route::Leader => self.leader.open().or_else(|| {
                // The node that was greeted first may well lead; one that does not is left.
                let reader =
                    self.reader.open().filter(|reader| leads(reader.welcome()) || !self.has_choice())?;
                self.leader.set(&reader);
                Some(reader)
            }),
        }
    }

    /// A node said, unasked, that it leads: whoever needs the leader goes there.
    pub(crate) fn found_leader(&self, connection: &Connection) {
        self.leader.set(connection);
    }

    /// The connection is of no use to whoever held it for the leader's; the next one is sought at `leader` first, where that is known.
    pub(crate) fn leave(&self, connection: &Connection, leader: Option<&str>) {
        self.leader.clear(connection);
        self.reader.clear(connection);
        if let Some(leader) = leader.and_then(|address| Endpoint::parse(address).ok()) {
            self.members().hear_leader(leader);
        }
    }

    /// The node is of no use to a read now: the next goes elsewhere.
    pub(crate) fn pass_over(&self, connection: &Connection) {
        if self.has_choice() {
            self.members().pass_over(connection.endpoint());
            self.reader.clear(connection);
        }
    }

    /// The same for whichever connection there is to that node.
    pub(crate) fn pass_over_node(&self, connection: &Connection) {
        self.pass_over(connection);
        let open = self.open(Route::Any);
        if let Some(same) = open.filter(|open| open.welcome().node == connection.welcome().node) {
            self.pass_over(&same);
        }
    }

    /// The node that reads go to has had nothing new for long: the next goes elsewhere.
    pub(crate) fn read_elsewhere(&self) {
        if let Some(reader) = self.open(Route::Any) {
            self.pass_over(&reader);
        }
    }

    fn slot(&self, route: Route) -> &Slot {
        match route {
            Route::Leader => &self.leader,
            Route::Any => &self.reader,
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Option<Connection> {
        self.lock().as_ref().filter(|connection| !connection.is_closed()).cloned()
    }

    fn set(&self, connection: &Connection) {
        *self.lock() = Some(connection.clone());
    }

    fn clear(&self, connection: &Connection) {
        self.lock().take_if(|kept| kept.is(connection));
    }
}
