//! `loglog leader`: moves the lead.

use std::time::Duration;

use clap::Subcommand;
use loglog_client::{Change, Client, Managed, NodeId};
use tokio::time::{Instant, sleep};

use crate::connect::{Endpoints, stop, stop_change};
use crate::exit::{Exit, Outcome, Stop};
use crate::members::{How, ask, node_id, show, tell};
use crate::output::Output;

/// How often to look who leads.
const EVERY: Duration = Duration::from_millis(100);
/// A leader gives a transfer up after an election timeout; then it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Leader {
    /// Have a voter lead, and wait until it does.
    Move(Move),
}

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Move {
    /// The voter's node id.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,

    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "30 s", value_parser = loglog::units::parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    how: How,
}

pub(crate) async fn run(what: Leader, at: &Endpoints) -> Outcome {
    let Leader::Move(args) = what;
    let client = at.connect().await?;
    if args.how.dry_run {
        let managed = ask(&client, Change::Lead(args.node), true).await?;
        tell(&managed, &args.how);
        return show(&managed, args.how.json);
    }
    let managed = lead(&client, args.node, args.timeout).await?;
    if args.how.json {
        return show(&managed, true);
    }
    let mut output = Output::new();
    output.line(format_args!("node {} leads", args.node))?;
    output.flush()
}

/// Asks until `node` leads.
async fn lead(client: &Client, node: NodeId, timeout: Duration) -> Outcome<Managed> {
    let deadline = Instant::now() + timeout;
    let mut asked: Option<Instant> = None;
    let mut last = "the transfer came to nothing".to_owned();
    loop {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            match client.move_leader(node).await {
                Ok(_) => {}
                Err(error) if error.is_retryable() => last = error.to_string(),
                Err(error) => return Err(stop_change(&error)),
            }
            asked = Some(Instant::now());
        }
        match client.members().await {
            Ok(managed) if leads(&managed, node) => return Ok(managed),
            // Between two leaders.
            Ok(_) => {}
            Err(error) if error.is_retryable() => last = error.to_string(),
            Err(error) => return Err(stop(&error)),
        }
        if Instant::now() + EVERY > deadline {
            let timeout = loglog::units::format_duration(timeout);
            let message = format!("node {node} does not lead after {timeout} ({last}): try again");
            return Err(Stop::new(Exit::Unavailable, message));
        }
        sleep(EVERY).await;
    }
}

/// Whether `node` leads by the word of a leader: any other may be wrong about it.
fn leads(managed: &Managed, node: NodeId) -> bool {
    managed.members.iter().any(|member| member.node == node.get() && member.leads && member.active.is_some())
}

#[cfg(test)]
mod tests {
    use loglog_client::MemberStatus;

    use super::*;

    #[test]
    fn only_a_leader_says_who_leads() {
        let node = |node| NodeId::new(node).unwrap();
        let member = |node, leads, active| MemberStatus { node, leads, active, ..MemberStatus::default() };
        let said = |active| Managed {
            members: vec![member(1, false, active), member(2, true, active)],
            ..Managed::default()
        };
        assert!(leads(&said(Some(true)), node(2)));
        assert!(!leads(&said(Some(true)), node(1)));
        assert!(!leads(&said(None), node(2)));
    }
}
