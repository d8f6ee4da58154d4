//! Manage: trims the log, changes its members, moves the lead.
//!
//! Owns:   which node each question goes to.
//! Keeps:  a change is asked for again until it is done, refused for good, or the time is over: asked for twice it is done once.
//! Never:  decides what is safe: the leader does.

use std::time::Duration;

use loglog_proto::manage::{Change, Manage, Managed, NewMember};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use loglog_proto::{NodeId, Offset};

use crate::ask::Answer;
use crate::client::Client;
use crate::error::Error;
use crate::hub::Route;

/// So much longer may a change take for which the leader asks another node first.
const NEWCOMER: Duration = Duration::from_secs(5);

impl Client {
    /// Carries out `change` at the leader. What is already so is answered as if it had just been done.
    ///
    /// # Errors
    /// [`Error::Refused`] where the leader says that it is not to be done. Any other error, and those refusals that can be retried, leave
    /// open whether it was done or will be: ask for it again, or for [`Client::members`].
    pub async fn manage(&self, change: Change) -> Result<Managed, Error> {
        self.ask_leader(change, false).await
    }

    /// What [`Client::manage`] would answer. Nothing changes.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn dry_run(&self, change: Change) -> Result<Managed, Error> {
        self.ask_leader(change, true).await
    }

    /// Who keeps the log. The leader tells how far each member is as well; where none leads, any node tells what it knows.
    ///
    /// # Errors
    /// [`Error`] where no node answers.
    pub async fn members(&self) -> Result<Managed, Error> {
        let hub = self.hub();
        // The first who is held for the leader may not lead any more, and then answers as any node does.
        for _ in 0..2 {
            if hub.runtime().within(hub.connection(Route::Leader)).await.is_err() {
                break;
            }
            let Ok(answer) = self.ask(Route::Leader, list(), Duration::ZERO).await else { break };
            let from = answer.connection().clone();
            let managed = managed(answer)?;
            if managed.members.iter().any(|member| member.active.is_some()) {
                return Ok(managed);
            }
            let leads = managed.members.iter().find(|member| member.leads);
            hub.leave(&from, leads.map(|member| member.client.as_str()));
        }
        managed(self.ask(Route::Any, list(), Duration::ZERO).await?)
    }

    /// Drops what lies before `before`, rounded down to where a segment begins: the answer's `start` is where the log starts then.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn trim(&self, before: Offset) -> Result<Managed, Error> {
        self.manage(Change::Trim(before)).await
    }

    /// Takes in a node as a learner. It must be running, in an empty directory, with `cluster.join`.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn add_member(&self, member: NewMember) -> Result<Managed, Error> {
        self.manage(Change::Add(member)).await
    }

    /// Gives a learner that has caught up its vote.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn promote(&self, node: NodeId) -> Result<Managed, Error> {
        self.manage(Change::Promote(node)).await
    }

    /// Lets a member go. A leader hands over first.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn remove(&self, node: NodeId) -> Result<Managed, Error> {
        self.manage(Change::Remove(node)).await
    }

    /// In one step lets a member go that is dead or was wiped, and takes in its successor of the same node id as a learner.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn replace(&self, member: NewMember) -> Result<Managed, Error> {
        self.manage(Change::Replace(member)).await
    }

    /// Asks a voter to lead. Whether it does, [`Client::members`] tells.
    ///
    /// # Errors
    /// As [`Client::manage`].
    pub async fn move_leader(&self, node: NodeId) -> Result<Managed, Error> {
        self.manage(Change::Lead(node)).await
    }

    async fn ask_leader(&self, what: Change, dry_run: bool) -> Result<Managed, Error> {
        let wait = match what {
            Change::Add(_) | Change::Replace(_) => NEWCOMER,
            _ => Duration::ZERO,
        };
        let body = RequestBody::Manage(Box::new(Manage { what, dry_run }));
        managed(self.ask(Route::Leader, body, wait).await?)
    }
}

fn list() -> RequestBody {
    RequestBody::Manage(Box::new(Manage { what: Change::List, dry_run: false }))
}

fn managed(answer: Answer) -> Result<Managed, Error> {
    match answer {
        Answer { body: ResponseBody::Managed(managed), .. } => Ok(*managed),
        answer => Err(answer.unexpected()),
    }
}
