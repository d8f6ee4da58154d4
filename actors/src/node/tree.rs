//! Tree: who is whose parent in a node, and how often each may be restarted.
//!
//! ```text
//!   node                    one for one, restarts nothing itself: what fails for good below it stops it
//!    ├─ storage-group       one for all: a member's failure ends the others, and all come back through recovery
//!    │    └─ members        never restarted by themselves
//!    ├─ permanent actors    restarted in place by their guards, mailbox kept
//!    └─ (their connections  never restarted, and nobody's business)
//! ```
//!
//! Owns:   the limits.

use std::time::Duration;

use rand::rngs::StdRng;

use crate::backoff::Limits;
use crate::family::{Family, Strategy};
use crate::guard::Restart;
use crate::storage_group;
use crate::supervisor::Child;

/// The name of the root.
pub(crate) const NAME: &str = "node";

/// How often an actor, or the storage group, may be restarted, and how fast.
pub(crate) const LIMITS: Limits = Limits {
    restarts_max: 8,
    window: Duration::from_secs(60),
    delay_min: Duration::from_millis(20),
    delay_max: Duration::from_millis(500),
};

/// A supervisor outside (systemd, a container) is the better judge of what the node itself could not mend.
const NO_RESTARTS: Limits = Limits { restarts_max: 0, ..LIMITS };

/// The parents of a node.
pub(crate) fn family(rng: StdRng) -> Family {
    let mut family = Family::new(NAME, Strategy::OneForOne, NO_RESTARTS, rng);
    family.add(storage_group::NAME, NAME, Strategy::OneForAll, LIMITS);
    family
}

/// A child of the node that lives as long as it does, restarted in place.
pub(crate) fn permanent(name: &str, kind: &'static str) -> Child {
    let restart = Restart::Permanent(LIMITS);
    Child { name: name.to_owned(), kind, parent: NAME.to_owned(), restart }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rand::SeedableRng;

    use super::*;
    use crate::family::Verdict;
    use crate::stats::Panic;
    use crate::supervisor::{ChildEvent, ChildEventKind};

    fn event(name: &str, parent: &str, kind: fn(Panic) -> ChildEventKind) -> ChildEvent {
        let panic = Panic { text: "x".into(), location: None, unix_ms: 1 };
        ChildEvent { name: name.into(), parent: parent.into(), kind: kind(panic) }
    }

    #[test]
    fn the_storage_group_restarts_as_a_whole_eight_times_a_minute_then_the_node_stops() {
        let (mut family, now) = (family(StdRng::seed_from_u64(1)), Instant::now());
        let event =
            event("consensus", storage_group::NAME, |panic| ChildEventKind::Ended { panic: Some(panic) });
        for _ in 0..LIMITS.restarts_max {
            let verdict = family.heed(&event, now);
            assert!(matches!(verdict, Verdict::Restart { child: None, .. }), "{verdict:?}");
        }
        assert!(matches!(family.heed(&event, now), Verdict::Stop(cause) if &*cause.actor == "consensus"));
    }

    #[test]
    fn an_actor_that_gave_up_on_itself_stops_the_node_and_a_connection_does_not() {
        let (mut family, now) = (family(StdRng::seed_from_u64(1)), Instant::now());
        let connection =
            event("connection-1", "listener", |panic| ChildEventKind::Ended { panic: Some(panic) });
        assert_eq!(family.heed(&connection, now), Verdict::Nothing);
        let fetcher = event("fetcher", NAME, |panic| ChildEventKind::GaveUp { panic });
        assert!(matches!(family.heed(&fetcher, now), Verdict::Stop(_)));
    }
}
