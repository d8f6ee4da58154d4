//! Errors of everything but appending, which has its own ([`AppendError`](crate::AppendError)).
//!
//! Keeps:  each carries the facts, and its text says what can be done.

use std::time::Duration;

use loglog_proto::entry::EntryError;
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::{ClusterId, NodeId, Offset};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint was given.
    #[error("no endpoint was given: name at least one node as host:port")]
    NoEndpoint,
    /// An endpoint is no address.
    #[error("'{address}' is no endpoint: {why}")]
    Endpoint {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No node answered.
    #[error("no node could be reached ({}): check that one is running and that the addresses are right", tried.join("; "))]
    Unreachable {
        /// Each address and what happened.
        tried: Vec<String>,
    },
    /// Nodes answer, and none of them leads.
    #[error("no node leads the cluster now ({}): more than half of its nodes must run and reach each other", tried.join("; "))]
    NoLeader {
        /// Each address and what it said.
        tried: Vec<String>,
    },
    /// The node belongs to another log.
    #[error("{address} serves cluster {found}, not {expected}: check the address or the cluster id")]
    WrongCluster {
        /// The node's address.
        address: String,
        /// The cluster that was meant.
        expected: ClusterId,
        /// The node's.
        found: ClusterId,
    },
    /// The node speaks another version of the protocol.
    #[error("{address} speaks another protocol version: {why}")]
    Version {
        /// The node's address.
        address: String,
        /// What it said.
        why: String,
    },
    /// The connection broke before the answer came.
    #[error("connection to {address} lost: {why}")]
    Lost {
        /// The node's address.
        address: String,
        /// What happened.
        why: String,
    },
    /// The node in this program was stopped, or has given up.
    #[error("the node in this program has ended: start another in its directory")]
    Ended,
    /// The answer did not come in time.
    #[error("no answer within {} ms{}: try again, or allow more time", after.as_millis(), because(last))]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
        /// What the last try met.
        last: Option<String>,
    },
    /// The offset lies before the start of the log.
    #[error("offset {offset} was trimmed: read from {start} on")]
    Trimmed {
        /// What was asked for.
        offset: Offset,
        /// First byte kept.
        start: Offset,
    },
    /// The offset lies beyond the committed end.
    #[error("offset {offset} lies beyond the end of the log, {end}")]
    BeyondEnd {
        /// What was asked for.
        offset: Offset,
        /// Next byte to be committed.
        end: Offset,
    },
    /// No entry begins at the offset where reading was to begin.
    #[error(
        "no entry begins at offset {offset} ({source}): begin where an entry ends, or at the log's start"
    )]
    NotAnEntry {
        /// Where reading was to begin.
        offset: Offset,
        /// What does not hold.
        source: EntryError,
    },
    /// Bytes that follow a whole entry are none.
    #[error(
        "the bytes that {} returned are damaged ({source}), and no other node gave the right ones",
        a_node(node)
    )]
    Damaged {
        /// What does not hold.
        source: EntryError,
        /// Who returned them, all of the entry's, last.
        node: Option<NodeId>,
    },
    /// The node refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The node's answer is none the protocol knows.
    #[error("{address} gave an answer the protocol does not know: {what}")]
    Protocol {
        /// The node's address.
        address: String,
        /// What was wrong.
        what: String,
    },
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoLeader { .. } | Self::Lost { .. } | Self::TimedOut { .. } => {
                true
            }
            Self::Refused(refusal) => refusal.code.is_retryable(),
            _ => false,
        }
    }

    /// What a read of `offset` was refused for.
    pub(crate) fn from_refused_read(offset: Offset, refusal: Refusal) -> Self {
        match (refusal.code, &refusal.detail) {
            (Code::Trimmed, Detail::Number(start)) => Self::Trimmed { offset, start: Offset::new(*start) },
            (Code::BeyondEnd, Detail::Number(end)) => Self::BeyondEnd { offset, end: Offset::new(*end) },
            _ => Self::Refused(refusal),
        }
    }
}

fn a_node(node: &Option<NodeId>) -> String {
    node.map_or_else(|| "this node".to_owned(), |node| format!("node {node}"))
}

pub(crate) fn because(last: &Option<String>) -> String {
    last.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default()
}
