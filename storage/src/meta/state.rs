//! What `meta` holds.

use std::cmp::Ordering;

use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId, Offset, RaftId, Term};

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Node id and incarnation.
    pub id: RaftId,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
}

/// Who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Index of the configuration change that made it; 1 at genesis.
    pub index: Index,
    /// Those who count for the quorum.
    pub voters: Vec<Member>,
    /// Those who only follow.
    pub learners: Vec<Member>,
}

/// Where the log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// First byte kept.
    pub offset: Offset,
    /// First index kept.
    pub index: Index,
    /// Term of the index before it.
    pub previous_term: Term,
}

impl LogStart {
    /// Where the log of a new cluster begins: genesis is index 1 of term 1, held by no entry.
    pub const GENESIS: Self =
        Self { offset: Offset::ZERO, index: Index::new(2), previous_term: Term::new(1) };

    /// Where a node stands that waits to be taken into a cluster: before genesis, so that it begins with a snapshot.
    pub const NOTHING: Self = Self { offset: Offset::ZERO, index: Index::new(1), previous_term: Term::ZERO };

    /// Whether a log that starts here may have this mark: every batch has bytes, so index and offset lie on the same side of the start.
    /// Only genesis, held by no entry, has none.
    #[must_use]
    pub(crate) fn admits(self, mark: Mark) -> bool {
        let start = self.mark();
        match mark.index.cmp(&start.index) {
            Ordering::Less => mark.offset <= start.offset,
            Ordering::Equal => mark.offset == start.offset,
            Ordering::Greater => mark.offset > start.offset,
        }
    }

    /// The batch before the first one kept, as a mark.
    #[must_use]
    pub const fn mark(self) -> Mark {
        Mark { index: self.index.previous(), offset: self.offset }
    }
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This life of this directory.
    pub incarnation: Incarnation,
    /// Raft's current term.
    pub term: Term,
    /// For whom this node voted in `term`.
    pub vote: Option<RaftId>,
    /// The last configuration applied.
    pub membership: Membership,
    /// Where the log begins.
    pub start: LogStart,
    /// A segment closes after the batch that brings its entries to this many bytes. Where the log holds a change of it
    /// behind the base of the last segment, see [`crate::Recovered::controls`].
    pub segment_bytes_max: Length,
}

/// The saved commit: everything up to it is committed, and synced on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Index of a batch; 1 at genesis.
    pub index: Index,
    /// Its end offset; 0 at genesis.
    pub offset: Offset,
}
