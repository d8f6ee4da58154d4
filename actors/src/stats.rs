//! Stats: what every supervised actor shows of itself.
//!
//! Owns:   the counters and times of each actor, and the last that it told of its own state.
//! Keeps:  `handled <= enqueued` for an actor to which everybody speaks through its handle. What is written once a message is written
//!         without a lock.
//! Never:  decides anything from a counter; asks an actor: who looks sees also what a stuck actor told before it got stuck.

use std::any::TypeId;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::clock::now_us;
use crate::guard::Restart;
use crate::histogram::Histogram;
use crate::waiting::Waiting;

/// An actor that makes no progress for so long, while it handles something or something waits for it, is stalled.
pub const STALL: Duration = Duration::from_secs(5);
/// The same in microseconds.
const STALL_US: u64 = 5_000_000;

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
    pub(crate) const ALL: [Self; 5] =
        [Self::Starting, Self::Running, Self::Backoff, Self::Failed, Self::Stopped];

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

/// Messages of one type, as one actor handled them.
#[derive(Debug)]
pub(crate) struct MessageStats {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
    /// Microseconds in the mailbox; of those told through the handle.
    pub(crate) wait: Histogram,
    /// Microseconds in the handler. What a handler spawned is not in it.
    pub(crate) handling: Histogram,
}

/// The counters of one actor; shared by the actor's guard, its handles and the registry.
#[derive(Debug)]
pub struct ActorStats {
    name: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) parent: Option<String>,
    pub(crate) restart: Restart,
    /// Whether times are taken.
    is_timed: bool,
    state: AtomicU8,
    enqueued: AtomicU64,
    handled: AtomicU64,
    restarts: AtomicU64,
    panics: AtomicU64,
    waiting: Waiting,
    /// When the message or else the turn began in which the actor is just now; 0 between turns.
    busy_since: AtomicU64,
    /// Which message: its place among `messages`, counted from 1; 0 for none.
    current: AtomicUsize,
    /// When the actor was polled to the end last, or through a message; 0 for never.
    progress: AtomicU64,
    messages: Mutex<Vec<Arc<MessageStats>>>,
    stalls: AtomicU64,
    is_stalled: AtomicBool,
    last_panic: Mutex<Option<Panic>>,
    observed: Mutex<Option<Value>>,
}

/// What an actor hands down to the next of its name.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    pub(crate) restarts: u64,
    pub(crate) panics: u64,
    pub(crate) stalls: u64,
    pub(crate) last_panic: Option<Panic>,
}

/// A stall that nobody was told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Who.
    pub actor: Arc<str>,
    /// In which message's handler, if it is in one.
    pub inside: Option<&'static str>,
    /// For how long already.
    pub lasted: Duration,
    /// Messages that wait.
    pub queued: u64,
}

impl ActorStats {
    pub(crate) fn new(
        name: Arc<str>,
        kind: &'static str,
        parent: Option<String>,
        restart: Restart,
        is_timed: bool,
        legacy: Legacy,
    ) -> Self {
        Self {
            name,
            kind,
            parent,
            restart,
            is_timed,
            state: AtomicU8::new(State::Starting as u8),
            enqueued: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            restarts: AtomicU64::new(legacy.restarts),
            panics: AtomicU64::new(legacy.panics),
            waiting: Waiting::default(),
            busy_since: AtomicU64::new(0),
            current: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            messages: Mutex::default(),
            stalls: AtomicU64::new(legacy.stalls),
            is_stalled: AtomicBool::new(false),
            last_panic: Mutex::new(legacy.last_panic),
            observed: Mutex::default(),
        }
    }

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

    /// How often it panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    /// How often it was seen to stall.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }

    /// The last panic, kept across restarts.
    pub fn last_panic(&self) -> Option<Panic> {
        lock(&self.last_panic).clone()
    }

    /// What the actor told last of its own state.
    pub fn observed(&self) -> Option<Value> {
        lock(&self.observed).clone()
    }

