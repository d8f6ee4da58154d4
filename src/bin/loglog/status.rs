//! `loglog status`: how a node is, its actors included; of a cluster, how each node is.

use loglog::units::about_bytes;
use std::time::Duration;

use loglog_client::Client;
use loglog_proto::response::{ActorStatus, MemberAddress, Status};

use crate::connect::{Endpoints, stop};
use crate::exit::Outcome;
use crate::output::Output;
use crate::table::{facts, grouped, table};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,

    /// Of a cluster, only the node that answers, its actors included.
    #[arg(long)]
    node: bool,
}

/// A node that does not answer within this time is told as such.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: Args, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    let members = client.welcome().await.map_err(|error| stop(&error))?.members;
    let mut output = Output::new();
    if members.len() > 1 && !args.node {
        let statuses = every(&members).await;
        if args.json {
            output.json(&statuses)?;
        } else {
            output.bytes(cluster(&members, &statuses).as_bytes())?;
        }
        return output.flush();
    }
    let status = client.status().await.map_err(|error| stop(&error))?;
    if args.json {
        output.json(&status)?;
    } else {
        output.bytes(for_people(&status).as_bytes())?;
    }
    output.flush()
}

/// How each member is, asked on its own address; `None` for one that does not answer.
async fn every(members: &[MemberAddress]) -> Vec<Option<Status>> {
    let ask = |address: String| async move {
        let builder = Client::builder().endpoints(address.as_str());
        let builder = builder.connect_timeout(PATIENCE).request_timeout(PATIENCE);
        let answer = async { builder.connect().await.ok()?.status().await.ok() };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    };
    futures_util::future::join_all(members.iter().map(|member| ask(member.address.clone()))).await
}

/// The cluster as a table, a node a line.
fn cluster(members: &[MemberAddress], statuses: &[Option<Status>]) -> String {
    let end = statuses.iter().flatten().map(|status| status.committed).max().unwrap_or(0);
    let heading = [
        "node",
        "address",
        "role",
        "term",
        "committed",
        "durable",
        "lag",
        "start",
        "leader",
        "restarts",
        "up",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (member, status) in members.iter().zip(statuses) {
        let (node, address) = (member.node.to_string(), member.address.clone());
        rows.push(match status {
            // Another node than the one meant answers where addresses are mixed up.
            Some(status) if status.node == member.node.get() => vec![
                node,
                address,
                status.role.clone(),
                status.term.to_string(),
                status.committed.to_string(),
                status.durable.to_string(),
                about_bytes(end.saturating_sub(status.committed)),
                status.start.to_string(),
                status.leader.map_or("none known".to_owned(), |leader| leader.to_string()),
                status.restarts.to_string(),
                uptime(status.uptime_s),
            ],
            _ => vec![node, address, "no answer".to_owned()],
        });
    }
    table(&rows)
}

fn for_people(status: &Status) -> String {
    let leader = match status.leader {
        Some(leader) if leader == status.node => "this node".to_owned(),
        Some(leader) => format!("node {leader}"),
        None => "none known".to_owned(),
    };
    let disk = if status.disk_full { ": full, appends are refused" } else { "" };
    let mut rows = vec![
        ("cluster", status.cluster.clone()),
        ("node", format!("{} ({}, term {})", status.node, status.role, status.term)),
        ("leader", leader),
        (
            "log",
            format!(
                "{} to {}, {} in {} segments",
                status.start,
                status.committed,
                about_bytes(status.committed.saturating_sub(status.start)),
                status.segments
            ),
        ),
        ("durable here", status.durable.to_string()),
        ("disk", format!("{} free{disk}", about_bytes(status.disk_free))),
        ("data", status.data_dir.clone()),
        (
            "clients",
            format!(
                "{} connections, {} waiting reads, {} uploaded",
                grouped(status.connections),
                grouped(status.waiting_reads),
                about_bytes(status.upload_bytes)
            ),
        ),
        (
            "peers",
            format!(
                "{} sent, {} fetched in {} batches",
                about_bytes(status.peer_payload_bytes),
                about_bytes(status.fetched_bytes),
                grouped(status.fetches)
            ),
        ),
        ("up", format!("{}, version {}", uptime(status.uptime_s), status.version)),
        (
            "recoveries",
            format!(
                "{}, {} torn bytes cut, {} restarts",
                status.generation, status.torn_bytes, status.restarts
            ),
        ),
    ];
    // One recovery is every start; more of anything deserves a look.
    if status.generation <= 1 && status.torn_bytes == 0 && status.restarts == 0 {
        rows.pop();
    }
    // Zero is the news of a node that has peers, and none of one that is alone.
    if !status.actors.iter().any(|actor| actor.kind == "PeerListener") {
        rows.retain(|(name, _)| *name != "peers");
    }
    format!("{}\n{}", facts(&rows), actors(&status.actors))
}

fn actors(actors: &[ActorStatus]) -> String {
    let heading = ["actor", "state", "mailbox", "handled", "restarts", "last panic"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for actor in actors {
        rows.push(vec![
            actor.name.clone(),
            actor.state.clone(),
            grouped(actor.mailbox),
            grouped(actor.handled),
            grouped(actor.restarts),
            // A panic's text may have several lines.
            actor.last_panic.as_deref().unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    table(&rows)
}

pub(crate) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_legible() {
        let actor = ActorStatus {
            name: "consensus".into(),
            state: "running".into(),
            handled: 12_345,
            restarts: 1,
            last_panic: Some("broken\npromise".into()),
            ..ActorStatus::default()
        };
        let status = Status {
            cluster: "00000000000000ab".into(),
            node: 1,
            role: "leader".into(),
            term: 3,
            leader: Some(1),
            start: 0,
            committed: 3 << 20,
            segments: 2,
            generation: 2,
            uptime_s: 3700,
            peer_payload_bytes: 5 << 20,
            fetches: 1200,
            actors: vec![actor, ActorStatus { kind: "PeerListener".into(), ..ActorStatus::default() }],
            ..Status::default()
        };
        let text = for_people(&status);
        for part in [
            "node          1 (leader, term 3)\n",
            "leader        this node\n",
            "0 to 3145728, 3.00 MiB in 2 segments\n",
            "1 h 1 min",
            "peers         5.00 MiB sent, 0 B fetched in 1,200 batches\n",
            "recoveries    2, 0 torn bytes cut, 0 restarts\n",
            "actor      state    mailbox  handled  restarts  last panic\n",
            "consensus  running        0   12,345         1  broken\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let alone = for_people(&Status::default());
        assert!(!alone.contains("recoveries") && !alone.contains("peers"), "{alone}");
    }

    #[test]
    fn times_up_are_rounded_down() {
        for (seconds, text) in [(59, "59 s"), (60, "1 min"), (86_399, "23 h 59 min"), (90_000, "1 d 1 h")] {
            assert_eq!(uptime(seconds), text);
        }
    }
}
