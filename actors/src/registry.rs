//! Registry: where all supervised actors of a node are found, and the parts of it that have actors below them.
//!
//! Owns:   the list, the node's count of restarts.
//! Keeps:  what is shown is in the order of the tree: a parent before its children, these by name.
//! Never:  blocks an actor (one short lock per spawn and end).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::clock::now_us;
use crate::guard::Restart;
use crate::report::{ActorDetail, ActorReport};
use crate::stats::{ActorStats, Legacy, Stall, lock};

/// All supervised actors of a node, by name.
#[derive(Debug, Clone)]
pub struct Registry {
    actors: Arc<Mutex<BTreeMap<Arc<str>, Arc<ActorStats>>>>,
    restarts: Arc<AtomicU64>,
    /// What those of each kind came to that were forgotten.
    gone: Arc<Mutex<BTreeMap<&'static str, Gone>>>,
    /// Whether actors take times.
    is_timed: bool,
}

/// Counts of actors that are gone.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    handled: u64,
    panics: u64,
}

impl Registry {
    /// An empty registry; where `is_timed` is false its actors count, but take no times.
    pub fn new(is_timed: bool) -> Self {
        Self { actors: Arc::default(), restarts: Arc::default(), gone: Arc::default(), is_timed }
    }

    /// Every registered actor, in the order of the tree.
    pub fn snapshot(&self) -> Vec<ActorReport> {
        let (all, now) = (self.all(), now_us());
        in_tree_order(all.iter().map(|stats| ActorReport::of(stats, now)).collect())
    }

    /// One actor at length.
    pub fn detail(&self, name: &str) -> Option<ActorDetail> {
        self.get(name).map(|stats| ActorDetail::of(&stats, now_us()))
    }

    /// The stats of one actor.
    pub fn get(&self, name: &str) -> Option<Arc<ActorStats>> {
        lock(&self.actors).get(name).cloned()
    }

    /// All restarts so far, and all panics of actors that are never restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Takes an actor that has ended off the list, such as the link to a removed peer.
    pub fn forget(&self, name: &str) {
        let mut actors = lock(&self.actors);
        if let Some(stats) = actors.get(name).filter(|stats| stats.state().has_ended()) {
            let mut gone = lock(&self.gone);
            let gone = gone.entry(stats.kind).or_default();
            gone.handled += stats.handled();
            gone.panics += stats.panics();
            actors.remove(name);
        }
    }

    /// Messages that all actors of a kind took, and how often they panicked, those among them that were forgotten; it never falls.
    pub fn totals(&self, kind: &str) -> (u64, u64) {
        // Under this lock nobody is forgotten meanwhile: each is counted once.
        let actors = lock(&self.actors);
        let gone = lock(&self.gone).get(kind).copied().unwrap_or_default();
        let those = actors.values().filter(|stats| stats.kind == kind);
        those.fold((gone.handled, gone.panics), |(handled, panics), stats| {
            (handled + stats.handled(), panics + stats.panics())
        })
    }

    /// Stalls that were not there at the last look.
    pub(crate) fn look(&self) -> Vec<Stall> {
        let (all, now) = (self.all(), now_us());
        all.iter().filter_map(|stats| stats.look(now)).collect()
    }

    /// Enters an actor. One that ended under the same name hands down its restarts, its stalls and its panics; its message counters stay with its old handles.
    ///
    /// # Panics
    /// If an actor of this name still lives: names are how operators and logs tell actors apart.
    pub(crate) fn register(
        &self,
        name: Arc<str>,
        kind: &'static str,
        parent: String,
        restart: Restart,
    ) -> Arc<ActorStats> {
        self.enter(name, kind, Some(parent), restart)
    }

    /// Enters a part of the node that is no actor; its owner tells how it is.
    ///
    /// # Panics
    /// As [`register`](Self::register).
    pub(crate) fn part(
        &self,
        name: &str,
        kind: &'static str,
        parent: Option<&str>,
        restart: Restart,
    ) -> Arc<ActorStats> {
        self.enter(name.into(), kind, parent.map(ToOwned::to_owned), restart)
    }

    fn enter(
        &self,
        name: Arc<str>,
        kind: &'static str,
        parent: Option<String>,
        restart: Restart,
    ) -> Arc<ActorStats> {
        let mut actors = lock(&self.actors);
        let before = actors.get(&name);
        if before.is_some_and(|before| !before.state().has_ended()) {
            // Unlocked first, lest the panic poison the registry for the others.
            drop(actors);
            panic!("an actor named {name} is alive already");
        }
        let legacy = before.map_or_else(Legacy::default, |before| before.legacy());
        let stats = ActorStats::new(Arc::clone(&name), kind, parent, restart, self.is_timed, legacy);
        let stats = Arc::new(stats);
        actors.insert(name, Arc::clone(&stats));
        stats
    }

    /// Counts a restart in place.
    pub(crate) fn count_restart(&self, stats: &ActorStats) {
        stats.count_restart();
        self.restarts.fetch_add(1, Relaxed);
    }

    /// Counts the restart of a whole group: once for the node, and for each of its members.
    pub(crate) fn count_group_restart(&self, parent: &str) {
        self.restarts.fetch_add(1, Relaxed);
        let actors = lock(&self.actors);
        actors.values().filter(|it| it.parent.as_deref() == Some(parent)).for_each(|it| it.count_restart());
    }

