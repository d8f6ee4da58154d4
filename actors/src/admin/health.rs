//! Health: whether the node lives, and whether it can do its work.
//!
//! Owns:   the words for why it cannot.
//! Never:  counts load as illness: a node that is slow is ready.

use loglog_core::consensus::Place;
use serde::Serialize;

use super::sources::Sources;
use crate::guard::Restart;

/// The answer of `/health/live`.
#[derive(Serialize)]
pub(super) struct Live {
    status: &'static str,
}

/// The answer of `/health/ready`.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    pub(super) ready: bool,
    why: Option<String>,
}

pub(super) const fn live() -> Live {
    Live { status: "live" }
}

pub(super) fn ready(sources: &Sources) -> Ready {
    let why = hindrance(sources);
    Ready { ready: why.is_none(), why }
}

/// What stands in the way, the root of it first.
fn hindrance(sources: &Sources) -> Option<String> {
    // Of one whose client is stuck with it, and is no other's business, nothing follows for the node.
    let stalled = sources.registry.snapshot().into_iter().find_map(|actor| {
        let ms = actor.stalled_ms.filter(|_| actor.restart != Restart::Never)?;
        Some(format!(
            "{} has made no progress for {} s: see /api/actors/{}",
            actor.name,
            ms / 1000,
            actor.name
        ))
    });
    if stalled.is_some() {
        return stalled;
    }
    let Some(consensus) = sources.view.consensus() else {
        return Some(
            match sources.view.generation() {
                0 => "the node is starting: it waits for its cluster to form, or its log is recovered or repaired",
                _ => "the storage group is down: its log is recovered or repaired",
            }
            .to_owned(),
        );
    };
    match consensus.place {
        Place::Joining => return Some("the node waits to be taken in: `loglog members add`".to_owned()),
        Place::Gone => return Some("the node is no member of its cluster any more".to_owned()),
        Place::Voter | Place::Learner => {}
    }
    if consensus.leader.is_none() {
        return Some(
            "no leader is known: an election goes on, or a majority of the members cannot be reached"
                .to_owned(),
        );
    }
    (!sources.is_serving()).then(|| "clients are not served: the node is starting or stopping".to_owned())
}
