//! Enrolling: takes a node in as a learner, waits until it has caught up, and gives it its vote.
//!
//! ```text
//!     not a member, or to be replaced ─► learner ─► caught up ─► voter
//! ```
//!
//! Keeps:  where it begins and what it does next follows from what the leader says alone, so that it goes on from wherever an earlier run
//!         was interrupted.
//! Never:  undoes a step: a learner harms nobody.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use loglog_client::{Change, Client, Error, Managed, MemberStatus, NewMember, NodeId};
use tokio::time::{Instant, sleep, timeout_at};

use super::{How, Until, ask, lag, show, tell};
use crate::connect::{stop, stop_change};
use crate::exit::{Exit, Outcome, Stop};

/// How often the leader is asked how far the new member is.
const EVERY: Duration = Duration::from_millis(500);
/// Where nobody watches, this often a line says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// With no more batches to come a vote is asked for: under load there are always some on their way. The leader has the last word.
const LAG_MAX: u64 = 256;

/// Where an enrolment begins.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// The change must be made.
    Change,
    /// It was made before.
    Learner,
    /// Nothing is to be done.
    Voter,
}

/// How the new member is.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Somebody let it go.
    Gone,
    /// It has the log but for the last of it.
    CaughtUp,
    /// It has not, and how far it is.
    Behind(String),
    /// It has its vote.
    Voter,
}

/// Makes `what`, which is about `new`, and all that follows from it.
pub(super) async fn run(client: &Client, what: Change, new: &NewMember, until: &Until, how: &How) -> Outcome {
    if how.dry_run {
        return super::change(client, what, how).await;
    }
    let node = new.node;
    let members = client.members().await.map_err(|error| stop(&error))?;
    let managed = match begin(&members, &what, new)? {
        Begin::Voter => {
            eprintln!("loglog: node {node} is a voter already");
            return show(&members, how.json);
        }
        Begin::Learner => {
            eprintln!("loglog: node {node} is a learner already: going on from there");
            members
        }
        Begin::Change => {
            let managed = ask(client, what, false).await?;
            tell(&managed, how);
            managed
        }
    };
    if until.learner || standing(&managed, node) == Standing::Voter {
        return show(&managed, how.json);
    }
    let managed = tokio::select! {
        promoted = promote(client, node, until.timeout) => promoted?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Stop::failed(format!("interrupted: node {node} is a member without a vote yet; {}", go_on(node))));
        }
    };
    tell(&managed, how);
    show(&managed, how.json)
}

/// Waits until `node` has caught up, and has it promoted.
async fn promote(client: &Client, node: NodeId, timeout: Duration) -> Outcome<Managed> {
    let deadline = Instant::now() + timeout;
    let (mut progress, mut last) = (Progress::new(node), "nothing is known of it".to_owned());
    loop {
        let step = async {
            let members = client.members().await?;
            match standing(&members, node) {
                Standing::Voter => Ok(Step::Done(members)),
                Standing::Gone => Ok(Step::Gone),
                Standing::Behind(text) => Ok(Step::Wait(text)),
                Standing::CaughtUp => client.promote(node).await.map(Step::Done),
            }
        };
        match timeout_at(deadline, step).await {
            Ok(Ok(Step::Done(managed))) => return Ok(managed),
            Ok(Ok(Step::Gone)) => {
                return Err(Stop::failed(format!("node {node} is no member any more: somebody removed it")));
            }
            Ok(Ok(Step::Wait(text))) => last = text,
            // Elections, other changes, a learner that falls behind again: all of that passes.
            Ok(Err(error)) if error.is_retryable() => last = brief(&error),
            Ok(Err(error)) => {
                return Err(stop_change(&error).after(&format!("node {node} stays a learner: ")));
            }
            Err(_) => return Err(too_late(node, timeout, &last)),
        }
        progress.show(&last);
        if Instant::now() + EVERY > deadline {
            return Err(too_late(node, timeout, &last));
        }
        sleep(EVERY).await;
    }
}

/// What one look at the members led to.
enum Step {
    Done(Managed),
    Gone,
    Wait(String),
}

/// Where to begin, as things stand.
fn begin(members: &Managed, what: &Change, new: &NewMember) -> Outcome<Begin> {
    let node = new.node;
    let known = find(members, node);
    let is_there = |member: &MemberStatus| {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        same(&new.peer, &member.peer) && same(&new.client, &member.client)
    };
    match (what, known) {
        (Change::Replace(_), None) => Err(Stop::failed(format!(
            "node {node} is no member: `loglog members add {node} --peer … --client …` takes it in"
        ))),
        // One that was replaced before, and lives. One that does not may have been wiped once more.
        (Change::Replace(_), Some(member)) => {
            let goes_on = member.role == LEARNER && member.active != Some(false) && is_there(member);
            Ok(if goes_on { Begin::Learner } else { Begin::Change })
        }
        (_, None) => Ok(Begin::Change),
        (_, Some(member)) if !is_there(member) => Err(Stop::failed(format!(
            "node {node} is a member already, with peer {} and client {}: `loglog members replace {node}` moves it",
            member.peer, member.client
        ))),
        (_, Some(member)) => Ok(if member.role == LEARNER { Begin::Learner } else { Begin::Voter }),
    }
}

