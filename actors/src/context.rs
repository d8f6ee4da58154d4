//! Context: what a supervised actor is given, and how messages come to it from its mailbox.
//!
//! ```text
//!   tell: number, time ─► mailbox ─► Feed ─► handler              wait = before - told     handling = after - before
//! ```
//!
//! The clock is read once when a message is told, once before the first message of a turn and once after each: the *after* of one is
//! the *before* of the next. What does not pass through the mailbox (a socket's stream, a message of the actor to itself) is timed where
//! it is handled, with [`Ctx::begin`] and [`Ctx::end`].
//!
//! Owns:   the feeding of one incarnation, the times of its messages, the moments at which it shows its state.
//! Keeps:  an actor that has nothing to do costs nothing.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::channel::AddressReceiver;
use actix::dev::{
    AsyncContextParts, ContextFut, ContextParts, Envelope, EnvelopeProxy, MessageResponse, ToEnvelope,
};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle};
use actix_rt::time::Sleep;
use futures_util::StreamExt;
use serde_json::Value;
use slog::Logger;
use tokio::sync::oneshot;

use crate::clock::now_us;
use crate::stats::MessageStats;
use crate::supervisor::{Handle, Shared};

/// Messages an actor handles before its neighbours on the thread get a turn.
///
/// tokio's own budget does not help: actix's mailbox knows nothing of it. It does help streams of tokio's
/// (`ctx.add_stream`), which this budget does not see.
pub const MESSAGES_PER_TURN: u32 = 256;

/// How soon a change of an actor's own state is shown.
pub const SHOWN_WITHIN: Duration = Duration::from_millis(250);

thread_local! {
    /// When the message that is just being told was told, for its envelope; 0: nobody knows.
    static TOLD: Cell<u64> = const { Cell::new(0) };
}

/// Has the envelopes packed in `send` know that they were told at `told`.
pub(crate) fn told_at<T>(told: u64, send: impl FnOnce() -> T) -> T {
    TOLD.set(told);
    let sent = send();
    TOLD.set(0);
    sent
}

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
    /// Whether times are taken.
    is_timed: bool,
    /// The last look at the clock.
    clock: u64,
    /// Whether nothing has run since.
    is_clock_fresh: bool,
    /// The types of messages that came to this incarnation: a handful.
    kinds: Vec<Kind>,
    /// How the actor shows its state, and how soon a change of it.
    show: Option<Show<A>>,
}

/// Tells an actor's own state.
struct Show<A> {
    observe: fn(&A) -> Value,
    within: Duration,
}

struct Kind {
    id: TypeId,
    /// Its place in the actor's stats.
    at: usize,
    stats: Arc<MessageStats>,
}

/// Something is being handled; to be given to [`Ctx::end`].
#[must_use = "what has begun ends"]
#[derive(Debug, Default)]
pub struct Begun {
    kind: usize,
    /// 0: nothing is timed.
    since: u64,
}

impl<A: Actor<Context = Self>> Ctx<A> {
    pub(crate) fn new(inbox: AddressReceiver<A>, shared: Arc<Shared>, log: Logger) -> Self {
        let parts = ContextParts::new(inbox.sender_producer());
        Self {
            parts,
            log,
            inbox: Some(inbox),
            is_fed: false,
            drains: false,
            budget: 0,
            is_timed: shared.stats.is_timed(),
            clock: 0,
            is_clock_fresh: false,
            kinds: Vec::new(),
            show: None,
            shared,
        }
    }

    /// A handle to this very actor. Like an address, it keeps the actor alive if the actor keeps it.
    pub fn this(&self) -> Handle<A> {
        Handle::new(self.address(), Arc::clone(&self.shared))
    }

    /// The actor's logger.
    pub fn log(&self) -> &Logger {
        &self.log
    }

    /// Has the actor show its own state, through `observe`, now and soon after each change. To be called in `started`.
    pub fn show(&mut self, observe: fn(&A) -> Value) {
        self.show_within(SHOWN_WITHIN, observe);
    }

    /// The same for actors of which there may be thousands: changes are shown later.
    pub fn show_within(&mut self, within: Duration, observe: fn(&A) -> Value) {
        self.show = self.is_timed.then_some(Show { observe, within });
    }

