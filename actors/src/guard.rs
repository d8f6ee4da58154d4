//! Guard: the task around every actor. It catches the actor's panics and starts it again.
//!
//! ```text
//! handles ─► mailbox ─► Feed ─► ContextFut { actor, Ctx }     dropped whole after a panic
//!               ▲                    │
//!               └── taken back ◄─────┘ before the drop, given to the next incarnation
//! ```
//!
//! actix does not catch panics. The guard polls actix's own [`ContextFut`] inside `catch_unwind`, so that a
//! panic in a handler, in a future of the actor (`ResponseActFuture`, `ctx.spawn`, `ctx.wait`, streams), in
//! `started`, `stopped`, the factory or a destructor ends one incarnation and nothing else. (A plain
//! `ResponseFuture` runs outside the actor, and its panic escapes us: use `ResponseActFuture`.)
//!
//! After a panic the broken actor is dropped at once, without `stopped`: what must be released is released
//! by destructors, and before the next incarnation is built. The message it died of is gone, and so are its
//! futures; messages still queued are kept.
//!
//! `ContextFut::restart` would keep the broken value until a new one replaces it, and `ContextFut` never
//! gives its mailbox back. So the mailbox of the actor's address belongs to [`Ctx`], from where the guard can
//! retrieve it, and a future among the actor's own, `Feed`, moves messages from it into the handlers.
//! Feeding them ourselves also gives what actix lacks: a budget, a count, and a stop that drains the queue.
//!
//! (`Ctx` and `Feed` are in `context.rs`.)
//!
//! Owns:   one actor's incarnations, its mailbox, its restarts.
//! Keeps:  the address valid until the actor ends for good; one log record per panic.
//! Never:  decides how often to restart (`backoff` does), restarts a group (the parent does).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use actix::dev::channel::{AddressReceiver, channel};
use actix::dev::{ContextFut, Mailbox};
use actix::{Actor, ActorContext, ActorState, Addr};
use futures_util::future::{Either, select};
use rand::rngs::StdRng;
use serde::{Serialize, Serializer};
use slog::{Logger, debug, error, warn};
use tokio::sync::mpsc::UnboundedSender;

use crate::backoff::{Backoff, Decision, Limits};
use crate::catch::{catch, note_locations};
use crate::clock::unix_ms;
use crate::context::begin_turn;
pub use crate::context::{Ctx, MESSAGES_PER_TURN};
use crate::registry::Registry;
use crate::stats::{Panic, State};
use crate::supervisor::{ChildEvent, ChildEventKind, Shared, Stop};

/// When an actor that has ended is started again. An end that was asked for through its handle is always the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Always, in place: a new incarnation behind the same address, with the messages still queued. It is to live as long as the node,
    /// so an end in peace that nobody asked for counts like a panic.
    Permanent(Limits),
    /// After a panic, in place. An end in peace is fine.
    Transient(Limits),
    /// Never. It leaves the registry when it ends: for connections and their like.
    Never,
    /// Not by itself: its end, unless asked for, is told to its parent, which restarts it alone or with all of its group.
    Group,
}

impl Restart {
    const fn limits(self) -> Option<Limits> {
        match self {
            Self::Permanent(limits) | Self::Transient(limits) => Some(limits),
            Self::Never | Self::Group => None,
        }
    }

    /// Whether an end in peace that nobody asked for is a failure.
    const fn must_live(self) -> bool {
        matches!(self, Self::Permanent(_) | Self::Group)
    }

    /// The policy in a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent(_) => "permanent",
            Self::Transient(_) => "transient",
            Self::Never => "never",
            Self::Group => "group",
        }
    }
}

impl Serialize for Restart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// --- One life ------------------------------------------------------------------------------------------------

/// One life of an actor, from the factory to its first panic or its peaceful end.
struct Incarnation<A: Actor<Context = Ctx<A>>> {
    /// Emptied by the destructor only.
    fut: Option<ContextFut<A, Ctx<A>>>,
}

impl<A: Actor<Context = Ctx<A>>> Incarnation<A> {
    fn new(actor: A, ctx: Ctx<A>) -> Self {
        // The mailbox that actix polls stays empty: see the head of this file.
        Self { fut: Some(ContextFut::new(ctx, actor, Mailbox::default())) }
    }

