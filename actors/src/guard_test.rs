//! What an actor and its callers see of panics, wherever in the actor they happen.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use actix::fut::ActorFuture;
use actix::{AsyncContext, Handler, Message, ResponseActFuture, Running, WrapFuture};
use actix_rt::{Arbiter, ArbiterHandle};
use slog::o;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::supervisor::{Child, Handle, Supervisor};

const QUICK: Limits = Limits {
    restarts_max: 5,
    window: Duration::from_secs(600),
    delay_min: Duration::from_millis(1),
    delay_max: Duration::from_millis(4),
};
/// So long a first delay that a test which waits it out fails by its deadline.
const SLOW: Limits =
    Limits { delay_min: Duration::from_secs(600), delay_max: Duration::from_secs(600), ..QUICK };

/// How many times each place is yet to panic, and what the actor did.
#[derive(Default)]
struct World {
    journal: Mutex<Vec<String>>,
    build: AtomicU32,
    started: AtomicU32,
    stopped: AtomicU32,
    dropped: AtomicU32,
}

impl World {
    fn note(&self, what: impl ToString) {
        self.journal.lock().unwrap().push(what.to_string());
    }

    fn journal(&self) -> String {
        self.journal.lock().unwrap().join(" ")
    }

    fn trip(&self, what: &str, fuse: &AtomicU32) {
        self.note(what);
        if fuse.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("in {what}");
        }
    }
}

struct Probe(Arc<World>);

impl Actor for Probe {
    type Context = Ctx<Self>;

    fn started(&mut self, _: &mut Ctx<Self>) {
        self.0.trip("started", &self.0.started);
    }

    fn stopped(&mut self, _: &mut Ctx<Self>) {
        self.0.trip("stopped", &self.0.stopped);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.trip("dropped", &self.0.dropped);
    }
}

enum Do {
    Note(u32),
    Panic,
    PanicInSpawned,
    PanicInWaited,
    PanicInStream,
    Stop,
    /// Gives the actor's address to a task outside, which sends this note through it.
    NoteFromOutside(u32),
}

impl Message for Do {
    type Result = ();
}

impl Handler<Do> for Probe {
    type Result = ();

    fn handle(&mut self, message: Do, ctx: &mut Ctx<Self>) {
        match message {
            Do::Note(number) => self.0.note(number),
            Do::Panic => panic!("in handler"),
            Do::PanicInSpawned => drop(ctx.spawn(async { panic!("in spawned") }.into_actor(self))),
            Do::PanicInWaited => ctx.wait(
                async {
                    tokio::task::yield_now().await;
                    panic!("in waited")
                }
                .into_actor(self),
            ),
            Do::PanicInStream => ctx.add_message_stream(futures_util::stream::iter([Do::Panic])),
            Do::Stop => ctx.stop(),
            Do::NoteFromOutside(number) => {
                let address = ctx.address();
                actix_rt::spawn(async move { address.send(Do::Note(number)).await.unwrap() });
            }
        }
    }
}

struct Ask;

impl Message for Ask {
    type Result = u32;
}

impl Handler<Ask> for Probe {
    type Result = ResponseActFuture<Self, u32>;

    fn handle(&mut self, _: Ask, _: &mut Ctx<Self>) -> Self::Result {
        Box::pin(async { panic!("in async handler") }.into_actor(self))
    }
}

struct Stage {
    supervisor: Supervisor,
    events: UnboundedReceiver<ChildEvent>,
    world: Arc<World>,
}

impl Stage {
    fn new() -> Self {
        Self::with_log(Logger::root(slog::Discard, o!()))
    }

    fn with_log(log: Logger) -> Self {
        let (supervisor, events) = Supervisor::new(log, 1);
        Self { supervisor, events, world: Arc::default() }
    }

    fn spawn(&self, restart: Restart) -> Handle<Probe> {
        self.spawn_on(&Arbiter::current(), restart)
    }

    fn spawn_on(&self, arbiter: &ArbiterHandle, restart: Restart) -> Handle<Probe> {
        let world = Arc::clone(&self.world);
        self.supervisor.spawn(child("probe", restart), arbiter, move || {
            world.trip("built", &world.build);
            Probe(Arc::clone(&world))
        })
    }

    async fn until(&self, journal: &str) {
        let wanted = || self.world.journal() == journal;
        let in_time = tokio::time::timeout(Duration::from_secs(10), until(wanted)).await.is_ok();
        assert!(in_time, "journal is {:?}, not {journal:?}", self.world.journal());
    }

    async fn event(&mut self) -> ChildEventKind {
        within(self.events.recv()).await.unwrap().kind
    }
}

