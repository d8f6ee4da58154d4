//! Connecting, and what the client's errors mean for the exit code.
//!
//! Owns:   `--endpoints`; the road from an error of the client to words and an exit code.

use clap::Args;
use loglog_client::{Client, Error};
use loglog_proto::error::Code;

use crate::exit::{Exit, Outcome, Stop};

/// Where nodes are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Endpoints {
    /// Where to reach the nodes: host:port, several with commas between.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        env = "LOGLOG_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:19194",
        value_parser = endpoint
    )]
    endpoints: Vec<String>,
}

fn endpoint(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>())) {
        Some((false, Ok(port))) if port > 0 => Ok(text.to_owned()),
        _ => Err("expected host:port, such as 127.0.0.1:19194".to_owned()),
    }
}

impl Endpoints {
    pub(crate) fn list(&self) -> &[String] {
        &self.endpoints
    }

    /// A client that knows the nodes.
    pub(crate) async fn connect(&self) -> Outcome<Client> {
        Client::builder().endpoints(self.list().iter().cloned()).connect().await.map_err(|error| {
            let stop = stop(&error);
            match stop {
                Stop::Failure(Exit::Unavailable, message) => Stop::new(
                    Exit::Unavailable,
                    format!(
                        "no node at {}: {message} (is loglogd running? --endpoints or LOGLOG_ENDPOINTS say where to look)",
                        self.list().join(", ")
                    ),
                ),
                other => other,
            }
        })
    }
}

/// How to end after `error`.
pub(crate) fn stop(error: &Error) -> Stop {
    let exit = match error.code() {
        Some(Code::Conflict) => Exit::Conflict,
        Some(Code::BeyondEnd | Code::Trimmed) => Exit::NotFound,
        Some(Code::Damaged) => Exit::Damaged,
        _ if error.may_have_happened() => Exit::Unknown,
        _ if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Stop::new(exit, error.to_string())
}
