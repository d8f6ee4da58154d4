//! Effects: what the shell around [`Consensus`](crate::Consensus) has to do after a turn, in the order of the fields.
//!
//! Never:  does any of it.

use loglog_proto::error::Refusal;
use loglog_proto::manage::Managed;
use loglog_proto::peer::{PeerStanding, RaftMessage};
use loglog_proto::response::Appended;
use loglog_proto::{Index, LogId, Offset, RaftId};
use loglog_storage::{Mark, Membership, MetaState};

use crate::batch::Reference;
use crate::consensus::Reason;
use crate::control::SnapshotContent;
use crate::gate::Want;
use crate::write_queue::WriteGroup;

/// What a turn asks for. `T` says where an answer goes.
#[derive(Debug)]
pub struct Effects<T> {
    /// Term, vote or membership changed: to be durable before anything below is done (S14).
    pub save: Option<Box<MetaState>>,
    /// For the segment writer, in order.
    pub groups: Vec<WriteGroup>,
    /// Who keeps the log from now on: links follow before the messages go.
    pub members: Option<Box<Membership>>,
    /// For peers, in order; may go before the groups are written (S14, S15).
    pub messages: Vec<RaftMessage>,
    /// How this node stands, for every other member.
    pub standing: Option<PeerStanding>,
    /// Batches whose payloads are wanted, each named once.
    pub wants: Vec<Want>,
    /// Entries that came with their payloads: uploads of theirs are not needed any more.
    pub inline: Vec<Reference>,
    /// Old batches to be read for a far-behind peer (S17).
    pub fetches: Vec<Fetch>,
    /// How far the log is now committed, if it grew (S16).
    pub committed: Option<Committed>,
    /// The new mark, to be saved when convenient.
    pub mark: Option<Mark>,
    /// The log begins later now: to be saved behind the mark and synced with it, before anything is unlinked (S36).
    pub trim: Option<Box<MetaState>>,
    /// Our log is to be replaced by another's, of which nothing is left that would join ours (S25).
    pub install: Option<Box<Install>>,
    /// Another is asked to lead, and why: for the operator.
    pub hands_over: Option<(RaftId, Reason)>,
    /// What clients wait for.
    pub answers: Vec<(T, Answer)>,
}

/// Batches to be read from the segments, some of those from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// For [`Consensus::fetched`](crate::Consensus::fetched).
    pub number: u64,
    /// The first batch wanted.
    pub first: Index,
    /// The last that may be sent.
    pub last: Index,
}

/// A snapshot to be copied and installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Its last batch: whoever holds that has the bytes.
    pub last: LogId,
    /// Where it begins and ends, and who kept the log then.
    pub content: SnapshotContent,
}

/// How far the log is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The last committed batch.
    pub index: Index,
    /// Where it ends.
    pub offset: Offset,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The entry is committed.
    Appended(Appended),
    /// The payload is held.
    Uploaded,
    /// Where the log starts and ends, no older than the question.
    End {
        /// First byte kept.
        start: Offset,
        /// Next byte to be committed.
        end: Offset,
    },
    /// What a change to the log's start, members or leader came to.
    Managed(Box<Managed>),
    /// Not done.
    Refused(Refusal),
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            save: None,
            groups: Vec::new(),
            members: None,
            messages: Vec::new(),
            standing: None,
            wants: Vec::new(),
            inline: Vec::new(),
            fetches: Vec::new(),
            committed: None,
            mark: None,
            trim: None,
            install: None,
            hands_over: None,
            answers: Vec::new(),
        }
    }
}