fn child(name: &str, restart: Restart) -> Child {
    Child { name: name.into(), kind: "Probe", parent: "test".into(), restart }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

/// Queues `fatal` between notes, and expects exactly one restart, which keeps what was queued behind it.
async fn survives(fatal: Do, text: &str) {
    let mut stage = Stage::new();
    let probe = stage.spawn(Restart::Transient(QUICK));
    let address = probe.addr();
    probe.tell(Do::Note(1)).unwrap();
    probe.tell(fatal).unwrap();
    probe.tell(Do::Note(2)).unwrap();
    // A future of the actor runs after the messages already there, so note 2 may come before the panic.
    let in_order = ["built started 1 dropped built started 2", "built started 1 2 dropped built started"];
    within(until(|| in_order.contains(&stage.world.journal().as_str()))).await;
    let ChildEventKind::Restarted { panic } = stage.event().await else { panic!("not restarted") };
    assert_eq!(panic.text, text);
    within(address.send(Do::Note(3))).await.expect("the old address is valid");
    assert!(stage.world.journal().ends_with(" 3"));
    assert_eq!(probe.stats().state(), State::Running);
    assert_eq!((probe.stats().restarts(), stage.supervisor.registry().restarts()), (1, 1));
    assert_eq!(probe.stats().last_panic(), Some(panic));
}

#[actix::test]
async fn panic_in_handler_is_survived() {
    survives(Do::Panic, "in handler").await;
}

#[actix::test]
async fn panic_in_spawned_future_is_survived() {
    survives(Do::PanicInSpawned, "in spawned").await;
}

#[actix::test]
async fn panic_in_waited_future_is_survived() {
    survives(Do::PanicInWaited, "in waited").await;
}

#[actix::test]
async fn panic_in_stream_is_survived() {
    survives(Do::PanicInStream, "in handler").await;
}

#[actix::test]
async fn panic_in_async_handler_is_survived_and_fails_its_caller() {
    let stage = Stage::new();
    let probe = stage.spawn(Restart::Transient(QUICK));
    let answer = probe.addr().send(Ask);
    assert!(within(answer).await.is_err());
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started dropped built started 1").await;
    assert_eq!(probe.stats().last_panic().unwrap().text, "in async handler");
}

#[actix::test]
async fn panic_in_started_is_survived() {
    let stage = Stage::new();
    stage.world.started.store(2, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started dropped built started dropped built started 1").await;
    assert_eq!(probe.stats().restarts(), 2);
}

#[actix::test]
async fn panic_in_stopped_is_survived() {
    let stage = Stage::new();
    stage.world.stopped.store(1, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Stop).unwrap();
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started stopped dropped built started 1").await;
    assert_eq!(probe.stats().last_panic().unwrap().text, "in stopped");
}

#[actix::test]
async fn panic_in_drop_after_a_panic_is_survived_and_the_first_is_reported() {
    let stage = Stage::new();
    stage.world.dropped.store(1, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Panic).unwrap();
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started dropped built started 1").await;
    assert_eq!(probe.stats().last_panic().unwrap().text, "in handler");
}

#[actix::test]
async fn panic_in_stopped_and_in_drop_together_is_survived() {
    let stage = Stage::new();
    stage.world.stopped.store(1, SeqCst);
    stage.world.dropped.store(1, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Stop).unwrap();
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started stopped dropped built started 1").await;
    assert_eq!(probe.stats().last_panic().unwrap().text, "in stopped");
}

#[actix::test]
async fn panic_in_drop_alone_is_survived() {
    let stage = Stage::new();
    stage.world.dropped.store(1, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Stop).unwrap();
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built started stopped dropped built started 1").await;
}

#[actix::test]
async fn panic_in_the_factory_is_survived() {
    let stage = Stage::new();
    stage.world.build.store(2, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Note(1)).unwrap();
    stage.until("built built built started 1").await;
    assert_eq!(probe.stats().restarts(), 2);
}

#[actix::test]
async fn too_many_restarts_give_up() {
    let mut stage = Stage::new();
    let probe = stage.spawn(Restart::Transient(Limits { restarts_max: 2, ..QUICK }));
    for _ in 0..5 {
        probe.tell(Do::Panic).unwrap();
    }
    let panic = within(probe.ended()).await.unwrap();
    assert!(matches!(stage.event().await, ChildEventKind::Restarted { .. }));
    assert!(matches!(stage.event().await, ChildEventKind::Restarted { .. }));
    assert_eq!(stage.event().await, ChildEventKind::GaveUp { panic });
    assert!(probe.tell(Do::Note(1)).is_err());
    assert_eq!(probe.stats().handled(), 3);
    let report = &stage.supervisor.registry().snapshot()[0];
    assert_eq!((report.state, report.restarts), (State::Failed, 2));
}

#[actix::test]
async fn never_ends_this_actor_only_and_the_registry_counts_it() {
    let mut stage = Stage::new();
    let probe = stage.spawn(Restart::Never);
    let world = Arc::clone(&stage.world);
    let other = child("other", Restart::Never);
    let other = stage.supervisor.spawn_once(other, &Arbiter::current(), move || Probe(world));
    probe.tell(Do::Panic).unwrap();
    assert_eq!(within(probe.ended()).await.unwrap().text, "in handler");
    assert!(
        matches!(stage.event().await, ChildEventKind::Ended { panic: Some(panic) } if panic.text == "in handler")
    );
    let names: Vec<_> =
        stage.supervisor.registry().snapshot().into_iter().map(|report| report.name).collect();
    assert_eq!(names, ["other"]);
    assert_eq!(stage.supervisor.registry().restarts(), 1);
    within(other.addr().send(Do::Note(1))).await.unwrap();
}

#[actix::test]
async fn group_member_ends_and_tells_and_its_restarts_survive_the_group() {
    let mut stage = Stage::new();
    let probe = stage.spawn(Restart::Group);
    probe.tell(Do::Panic).unwrap();
    probe.tell(Do::Note(1)).unwrap();
    assert!(matches!(stage.event().await, ChildEventKind::Ended { panic: Some(_) }));
    assert_eq!(stage.world.journal(), "built started dropped");
    assert_eq!(probe.stats().state(), State::Failed);
    assert!(probe.tell(Do::Note(2)).is_err());

    stage.supervisor.registry().count_restart(probe.stats());
    let again = stage.spawn(Restart::Group);
    again.tell(Do::Note(3)).unwrap();
    stage.until("built started dropped built started 3").await;
    assert_eq!(again.stats().restarts(), 1);
    assert_eq!(again.stats().last_panic().unwrap().text, "in handler");
}

#[actix::test]
async fn address_given_out_when_all_others_are_gone_still_reaches_the_actor() {
    let stage = Stage::new();
    let probe = stage.spawn(Restart::Never);
    probe.addr().send(Do::Note(1)).await.unwrap();
    // Keeps the actor alive without any address; gives one out later.
    struct Later(Option<Pin<Box<tokio::time::Sleep>>>);
    impl ActorFuture<Probe> for Later {
        type Output = ();
        fn poll(
            mut self: Pin<&mut Self>,
            act: &mut Probe,
            ctx: &mut Ctx<Probe>,
            task: &mut TaskContext<'_>,
        ) -> Poll<()> {
            let slept = self.0.as_mut().is_none_or(|sleep| sleep.as_mut().poll(task).is_ready());
            if !slept {
                return Poll::Pending;
            }
            if self.0.take().is_some() {
                assert!(!ctx.is_connected(), "somebody still holds an address");
                act.handle(Do::NoteFromOutside(2), ctx);
            }
            Poll::Ready(())
        }
    }
    struct GoOn;

    impl Message for GoOn {
        type Result = ();
    }
    impl Handler<GoOn> for Probe {
        type Result = ();
        fn handle(&mut self, _: GoOn, ctx: &mut Ctx<Self>) {
            ctx.spawn(Later(Some(Box::pin(tokio::time::sleep(Duration::from_millis(20))))));
        }
    }
    probe.tell(GoOn).unwrap();
    drop(probe);
    stage.until("built started 1 2 stopped dropped").await;
}

#[actix::test]
async fn actor_ends_when_nobody_holds_it() {
    let mut stage = Stage::new();
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Note(1)).unwrap();
    drop(probe);
    assert_eq!(stage.event().await, ChildEventKind::Ended { panic: None });
    assert_eq!(stage.world.journal(), "built started 1 stopped dropped");
}

#[actix::test]
async fn stop_and_kill_end_a_backoff() {
    for end in [Handle::stop, Handle::kill] {
        let stage = Stage::new();
        let probe = stage.spawn(Restart::Transient(SLOW));
        probe.tell(Do::Panic).unwrap();
        probe.tell(Do::Note(1)).unwrap();
        within(until(|| probe.stats().state() == State::Backoff)).await;
        assert_eq!((probe.stats().queued(), probe.stats().restarts()), (1, 0));
        // The broken state is gone while the actor waits.
        assert_eq!(stage.world.journal(), "built started dropped");
        end(&probe);
        assert!(within(probe.ended()).await.is_some());
    }
}

#[actix::test]
async fn panic_while_stopping_does_not_restart() {
    let stage = Stage::new();
    stage.world.stopped.store(1, SeqCst);
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Note(1)).unwrap();
    probe.stop();
    assert_eq!(within(probe.ended()).await.unwrap().text, "in stopped");
    assert_eq!(stage.world.journal(), "built started 1 stopped dropped");
}

