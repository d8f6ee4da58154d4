//! Ask: requests that may be made twice.
//!
//! Owns:   when to try again, and at which node.
//! Keeps:  a node that is slow, or refuses what another may grant, is left for another; what stands is told at once.
//! Never:  appends: the pipelines do.

use std::time::Duration;

use loglog_proto::error::{Code, Detail};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backoff;
use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::hub::{Hub, Route};

/// An answer and who gave it.
pub(crate) struct Answer {
    connection: Connection,
    pub(crate) body: ResponseBody,
}

impl Answer {
    /// Over which it came.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The error of an answer of another kind than asked for.
    pub(crate) fn unexpected(&self) -> Error {
        self.connection.unexpected()
    }
}

impl Client {
    /// Asks what may be asked twice, again and again until there is an answer, a refusal that stands, or no time left: that of a
    /// request and `wait`.
    pub(crate) async fn ask(&self, route: Route, body: RequestBody, wait: Duration) -> Result<Answer, Error> {
        self.hub().runtime().within(self.ask_here(route, body, wait)).await
    }

    async fn ask_here(&self, route: Route, body: RequestBody, wait: Duration) -> Result<Answer, Error> {
        let hub = self.hub();
        let after = hub.options().request_timeout + wait;
        let deadline = Instant::now() + after;
        let mut last = None;
        for failures in 0.. {
            let patience = if hub.has_choice() { hub.options().request_timeout / 4 + wait } else { after };
            let mut asked = None;
            let attempt = async {
                let connection = hub.connection(route).await?;
                hub.refresh(&connection);
                asked = Some(connection.clone());
                match timeout(patience, connection.ask(body.clone())).await {
                    Ok(Ok(ResponseBody::Refused(refusal))) => Err(Error::Refused(refusal)),
                    Ok(answer) => Ok(Answer { body: answer?, connection }),
                    Err(_) => Err(Error::TimedOut { after: patience, last: None }),
                }
            };
            let error = match timeout_at(deadline, attempt).await {
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(answer) => return answer,
                Err(_) => break,
            };
            if let Some(connection) = asked {
                go_elsewhere(hub, route, &connection, &error);
            }
            last = Some(error);
            let pause = backoff::seek(failures, &mut rand::rng());
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
        }
        match last {
            // What the node said is more use than that the time is over.
            Some(error @ Error::Refused(_)) => Err(error),
            last => Err(Error::TimedOut { after, last: last.map(|error| error.to_string()) }),
        }
    }
}

fn go_elsewhere(hub: &Hub, route: Route, connection: &Connection, error: &Error) {
    let leader = match error {
        Error::Refused(refusal) if refusal.code == Code::NotLeader => match &refusal.detail {
            Detail::Text(leader) => Some(leader.as_str()),
            _ => None,
        },
        // It was asked too much, not the wrong question.
        Error::Refused(refusal) if route == Route::Leader && refusal.code == Code::Busy => return,
        _ => None,
    };
    match route {
        Route::Any => hub.pass_over(connection),
        Route::Leader if leader.is_some() || hub.has_choice() => hub.leave(connection, leader),
        Route::Leader => {}
    }
}
