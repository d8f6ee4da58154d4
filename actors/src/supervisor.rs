//! Supervisor: gives birth to actors, and hears how they fare.
//!
//! ```text
//! node ── spawn ──► guard ► actor          Handle: tell, stop, ended
//!   ▲                 │
//!   └── ChildEvent ◄──┘                    Restarted · GaveUp · Ended
//! ```
//!
//! Owns:   the handles' side of every child: address, stop signal, end.
//! Keeps:  no message is dropped unseen: `tell` says so when an actor has ended.
//! Never:  decides what follows a child's end for others: `family` does, and the reader of the events carries it out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

use actix::{Actor, Addr, Handler, Message};
use actix_rt::ArbiterHandle;
use futures_util::task::AtomicWaker;
use rand::SeedableRng;
use rand::rngs::StdRng;
use slog::{Logger, o};
use tokio::sync::SetOnce;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::context::{Ctx, told_at};
use crate::guard::{Guard, Restart};
use crate::registry::Registry;
use crate::stats::{ActorStats, Panic};

/// Who a child is.
#[derive(Debug, Clone)]
pub struct Child {
    /// Unique among the living; `peer-2`, `connection-417`.
    pub name: String,
    /// The type of actor.
    pub kind: &'static str,
    /// The actor or part it belongs to.
    pub parent: String,
    /// What follows its end.
    pub restart: Restart,
}

/// Something the parent has to know about a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEvent {
    /// The child's name.
    pub name: Arc<str>,
    /// Whose child it is.
    pub parent: Arc<str>,
    /// What happened to it.
    pub kind: ChildEventKind,
}

/// What happened to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEventKind {
    /// It panicked, waited, and is about to start again.
    Restarted {
        /// Why.
        panic: Panic,
    },
    /// It panicked too often, and ended.
    GaveUp {
        /// The last one of its panics.
        panic: Panic,
    },
    /// It ended: asked to, by itself, or by a panic it may not be restarted after.
    Ended {
        /// The panic that ended it, if one did.
        panic: Option<Panic>,
    },
}

/// The actor has ended, or was asked to: it takes no more messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("actor {actor} takes no more messages")]
pub struct Closed {
    /// The actor's name.
    pub actor: Arc<str>,
}

/// Spawns children under guards.
#[derive(Clone)]
pub struct Supervisor {
    registry: Registry,
    events: UnboundedSender<ChildEvent>,
    log: Logger,
    /// Each child draws its jitter from a seed of its own.
    seed: Arc<AtomicU64>,
}

impl Supervisor {
    /// A supervisor without children, and the events of those to come. The channel is unbounded: read it.
    pub fn new(log: Logger, seed: u64) -> (Self, UnboundedReceiver<ChildEvent>) {
        Self::with_registry(log, seed, Registry::new(true))
    }

    /// The same, with the list that its children are entered in.
    pub fn with_registry(
        log: Logger,
        seed: u64,
        registry: Registry,
    ) -> (Self, UnboundedReceiver<ChildEvent>) {
        let (events, receiver) = unbounded_channel();
        (Self { registry, events, log, seed: Arc::new(AtomicU64::new(seed)) }, receiver)
    }

    /// Where all children are found.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Starts a child in the arbiter's thread, where `factory` builds it, again for every restart.
    ///
    /// Messages may be told at once. If the arbiter is dead the child has ended before it began, and says so
    /// like any other.
    ///
    /// # Panics
    /// If a child of this name is alive.
    pub fn spawn<A: Actor<Context = Ctx<A>>>(
        &self,
        child: Child,
        arbiter: &ArbiterHandle,
        factory: impl FnMut() -> A + Send + 'static,
    ) -> Handle<A> {
        let Child { name, kind, parent, restart } = child;
        let stats = self.registry.register(name.into(), kind, parent, restart);
        let log = self.log.new(o!("actor" => stats.name().to_string()));
        let shared = Arc::new(Shared { stats, stop: Stop::default(), ended: SetOnce::new() });
        let rng = StdRng::seed_from_u64(self.seed.fetch_add(1, Ordering::Relaxed));
        let (registry, events) = (self.registry.clone(), self.events.clone());
        let (guard, address) =
            Guard::new(Box::new(factory), restart, Arc::clone(&shared), registry, events, log, rng);
        // A refused closure is dropped, and the guard in it reports the end.
        arbiter.spawn_fn(move || drop(actix_rt::spawn(guard.run())));
        Handle { address, shared }
    }