#[actix::test]
async fn arbiter_stopped_under_an_actor_is_its_end() {
    let stage = Stage::new();
    stage.world.stopped.store(1, SeqCst);
    stage.world.dropped.store(1, SeqCst);
    let arbiter = Arbiter::new();
    let probe = stage.spawn_on(&arbiter.handle(), Restart::Transient(QUICK));
    within(probe.addr().send(Do::Note(1))).await.unwrap();
    arbiter.stop();
    within(probe.ended()).await;
    assert!(probe.tell(Do::Note(2)).is_err());
    arbiter.join().expect("the panics in stopped and in drop stay inside");
    assert_eq!(stage.world.journal(), "built started 1 stopped dropped");
}

#[actix::test]
async fn stopping_may_refuse_a_stop_but_not_a_kill() {
    struct Stubborn;
    impl Actor for Stubborn {
        type Context = Ctx<Self>;
        fn stopping(&mut self, _: &mut Ctx<Self>) -> Running {
            Running::Continue
        }
    }
    let stage = Stage::new();
    let child = child("stubborn", Restart::Never);
    let stubborn = stage.supervisor.spawn_once(child, &Arbiter::current(), || Stubborn);
    stubborn.stop();
    within(until(|| stubborn.stats().state() == State::Running)).await;
    stubborn.kill();
    assert_eq!(within(stubborn.ended()).await, None);
}

