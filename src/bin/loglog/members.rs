//! `loglog members`: who keeps the log, and changes of that.
//!
//! Owns:   the forms in which members are printed, and how people write a node and its addresses.
//! Never:  judges a change: the leader does, and its words are passed on.

mod enrol;

use std::time::Duration;

use clap::Subcommand;
use loglog_client::{Change, Client, Managed, MemberStatus, NewMember, NodeId};

use crate::connect::{Endpoints, stop, stop_change};
use crate::exit::Outcome;
use crate::output::Output;
use crate::table::{grouped, table};

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Members {
    /// Print who keeps the log, and how far each is.
    List(List),
    /// Take in a new node: as a learner first, and with a vote once it has caught up.
    ///
    /// It must be running, in an empty directory and where the others reach it: `loglogd --set cluster.id=… --set cluster.join=true --set
    /// node.id=ID --set data.dir=… --set listen.client=… --set listen.peer=…` (configs/join/4.toml is an example). Run again after an
    /// interruption, this goes on where it stands.
    Add(Add),
    /// Give a learner that has caught up its vote.
    Promote(One),
    /// Let a member go. A leader hands over first; the last voter cannot go.
    Remove(One),
    /// Let a member go whose disk is lost or wiped, and take in its successor under the same id.
    ///
    /// The successor must be running, in an empty directory, with cluster.join. Without --peer and --client it is where its predecessor was.
    /// Run again after an interruption, this goes on where it stands.
    Replace(Replace),
}

/// Arguments of `list`.
#[derive(clap::Args)]
pub(crate) struct List {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// How a change is made and told.
#[derive(clap::Args)]
pub(crate) struct How {
    /// Make every check and say what would be, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print the outcome as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `promote` and `remove`.
#[derive(clap::Args)]
pub(crate) struct One {
    /// The member's node id.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,

    #[command(flatten)]
    how: How,
}

/// Arguments of `add`.
#[derive(clap::Args)]
pub(crate) struct Add {
    /// The new node's id, as in its node.id.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,

    /// Where the other nodes reach it.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    peer: String,

    /// Where clients reach it.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    client: String,

    #[command(flatten)]
    until: Until,

    #[command(flatten)]
    how: How,
}

/// Arguments of `replace`.
#[derive(clap::Args)]
pub(crate) struct Replace {
    /// The member's node id, which its successor has too.
    #[arg(value_name = "ID", value_parser = node_id)]
    node: NodeId,

    /// Where the other nodes reach the successor, if elsewhere.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    peer: Option<String>,

    /// Where clients reach the successor, if elsewhere.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    client: Option<String>,

    #[command(flatten)]
    until: Until,

    #[command(flatten)]
    how: How,
}

/// How far to go with a new member.
#[derive(clap::Args)]
pub(crate) struct Until {
    /// Leave it a learner: `loglog members promote` gives it its vote later.
    #[arg(long)]
    learner: bool,

