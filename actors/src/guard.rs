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
//! Owns:   one actor's incarnations, its mailbox, its restarts.
//! Keeps:  the address valid until the actor ends for good; one log record per panic.
//! Never:  decides how often to restart (`backoff` does), restarts a group (the parent does).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Once};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use actix::dev::channel::{AddressReceiver, channel};
use actix::dev::{AsyncContextParts, ContextFut, ContextParts, Envelope, EnvelopeProxy, Mailbox, ToEnvelope};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use rand::rngs::StdRng;
use slog::{Logger, debug, error, warn};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::backoff::{Backoff, Decision, Limits};
use crate::stats::{Panic, Registry, State, unix_ms};
use crate::supervisor::{ChildEvent, ChildEventKind, Handle, Shared, Stop};

/// Messages an actor handles before its neighbours on the thread get a turn.
///
/// tokio's own budget does not help: actix's mailbox knows nothing of it. It does help streams of tokio's
/// (`ctx.add_stream`), which this budget does not see.
pub const MESSAGES_PER_TURN: u32 = 256;

/// What follows a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// A new incarnation behind the same address, with the messages still queued.
    InPlace(Limits),
    /// The end of this actor. It leaves the registry when it ends: for connections and their like.
    Never,
    /// The end of this actor, told to the parent, which restarts the whole group.
    Group,
}

// --- The context ---------------------------------------------------------------------------------------------

/// The context of a supervised actor: `type Context = Ctx<Self>`.
///
/// It does what [`actix::Context`] does, through the same traits, but the address it gives out outlives
/// restarts, and it knows its actor's logger and handle. Such an actor can only run under a supervisor.
pub struct Ctx<A: Actor<Context = Self>> {
    parts: ContextParts<A>,
    shared: Arc<Shared>,
    log: Logger,
    /// Taken back by the guard when this incarnation ends.
    inbox: Option<AddressReceiver<A>>,
    /// Whether a [`Feed`] is among the actor's futures.
    is_fed: bool,
    /// Stop once the mailbox is found empty.
    drains: bool,
    /// Messages left in this turn.
    budget: u32,
}

impl<A: Actor<Context = Self>> Ctx<A> {
    fn new(inbox: AddressReceiver<A>, shared: Arc<Shared>, log: Logger) -> Self {
        let parts = ContextParts::new(inbox.sender_producer());
        Self { parts, shared, log, inbox: Some(inbox), is_fed: false, drains: false, budget: 0 }
    }

    /// A handle to this very actor. Like an address, it keeps the actor alive if the actor keeps it.
    pub fn this(&self) -> Handle<A> {
        Handle::new(self.address(), Arc::clone(&self.shared))
    }

    /// The actor's logger.
    pub fn log(&self) -> &Logger {
        &self.log
    }
}

impl<A: Actor<Context = Self>> ActorContext for Ctx<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for Ctx<A> {
    fn address(&self) -> Addr<A> {
        self.parts.address()
    }

    fn spawn<F: ActorFuture<A, Output = ()> + 'static>(&mut self, fut: F) -> SpawnHandle {
        self.parts.spawn(fut)
    }

    fn wait<F: ActorFuture<A, Output = ()> + 'static>(&mut self, fut: F) {
        self.parts.wait(fut);
    }

    fn waiting(&self) -> bool {
        self.parts.waiting()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }
}

impl<A: Actor<Context = Self>> AsyncContextParts<A> for Ctx<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

impl<A, M> ToEnvelope<A, M> for Ctx<A>
where
    A: Actor<Context = Self> + Handler<M>,
    M: Message<Result: Send> + Send + 'static,
{
    // Every message passes here, however it is sent: the place to stamp it, to measure waiting and handling.
    fn pack(msg: M, tx: Option<oneshot::Sender<M::Result>>) -> Envelope<A> {
        Envelope::new(msg, tx)
    }
}

/// Moves messages from the mailbox into the handlers, as one of the actor's futures.
struct Feed;

impl<A: Actor<Context = Ctx<A>>> ActorFuture<A> for Feed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, act: &mut A, ctx: &mut Ctx<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        // A handler that calls `ctx.wait` or stops holds back the messages behind it.
        while !ctx.waiting() {
            if ctx.budget == 0 {
                // Not `wake_by_ref`: tokio runs 61 tasks so woken before it looks for I/O again. This wakes us
                // after it has looked, and needs no second poll.
                let _ = pin!(tokio::task::yield_now()).poll(task);
                return Poll::Pending;
            }
            let Some(inbox) = ctx.inbox.as_mut() else { return Poll::Ready(()) };
            if let Poll::Ready(Some(mut envelope)) = inbox.poll_next_unpin(task) {
                ctx.budget -= 1;
                ctx.shared.stats.count_handled();
                envelope.handle(act, ctx);
            } else if std::mem::take(&mut ctx.drains) {
                ctx.stop();
            } else if inbox.connected() {
                return Poll::Pending;
            } else {
                // Nobody can send any more. Leaving lets actix end an actor that has nothing else to do.
                ctx.is_fed = false;
                return Poll::Ready(());
            }
        }
        Poll::Pending
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
        self.fut.as_mut().and_then(|fut| fut.ctx().inbox.take())
    }

    /// Drops actor and futures. (Two destructors that panic in one drop still abort, as anywhere in Rust.)
    fn discard(&mut self) -> Result<(), Panic> {
        let Some(mut fut) = self.fut.take() else { return Ok(()) };
        let stopped = if fut.ctx().state() == ActorState::Stopped {
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
    let ctx = fut.ctx();
    ctx.budget = MESSAGES_PER_TURN;
    ctx.drains = stop.poll(task).is_ready();
    if stop.is_kill() {
        return Poll::Ready(());
    }
    if !std::mem::replace(&mut fut.ctx().is_fed, true) {
        // A feed that left is tried again in every turn, behind the other futures: one of them may have given
        // out the actor's address just now. Before it left it asked to be woken for whatever is sent.
        fut.ctx().spawn(Feed);
    }
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
        let mut backoff = match self.restart {
            Restart::InPlace(limits) => Some(Backoff::new(limits)),
            Restart::Never | Restart::Group => None,
        };
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
            stats.note_progress();
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
        lived.and(discarded)
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
            (None, Restart::InPlace(_)) => {
                warn!(self.log, "actor panicked while stopping"; "panic" => %panic)
            }
        }
    }

    fn tell(&self, kind: ChildEventKind) {
        let event = ChildEvent { name: Arc::clone(self.shared.stats.name()), kind };
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

// --- Panics --------------------------------------------------------------------------------------------------

thread_local! {
    /// Where this thread panicked last, if nobody asked yet.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is inside [`catch`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Has the panic hook remember where a guarded thread panics, before the hook that was there runs as ever.
///
/// Only a hook sees the location. A hook set later that does not chain costs us the location, no more.
fn note_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if GUARDED.try_with(Cell::get).unwrap_or(false) {
                let location = panic.location().map(ToString::to_string);
                let _ = LOCATION.try_with(|cell| cell.replace(location));
            }
            previous(panic);
        }));
    });
}

/// Runs `f`, turning a panic into a value.
///
/// Unwind safety is the caller's: every caller here drops what `f` may have left half done.
fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    LOCATION.take();
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(outer);
    result.map_err(|payload| Panic {
        text: text_of(&*payload),
        location: LOCATION.take(),
        unix_ms: unix_ms(),
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}

#[cfg(test)]
#[path = "guard_test.rs"]
mod tests;
