//! Why an append has no place in the log, or may have one that is not known.
//!
//! Keeps:  `may_have_happened() == false` is a promise: the entry is not in the log and never will be.

use std::time::Duration;

use loglog_proto::error::Refusal;
use loglog_proto::{Offset, Sequence, WriterId};

use crate::error::because;

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is over the limit. Nothing was sent.
    #[error("a payload of {length} bytes is over the limit of {max}: split it")]
    TooLarge {
        /// The payload's.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The pipeline's byte budget was taken up by earlier appends. Nothing was sent.
    #[error("no room in the pipeline within {} ms: earlier appends wait for the node; raise bytes_max or append more slowly", after.as_millis())]
    NoRoom {
        /// The deadline.
        after: Duration,
    },
    /// The log did not end where expected. Nothing was written.
    #[error("the log ends at {end}, not at the expected {expected}: read up to there and decide again")]
    Conflict {
        /// What was expected.
        expected: Offset,
        /// Where it ended.
        end: Offset,
    },
    /// The node refused for good.
    #[error("{refusal}{}", outcome(*may_have_happened, *writer, *sequence))]
    Refused {
        /// What it said.
        refusal: Refusal,
        /// Whether an earlier try may have been written.
        may_have_happened: bool,
        /// Under what the entry lies in the log if it was written.
        writer: WriterId,
        /// Under what the entry lies in the log if it was written.
        sequence: Sequence,
    },
    /// The deadline passed. Retrying went on until then.
    #[error("not acknowledged within {} ms{}{}", after.as_millis(), because(last), outcome(*may_have_happened, *writer, *sequence))]
    TimedOut {
        /// The deadline.
        after: Duration,
        /// Whether it was sent and may be written yet.
        may_have_happened: bool,
        /// What the last try met.
        last: Option<String>,
        /// Under what the entry lies in the log if it was written.
        writer: WriterId,
        /// Under what the entry lies in the log if it was written.
        sequence: Sequence,
    },
    /// A try's answer was lost, and by the time of the next the log had forgotten the writer.
    #[error("the log no longer remembers this writer{}", outcome(true, *writer, *sequence))]
    UnknownOutcome {
        /// Under what the entry lies in the log if it was written.
        writer: WriterId,
        /// Under what the entry lies in the log if it was written.
        sequence: Sequence,
    },
    /// The client was stopped, or its node in the same program was.
    #[error("the client or its node was stopped before an answer came{}", if *may_have_happened { "; the append may have happened" } else { "" })]
    Closed {
        /// Whether it may have been sent.
        may_have_happened: bool,
    },
}

impl AppendError {
    /// Whether the same append, made anew, may succeed. Where [`may_have_happened`](Self::may_have_happened) is true as
    /// well, doing so may put it into the log twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Conflict { .. } | Self::Closed { .. } => false,
            Self::NoRoom { .. } | Self::TimedOut { .. } | Self::UnknownOutcome { .. } => true,
            Self::Refused { refusal, .. } => refusal.code.is_retryable(),
        }
    }

    /// Whether the entry may be in the log, or may yet get there. `false` is certain.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::NoRoom { .. } | Self::Conflict { .. } => false,
            Self::UnknownOutcome { .. } => true,
            Self::Refused { may_have_happened, .. }
            | Self::TimedOut { may_have_happened, .. }
            | Self::Closed { may_have_happened } => *may_have_happened,
        }
    }
}

fn outcome(may_have_happened: bool, writer: WriterId, sequence: Sequence) -> String {
    if may_have_happened {
        format!(
            "; the append may have happened: look for writer {writer}, sequence {sequence} before repeating it"
        )
    } else {
        "; nothing was written".to_owned()
    }
}
