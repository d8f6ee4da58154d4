//! What an actor shows of its messages, of its own state, and of being stuck.

use std::sync::Barrier;

use actix_rt::Arbiter;
use serde_json::json;
use slog::o;

use super::*;
use crate::guard::Restart;
use crate::registry::Registry;
use crate::report::ActorDetail;
use crate::stats::State;
use crate::supervisor::{Child, Supervisor};

/// Counts what it is told.
struct Counter {
    count: u32,
    blocks: Arc<Barrier>,
}

impl Actor for Counter {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.show(|counter| json!({ "count": counter.count }));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Count(u32);

impl Handler<Count> for Counter {
    type Result = ();

    fn handle(&mut self, Count(by): Count, _: &mut Ctx<Self>) {
        self.count += by;
    }
}

/// Gets stuck: meets the test once when it is stuck, and once more to go on.
#[derive(Message)]
#[rtype(result = "()")]
struct GetStuck;

impl Handler<GetStuck> for Counter {
    type Result = ();

    fn handle(&mut self, _: GetStuck, _: &mut Ctx<Self>) {
        self.blocks.wait();
        self.blocks.wait();
    }
}

/// Tells itself to count, past the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct CountSoon;

impl Handler<CountSoon> for Counter {
    type Result = ();

    fn handle(&mut self, _: CountSoon, ctx: &mut Ctx<Self>) {
        let begun = ctx.begin::<u64>();
        self.count += 1;
        ctx.end(begun);
    }
}

struct Stage {
    registry: Registry,
    counter: Handle<Counter>,
    arbiter: Arbiter,
    blocks: Arc<Barrier>,
}

impl Stage {
    /// A counter in a thread of its own.
    fn new(is_timed: bool) -> Self {
        let registry = Registry::new(is_timed);
        let (supervisor, _) =
            Supervisor::with_registry(Logger::root(slog::Discard, o!()), 1, registry.clone());
        let (arbiter, blocks) = (Arbiter::new(), Arc::new(Barrier::new(2)));
        let child =
            Child { name: "counter".into(), kind: "Counter", parent: "test".into(), restart: Restart::Group };
        let inside = Arc::clone(&blocks);
        let counter =
            supervisor.spawn_once(child, &arbiter.handle(), move || Counter { count: 0, blocks: inside });
        Self { registry, counter, arbiter, blocks }
    }

    fn detail(&self) -> ActorDetail {
        self.registry.detail("counter").expect("registered")
    }

    /// Waits until all that was told is handled.
    async fn idle(&self) {
        until(|| self.counter.stats().queued() == 0 && self.counter.stats().inside().is_none()).await;
    }

    fn end(self) {
        self.counter.kill();
        self.arbiter.stop();
        self.arbiter.join().expect("no panic");
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time");
}

#[actix::test]
async fn messages_are_counted_and_timed_by_type() {
    let stage = Stage::new(true);
    for _ in 0..300 {
        stage.counter.tell(Count(1)).unwrap();
    }
    stage.counter.tell(CountSoon).unwrap();
    stage.idle().await;
    let messages = stage.detail().messages;
    let seen: Vec<_> = messages.iter().map(|it| (it.r#type, it.handled)).collect();
    assert_eq!(seen, [("Count", 300), ("CountSoon", 1), ("u64", 1)]);
    assert!(messages[0].wait_us.max >= messages[0].wait_us.p50);
    assert_eq!(messages[2].wait_us.max, 0, "it did not wait in the mailbox");
    stage.end();
}

#[actix::test]
async fn a_stuck_actor_shows_what_waits_in_what_it_is_stuck_and_its_last_state() {
    let stage = Stage::new(true);
    stage.counter.tell(Count(7)).unwrap();
    until(|| stage.counter.stats().observed() == Some(json!({ "count": 7 }))).await;
    stage.counter.tell(GetStuck).unwrap();
    stage.blocks.wait();
    // All that follows is seen while its thread is blocked.
    let before = now_us();
    stage.counter.tell(Count(1)).unwrap();
    stage.counter.tell(Count(1)).unwrap();
    let stats = stage.counter.stats();
    assert_eq!((stats.inside(), stats.queued()), (Some("GetStuck"), 2));
    let oldest = stats.oldest().expect("two wait");
    assert!((before..=now_us()).contains(&oldest), "the first that waits, not the one it is stuck in");
    assert_eq!(stage.detail().observed, Some(json!({ "count": 7 })));
    assert_eq!(stats.stalled(before), None);
    assert!(stats.stalled(before + 5_000_000).is_some());
    stage.blocks.wait();
    stage.idle().await;
    assert_eq!(stats.oldest(), None);
    let stuck = stage.detail().messages.into_iter().find(|it| it.r#type == "GetStuck").expect("handled");
    assert!(stuck.handling_us.max > 0);
    stage.end();
}

#[actix::test]
async fn the_last_change_is_shown_although_nothing_follows_it() {
    let stage = Stage::new(true);
    for by in 1..=50 {
        stage.counter.tell(Count(by)).unwrap();
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    until(|| stage.counter.stats().observed() == Some(json!({ "count": 1275 }))).await;
    stage.end();
}

#[actix::test]
async fn what_waited_longer_is_told_apart_from_what_took_longer() {
    let stage = Stage::new(true);
    stage.counter.tell(GetStuck).unwrap();
    stage.counter.tell(Count(1)).unwrap();
    stage.blocks.wait();
    let began = now_us();
    until(|| now_us() - began > 20_000).await;
    stage.blocks.wait();
    stage.idle().await;
    let messages = stage.detail().messages;
    let [count, stuck] = &messages[..] else { panic!("two types, not {messages:?}") };
    assert!(count.wait_us.max >= 20_000, "{count:?}");
    assert!(count.handling_us.max < stuck.handling_us.max, "{count:?} {stuck:?}");
    assert!(stuck.handling_us.max >= 20_000, "{stuck:?}");
    stage.end();
}

#[actix::test]
async fn where_no_times_are_taken_messages_are_counted_and_nothing_else_is_told() {
    let stage = Stage::new(false);
    stage.counter.tell(Count(1)).unwrap();
    stage.idle().await;
    until(|| stage.counter.stats().state() == State::Running).await;
    let detail = stage.detail();
    assert_eq!((detail.summary.handled, detail.messages.len(), detail.observed), (1, 0, None));
    assert_eq!((detail.summary.oldest_wait_ms, detail.summary.stalled_ms), (0, None));
    stage.end();
}
