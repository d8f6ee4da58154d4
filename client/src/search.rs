//! Search: tries the known addresses until a node answers that will do.
//!
//! Owns:   the connections being opened, in one search.
//! Keeps:  a node that does not answer holds up the next one for a moment only; what a welcome names is tried too.
//! Never:  waits for a node that hangs when all others have answered.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use loglog_proto::NodeId;
use loglog_proto::error::Code;
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Habits};
use crate::endpoints::Endpoint;
use crate::error::Error;
use crate::hub::{Hub, Route};
use crate::members::leads;

/// So long is a node waited for before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(150);
/// So long is a node waited for when all others have said that they do not lead.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// One round through all known addresses.
pub(crate) async fn search(hub: &Hub, route: Route) -> Result<Connection, Error> {
    let mut waiting: VecDeque<Endpoint> = match route {
        Route::Leader => hub.members().for_leader().into(),
        Route::Any => hub.members().for_reads().into(),
    };
    let mut started: Vec<Endpoint> = Vec::new();
    let mut opening = FuturesUnordered::new();
    let mut tried = Vec::new();
    let mut does_not_lead = None;
    loop {
        if let Some(endpoint) = waiting.pop_front() {
            if !started.contains(&endpoint) {
                started.push(endpoint.clone());
                opening.push(open(hub, endpoint));
            } else if !waiting.is_empty() {
                continue;
            }
        }
        let patience = if waiting.is_empty() { LAST_CHANCE } else { HEAD_START };
        tokio::select! {
            biased;
            opened = opening.next() => match opened {
                None => break,
                Some((_, Ok(connection))) => {
                    if route == Route::Any || leads(connection.welcome()) {
                        return Ok(connection);
                    }
                    tried.push(not_the_leader(&connection));
                    // Others that it knows may know more; the one that it takes for the leader first.
                    waiting.extend(hub.members().for_leader());
                    let leader = hub.members().leader_elsewhere(connection.welcome());
                    waiting.extend(leader.clone());
                    waiting.rotate_right(usize::from(leader.is_some()));
                    waiting.retain(|endpoint| !started.contains(endpoint));
                    does_not_lead = Some(connection);
                }
                Some((endpoint, Err(error))) => {
                    if !hub.has_choice() && is_final(&error) {
                        return Err(error);
                    }
                    tried.push(format!("{endpoint}: {error}"));
                }
            },
            () = sleep_until(Instant::now() + patience), if !waiting.is_empty() || does_not_lead.is_some() => {
                if waiting.is_empty() {
                    break;
                }
            }
        }
    }
    match does_not_lead {
        // There is nobody else who could.
        Some(connection) if !hub.has_choice() => Ok(connection),
        Some(_) => Err(Error::NoLeader { tried }),
        None => Err(Error::Unreachable { tried }),
    }
}

/// Asks all members but `silent` who leads, and returns a connection to one that says that it does.
pub(crate) async fn successor(hub: &Hub, silent: NodeId) -> Option<Connection> {
    let others: Vec<Endpoint> = {
        let members = hub.members();
        members
            .learnt()
            .iter()
            .filter(|member| member.node != silent)
            .map(|member| member.endpoint.clone())
            .collect()
    };
    let asking: FuturesUnordered<_> = others.into_iter().map(|endpoint| open(hub, endpoint)).collect();
    let claims = asking.filter_map(|(_, opened)| {
        std::future::ready(opened.ok().filter(|connection| leads(connection.welcome())))
    });
    tokio::time::timeout(LAST_CHANCE, std::pin::pin!(claims).next()).await.ok().flatten()
}

async fn open(hub: &Hub, endpoint: Endpoint) -> (Endpoint, Result<Connection, Error>) {
    let cluster = hub.members().cluster();
    let options = hub.options();
    let habits = Habits { quiet: options.quiet, busy_poll: options.busy_poll };
    let opened = Connection::open(&endpoint, cluster, options.connect_timeout, habits).await;
    if let Ok(connection) = &opened {
        hub.learn(&endpoint, connection.welcome());
    }
    (endpoint, opened)
}

/// Whether a node that says this means every later try as well.
fn is_final(error: &Error) -> bool {
    match error {
        Error::WrongCluster { .. } | Error::Version { .. } | Error::Ended => true,
        Error::Refused(refusal) => refusal.code == Code::WrongCluster,
        _ => false,
    }
}

fn not_the_leader(connection: &Connection) -> String {
    let endpoint = connection.endpoint();
    match connection.welcome().leader {
        Some(leader) => format!("{endpoint}: does not lead, takes node {leader} for the leader"),
        None => format!("{endpoint}: knows no leader"),
    }
}