    /// Runs the actor for one turn; ready when this life has ended.
    fn poll(&mut self, stop: &Stop, task: &mut TaskContext<'_>) -> Poll<Result<(), Panic>> {
        let Some(fut) = self.fut.as_mut() else { return Poll::Ready(Ok(())) };
        match catch(|| turn(fut, stop, task)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                // A terminated context is neither polled nor told `stopped` by its destructor.
                fut.ctx().terminate();
                Poll::Ready(Err(panic))
            }
        }
    }

    fn take_inbox(&mut self) -> Option<AddressReceiver<A>> {
        self.fut.as_mut().and_then(|fut| fut.ctx().take_inbox())
    }

    /// Drops actor and futures. (Two destructors that panic in one drop still abort, as anywhere in Rust.)
    fn discard(&mut self) -> Result<(), Panic> {
        let Some(mut fut) = self.fut.take() else { return Ok(()) };
        let stopped = if matches!(fut.ctx().state(), ActorState::Started | ActorState::Stopped) {
            // What never began need not end: a turn would begin it now.
            Ok(())
        } else {
            // Killed, or dropped with its arbiter: `stopped` is still due, as actix has it. Done here and not
            // in actix's destructor, where a panic would meet those of the actor's own destructor.
            fut.ctx().stop();
            catch(|| Pin::new(&mut fut).poll(&mut TaskContext::from_waker(Waker::noop()))).map(drop)
        };
        fut.ctx().terminate();
        stopped.and(catch(|| drop(fut)))
    }
}

impl<A: Actor<Context = Ctx<A>>> Drop for Incarnation<A> {
    fn drop(&mut self) {
        // Nobody is left to be told of a panic here but the panic hook.
        let _ = self.discard();
    }
}

fn turn<A: Actor<Context = Ctx<A>>>(
    fut: &mut ContextFut<A, Ctx<A>>,
    stop: &Stop,
    task: &mut TaskContext<'_>,
) -> Poll<()> {
    let asked = stop.poll(task).is_ready();
    if stop.is_kill() {
        return Poll::Ready(());
    }
    begin_turn(fut, asked);
    Pin::new(fut).poll(task)
}

// --- All lives -----------------------------------------------------------------------------------------------

/// How a guard gets a new actor: in the actor's thread, once per incarnation.
pub(crate) type Factory<A> = Box<dyn FnMut() -> A + Send>;

/// Everything about one child that outlives its incarnations.
pub(crate) struct Guard<A: Actor<Context = Ctx<A>>> {
    factory: Factory<A>,
    restart: Restart,
    shared: Arc<Shared>,
    registry: Registry,
    events: UnboundedSender<ChildEvent>,
    log: Logger,
    rng: StdRng,
    /// Here between incarnations; with the incarnation while it lives.
    inbox: Option<AddressReceiver<A>>,
    /// What the destructor tells: how it ended, or would if its arbiter were stopped now.
    ending: ChildEventKind,
}

impl<A: Actor<Context = Ctx<A>>> Guard<A> {
    /// A guard and the address that stays valid until the guard is gone.
    pub(crate) fn new(
        factory: Factory<A>,
        restart: Restart,
        shared: Arc<Shared>,
        registry: Registry,
        events: UnboundedSender<ChildEvent>,
        log: Logger,
        rng: StdRng,
    ) -> (Self, Addr<A>) {
        note_locations();
        // Capacity 0 means no bound: bytes are bounded by credits, and no send is ever refused as `Full`.
        let (address, inbox) = channel(0);
        let (inbox, ending) = (Some(inbox), ChildEventKind::Ended { panic: None });
        let guard = Self { factory, restart, shared, registry, events, log, rng, inbox, ending };
        (guard, Addr::new(address))
    }

    /// Lives as often as the policy allows.
    pub(crate) async fn run(mut self) {
        let mut backoff = self.restart.limits().map(Backoff::new);
        while let Err(panic) = self.live().await {
            self.shared.stats.note_panic(panic.clone());
            let decision = match &mut backoff {
                Some(backoff) if !self.shared.stop.is_asked() => {
                    Some(backoff.on_panic(Instant::now(), &mut self.rng))
                }
                _ => None,
            };
            self.report(&panic, decision);
            self.ending = match decision {
                Some(Decision::GiveUp) => ChildEventKind::GaveUp { panic: panic.clone() },
                _ => ChildEventKind::Ended { panic: Some(panic.clone()) },
            };
            let Some(Decision::RestartAfter(delay)) = decision else { break };
            if self.stopped_within(delay).await {
                break;
            }
            self.registry.count_restart(&self.shared.stats);
            self.tell(ChildEventKind::Restarted { panic });
            self.ending = ChildEventKind::Ended { panic: None };
        }
    }

