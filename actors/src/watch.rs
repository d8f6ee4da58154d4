//! Watch: looks at all actors once a second, from outside: one that is stuck cannot tell.
//!
//! Owns:   a task in the node's own thread, which runs no actor. It ends with this value.
//! Keeps:  a stall is counted and logged once, when it is noticed; the history has a sample a second.
//! Never:  does anything about a stall: a handler that blocks cannot be broken off.

use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, warn};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::measures::Measures;
use crate::registry::Registry;

/// Time between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The watch.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Watch {
    /// Begins to watch, from this thread.
    pub(crate) fn begin(registry: Registry, measures: Arc<Measures>, log: Logger) -> Self {
        Self(actix_rt::spawn(async move {
            let mut looks = interval_at(Instant::now() + INTERVAL, INTERVAL);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                measures.sample();
                for stall in registry.look() {
                    warn!(log, "an actor is stuck"; "actor" => &*stall.actor, "in" => stall.inside,
                        "for" => ?stall.lasted, "queued" => stall.queued);
                }
            }
        }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
