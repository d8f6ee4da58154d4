//! Managing a log: trimming it, changing who keeps it, moving the lead. Rare, so they travel as maps that can grow.
//!
//! Owns:   the shapes of [`RequestBody::Manage`](crate::request::RequestBody::Manage) and of its answer.
//! Never:  decides whether something is done.
//!
//! Source: docs/protocol.md, "Manage".

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::position::Offset;

/// What is to be done. Only the leader does it; `List` is answered by every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manage {
    /// What.
    pub what: Change,
    /// Only say what would happen, or why not.
    #[serde(default)]
    pub dry_run: bool,
}

/// A change to the log's start, its members or its leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// None: who keeps the log, and how far each is.
    List,
    /// Drop what lies before this offset, rounded down to where a segment begins.
    Trim(Offset),
    /// Take in a new node as a learner. It must be running, in an empty directory, with `cluster.join`.
    Add(NewMember),
    /// Give a learner that has caught up its vote.
    Promote(NodeId),
    /// Let a member go.
    Remove(NodeId),
    /// In one step let a member go that is dead or was wiped, and take in its successor, of the same node id, as a learner.
    Replace(NewMember),
    /// Let this voter lead.
    Lead(NodeId),
}

/// A node to be taken in. Its incarnation is asked from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Which.
    pub node: NodeId,
    /// Where peers reach it, `host:port`. None, in [`Change::Replace`]: where its predecessor was.
    #[serde(default)]
    pub peer: Option<String>,
    /// Where clients reach it, `host:port`. None: as above.
    #[serde(default)]
    pub client: Option<String>,
}

/// What was done, or would be, and how things stand then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Managed {
    /// One sentence for people.
    pub message: String,
    /// First byte kept.
    pub start: u64,
    /// Index of the batch that made the membership what it is.
    pub membership: u64,
    /// The members after the change.
    pub members: Vec<MemberStatus>,
}

/// A member, as the answering node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberStatus {
    /// Which.
    pub node: u32,
    /// This life of its directory.
    pub incarnation: String,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it leads.
    pub leads: bool,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
    /// Whether the leader heard from it lately; only the leader says.
    pub active: Option<bool>,
    /// Batches of the log that it surely holds; only the leader says.
    pub matched: Option<u64>,
    /// Batches that it lacks; only the leader says.
    pub lag: Option<u64>,
    /// Whether it copies a snapshot just now; only the leader says.
    pub is_copying: Option<bool>,
}
