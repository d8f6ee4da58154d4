//! How a pipeline stands to a node.

use std::time::Duration;

use super::types::{LinkId, LinkLimits};

/// The link to the node that takes the appends.
#[derive(Debug)]
pub(super) enum Link {
    Down { retry_at: Duration, connecting: bool },
    Up { id: LinkId, limits: LinkLimits, outstanding: usize, mode: Mode },
}

#[derive(Debug)]
pub(super) enum Mode {
    Flowing,
    /// Nothing is sent until all tries are answered.
    Draining {
        since: Duration,
        then: Then,
    },
    Waiting {
        until: Duration,
    },
    /// Nothing is sent until an end is learnt.
    Learning,
}

/// What follows a drain. Later ones weigh more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    SendAgain,
    Wait,
    Leave(Option<String>),
}