    /// Something that came past the mailbox is being handled, here called `M`.
    pub fn begin<M: 'static>(&mut self) -> Begun {
        self.is_clock_fresh = false;
        self.begin_told::<M>(0)
    }

    /// A message that was told at `told`, 0 if nobody knows, is being handled.
    fn begin_told<M: 'static>(&mut self, told: u64) -> Begun {
        if !self.is_timed {
            return Begun::default();
        }
        if !std::mem::replace(&mut self.is_clock_fresh, false) {
            self.clock = now_us();
        }
        let (since, id) = (self.clock, TypeId::of::<M>());
        let kind = match self.kinds.iter().position(|kind| kind.id == id) {
            Some(kind) => kind,
            None => self.first::<M>(id),
        };
        let Kind { at, stats, .. } = &self.kinds[kind];
        if told != 0 {
            stats.wait.record(since.saturating_sub(told));
        }
        self.shared.stats.begin(*at, told, since);
        Begun { kind, since }
    }

    /// It was handled.
    pub fn end(&mut self, Begun { kind, since }: Begun) {
        if since == 0 {
            return;
        }
        self.clock = now_us();
        self.is_clock_fresh = true;
        self.kinds[kind].stats.handling.record(self.clock.saturating_sub(since));
        self.shared.stats.end(self.clock);
    }

    #[cold]
    fn first<M: 'static>(&mut self, id: TypeId) -> usize {
        let (at, stats) = self.shared.stats.message(id, type_name::<M>());
        self.kinds.push(Kind { id, at, stats });
        self.kinds.len() - 1
    }

    /// Whether anybody holds an address of the mailbox that actix polls.
    #[cfg(test)]
    pub(crate) fn is_connected(&self) -> bool {
        self.parts.connected()
    }

    pub(crate) fn take_inbox(&mut self) -> Option<AddressReceiver<A>> {
        self.inbox.take()
    }
}

/// Prepares one turn of an actor; `drains`: it is to stop once its mailbox is empty.
pub(crate) fn begin_turn<A: Actor<Context = Ctx<A>>>(fut: &mut ContextFut<A, Ctx<A>>, drains: bool) {
    let ctx = fut.ctx();
    ctx.budget = MESSAGES_PER_TURN;
    ctx.drains = drains;
    let is_fed = std::mem::replace(&mut ctx.is_fed, true);
    if ctx.is_timed {
        ctx.clock = now_us();
        // In the first turn `started` runs before the first message.
        ctx.is_clock_fresh = is_fed;
        ctx.shared.stats.turn_begins(ctx.clock);
    }
    if !is_fed {
        // A feed that left is tried again in every turn, behind the other futures: one of them may have given
        // out the actor's address just now. Before it left it asked to be woken for whatever is sent.
        ctx.spawn(Feed::default());
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
    fn pack(msg: M, tx: Option<oneshot::Sender<M::Result>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(Stamped { message: Some(msg), tx, told: TOLD.get() }))
    }
}

/// A message on its way, and when it was told.
struct Stamped<M: Message> {
    message: Option<M>,
    tx: Option<oneshot::Sender<M::Result>>,
    told: u64,
}

impl<A, M> EnvelopeProxy<A> for Stamped<M>
where
    A: Actor<Context = Ctx<A>> + Handler<M>,
    M: Message<Result: Send> + Send + 'static,
{
    fn handle(&mut self, act: &mut A, ctx: &mut Ctx<A>) {
        let (Some(message), tx) = (self.message.take(), self.tx.take()) else { return };
        // As in actix: nobody waits for the answer any more, so nothing is done for it.
        if tx.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return;
        }
        let begun = ctx.begin_told::<M>(self.told);
        let result = act.handle(message, ctx);
        result.handle(ctx, tx);
        ctx.end(begun);
    }
}

/// Moves messages from the mailbox into the handlers, as one of the actor's futures. Being polled in each of the actor's turns, it also
/// has the actor show its state: once at first, and a while after the first of each row of turns.
#[derive(Default)]
struct Feed {
    is_shown: bool,
    /// When the state is shown next, and what wakes the actor then.
    due: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Feed {
    /// Shows what the turns before have made of the actor, if that is due; whatever this turn makes of it, soon.
    fn show<A: Actor<Context = Ctx<A>>>(&mut self, act: &A, ctx: &Ctx<A>, task: &mut TaskContext<'_>) {
        let Some(Show { observe, within }) = ctx.show else { return };
        let is_due = self.due.as_ref().is_some_and(|(due, _)| ctx.clock >= *due);
        if is_due || !self.is_shown {
            ctx.shared.stats.show(observe(act));
        }
        if is_due {
            // This turn is that of the timer, which changes nothing.
            self.due = None;
        } else if self.due.is_none() {
            self.show_later(within, ctx.clock, task);
        }
        self.is_shown = true;
    }

    fn show_later(&mut self, within: Duration, now: u64, task: &mut TaskContext<'_>) {
        let mut wake = Box::pin(actix_rt::time::sleep(within));
        // Asks to be woken; it is not over yet.
        let _ = wake.as_mut().poll(task);
        let within = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        self.due = Some((now.saturating_add(within), wake));
    }
}

impl<A: Actor<Context = Ctx<A>>> ActorFuture<A> for Feed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, act: &mut A, ctx: &mut Ctx<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        self.show(act, ctx, task);
        let polled = feed(act, ctx, task);
        if let Some(Show { within, .. }) = ctx.show
            && self.due.is_none()
            && ctx.budget < MESSAGES_PER_TURN
        {
            // Messages came in the very turn of the timer.
            self.show_later(within, ctx.clock, task);
        }
        // What else the actor does now takes time, too.
        ctx.is_clock_fresh = false;
        polled
    }
}

fn feed<A: Actor<Context = Ctx<A>>>(act: &mut A, ctx: &mut Ctx<A>, task: &mut TaskContext<'_>) -> Poll<()> {
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

#[cfg(test)]
#[path = "context_test.rs"]
mod tests;
