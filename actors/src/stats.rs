//! Stats: what every supervised actor shows of itself, and the registry where all of them are found.
//!
//! Owns:   the counters of each actor, the list of actors, the node's count of restarts.
//! Keeps:  `handled <= enqueued` for an actor to which everybody speaks through its handle.
//! Never:  decides anything from a counter; blocks an actor (one short lock per spawn, end and panic).
//!
//! Latency per message type will live beside the counters in [`ActorStats`], filled from the envelope that
//! `guard::Ctx` packs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Where an actor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Being built, or in `started`.
    Starting,
    /// Handling messages.
    Running,
    /// Panicked; waits for its restart while messages queue.
    Backoff,
    /// Ended by a panic.
    Failed,
    /// Ended in peace.
    Stopped,
}

impl State {
    const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Backoff, Self::Failed, Self::Stopped];

    /// Whether the actor is gone for good.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Failed | Self::Stopped)
    }
}

/// One panic, as far as it could be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Panic {
    /// The panic's message.
    pub text: String,
    /// `file:line:column`, if the hook of `guard` was still installed.
    pub location: Option<String>,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.location.iter().try_for_each(|location| write!(f, " (at {location})"))
    }
}

/// The counters of one actor; shared by the actor's guard, its handles and the registry.
#[derive(Debug)]
pub struct ActorStats {
    name: Arc<str>,
    kind: &'static str,
    parent: String,
    state: AtomicU8,
    enqueued: AtomicU64,
    handled: AtomicU64,
    restarts: AtomicU64,
    /// Milliseconds since 1970 of the last time the actor was polled to the end; 0 for never.
    last_progress: AtomicU64,
    last_panic: Mutex<Option<Panic>>,
}

impl ActorStats {
    /// The actor's name, unique among the living.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where the actor is in its life.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// Messages told to the actor through its handles.
    pub fn enqueued(&self) -> u64 {
        self.enqueued.load(Relaxed)
    }

    /// Messages the actor took out of its mailbox, the one it may have panicked on included.
    pub fn handled(&self) -> u64 {
        self.handled.load(Relaxed)
    }

    /// Messages waiting in the mailbox.
    pub fn queued(&self) -> u64 {
        // Handled first: a message told in between then shows as queued, not as a negative number.
        let handled = self.handled();
        self.enqueued().saturating_sub(handled)
    }

    /// How often the actor was restarted, in place or with its group.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// The last panic, kept across restarts.
    pub fn last_panic(&self) -> Option<Panic> {
        lock(&self.last_panic).clone()
    }