    /// Starts a child that is built once, from values that can be given only once, such as a socket. For
    /// [`Restart::Never`] and [`Restart::Group`].
    ///
    /// # Panics
    /// If a child of this name is alive, or `child.restart` wants it built again.
    pub fn spawn_once<A: Actor<Context = Ctx<A>>>(
        &self,
        child: Child,
        arbiter: &ArbiterHandle,
        factory: impl FnOnce() -> A + Send + 'static,
    ) -> Handle<A> {
        assert!(
            matches!(child.restart, Restart::Never | Restart::Group),
            "{} cannot be built twice",
            child.name
        );
        let mut factory = Some(factory);
        self.spawn(child, arbiter, move || (factory.take().expect("built once, as just asserted"))())
    }
}

/// Everything others hold of a child, save its address.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stats: Arc<ActorStats>,
    pub(crate) stop: Stop,
    /// Set when the child has ended for good, to the panic that ended it.
    pub(crate) ended: SetOnce<Option<Panic>>,
}

/// Speaks to a supervised actor, through all its restarts.
pub struct Handle<A: Actor> {
    address: Addr<A>,
    shared: Arc<Shared>,
}

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<A: Actor> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(self.shared.stats.name()).finish()
    }
}

impl<A: Actor<Context = Ctx<A>>> Handle<A> {
    pub(crate) fn new(address: Addr<A>, shared: Arc<Shared>) -> Self {
        Self { address, shared }
    }

    /// Puts a message into the mailbox, which takes any number of them.
    ///
    /// `Ok` says queued, not handled: an actor that ends or panics later may still lose it. If that matters,
    /// let the message carry a oneshot, whose receiver fails when the message is dropped.
    ///
    /// # Errors
    /// [`Closed`] if the actor has ended or was asked to; the message is dropped.
    pub fn tell<M>(&self, message: M) -> Result<(), Closed>
    where
        A: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let Shared { stats, stop, .. } = &*self.shared;
        if !stop.is_asked() {
            // Counted first, lest the actor be seen to have handled more than was sent.
            let told = stats.count_enqueued();
            // `do_send` would drop silently; with no bound on the mailbox `try_send` refuses only when closed.
            if told_at(told, || self.address.try_send(message)).is_ok() {
                return Ok(());
            }
            stats.uncount_enqueued();
        }
        Err(Closed { actor: Arc::clone(stats.name()) })
    }

    /// The bare actix address. What is sent past [`tell`](Self::tell) counts as handled but not as enqueued,
    /// which makes `queued` come out too small: prefer the handle.
    pub fn addr(&self) -> Addr<A> {
        self.address.clone()
    }

    /// Whether both speak to the same actor.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The actor's counters.
    pub fn stats(&self) -> &ActorStats {
        &self.shared.stats
    }

    /// Asks the actor to stop once it has handled what is queued; [`tell`](Self::tell) is closed from here on.
    ///
    /// Its running futures are cut off then, `stopping` may still refuse, and a backoff ends without another
    /// restart.
    pub fn stop(&self) {
        self.shared.stop.ask(Stop::DRAIN);
    }

    /// Asks the actor to stop before the next message; what is queued is dropped. `stopped` is still run.
    pub fn kill(&self) {
        self.shared.stop.ask(Stop::KILL);
    }

    /// Waits until the actor has ended for good and been dropped; gives the panic that ended it, if one did.
    pub async fn ended(&self) -> Option<Panic> {
        self.shared.ended.wait().await.clone()
    }

    /// The actor's life, whatever it understands.
    pub fn life(&self) -> Life {
        Life(Arc::clone(&self.shared))
    }
}

/// The life of an actor of any kind: it can be ended, and waited for.
#[derive(Clone, Debug)]
pub struct Life(Arc<Shared>);

/// Ends all of `lives`, in their order, and waits until each is gone: nothing of theirs runs any more then.
///
/// In peace, `drop_queued` is false: what is queued is handled.
pub async fn stop_all(lives: &[Life], drop_queued: bool) {
    let wish = if drop_queued { Stop::KILL } else { Stop::DRAIN };
    for Life(shared) in lives {
        shared.stop.ask(wish);
    }
    for Life(shared) in lives {
        shared.ended.wait().await;
    }
}

/// The wish that an actor stop: set by any handle, seen by its guard.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    wish: AtomicU8,
    guard: AtomicWaker,
}

impl Stop {
    const DRAIN: u8 = 1;
    const KILL: u8 = 2;

    /// The stronger wish wins.
    fn ask(&self, wish: u8) {
        self.wish.fetch_max(wish, Ordering::AcqRel);
        self.guard.wake();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.wish.load(Ordering::Acquire) != 0
    }

    pub(crate) fn is_kill(&self) -> bool {
        self.wish.load(Ordering::Acquire) == Self::KILL
    }

    /// Ready once the actor is to stop.
    pub(crate) fn poll(&self, task: &mut TaskContext<'_>) -> Poll<()> {
        self.guard.register(task.waker());
        if self.is_asked() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
#[path = "supervisor_test.rs"]
mod tests;
