//! What the holder of a handle sees.

use std::sync::Mutex;
use std::time::Duration;

use actix::AsyncContext;
use actix_rt::Arbiter;

use super::*;
use crate::stats::State;

#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<u32>>>);

struct Scribe(Journal);

impl Actor for Scribe {
    type Context = Ctx<Self>;
}

struct Write(u32);

impl Message for Write {
    type Result = ();
}

impl Handler<Write> for Scribe {
    type Result = ();

    fn handle(&mut self, Write(number): Write, _: &mut Ctx<Self>) {
        self.0.0.lock().unwrap().push(number);
    }
}

/// Ends after having had the actor tell itself a message that nobody counts.
struct WriteYourself(u32);

impl Message for WriteYourself {
    type Result = Handle<Scribe>;
}

impl Handler<WriteYourself> for Scribe {
    type Result = actix::MessageResult<WriteYourself>;

    fn handle(&mut self, WriteYourself(number): WriteYourself, ctx: &mut Ctx<Self>) -> Self::Result {
        ctx.notify(Write(number));
        ctx.this().tell(Write(number + 1)).unwrap();
        actix::MessageResult(ctx.this())
    }
}

fn stage() -> (Supervisor, UnboundedReceiver<ChildEvent>) {
    Supervisor::new(Logger::root(slog::Discard, o!()), 1)
}

fn scribe(supervisor: &Supervisor, arbiter: &ArbiterHandle) -> (Handle<Scribe>, Journal) {
    let journal = Journal::default();
    let inside = journal.clone();
    let restart = Restart::Transient(crate::backoff::Limits::default());
    let child = Child { name: "scribe".into(), kind: "Scribe", parent: "node".into(), restart };
    (supervisor.spawn(child, arbiter, move || Scribe(inside.clone())), journal)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

#[actix::test]
async fn counters_follow_messages_in_and_out() {
    let (supervisor, _events) = stage();
    let (scribe, _) = scribe(&supervisor, &Arbiter::current());
    for number in 0..100 {
        scribe.tell(Write(number)).unwrap();
    }
    // Nothing has run yet: one thread, no await so far. And 100 are far beyond actix's own 16.
    let stats = scribe.stats();
    assert_eq!((stats.enqueued(), stats.handled(), stats.queued()), (100, 0, 100));
    assert_eq!(stats.state(), State::Starting);
    scribe.stop();
    within(scribe.ended()).await;
    assert_eq!((stats.enqueued(), stats.handled(), stats.queued()), (100, 100, 0));
    let report = supervisor.registry().snapshot().remove(0);
    assert_eq!(
        (report.name.as_str(), report.kind, report.parent.as_deref()),
        ("scribe", "Scribe", Some("node"))
    );
    assert_eq!(report.state, State::Stopped);
    assert!(report.last_progress_unix_ms.is_some());
}

#[actix::test]
async fn stop_handles_what_is_queued_and_takes_no_more() {
    let (supervisor, mut events) = stage();
    let (scribe, journal) = scribe(&supervisor, &Arbiter::current());
    let messages = crate::guard::MESSAGES_PER_TURN * 3;
    for number in 0..messages {
        scribe.tell(Write(number)).unwrap();
    }
    scribe.clone().stop();
    let closed = scribe.tell(Write(messages)).unwrap_err();
    assert_eq!(closed.to_string(), "actor scribe takes no more messages");
    assert_eq!(within(scribe.ended()).await, None);
    assert_eq!(*journal.0.lock().unwrap(), (0..messages).collect::<Vec<_>>());
    let ended = ChildEvent {
        name: "scribe".into(),
        parent: "node".into(),
        kind: ChildEventKind::Ended { panic: None },
    };
    assert_eq!(within(events.recv()).await, Some(ended));
}

#[actix::test]
async fn stop_wakes_an_idle_actor_in_another_thread() {
    let (supervisor, _events) = stage();
    let arbiter = Arbiter::new();
    let (scribe, journal) = scribe(&supervisor, &arbiter.handle());
    within(scribe.addr().send(Write(1))).await.unwrap();
    scribe.stop();
    assert_eq!(within(scribe.ended()).await, None);
    assert_eq!(*journal.0.lock().unwrap(), [1]);
}

#[actix::test]
async fn kill_drops_what_is_queued() {
    let (supervisor, _events) = stage();
    let (scribe, journal) = scribe(&supervisor, &Arbiter::current());
    scribe.tell(Write(1)).unwrap();
    scribe.kill();
    assert_eq!(within(scribe.ended()).await, None);
    assert!(journal.0.lock().unwrap().is_empty());
}

#[actix::test]
async fn telling_a_dead_actor_is_an_error_and_counts_nothing() {
    let (supervisor, _events) = stage();
    let (scribe, _) = scribe(&supervisor, &Arbiter::current());
    // Ended by itself, so that the mailbox and not the stop signal must refuse.
    scribe.addr().send(Quit).await.unwrap();
    within(scribe.ended()).await;
    assert_eq!(scribe.tell(Write(1)), Err(Closed { actor: "scribe".into() }));
    assert_eq!(scribe.stats().enqueued(), 0);
}

struct Quit;

impl Message for Quit {
    type Result = ();
}

impl Handler<Quit> for Scribe {
    type Result = ();

    fn handle(&mut self, _: Quit, ctx: &mut Ctx<Self>) {
        actix::ActorContext::stop(ctx);
    }
}

#[actix::test]
async fn child_of_a_dead_arbiter_has_ended() {
    let (supervisor, mut events) = stage();
    let arbiter = Arbiter::new();
    let dead = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    let (scribe, _) = scribe(&supervisor, &dead);
    assert!(scribe.tell(Write(1)).is_err());
    within(scribe.ended()).await;
    assert_eq!(within(events.recv()).await.unwrap().kind, ChildEventKind::Ended { panic: None });
}

#[actix::test]
async fn an_actor_can_give_out_its_own_handle() {
    let (supervisor, _events) = stage();
    let (scribe, journal) = scribe(&supervisor, &Arbiter::current());
    let same = within(scribe.addr().send(WriteYourself(1))).await.unwrap();
    same.tell(Write(3)).unwrap();
    same.stop();
    within(scribe.ended()).await;
    let mut written = journal.0.lock().unwrap().clone();
    written.sort_unstable();
    assert_eq!(written, [1, 2, 3]);
    assert_eq!(scribe.stats().enqueued(), 2);
}

#[test]
fn handles_and_supervisors_cross_threads() {
    fn crosses<T: Send + Sync + Clone>() {}
    crosses::<Handle<Scribe>>();
    crosses::<Supervisor>();
}