    /// A copy of everything, to be shown.
    pub fn report(&self) -> ActorReport {
        ActorReport {
            name: self.name.to_string(),
            kind: self.kind,
            parent: self.parent.clone(),
            state: self.state(),
            enqueued: self.enqueued(),
            handled: self.handled(),
            queued: self.queued(),
            restarts: self.restarts(),
            last_panic: self.last_panic(),
            last_progress_unix_ms: Some(self.last_progress.load(Relaxed)).filter(|at| *at != 0),
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn count_enqueued(&self) {
        self.enqueued.fetch_add(1, Relaxed);
    }

    /// Takes back one [`count_enqueued`](Self::count_enqueued): the mailbox turned out to be closed.
    pub(crate) fn uncount_enqueued(&self) {
        self.enqueued.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count_handled(&self) {
        self.handled.fetch_add(1, Relaxed);
    }

    pub(crate) fn note_progress(&self) {
        self.last_progress.store(unix_ms(), Relaxed);
    }

    pub(crate) fn note_panic(&self, panic: Panic) {
        *lock(&self.last_panic) = Some(panic);
    }
}

/// What [`Registry::snapshot`] tells about one actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorReport {
    /// Unique among the living.
    pub name: String,
    /// The type of actor.
    pub kind: &'static str,
    /// Name of the actor or part that spawned it.
    pub parent: String,
    /// Where it is in its life.
    pub state: State,
    /// Messages told to it.
    pub enqueued: u64,
    /// Messages it took out of its mailbox.
    pub handled: u64,
    /// Messages waiting.
    pub queued: u64,
    /// Restarts, in place or with its group.
    pub restarts: u64,
    /// The last panic, kept across restarts.
    pub last_panic: Option<Panic>,
    /// When it last ran to where it waits, in milliseconds since 1970. Old while `queued > 0`: it is stuck.
    pub last_progress_unix_ms: Option<u64>,
}

/// All supervised actors of a node, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    actors: Arc<Mutex<BTreeMap<Arc<str>, Arc<ActorStats>>>>,
    restarts: Arc<AtomicU64>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every registered actor, in the order of names.
    pub fn snapshot(&self) -> Vec<ActorReport> {
        lock(&self.actors).values().map(|stats| stats.report()).collect()
    }

    /// The stats of one actor.
    pub fn get(&self, name: &str) -> Option<Arc<ActorStats>> {
        lock(&self.actors).get(name).cloned()
    }

    /// All restarts so far, and all panics of actors that are never restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Takes an actor that has ended off the list, such as the link to a removed peer.
    pub fn forget(&self, name: &str) {
        let mut actors = lock(&self.actors);
        if actors.get(name).is_some_and(|stats| stats.state().has_ended()) {
            actors.remove(name);
        }
    }

    /// Enters an actor. One that ended under the same name hands down its restarts, plus this one, and its
    /// last panic; its message counters stay with its old handles.
    ///
    /// # Panics
    /// If an actor of this name still lives: names are how operators and logs tell actors apart.
    pub(crate) fn register(&self, name: Arc<str>, kind: &'static str, parent: String) -> Arc<ActorStats> {
        let mut actors = lock(&self.actors);
        let before = actors.get(&name);
        if before.is_some_and(|before| !before.state().has_ended()) {
            // Unlocked first, lest the panic poison the registry for the others.
            drop(actors);
            panic!("an actor named {name} is alive already");
        }
        let (restarts, last_panic) =
            before.map_or((0, None), |before| (before.restarts() + 1, before.last_panic()));
        self.restarts.fetch_add(u64::from(before.is_some()), Relaxed);
        let stats = Arc::new(ActorStats {
            name: Arc::clone(&name),
            kind,
            parent,
            state: AtomicU8::new(State::Starting as u8),
            enqueued: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            restarts: AtomicU64::new(restarts),
            last_progress: AtomicU64::new(0),
            last_panic: Mutex::new(last_panic),
        });
        actors.insert(name, Arc::clone(&stats));
        stats
    }

    /// Counts a restart in place.
    pub(crate) fn count_restart(&self, stats: &ActorStats) {
        stats.restarts.fetch_add(1, Relaxed);
        self.restarts.fetch_add(1, Relaxed);
    }

    /// Counts a panic that nothing is restarted after.
    pub(crate) fn count_lost(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }
}

/// Locks, whatever happened to an earlier holder: what these locks guard is valid after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock in milliseconds since 1970; for people only.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(text: &str) -> Panic {
        Panic { text: text.into(), location: None, unix_ms: 1 }
    }

    #[test]
    fn every_state_survives_its_byte() {
        let stats = Registry::new().register("a".into(), "A", "node".into());
        for state in State::ALL {
            stats.set_state(state);
            assert_eq!(stats.state(), state);
        }
    }

    #[test]
    fn a_name_taken_up_again_keeps_restarts_and_panic_but_not_the_message_counts() {
        let registry = Registry::new();
        let first = registry.register("writer".into(), "Writer", "node".into());
        registry.count_restart(&first);
        first.count_enqueued();
        first.note_panic(panic("disk"));
        first.set_state(State::Failed);

        let second = registry.register("writer".into(), "Writer", "node".into());
        first.count_enqueued();
        let report = second.report();
        assert_eq!((report.restarts, report.enqueued, report.queued), (2, 0, 0));
        assert_eq!(report.last_panic, Some(panic("disk")));
        assert_eq!(report.state, State::Starting);
        assert_eq!(registry.restarts(), 2);
    }

    #[test]
    #[should_panic(expected = "alive already")]
    fn two_living_actors_of_one_name_are_refused() {
        let registry = Registry::new();
        registry.register("a".into(), "A", "node".into());
        registry.register("a".into(), "A", "node".into());
    }

    #[test]
    fn only_the_dead_are_forgotten_and_the_total_stays() {
        let registry = Registry::new();
        let stats = registry.register("a".into(), "A", "node".into());
        registry.count_lost();
        registry.forget("a");
        assert_eq!(registry.snapshot().len(), 1);
        stats.set_state(State::Stopped);
        registry.forget("a");
        assert!(registry.snapshot().is_empty());
        assert_eq!(registry.restarts(), 1);
    }
}