    /// The message in whose handler it is; `None` also where it is in a timer, a stream or a future of its own.
    pub fn inside(&self) -> Option<&'static str> {
        let current = self.current.load(Relaxed).checked_sub(1)?;
        lock(&self.messages).get(current).map(|message| message.name)
    }

    /// Since when the oldest waiting message waits, as [`now_us`] tells time.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let handled = self.handled();
        self.waiting.oldest(self.enqueued(), handled)
    }

    /// When it last got through a turn or a message; 0 for never.
    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// For how long it has been stalled at `now`, microseconds; `None` if it is not, or no times are taken.
    pub(crate) fn stalled(&self, now: u64) -> Option<u64> {
        if !self.is_timed || self.state().has_ended() || self.state() == State::Backoff {
            return None;
        }
        let since = match self.busy_since.load(Relaxed) {
            // Not polled although something waits: its thread is held by a neighbour, or it waits for a future of its own.
            0 => self.oldest()?.max(self.progress()),
            busy => busy,
        };
        Some(now.saturating_sub(since)).filter(|lasted| *lasted >= STALL_US)
    }

    /// Looks whether it is stalled; a stall is counted and told of once.
    pub(crate) fn look(&self, now: u64) -> Option<Stall> {
        let stalled = self.stalled(now);
        let was_stalled = self.is_stalled.swap(stalled.is_some(), Relaxed);
        let lasted = stalled.filter(|_| !was_stalled)?;
        self.stalls.fetch_add(1, Relaxed);
        Some(Stall {
            actor: Arc::clone(&self.name),
            inside: self.inside(),
            lasted: Duration::from_micros(lasted),
            queued: self.queued(),
        })
    }

    /// What is handed down to the next of this name.
    pub(crate) fn legacy(&self) -> Legacy {
        let (restarts, panics, stalls) = (self.restarts(), self.panics(), self.stalls());
        Legacy { restarts, panics, stalls, last_panic: self.last_panic() }
    }

    /// Every type of message that it handled.
    pub(crate) fn messages(&self) -> Vec<Arc<MessageStats>> {
        lock(&self.messages).clone()
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    /// It panicked.
    pub(crate) fn note_panic(&self, panic: Panic) {
        self.panics.fetch_add(1, Relaxed);
        self.show_panic(panic);
    }

    /// A panic of another is what it failed by.
    pub(crate) fn show_panic(&self, panic: Panic) {
        *lock(&self.last_panic) = Some(panic);
    }

    pub(crate) fn show(&self, observed: Value) {
        *lock(&self.observed) = Some(observed);
    }
}

/// What senders and the guard tell, once a message or a turn.
impl ActorStats {
    pub(crate) const fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// A message is about to be queued; says when, 0 if no times are taken.
    pub(crate) fn count_enqueued(&self) -> u64 {
        let number = self.enqueued.fetch_add(1, Relaxed);
        if !self.is_timed {
            return 0;
        }
        let now = now_us();
        self.waiting.told(number, self.handled.load(Relaxed), now);
        now
    }

    /// Takes back one [`count_enqueued`](Self::count_enqueued): the mailbox turned out to be closed.
    pub(crate) fn uncount_enqueued(&self) {
        self.enqueued.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count_handled(&self) {
        // Only the actor's thread writes it.
        self.handled.store(self.handled.load(Relaxed) + 1, Relaxed);
    }

    /// A message that was told at `told`, 0 if that is not known, is being handled from `now` on.
    pub(crate) fn begin(&self, current: usize, told: u64, now: u64) {
        if told != 0 {
            self.waiting.taken(told);
        }
        self.current.store(current + 1, Relaxed);
        self.busy_since.store(now, Relaxed);
    }

    /// It is done.
    pub(crate) fn end(&self, now: u64) {
        self.current.store(0, Relaxed);
        self.busy_since.store(now, Relaxed);
        self.progress.store(now, Relaxed);
    }

    pub(crate) fn turn_begins(&self, now: u64) {
        self.busy_since.store(now, Relaxed);
    }

    pub(crate) fn turn_ends(&self) {
        if self.is_timed {
            // The last look at the clock in this turn will do: what counts as a stall is a matter of seconds.
            match self.busy_since.swap(0, Relaxed) {
                // It was killed before the turn began.
                0 => {}
                last => self.progress.store(last, Relaxed),
            }
            self.current.store(0, Relaxed);
        } else {
            self.progress.store(now_us(), Relaxed);
        }
    }

    /// The stats of a type of message and their place; made at its first message.
    pub(crate) fn message(&self, id: TypeId, name: &'static str) -> (usize, Arc<MessageStats>) {
        let mut messages = lock(&self.messages);
        let at = messages.iter().position(|message| message.id == id).unwrap_or_else(|| {
            let (wait, handling) = (Histogram::default(), Histogram::default());
            messages.push(Arc::new(MessageStats { id, name: short(name), wait, handling }));
            messages.len() - 1
        });
        (at, Arc::clone(&messages[at]))
    }
}

/// A type's name without its path.
fn short(name: &'static str) -> &'static str {
    let end = name.find('<').unwrap_or(name.len());
    let begin = name[..end].rfind("::").map_or(0, |at| at + 2);
    &name[begin..]
}

/// Locks, whatever happened to an earlier holder: what these locks guard is valid after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(is_timed: bool) -> ActorStats {
        ActorStats::new("a".into(), "A", None, Restart::Group, is_timed, Legacy::default())
    }

