//! Family: who is whose parent, and what a parent does when a child does not come back by itself.
//!
//! ```text
//!   child fails for good ─► its parent ─┬─ one for one: this child again ─┐ too often within the window:
//!                                       └─ one for all: every child again ┘ the parent has failed, and its parent decides
//!   the root has failed: the node stops
//! ```
//!
//! An actor's guard restarts it in place as often as its own policy allows; that never comes here. What comes here is the end of one
//! that may not be restarted in place (any more).
//!
//! Owns:   the tree of parents, and how often each of them has restarted something.
//! Keeps:  a parent that is restarted as a whole begins with a clean slate. Every event ends in one verdict, however deep the tree.
//! Never:  stops or starts anybody; reads a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::backoff::{Backoff, Decision, Limits};
use crate::stats::Panic;
use crate::supervisor::{ChildEvent, ChildEventKind};

/// Whom a parent restarts when one of its children has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// That child.
    OneForOne,
    /// Every child: they share what one of them may have left half done.
    OneForAll,
}

/// What is to be done about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// Start again, after `delay`: one child of `parent`, or all of them once all have ended.
    Restart {
        /// Whose children.
        parent: Arc<str>,
        /// Which of them; `None`: all.
        child: Option<Arc<str>>,
        /// How long to wait before.
        delay: Duration,
        /// What it began with.
        cause: Failure,
    },
    /// Nobody is left who might restart anything: stop.
    Stop(Failure),
}

/// The failure of an actor, as it is told upwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The actor.
    pub actor: Arc<str>,
    /// Its last words.
    pub panic: Panic,
}

struct Parent {
    above: Option<Arc<str>>,
    strategy: Strategy,
    limits: Limits,
    backoff: Backoff,
}

/// The tree of parents.
pub struct Family {
    parents: BTreeMap<Arc<str>, Parent>,
    rng: StdRng,
}

impl Family {
    /// A tree that has only a root. What fails for good below it, it may restart as `limits` allow.
    pub fn new(root: &str, strategy: Strategy, limits: Limits, rng: StdRng) -> Self {
        let mut family = Self { parents: BTreeMap::new(), rng };
        family.insert(root, None, strategy, limits);
        family
    }

    /// Adds a parent below another.
    ///
    /// # Panics
    /// If there is no such other, or the name is taken.
    pub fn add(&mut self, name: &str, above: &str, strategy: Strategy, limits: Limits) {
        assert!(self.parents.contains_key(above), "there is no {above} to put {name} under");
        self.insert(name, Some(above.into()), strategy, limits);
    }

    fn insert(&mut self, name: &str, above: Option<Arc<str>>, strategy: Strategy, limits: Limits) {
        let parent = Parent { above, strategy, limits, backoff: Backoff::new(limits) };
        assert!(self.parents.insert(name.into(), parent).is_none(), "there is a {name} already");
    }

    /// What follows what happened to a child at `now`.
    pub fn heed(&mut self, event: &ChildEvent, now: Instant) -> Verdict {
        let panic = match &event.kind {
            ChildEventKind::GaveUp { panic } | ChildEventKind::Ended { panic: Some(panic) } => panic.clone(),
            ChildEventKind::Restarted { .. } | ChildEventKind::Ended { panic: None } => {
                return Verdict::Nothing;
            }
        };
        let cause = Failure { actor: Arc::clone(&event.name), panic };
        self.failed(&event.parent, &event.name, cause, now)
    }

    /// `child` of `parent` has failed: from there upwards, the first that may still restart something does.
    fn failed(&mut self, parent: &Arc<str>, child: &Arc<str>, cause: Failure, now: Instant) -> Verdict {
        let (mut parent, mut child) = (Arc::clone(parent), Arc::clone(child));
        loop {
            // A child of an actor (a connection of the listener) is nobody's business.
            let Some(it) = self.parents.get_mut(&parent) else { return Verdict::Nothing };
            if let Decision::RestartAfter(delay) = it.backoff.on_panic(now, &mut self.rng) {
                let one = (it.strategy == Strategy::OneForOne).then(|| Arc::clone(&child));
                self.renew_below(one.as_ref().unwrap_or(&parent), one.is_some());
                return Verdict::Restart { parent, child: one, delay, cause };
            }
            match &it.above {
                Some(above) => (parent, child) = (Arc::clone(above), parent),
                None => return Verdict::Stop(cause),
            }
        }
    }

    /// What is below `name` is started anew, `name` with it if `itself`: earlier restarts there are history.
    fn renew_below(&mut self, name: &Arc<str>, itself: bool) {
        let mut renewed = vec![Arc::clone(name)];
        if itself && let Some(parent) = self.parents.get_mut(name) {
            parent.backoff = Backoff::new(parent.limits);
        }
        while let Some(above) = renewed.pop() {
            for (name, parent) in &mut self.parents {
                if parent.above.as_ref() == Some(&above) {
                    parent.backoff = Backoff::new(parent.limits);
                    renewed.push(Arc::clone(name));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "family_test.rs"]
mod tests;