/// How `node` is, as the leader says.
fn standing(members: &Managed, node: NodeId) -> Standing {
    let Some(member) = find(members, node) else { return Standing::Gone };
    if member.role != LEARNER {
        return Standing::Voter;
    }
    match (member.active, member.lag) {
        (Some(false), _) => Standing::Behind("not heard from: is it running?".to_owned()),
        (Some(true), Some(lag)) if lag <= LAG_MAX && member.is_copying != Some(true) => Standing::CaughtUp,
        (_, None) => Standing::Behind("no leader says how far it is".to_owned()),
        _ if member.is_copying == Some(true) => Standing::Behind("copying the log".to_owned()),
        _ => Standing::Behind(format!("{} batches behind", lag(member))),
    }
}

const LEARNER: &str = "learner";

fn find(members: &Managed, node: NodeId) -> Option<&MemberStatus> {
    members.members.iter().find(|member| member.node == node.get())
}

fn go_on(node: NodeId) -> String {
    format!("the same command again, or `loglog members promote {node}`, goes on")
}

fn too_late(node: NodeId, timeout: Duration, last: &str) -> Stop {
    let timeout = loglog::units::format_duration(timeout);
    let message = format!("node {node} is a learner still after {timeout} ({last}); {}", go_on(node));
    Stop::new(Exit::Unavailable, message)
}

/// What is in the way, in a few words where the client's are many.
fn brief(error: &Error) -> String {
    match error {
        Error::Refused(refusal) => refusal.message.clone(),
        error => error.to_string(),
    }
}

/// How far it is, on standard error: one line that changes for people, a line now and then for logs.
struct Progress {
    node: NodeId,
    bar: Option<ProgressBar>,
    told: Option<Instant>,
}

impl Progress {
    fn new(node: NodeId) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(200));
            // A template that does not parse would be our mistake, and no reason not to wait.
            match ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { node, bar, told: None }
    }

    fn show(&mut self, how_far: &str) {
        let text = format!("waiting for node {}: {how_far}", self.node);
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) => {
                eprintln!("loglog: {text}");
                self.told = Some(Instant::now());
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u32) -> NodeId {
        NodeId::new(node).unwrap()
    }

    fn member(node: u32, role: &str) -> MemberStatus {
        MemberStatus {
            node,
            role: role.into(),
            peer: format!("h{node}:2"),
            client: format!("h{node}:1"),
            active: Some(true),
            lag: Some(0),
            is_copying: Some(false),
            ..MemberStatus::default()
        }
    }

    fn members(fourth: Option<MemberStatus>) -> Managed {
        let three = (1..=3).map(|node| member(node, "voter"));
        Managed { members: three.chain(fourth).collect(), ..Managed::default() }
    }

    fn new(peer: Option<&str>) -> NewMember {
        NewMember { node: id(4), peer: peer.map(str::to_owned), client: None }
    }

    fn failure<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
        match outcome.unwrap_err() {
            Stop::Failure(Exit::Failed, message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn adding_goes_on_where_it_stands() {
        let add = |fourth, peer| begin(&members(fourth), &Change::Add(new(peer)), &new(peer));
        assert_eq!(add(None, Some("h4:2")).unwrap(), Begin::Change);
        assert_eq!(add(Some(member(4, "learner")), Some("h4:2")).unwrap(), Begin::Learner);
        assert_eq!(add(Some(member(4, "voter")), Some("h4:2")).unwrap(), Begin::Voter);
        let said = failure(add(Some(member(4, "voter")), Some("elsewhere:2")));
        assert!(said.contains("with peer h4:2") && said.contains("members replace 4"), "{said}");
    }

    #[test]
    fn replacing_goes_on_with_a_successor_that_lives_and_replaces_one_that_does_not() {
        let replace = |fourth, peer| begin(&members(fourth), &Change::Replace(new(peer)), &new(peer));
        assert!(failure(replace(None, None)).contains("members add 4"));
        assert_eq!(replace(Some(member(4, "voter")), None).unwrap(), Begin::Change);
        assert_eq!(replace(Some(member(4, "learner")), None).unwrap(), Begin::Learner);
        assert_eq!(replace(Some(member(4, "learner")), Some("h4:2")).unwrap(), Begin::Learner);
        assert_eq!(replace(Some(member(4, "learner")), Some("elsewhere:2")).unwrap(), Begin::Change);
        let dead = MemberStatus { active: Some(false), ..member(4, "learner") };
        assert_eq!(replace(Some(dead), None).unwrap(), Begin::Change);
    }

    #[test]
    fn a_vote_is_asked_for_once_the_learner_has_caught_up() {
        let learner = member(4, "learner");
        let of = |fourth: MemberStatus| standing(&members(Some(fourth)), id(4));
        assert_eq!(standing(&members(None), id(4)), Standing::Gone);
        assert_eq!(of(member(4, "voter")), Standing::Voter);
        assert_eq!(of(learner.clone()), Standing::CaughtUp);
        assert_eq!(of(MemberStatus { lag: Some(LAG_MAX), ..learner.clone() }), Standing::CaughtUp);
        for (behind, text) in [
            (MemberStatus { lag: Some(12_345), ..learner.clone() }, "12,345 batches behind"),
            (MemberStatus { is_copying: Some(true), ..learner.clone() }, "copying"),
            (MemberStatus { active: Some(false), ..learner.clone() }, "is it running"),
            (MemberStatus { active: None, lag: None, ..learner.clone() }, "no leader"),
        ] {
            let Standing::Behind(said) = of(behind) else { panic!("{text}") };
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn who_gives_up_says_how_to_go_on() {
        let Stop::Failure(Exit::Unavailable, said) = too_late(id(4), Duration::from_secs(1800), "copying")
        else {
            panic!()
        };
        assert!(said.contains("after 30 min (copying)") && said.contains("members promote 4"), "{said}");
    }
}