/// Tells itself one message per message, so that its mailbox is never empty, `left` times.
struct Flooded {
    left: Arc<AtomicU64>,
}

struct Again;

impl Message for Again {
    type Result = ();
}

impl Actor for Flooded {
    type Context = Ctx<Self>;
}

impl Handler<Again> for Flooded {
    type Result = ();

    fn handle(&mut self, _: Again, ctx: &mut Ctx<Self>) {
        // A new future per message makes actix go round once more within one poll; it must not renew the budget.
        ctx.spawn(async {}.into_actor(self));
        if self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            ctx.this().tell(Again).unwrap();
        }
    }
}

#[actix::test]
async fn flooded_actor_leaves_its_neighbours_a_turn() {
    let stage = Stage::new();
    let messages = u64::from(MESSAGES_PER_TURN) * 20;
    let left = Arc::new(AtomicU64::new(messages));
    let inside = Arc::clone(&left);
    let child = child("flooded", Restart::Never);
    let flooded = stage.supervisor.spawn_once(child, &Arbiter::current(), move || Flooded { left: inside });
    flooded.tell(Again).unwrap();
    // `yield_now` comes back only after tokio has looked for I/O, which is what must not starve.
    let neighbour = actix_rt::spawn(async move {
        let mut turns = 0;
        while left.load(SeqCst) > 0 {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    });
    let turns = within(neighbour).await.unwrap();
    assert!(turns >= 19, "{turns} turns for the neighbour");
    within(until(|| flooded.stats().queued() == 0)).await;
    assert_eq!(flooded.stats().handled(), messages + 1);
}

#[test]
fn payloads_become_text_and_only_our_own_location_is_kept() {
    note_locations();
    let of = |f: fn()| catch(f).unwrap_err();
    let here = of(|| panic!("plain"));
    assert_eq!(here.text, "plain");
    assert!(here.location.as_ref().unwrap().contains("guard_test.rs:"), "{here}");
    assert_eq!(of(|| panic!("formatted {}", 1)).text, "formatted 1");
    assert_eq!(of(|| std::panic::panic_any(7)).text, "a panic without text");
    // `resume_unwind` runs no hook: the location of an earlier panic must not be taken for its own.
    catch(|| drop(catch_unwind(|| panic!("swallowed")))).unwrap();
    let resumed = of(|| {
        std::panic::resume_unwind(Box::new("resumed"));
    });
    assert_eq!((resumed.text.as_str(), resumed.location), ("resumed", None));
}

#[actix::test]
async fn a_panic_is_logged_once_with_its_actor() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);
    impl slog::Drain for Lines {
        type Ok = ();
        type Err = slog::Never;
        fn log(&self, record: &slog::Record<'_>, values: &slog::OwnedKVList) -> Result<(), slog::Never> {
            if record.level().is_at_least(slog::Level::Warning) {
                self.0.lock().unwrap().push(format!("{} {values:?}", record.msg()));
            }
            Ok(())
        }
    }
    let lines = Lines::default();
    let mut stage = Stage::with_log(Logger::root(lines.clone(), o!()));
    let probe = stage.spawn(Restart::Transient(QUICK));
    probe.tell(Do::Panic).unwrap();
    stage.event().await;
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("actor panicked, restarting") && lines[0].contains("actor"), "{lines:?}");
}
