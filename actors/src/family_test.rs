//! What a parent decides, and what becomes of living actors when that is carried out.

use actix::{Actor, Handler, Message};
use actix_rt::Arbiter;
use rand::SeedableRng;
use slog::{Logger, o};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::guard::{Ctx, Restart};
use crate::supervisor::{Child, Handle, Life, Supervisor, stop_all};

const NONE: Limits = Limits { restarts_max: 0, ..ONCE };
const ONCE: Limits = Limits {
    restarts_max: 1,
    window: Duration::from_secs(60),
    delay_min: Duration::from_millis(2),
    delay_max: Duration::from_millis(8),
};

fn panic(text: &str) -> Panic {
    Panic { text: text.into(), location: None, unix_ms: 1 }
}

fn ended(name: &str, parent: &str) -> ChildEvent {
    ChildEvent {
        name: name.into(),
        parent: parent.into(),
        kind: ChildEventKind::Ended { panic: Some(panic("x")) },
    }
}

fn family(limits: Limits, seed: u64) -> Family {
    Family::new("node", Strategy::OneForOne, limits, StdRng::seed_from_u64(seed))
}

/// Whose children are restarted, and which.
fn restarted(verdict: &Verdict) -> (&str, Option<&str>) {
    match verdict {
        Verdict::Restart { parent, child, .. } => (parent, child.as_deref()),
        other => panic!("no restart: {other:?}"),
    }
}

#[test]
fn one_for_one_restarts_the_child_that_failed_and_one_for_all_every_child() {
    let now = Instant::now();
    let mut family = family(ONCE, 1);
    family.add("group", "node", Strategy::OneForAll, ONCE);
    assert_eq!(restarted(&family.heed(&ended("a", "node"), now)), ("node", Some("a")));
    assert_eq!(restarted(&family.heed(&ended("b", "group"), now)), ("group", None));
}

#[test]
fn a_peaceful_end_a_restart_in_place_and_an_end_below_an_actor_are_nobodys_business() {
    let now = Instant::now();
    let mut family = family(NONE, 1);
    let peaceful = ChildEventKind::Ended { panic: None };
    let in_place = ChildEventKind::Restarted { panic: panic("x") };
    for kind in [peaceful, in_place] {
        let event = ChildEvent { name: "a".into(), parent: "node".into(), kind };
        assert_eq!(family.heed(&event, now), Verdict::Nothing);
    }
    assert_eq!(family.heed(&ended("connection-1", "listener"), now), Verdict::Nothing);
}

#[test]
fn a_child_that_gave_up_has_failed_like_one_that_was_never_restarted_in_place() {
    let event = ChildEvent {
        name: "a".into(),
        parent: "node".into(),
        kind: ChildEventKind::GaveUp { panic: panic("x") },
    };
    let cause = Failure { actor: "a".into(), panic: panic("x") };
    assert_eq!(family(NONE, 1).heed(&event, Instant::now()), Verdict::Stop(cause));
}

#[test]
fn a_failure_climbs_two_levels_before_the_node_stops() {
    let now = Instant::now();
    let mut family = family(NONE, 1);
    family.add("outer", "node", Strategy::OneForAll, ONCE);
    family.add("inner", "outer", Strategy::OneForOne, ONCE);
    let mut next = || family.heed(&ended("a", "inner"), now);
    assert_eq!(restarted(&next()), ("inner", Some("a")));
    assert_eq!(restarted(&next()), ("outer", None), "inner has restarted what it may");
    assert_eq!(restarted(&next()), ("inner", Some("a")), "inner was started anew, and may again");
    assert_eq!(next(), Verdict::Stop(Failure { actor: "a".into(), panic: panic("x") }), "outer may not");
}

#[test]
fn a_parent_that_is_restarted_for_itself_alone_begins_with_a_clean_slate_too() {
    let now = Instant::now();
    let mut family = family(Limits { restarts_max: 2, ..ONCE }, 1);
    family.add("group", "node", Strategy::OneForAll, ONCE);
    let mut next = || family.heed(&ended("a", "group"), now);
    assert_eq!(restarted(&next()), ("group", None));
    assert_eq!(restarted(&next()), ("node", Some("group")));
    assert_eq!(restarted(&next()), ("group", None));
    assert_eq!(restarted(&next()), ("node", Some("group")));
    assert_eq!(restarted(&next()), ("group", None));
    assert!(matches!(next(), Verdict::Stop(_)));
}

#[test]
fn restarts_older_than_the_window_do_not_count() {
    let now = Instant::now();
    let mut family = family(ONCE, 1);
    assert_eq!(restarted(&family.heed(&ended("a", "node"), now)), ("node", Some("a")));
    assert_eq!(restarted(&family.heed(&ended("a", "node"), now + ONCE.window)), ("node", Some("a")));
    assert!(
        matches!(family.heed(&ended("b", "node"), now + ONCE.window), Verdict::Stop(_)),
        "a parent counts them all"
    );
}