    /// One incarnation from beginning to end, its actor dropped.
    async fn live(&mut self) -> Result<(), Panic> {
        let Shared { stats, stop, .. } = &*self.shared;
        stats.set_state(State::Starting);
        let actor = catch(|| (self.factory)())?;
        let Some(inbox) = self.inbox.take() else { return Ok(()) };
        let mut life = Incarnation::new(actor, Ctx::new(inbox, Arc::clone(&self.shared), self.log.clone()));
        let lived = poll_fn(|task| {
            let poll = life.poll(stop, task);
            stats.turn_ends();
            if poll.is_pending() {
                stats.set_state(State::Running);
            }
            poll
        });
        let lived = lived.await;
        self.inbox = life.take_inbox();
        let discarded = life.discard();
        if let (Err(_), Err(second)) = (&lived, &discarded) {
            warn!(self.log, "actor panicked again while dropped"; "panic" => %second);
        }
        // The first panic is the cause, and what is reported.
        lived.and(discarded)?;
        // Nobody can speak any more to one whose addresses are all gone: that is an end like one that was asked for.
        let is_reachable = self.inbox.as_ref().is_some_and(AddressReceiver::connected);
        if self.restart.must_live() && is_reachable && !stop.is_asked() {
            let text = "ended by itself, though it was to live on".to_owned();
            return Err(Panic { text, location: None, unix_ms: unix_ms() });
        }
        Ok(())
    }

    /// Waits out a backoff; true if the actor is to stop instead of going on.
    async fn stopped_within(&self, delay: Duration) -> bool {
        self.shared.stats.set_state(State::Backoff);
        let asked = pin!(poll_fn(|task| self.shared.stop.poll(task)));
        let waited = pin!(actix_rt::time::sleep(delay));
        matches!(select(asked, waited).await, Either::Left(_))
    }

    /// The one log record of a panic.
    fn report(&self, panic: &Panic, decision: Option<Decision>) {
        let restarts = self.shared.stats.restarts();
        match (decision, self.restart) {
            (Some(Decision::RestartAfter(delay)), _) => warn!(self.log, "actor panicked, restarting";
                "panic" => %panic, "restarts" => restarts, "delay" => ?delay),
            (Some(Decision::GiveUp), _) => error!(self.log, "actor panicked too often, giving up";
                "panic" => %panic, "restarts" => restarts),
            (None, Restart::Never) => warn!(self.log, "actor panicked, ended"; "panic" => %panic),
            (None, Restart::Group) => {
                error!(self.log, "actor panicked, its group with it"; "panic" => %panic)
            }
            (None, Restart::Permanent(_) | Restart::Transient(_)) => {
                warn!(self.log, "actor panicked while stopping"; "panic" => %panic)
            }
        }
    }

    fn tell(&self, kind: ChildEventKind) {
        let stats = &self.shared.stats;
        let parent = stats.parent.as_deref().unwrap_or_default().into();
        let event = ChildEvent { name: Arc::clone(stats.name()), parent, kind };
        // A parent that stopped listening is past deciding anything.
        let _ = self.events.send(event);
    }
}

/// However the task ends, finished or dropped with its arbiter: the mailbox closes, then all are told.
impl<A: Actor<Context = Ctx<A>>> Drop for Guard<A> {
    fn drop(&mut self) {
        // Messages left in the mailbox have destructors of their own.
        let inbox = self.inbox.take();
        if let Err(panic) = catch(|| drop(inbox)) {
            warn!(self.log, "a queued message panicked while dropped"; "panic" => %panic);
        }
        let stats = &self.shared.stats;
        let panic = match &self.ending {
            ChildEventKind::Ended { panic } => panic.clone(),
            ChildEventKind::GaveUp { panic } | ChildEventKind::Restarted { panic } => Some(panic.clone()),
        };
        stats.set_state(if panic.is_some() { State::Failed } else { State::Stopped });
        if self.restart == Restart::Never {
            if panic.is_some() {
                self.registry.count_lost();
            }
            self.registry.forget(stats.name());
        }
        if panic.is_none() {
            debug!(self.log, "actor stopped");
        }
        // Told first: who waits for the end finds the event already there.
        self.tell(self.ending.clone());
        let _ = self.shared.ended.set(panic);
    }
}

#[cfg(test)]
#[path = "guard_test.rs"]
mod tests;

#[cfg(test)]
#[path = "restart_test.rs"]
mod restart_tests;