    #[test]
    fn every_state_survives_its_byte() {
        let stats = stats(true);
        for state in State::ALL {
            stats.set_state(state);
            assert_eq!(stats.state(), state);
        }
    }

    #[test]
    fn an_actor_in_one_handler_for_five_seconds_is_stalled_and_that_is_told_once() {
        let stats = stats(true);
        stats.set_state(State::Running);
        let (at, _) = stats.message(TypeId::of::<u32>(), "some::path::Appends");
        stats.turn_begins(1000);
        stats.begin(at, 900, 1000);
        assert_eq!(stats.look(1000 + STALL_US - 1), None);
        let stall = stats.look(1000 + STALL_US).expect("five seconds");
        assert_eq!((stall.inside, stall.lasted), (Some("Appends"), STALL));
        assert_eq!(stats.stalled(1000 + 2 * STALL_US), Some(2 * STALL_US));
        assert_eq!(stats.look(1000 + 2 * STALL_US), None, "told already");
        stats.end(1000 + 3 * STALL_US);
        stats.turn_ends();
        assert_eq!(stats.look(1000 + 9 * STALL_US), None, "idle, however long");
        stats.turn_begins(10 * STALL_US);
        assert!(
            stats.look(11 * STALL_US).is_some_and(|stall| stall.inside.is_none()),
            "a timer's turn, perhaps"
        );
        assert_eq!(stats.stalls(), 2);
    }

    #[test]
    fn an_actor_that_is_not_polled_is_stalled_once_a_message_has_waited_so_long() {
        let stats = stats(true);
        stats.set_state(State::Running);
        let told = stats.count_enqueued();
        assert_eq!(stats.oldest(), Some(told));
        assert_eq!(stats.stalled(told + STALL_US - 1), None);
        assert_eq!(stats.stalled(told + STALL_US), Some(STALL_US));
        stats.set_state(State::Backoff);
        assert_eq!(stats.stalled(told + STALL_US), None, "its state says why they wait");
    }

    #[test]
    fn messages_handled_one_after_the_other_are_progress_however_long_the_turn() {
        let stats = stats(true);
        stats.set_state(State::Running);
        stats.turn_begins(1);
        for second in 1..20 {
            let now = second * 1_000_000;
            stats.begin(0, now, now);
            assert_eq!(stats.look(now + 900_000), None);
            stats.end(now + 950_000);
        }
    }

    #[test]
    fn where_no_times_are_taken_there_are_none_and_counts_stay() {
        let stats = stats(false);
        stats.set_state(State::Running);
        assert_eq!(stats.count_enqueued(), 0);
        assert_eq!((stats.queued(), stats.oldest(), stats.stalled(u64::MAX)), (1, None, None));
    }

    #[test]
    fn a_types_name_goes_without_its_path() {
        assert_eq!(short("loglog_actors::consensus::Appends"), "Appends");
        assert_eq!(short("a::Batch<b::Of>"), "Batch<b::Of>");
        assert_eq!(short("u32"), "u32");
    }
}
