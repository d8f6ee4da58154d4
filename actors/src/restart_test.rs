//! What each policy makes of an actor's end: by a panic, in peace and unasked, or asked for.

use actix::{ActorContext, Handler, Message};
use actix_rt::Arbiter;
use slog::{Logger, o};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::supervisor::{Child, Handle, Supervisor};

const TWICE: Limits = Limits {
    restarts_max: 2,
    window: Duration::from_secs(600),
    delay_min: Duration::from_millis(1),
    delay_max: Duration::from_millis(2),
};

struct Worker;

impl Actor for Worker {
    type Context = Ctx<Self>;
}

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
enum Do {
    Nothing,
    Panic,
    End,
}

impl Handler<Do> for Worker {
    type Result = ();

    fn handle(&mut self, what: Do, ctx: &mut Ctx<Self>) {
        match what {
            Do::Nothing => {}
            Do::Panic => panic!("told to"),
            Do::End => ctx.stop(),
        }
    }
}

struct Stage {
    supervisor: Supervisor,
    events: UnboundedReceiver<ChildEvent>,
}

impl Stage {
    fn new() -> Self {
        let (supervisor, events) = Supervisor::new(Logger::root(slog::Discard, o!()), 1);
        Self { supervisor, events }
    }

    fn spawn(&self, restart: Restart) -> Handle<Worker> {
        let child = Child { name: "worker".into(), kind: "Worker", parent: "boss".into(), restart };
        self.supervisor.spawn(child, &Arbiter::current(), || Worker)
    }

    /// The words of the next event: `restarted`, `gave up`, `ended`, and of the panic it tells of.
    async fn event(&mut self) -> String {
        let event = within(self.events.recv()).await.expect("the supervisor lives");
        assert_eq!((&*event.name, &*event.parent), ("worker", "boss"));
        match event.kind {
            ChildEventKind::Restarted { panic } => format!("restarted: {}", panic.text),
            ChildEventKind::GaveUp { panic } => format!("gave up: {}", panic.text),
            ChildEventKind::Ended { panic: Some(panic) } => format!("ended: {}", panic.text),
            ChildEventKind::Ended { panic: None } => "ended".to_owned(),
        }
    }

    /// Has a worker under `restart` do this, and says what is told of it first.
    async fn told_of(restart: Restart, what: Do) -> String {
        let mut stage = Self::new();
        let worker = stage.spawn(restart);
        worker.tell(what).unwrap();
        stage.event().await
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

const UNASKED: &str = "ended by itself, though it was to live on";

#[actix::test]
async fn a_permanent_actor_is_restarted_after_a_panic_and_after_an_end_that_nobody_asked_for() {
    assert_eq!(Stage::told_of(Restart::Permanent(TWICE), Do::Panic).await, "restarted: told to");
    assert_eq!(Stage::told_of(Restart::Permanent(TWICE), Do::End).await, format!("restarted: {UNASKED}"));
}

#[actix::test]
async fn a_transient_actor_is_restarted_after_a_panic_and_may_end_in_peace() {
    assert_eq!(Stage::told_of(Restart::Transient(TWICE), Do::Panic).await, "restarted: told to");
    assert_eq!(Stage::told_of(Restart::Transient(TWICE), Do::End).await, "ended");
}

#[actix::test]
async fn an_actor_that_is_never_restarted_ends_and_leaves_the_list() {
    assert_eq!(Stage::told_of(Restart::Never, Do::Panic).await, "ended: told to");
    let mut stage = Stage::new();
    let worker = stage.spawn(Restart::Never);
    assert_eq!(stage.supervisor.registry().snapshot().len(), 1);
    worker.tell(Do::End).unwrap();
    assert_eq!(stage.event().await, "ended");
    assert!(stage.supervisor.registry().snapshot().is_empty());
}

#[actix::test]
async fn a_member_of_a_group_ends_and_either_end_is_a_failure_for_its_parent() {
    assert_eq!(Stage::told_of(Restart::Group, Do::Panic).await, "ended: told to");
    assert_eq!(Stage::told_of(Restart::Group, Do::End).await, format!("ended: {UNASKED}"));
}

#[actix::test]
async fn an_end_that_was_asked_for_is_the_last_under_every_policy() {
    for restart in [Restart::Permanent(TWICE), Restart::Transient(TWICE), Restart::Never, Restart::Group] {
        for end in [Handle::stop, Handle::kill] {
            let mut stage = Stage::new();
            let worker = stage.spawn(restart);
            worker.tell(Do::Nothing).unwrap();
            end(&worker);
            assert_eq!(stage.event().await, "ended", "{restart:?}");
            assert_eq!(worker.stats().state(), State::Stopped);
        }
    }
}

#[actix::test]
async fn a_permanent_actor_that_nobody_can_speak_to_any_more_ends_in_peace() {
    let mut stage = Stage::new();
    drop(stage.spawn(Restart::Permanent(TWICE)));
    assert_eq!(stage.event().await, "ended");
}

#[actix::test]
async fn a_permanent_actor_gives_up_when_it_may_restart_no_more_however_it_ended() {
    let mut stage = Stage::new();
    let worker = stage.spawn(Restart::Permanent(TWICE));
    for what in [Do::Panic, Do::End, Do::End] {
        worker.tell(what).unwrap();
    }
    assert_eq!(stage.event().await, "restarted: told to");
    assert_eq!(stage.event().await, format!("restarted: {UNASKED}"));
    assert_eq!(stage.event().await, format!("gave up: {UNASKED}"));
    assert_eq!(worker.stats().state(), State::Failed);
    assert_eq!(worker.stats().restarts(), 2);
}