    /// How long it may take to catch up. Nothing is undone after that: run the same again, or `loglog members promote`.
    #[arg(long, value_name = "TIME", default_value = "30 min", value_parser = loglog::units::parse_duration)]
    timeout: Duration,
}

pub(crate) async fn run(what: Members, at: &Endpoints) -> Outcome {
    let client = at.connect().await?;
    match what {
        Members::List(args) => {
            let managed = client.members().await.map_err(|error| stop(&error))?;
            show(&managed, args.json)
        }
        Members::Promote(args) => change(&client, Change::Promote(args.node), &args.how).await,
        Members::Remove(args) => change(&client, Change::Remove(args.node), &args.how).await,
        Members::Add(args) => {
            let new = NewMember { node: args.node, peer: Some(args.peer), client: Some(args.client) };
            enrol::run(&client, Change::Add(new.clone()), &new, &args.until, &args.how).await
        }
        Members::Replace(args) => {
            let new = NewMember { node: args.node, peer: args.peer, client: args.client };
            enrol::run(&client, Change::Replace(new.clone()), &new, &args.until, &args.how).await
        }
    }
}

/// Makes one change and tells what came of it.
async fn change(client: &Client, what: Change, how: &How) -> Outcome {
    let managed = ask(client, what, how.dry_run).await?;
    tell(&managed, how);
    show(&managed, how.json)
}

/// Asks the leader.
pub(crate) async fn ask(client: &Client, what: Change, dry_run: bool) -> Outcome<Managed> {
    let answer = if dry_run { client.dry_run(what).await } else { client.manage(what).await };
    answer.map_err(|error| stop_change(&error))
}

/// What the leader says of it, for people.
pub(crate) fn tell(managed: &Managed, how: &How) {
    let would = if how.dry_run { "dry run: " } else { "" };
    if !managed.message.is_empty() {
        eprintln!("loglog: {would}{}", managed.message);
    }
}

/// The members, on standard output.
pub(crate) fn show(managed: &Managed, json: bool) -> Outcome {
    let mut output = Output::new();
    if json {
        output.json(managed)?;
    } else {
        output.bytes(for_people(&managed.members).as_bytes())?;
    }
    output.flush()
}

fn for_people(members: &[MemberStatus]) -> String {
    let heading = ["node", "role", "leads", "incarnation", "peer", "client", "lag", "active"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for member in members {
        rows.push(vec![
            member.node.to_string(),
            member.role.clone(),
            if member.leads { "leads" } else { "-" }.to_owned(),
            member.incarnation.clone(),
            member.peer.clone(),
            member.client.clone(),
            lag(member),
            match member.active {
                Some(true) => "yes",
                Some(false) => "no",
                None => "?",
            }
            .to_owned(),
        ]);
    }
    table(&rows)
}

/// How far a member is behind, in batches of the log.
fn lag(member: &MemberStatus) -> String {
    match (member.is_copying, member.lag) {
        (Some(true), _) => "copying".to_owned(),
        (_, Some(lag)) => grouped(lag),
        // Only the leader knows.
        (_, None) => "?".to_owned(),
    }
}

/// A node's id as people write it.
pub(crate) fn node_id(text: &str) -> Result<NodeId, String> {
    text.parse().ok().and_then(NodeId::new).ok_or_else(|| "a node id is a whole number from 1".to_owned())
}

/// An address as people write it. It is passed on as it is: others than us must be able to reach it.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if !host.is_empty() && port > 0 => Ok(text.to_owned()),
        _ => Err("write host:port, such as 10.0.0.4:19195".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_a_table() {
        let leader = MemberStatus {
            node: 1,
            incarnation: "0000000b".into(),
            role: "voter".into(),
            leads: true,
            peer: "h:2".into(),
            client: "h:1".into(),
            active: Some(true),
            lag: Some(0),
            ..MemberStatus::default()
        };
        let learner = MemberStatus { node: 4, role: "learner".into(), leads: false, ..leader.clone() };
        let behind = MemberStatus { active: Some(false), lag: Some(12_345), ..learner.clone() };
        let copying = MemberStatus { is_copying: Some(true), ..behind.clone() };
        let unknown = MemberStatus { active: None, lag: None, ..learner };
        let text = for_people(&[leader, behind, copying, unknown]);
        assert_eq!(
            text,
            "node  role     leads  incarnation  peer  client  lag      active\n\
             \x20  1  voter    leads     0000000b  h:2   h:1           0  yes\n\
             \x20  4  learner  -         0000000b  h:2   h:1      12,345  no\n\
             \x20  4  learner  -         0000000b  h:2   h:1     copying  no\n\
             \x20  4  learner  -         0000000b  h:2   h:1     ?        ?\n"
        );
    }

    #[test]
    fn ids_and_addresses_are_checked_before_anything_is_asked() {
        assert_eq!(node_id("4"), Ok(NodeId::new(4).unwrap()));
        for bad in ["0", "-1", "x", "", "4294967296"] {
            assert!(node_id(bad).is_err(), "{bad}");
        }
        assert_eq!(address("[::1]:19195"), Ok("[::1]:19195".to_owned()));
        for bad in ["host", ":1", "host:0", "host:x", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