#[test]
fn delays_double_to_the_cap_are_drawn_from_the_upper_half_and_are_the_seeds() {
    let now = Instant::now();
    let limits = Limits { restarts_max: 4, ..ONCE };
    let delays = |seed| {
        let mut family = family(limits, seed);
        [(); 4].map(|()| match family.heed(&ended("a", "node"), now) {
            Verdict::Restart { delay, .. } => delay,
            other => panic!("no restart: {other:?}"),
        })
    };
    for seed in 0..20 {
        for (delay, ceiling) in delays(seed).into_iter().zip([2, 4, 8, 8].map(Duration::from_millis)) {
            assert!((ceiling / 2..=ceiling).contains(&delay), "{delay:?} for {ceiling:?}");
        }
    }
    assert_eq!(delays(7), delays(7));
    assert_ne!(delays(7), delays(8));
}

// --- With living actors -------------------------------------------------------------------------------------------

struct Worker;

impl Actor for Worker {
    type Context = Ctx<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Die;

impl Handler<Die> for Worker {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Ctx<Self>) {
        panic!("told to");
    }
}

/// Three workers below `group`, and who carries out what is decided about them.
struct House {
    supervisor: Supervisor,
    events: UnboundedReceiver<ChildEvent>,
    family: Family,
    restart: Restart,
    workers: BTreeMap<&'static str, (Handle<Worker>, Life)>,
}

impl House {
    fn new(strategy: Strategy, restart: Restart) -> Self {
        let (supervisor, events) = Supervisor::new(Logger::root(slog::Discard, o!()), 1);
        let mut family = family(NONE, 1);
        family.add("group", "node", strategy, ONCE);
        let mut house = Self { supervisor, events, family, restart, workers: BTreeMap::new() };
        ["a", "b", "c"].into_iter().for_each(|name| house.start(name));
        house
    }

    fn start(&mut self, name: &'static str) {
        let child =
            Child { name: name.into(), kind: "Worker", parent: "group".into(), restart: self.restart };
        let handle = self.supervisor.spawn(child, &Arbiter::current(), || Worker);
        self.workers.insert(name, (handle.clone(), handle.life()));
    }

    /// Kills one worker, and carries out what follows.
    async fn kill(&mut self, name: &str) -> Verdict {
        self.workers[name].0.tell(Die).unwrap();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv());
            let event = event.await.expect("in time").expect("the supervisor lives");
            let verdict = self.family.heed(&event, Instant::now());
            match &verdict {
                Verdict::Nothing => continue,
                Verdict::Stop(_) => {}
                Verdict::Restart { child, .. } => {
                    let whom: Vec<_> = self
                        .workers
                        .keys()
                        .copied()
                        .filter(|it| child.as_deref().is_none_or(|one| one == *it))
                        .collect();
                    let lives: Vec<_> = whom.iter().map(|name| self.workers[name].1.clone()).collect();
                    stop_all(&lives, true).await;
                    let registry = self.supervisor.registry();
                    whom.iter()
                        .filter_map(|name| registry.get(name))
                        .for_each(|it| registry.count_restart(&it));
                    whom.into_iter().for_each(|name| self.start(name));
                }
            }
            return verdict;
        }
    }

    /// How often each was restarted.
    fn restarts(&self) -> [u64; 3] {
        ["a", "b", "c"].map(|name| self.supervisor.registry().get(name).expect("registered").restarts())
    }
}

#[actix::test]
async fn the_neighbours_of_a_dead_worker_live_on_or_go_with_it_as_the_strategy_says() {
    let mut one = House::new(Strategy::OneForOne, Restart::Group);
    let neighbour = one.workers["b"].0.clone();
    one.kill("a").await;
    assert_eq!(one.restarts(), [1, 0, 0]);
    assert!(neighbour.is_same(&one.workers["b"].0) && !neighbour.stats().state().has_ended());

    let mut all = House::new(Strategy::OneForAll, Restart::Group);
    let neighbour = all.workers["b"].0.clone();
    all.kill("a").await;
    assert_eq!(all.restarts(), [1, 1, 1]);
    assert!(neighbour.stats().state().has_ended());
    assert!(all.workers.values().all(|(worker, _)| !worker.stats().state().has_ended()));
    assert!(matches!(all.kill("c").await, Verdict::Stop(_)), "one restart was allowed, whoever fails");
}

#[actix::test]
async fn a_member_that_is_restarted_in_place_goes_to_its_group_when_it_gives_up() {
    let mut house = House::new(Strategy::OneForAll, Restart::Permanent(ONCE));
    house.workers["a"].0.tell(Die).unwrap();
    house.kill("a").await;
    // Its first panic it got over by itself, the second one took all of them along.
    assert_eq!(house.restarts(), [2, 1, 1]);
}
