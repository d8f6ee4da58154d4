//! Connecting, and what the client's errors mean for the exit code.
//!
//! Owns:   `--endpoints`; the road from an error of the client to words and an exit code.

use std::time::{Duration, Instant};

use clap::Args;
use loglog_client::{AppendError, Client, ClientBuilder, Error};

use crate::exit::{Exit, Outcome, Stop};

/// How long the nodes of a cluster may take to start.
const STARTING: Duration = Duration::from_secs(10);
/// Wait between two tries to reach them.
const PAUSE: Duration = Duration::from_millis(100);

/// Where nodes are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Endpoints {
    /// Where to reach the nodes, several with commas between: host:port, or unix:/path.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        env = "LOGLOG_ENDPOINTS",
        default_value = "127.0.0.1:19194"
    )]
    endpoints: String,
}

impl Endpoints {
    /// These, with commas between, instead of those of the command line.
    pub(crate) fn of(endpoints: &str) -> Self {
        Self { endpoints: endpoints.to_owned() }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.endpoints
    }

    /// Each of them.
    pub(crate) fn list(&self) -> impl Iterator<Item = &str> {
        self.endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty())
    }

    /// The same for a command that has time: where several nodes are named and none is there, they may be starting just now.
    pub(crate) async fn connect_within(&self, patience: Duration) -> Outcome<Client> {
        let patience = if self.endpoints.contains(',') { patience.min(STARTING) } else { Duration::ZERO };
        let began = Instant::now();
        loop {
            match self.connect().await {
                Err(Stop::Failure(Exit::Unavailable, _)) if began.elapsed() < patience => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// A client that knows the nodes.
    pub(crate) async fn connect(&self) -> Outcome<Client> {
        self.connect_as(|builder| builder).await
    }

    /// The same, with options of its own.
    pub(crate) async fn connect_as(
        &self,
        with: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Outcome<Client> {
        // The reading goes on, or ends with an error of its own: this says which node somebody should look after.
        let builder = Client::builder().on_damage(|damage| eprintln!("loglog: {damage}"));
        let client = with(builder.endpoints(&self.endpoints)).connect().await;
        client.map_err(|error| match stop(&error) {
            Stop::Failure(Exit::Unavailable, message) => Stop::new(
                Exit::Unavailable,
                format!(
                    "{message} (start one with `loglogd`; --endpoints or LOGLOG_ENDPOINTS say where to look)"
                ),
            ),
            other => other,
        })
    }
}

/// How to end after `error`.
pub(crate) fn stop(error: &Error) -> Stop {
    let exit = match error {
        Error::Trimmed { .. } | Error::BeyondEnd { .. } | Error::NotAnEntry { .. } => Exit::NotFound,
        Error::Damaged { .. } => Exit::Damaged,
        Error::NoEndpoint | Error::Endpoint { .. } => Exit::Usage,
        _ if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Stop::new(exit, error.to_string())
}

/// How to end after a change to the log's members, leader or start that failed. Each may be asked for twice, so "try again" is always right.
pub(crate) fn stop_change(error: &Error) -> Stop {
    let is_open = match error {
        Error::Lost { .. } | Error::TimedOut { .. } => true,
        Error::Refused(refusal) => refusal.code.may_have_happened(),
        _ => false,
    };
    match stop(error) {
        Stop::Failure(exit, message) if is_open => Stop::new(
            exit,
            format!("{message} (it may have been done all the same: `loglog members list` tells)"),
        ),
        stop => stop,
    }
}

/// How to end after an append that failed.
pub(crate) fn stop_append(error: &AppendError) -> Stop {
    let exit = match error {
        AppendError::Conflict { .. } => Exit::Conflict,
        _ if error.may_have_happened() => Exit::Unknown,
        _ if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Stop::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use loglog_proto::error::{Code, Refusal};
    use loglog_proto::{Offset, Sequence, WriterId};

    use super::*;

    fn exit(stop: Stop) -> Exit {
        match stop {
            Stop::Failure(exit, _) => exit,
            Stop::Unread => panic!("a failure"),
        }
    }

    fn refused(code: Code, may_have_happened: bool) -> AppendError {
        let (writer, sequence) = (WriterId::new(1), Sequence::new(1));
        AppendError::Refused { refusal: Refusal::new(code, "no"), may_have_happened, writer, sequence }
    }

    #[test]
    fn a_conflict_is_not_an_unknown_outcome() {
        let conflict = AppendError::Conflict { expected: Offset::new(1), end: Offset::new(2) };
        assert_eq!(exit(stop_append(&conflict)), Exit::Conflict);
        assert_eq!(exit(stop_append(&refused(Code::Interrupted, true))), Exit::Unknown);
        assert_eq!(exit(stop_append(&refused(Code::DiskFull, false))), Exit::Unavailable);
        assert_eq!(exit(stop_append(&refused(Code::TooLarge, false))), Exit::Failed);
    }

    #[test]
    fn a_change_that_may_have_been_made_is_told_as_such() {
        let words = |stop| match stop {
            Stop::Failure(exit, message) => (exit, message.contains("may have been done")),
            Stop::Unread => panic!("a failure"),
        };
        let refused = |code| Error::Refused(Refusal::new(code, "no"));
        assert_eq!(words(stop_change(&refused(Code::Forbidden))), (Exit::Failed, false));
        assert_eq!(words(stop_change(&refused(Code::Unavailable))), (Exit::Unavailable, false));
        assert_eq!(words(stop_change(&refused(Code::Interrupted))), (Exit::Unavailable, true));
        let late = Error::TimedOut { after: Duration::from_secs(1), last: None };
        assert_eq!(words(stop_change(&late)), (Exit::Unavailable, true));
    }

    #[test]
    fn an_offset_that_is_not_there_is_no_failure_of_the_node() {
        let (offset, end) = (Offset::new(9), Offset::new(3));
        assert_eq!(exit(stop(&Error::BeyondEnd { offset, end })), Exit::NotFound);
        assert_eq!(exit(stop(&Error::Trimmed { offset: end, start: offset })), Exit::NotFound);
        let late = Error::TimedOut { after: Duration::from_secs(1), last: None };
        assert_eq!(exit(stop(&late)), Exit::Unavailable);
        assert_eq!(exit(stop(&Error::Refused(Refusal::new(Code::Forbidden, "no")))), Exit::Failed);
    }
}