    /// Counts a panic that nothing is restarted after.
    pub(crate) fn count_lost(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    /// A copy of the list, so that nobody who looks holds up a spawn.
    fn all(&self) -> Vec<Arc<ActorStats>> {
        lock(&self.actors).values().cloned().collect()
    }
}

/// Each parent before its children, children by name. Those whose parent is not listed stand like those that have none.
fn in_tree_order(reports: Vec<ActorReport>) -> Vec<ActorReport> {
    let names: std::collections::BTreeSet<String> = reports.iter().map(|it| it.name.clone()).collect();
    let mut children: BTreeMap<Option<String>, Vec<ActorReport>> = BTreeMap::new();
    for report in reports {
        let parent = report.parent.clone().filter(|parent| names.contains(parent) && *parent != report.name);
        children.entry(parent).or_default().push(report);
    }
    let mut stack = last_first(children.remove(&None).unwrap_or_default());
    let mut ordered = Vec::with_capacity(names.len());
    while let Some(report) = stack.pop() {
        stack.extend(last_first(children.remove(&Some(report.name.clone())).unwrap_or_default()));
        ordered.push(report);
    }
    ordered
}

/// By name, numbers at its end as numbers; the last one first.
fn last_first(mut reports: Vec<ActorReport>) -> Vec<ActorReport> {
    reports.sort_by_cached_key(|report| {
        let stem = report.name.trim_end_matches(|last: char| last.is_ascii_digit());
        let number = report.name[stem.len()..].parse::<u64>().unwrap_or_default();
        std::cmp::Reverse((stem.to_owned(), number, report.name.clone()))
    });
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Panic, State};

    fn panic(text: &str) -> Panic {
        Panic { text: text.into(), location: None, unix_ms: 1 }
    }

    fn register(registry: &Registry, name: &str, parent: &str) -> Arc<ActorStats> {
        registry.register(name.into(), "A", parent.into(), Restart::Group)
    }

    #[test]
    fn a_name_taken_up_again_keeps_restarts_and_panic_but_not_the_message_counts() {
        let registry = Registry::new(true);
        let first = register(&registry, "writer", "node");
        registry.count_restart(&first);
        first.count_enqueued();
        first.note_panic(panic("disk"));
        first.set_state(State::Failed);
        registry.count_group_restart("node");

        let second = register(&registry, "writer", "node");
        first.count_enqueued();
        let report = ActorReport::of(&second, now_us());
        assert_eq!((report.restarts, report.enqueued, report.mailbox), (2, 0, 0));
        assert_eq!(report.last_panic, Some(panic("disk")));
        assert_eq!(report.state, State::Starting);
        assert_eq!(registry.restarts(), 2);
    }

    #[test]
    #[should_panic(expected = "alive already")]
    fn two_living_actors_of_one_name_are_refused() {
        let registry = Registry::new(true);
        register(&registry, "a", "node");
        register(&registry, "a", "node");
    }

    #[test]
    fn only_the_dead_are_forgotten_and_the_total_stays() {
        let registry = Registry::new(true);
        let stats = register(&registry, "a", "node");
        registry.count_lost();
        registry.forget("a");
        assert_eq!(registry.snapshot().len(), 1);
        stats.set_state(State::Stopped);
        registry.forget("a");
        assert!(registry.snapshot().is_empty());
        assert_eq!(registry.restarts(), 1);
    }

    #[test]
    fn what_the_forgotten_handled_is_not_forgotten() {
        let registry = Registry::new(true);
        for _ in 0..3 {
            let stats = register(&registry, "a", "node");
            stats.count_handled();
            stats.note_panic(panic("x"));
            stats.set_state(State::Stopped);
            registry.forget("a");
        }
        register(&registry, "b", "node").count_handled();
        assert_eq!((registry.totals("A"), registry.totals("B")), ((4, 3), (0, 0)));
    }

    #[test]
    fn the_list_is_in_the_order_of_the_tree() {
        let registry = Registry::new(true);
        for (name, parent) in [
            ("connection-10", "listener"),
            ("connection-9", "listener"),
            ("consensus", "storage-group"),
            ("stray", "nobody"),
            ("upload-buffer", "node"),
            ("listener", "node"),
        ] {
            register(&registry, name, parent);
        }
        registry.part("storage-group", "Group", Some("node"), Restart::Group);
        registry.part("node", "Node", None, Restart::Never);
        let names: Vec<_> = registry.snapshot().into_iter().map(|report| report.name).collect();
        let wanted = [
            "node",
            "listener",
            "connection-9",
            "connection-10",
            "storage-group",
            "consensus",
            "upload-buffer",
            "stray",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn what_waits_in_the_mailbox_of_the_dead_is_not_shown_as_waiting() {
        let registry = Registry::new(true);
        let stats = register(&registry, "a", "node");
        stats.count_enqueued();
        assert_eq!(registry.snapshot()[0].mailbox, 1);
        stats.set_state(State::Failed);
        let report = registry.snapshot().remove(0);
        assert_eq!((report.mailbox, report.oldest_wait_ms), (0, 0));
    }
}
