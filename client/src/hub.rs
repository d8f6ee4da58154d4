//! Hub: finds the node to talk to and keeps the connection to it.
//!
//! Owns:   the current connection, the addresses known, which log is meant, the newest end heard of.
//! Keeps:  after the first welcome only nodes of that cluster will do: what a pipeline knows holds for one log only.
//! Never:  waits between tries: whoever asks does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loglog_proto::error::Code;
use loglog_proto::response::Welcome;
use loglog_proto::{ClusterId, Offset};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::endpoints::Endpoint;
use crate::error::Error;

/// What a client was told about its cluster.
#[derive(Clone, Debug)]
pub(crate) struct HubOptions {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) quiet: Duration,
}

/// Shared by a client and its pipelines.
#[derive(Debug)]
pub(crate) struct Hub {
    options: HubOptions,
    known: Mutex<Known>,
    /// The newest committed end that any answer named.
    end: AtomicU64,
}

#[derive(Debug)]
struct Known {
    current: Option<Connection>,
    cluster: Option<ClusterId>,
    /// Who leads, as a node that does not lead said last.
    leader: Option<Endpoint>,
    /// Members learnt from welcomes, beyond the endpoints given.
    members: Vec<Endpoint>,
    /// Where the next round through the addresses begins.
    turn: usize,
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        let cluster = options.cluster;
        let known = Known { current: None, cluster, leader: None, members: Vec::new(), turn: 0 };
        Self { options, known: Mutex::new(known), end: AtomicU64::new(0) }
    }

    pub(crate) fn options(&self) -> &HubOptions {
        &self.options
    }

    /// The newest committed end heard of.
    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Relaxed))
    }

    /// Notes a committed end.
    pub(crate) fn heard_end(&self, end: Offset) {
        self.end.fetch_max(end.get(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn is_lost(&self) -> bool {
        self.known.try_lock().is_ok_and(|known| known.current.as_ref().is_none_or(Connection::is_closed))
    }

    /// The current connection, or a new one after one round through all known addresses.
    pub(crate) async fn connection(&self) -> Result<Connection, Error> {
        // Held while connecting, so that all who need a connection wait for the same one.
        let mut known = self.known.lock().await;
        if let Some(current) = known.current.as_ref().filter(|current| !current.is_closed()) {
            return Ok(current.clone());
        }
        let mut candidates: Vec<Endpoint> = known.leader.take().into_iter().collect();
        let given = &self.options.endpoints;
        let turn = known.turn % given.len().max(1);
        candidates.extend(given[turn..].iter().chain(&given[..turn]).chain(&known.members).cloned());
        let mut seen: Vec<Endpoint> = Vec::new();
        let mut tried = Vec::new();
        let mut fallback: Option<Connection> = None;
        let mut at = 0;
        while let Some(endpoint) = candidates.get(at).cloned() {
            at += 1;
            if seen.contains(&endpoint) {
                continue;
            }
            seen.push(endpoint.clone());
            let opened =
                Connection::open(&endpoint, known.cluster, self.options.connect_timeout, self.options.quiet)
                    .await;
            match opened {
                Ok(connection) => {
                    known.learn(connection.welcome(), given);
                    self.heard_end(connection.welcome().end);
                    match leader_elsewhere(connection.welcome()).filter(|leader| !seen.contains(leader)) {
                        Some(leader) => {
                            candidates.insert(at, leader);
                            fallback = Some(connection);
                        }
                        None => {
                            known.current = Some(connection.clone());
                            return Ok(connection);
                        }
                    }
                }
                // A node that says this means every later try as well.
                Err(error @ (Error::WrongCluster { .. } | Error::Version { .. })) if given.len() == 1 => {
                    return Err(error);
                }
                Err(Error::Refused(refusal)) if given.len() == 1 && refusal.code == Code::WrongCluster => {
                    return Err(Error::Refused(refusal));
                }
                Err(error) => tried.push(format!("{endpoint}: {error}")),
            }
        }
        known.turn = known.turn.wrapping_add(1);
        match fallback {
            Some(connection) => {
                known.current = Some(connection.clone());
                Ok(connection)
            }
            None => Err(Error::Unreachable { tried }),
        }
    }

    /// The connection is of no use to whoever held it: the next one is sought at `leader`, else further down the addresses.
    pub(crate) async fn leave(&self, connection: &Connection, leader: Option<String>) {
        let mut known = self.known.lock().await;
        if known.current.as_ref().is_some_and(|current| current.is(connection)) {
            known.current = None;
            known.turn = known.turn.wrapping_add(1);
        }
        if let Some(leader) = leader.and_then(|address| Endpoint::parse(&address).ok()) {
            known.leader = Some(leader);
        }
    }
}

impl Known {
    fn learn(&mut self, welcome: &Welcome, given: &[Endpoint]) {
        self.cluster = Some(welcome.cluster);
        let members = welcome.members.iter().filter_map(|member| Endpoint::parse(&member.address).ok());
        self.members = members.filter(|member| !given.contains(member)).collect();
    }
}

/// Where the leader listens, if it is known to be another node than the one that said so.
fn leader_elsewhere(welcome: &Welcome) -> Option<Endpoint> {
    let leader = welcome.leader.filter(|leader| *leader != welcome.node)?;
    let member = welcome.members.iter().find(|member| member.node == leader)?;
    Endpoint::parse(&member.address).ok()
}
