//! The state against a model of a node, with everything between them going wrong at random.
//!
//! Owns:   a world of links that are cut, deliver late, reorder answers; a node that crashes, refuses, forgets.
//! Keeps:  same seed, same run. What is checked: see [`World::check`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::Append;
use loglog_proto::response::Appended;
use loglog_proto::{Length, Offset};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::memory::model::{Answer, ModelNode};

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Links are cut; what was on them may arrive all the same, at any time.
    cuts: bool,
    /// Answers on one link change places.
    reorder: bool,
    /// The node dies and comes back.
    crashes: bool,
    /// The node refuses without looking, or gives up half-way.
    refusals: bool,
    /// Others append so much, or the log is trimmed, that the writer is forgotten.
    forgetting: bool,
    /// Some appends expect an end.
    expectations: bool,
    /// Appends have a deadline.
    deadlines: bool,
}

#[derive(Default)]
struct Wire {
    to_node: VecDeque<(Attempt, Append)>,
    to_client: VecDeque<(Attempt, Answer)>,
}

struct World {
    rng: SmallRng,
    faults: Faults,
    node: ModelNode<(LinkId, Attempt)>,
    state: State<u32>,
    now: Duration,
    wires: HashMap<u64, Wire>,
    links: u64,
    current: Option<LinkId>,
    connecting: bool,
    learning: bool,
    heard: Offset,
    called: u32,
    outcomes: HashMap<u32, Result<Appended, AppendError>>,
    transcript: Vec<String>,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let entries_max = rng.random_range(1..=8);
        let timeout = faults.deadlines.then(|| Duration::from_millis(rng.random_range(20..3000)));
        let memory = if faults.forgetting { rng.random_range(200..1500) } else { 1 << 40 };
        Self {
            node: ModelNode::new(Length::new(memory), 8),
            state: State::new(Settings { entries_max, timeout }, seed),
            rng,
            faults,
            now: Duration::ZERO,
            wires: HashMap::new(),
            links: 0,
            current: None,
            connecting: false,
            learning: false,
            heard: Offset::ZERO,
            called: 0,
            outcomes: HashMap::new(),
            transcript: Vec::new(),
        }
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        self.transcript.push(text());
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.call(),
            22..42 => self.deliver_requests(),
            42..57 => self.commit(),
            57..75 => self.deliver_replies(),
            75..80 => self.answer_driver(),
            80..88 => self.now += Duration::from_millis(self.rng.random_range(0..200)),
            88..92 if self.faults.cuts => self.cut(),
            92..94 if self.faults.crashes => self.crash(),
            94..97 if self.faults.forgetting => {
                let length = self.rng.random_range(32..600);
                self.say(|| format!("another appends {length}"));
                self.node.append_of_another(Length::new(length));
            }
            97..98 if self.faults.forgetting && self.chance(30) => {
                self.say(|| "trim".into());
                let end = self.node.committed();
                self.node.trim(end);
            }
            98..100 if self.faults.expectations => {
                // As long as our own, so that an end that was expected too early comes to be.
                self.node.append_of_another(Length::new(36));
            }
            _ => {}
        }
        self.advance();
    }

    fn call(&mut self) {
        let id = self.called;
        self.called += 1;
        let expect_end = (self.faults.expectations && self.chance(25)).then(|| {
            // Often right, sometimes past, sometimes to come.
            let off = [0, 0, 0, 36, 36, 72][self.rng.random_range(0..6)];
            Offset::new((self.node.end().get() + off).saturating_sub(self.rng.random_range(0..2) * 36))
        });
        let payload = Bytes::copy_from_slice(&id.to_le_bytes());
        let crc = loglog_proto::crc32c(&payload);
        self.say(|| format!("call {id} expecting {expect_end:?}"));
        self.state.append(Wish { token: id, payload, crc, expect_end, called: self.now });
    }

    fn some_wire(&mut self) -> Option<u64> {
        let current = self.current.map(|link| link.0);
        if current.is_some() && self.chance(80) {
            return current;
        }
        let mut open: Vec<u64> = self.wires.keys().copied().collect();
        open.sort_unstable();
        (!open.is_empty()).then(|| open[self.rng.random_range(0..open.len())])
    }

    fn deliver_requests(&mut self) {
        let Some(link) = self.some_wire() else { return };
        for _ in 0..self.rng.random_range(1..6) {
            let Some(wire) = self.wires.get_mut(&link) else { return };
            let Some((attempt, append)) = wire.to_node.pop_front() else { return };
            let refuse = self.faults.refusals && self.chance(12);
            let answer = match (refuse, self.rng.random_range(0..7)) {
                (false, _) => {
                    self.say(|| format!("node takes {attempt:?} on {link}, after {:?}", append.previous));
                    self.node.append((LinkId(link), attempt), &append);
                    continue;
                }
                (_, 0) => Refusal::new(Code::Busy, ""),
                (_, 1) => Refusal::new(Code::DiskFull, ""),
                (_, 2) => Refusal::new(Code::Unavailable, ""),
                (_, 3) => Refusal::not_leader(None),
                (_, 4) => Refusal::not_leader(Some("h:1".into())),
                (_, 5) => Refusal::new(Code::TooLarge, ""),
                _ => {
                    if self.chance(50) {
                        self.node.append((LinkId(u64::MAX), attempt), &append);
                    }
                    Refusal::new(Code::Interrupted, "")
                }
            };
            self.say(|| format!("node refuses {attempt:?} on {link}: {answer}"));
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.to_client.push_back((attempt, Err(answer)));
            }
        }
    }

    fn commit(&mut self) {
        let count = self.rng.random_range(1..10);
        self.node.commit(count);
        self.answer();
    }

    fn answer(&mut self) {
        for ((link, attempt), answer) in self.node.answers() {
            if let Some(wire) = self.wires.get_mut(&link.0) {
                wire.to_client.push_back((attempt, answer));
            }
        }
    }

    fn deliver_replies(&mut self) {
        let Some(link) = self.some_wire() else { return };
        for _ in 0..self.rng.random_range(1..6) {
            let reorder = self.faults.reorder && self.chance(30);
            let Some(wire) = self.wires.get_mut(&link) else { return };
            let at = if reorder { self.rng.random_range(0..wire.to_client.len().max(1)) } else { 0 };
            let Some((attempt, answer)) = wire.to_client.remove(at) else { return };
            if let Ok(appended) = &answer {
                self.heard = self.heard.max(appended.end);
            }
            self.say(|| format!("reply on {link} to {attempt:?}: {answer:?}"));
            self.state.reply(self.now, LinkId(link), attempt, answer);
        }
    }

    fn answer_driver(&mut self) {
        if std::mem::take(&mut self.connecting) {
            if self.faults.cuts && self.chance(30) {
                self.state.connect_failed(self.now, "refused");
                return;
            }
            self.links += 1;
            let link = LinkId(self.links);
            self.wires.insert(link.0, Wire::default());
            self.current = Some(link);
            // An end may be old news.
            if self.chance(50) {
                self.heard = self.heard.max(self.node.committed());
            }
            let limits = LinkLimits { appends_max: self.rng.random_range(1..20), bytes_max: 64 };
            self.say(|| format!("{link:?} up"));
            self.state.connected(link, limits, self.heard);
        }
        if std::mem::take(&mut self.learning)
            && let Some(link) = self.current
        {
            let end = (!self.faults.refusals || self.chance(80)).then(|| self.node.committed());
            self.state.end_learnt(self.now, link, end);
        }
    }

    fn cut(&mut self) {
        let Some(link) = self.current.take() else { return };
        self.say(|| format!("{link:?} cut"));
        self.state.disconnected(self.now, link);
        self.learning = false;
        let lost = self.rng.random_range(0..3);
        if let Some(wire) = self.wires.get_mut(&link.0) {
            wire.to_client.clear();
            if lost == 0 {
                wire.to_node.clear();
            }
        }
    }

    fn crash(&mut self) {
        let kept = self.rng.random_range(0..=self.node.tail_len());
        self.say(|| format!("crash, {kept} of the tail survive"));
        self.node.crash(kept);
        self.cut();
    }

    fn advance(&mut self) {
        let effects = self.state.advance(self.now);
        for (id, outcome) in effects.done {
            self.say(|| format!("outcome of {id}: {outcome:?}"));
            assert!(self.outcomes.insert(id, outcome).is_none(), "one outcome for {id}");
        }
        if let Some(link) = self.current {
            assert!(effects.sends.len() <= 8);
            let sent: Vec<_> = effects.sends.iter().map(|(attempt, _)| attempt.sequence.get()).collect();
            if !sent.is_empty() {
                self.say(|| format!("send {sent:?} on {link:?}"));
            }
            self.wires.entry(link.0).or_default().to_node.extend(effects.sends);
        } else {
            assert!(effects.sends.is_empty(), "nothing is sent without a link");
        }
        self.learning |= effects.learn_end;
        if effects.leave.is_some() {
            self.say(|| "leave".into());
            self.current = None;
            self.learning = false;
        }
        self.connecting |= effects.connect;
    }

    /// Nothing goes wrong any more: everything must come to an end.
    fn heal(&mut self) {
        self.say(|| "heal".into());
        self.faults = Faults::default();
        for _ in 0..10_000 {
            if self.state.is_idle() {
                break;
            }
            self.answer_driver();
            self.deliver_everything();
            if let Some(wake_at) = self.state.wake_at() {
                self.now = self.now.max(wake_at);
            }
            self.advance();
        }
        assert!(self.state.is_idle(), "every append has its outcome in the end");
        // What still lies in some buffer arrives last of all.
        self.deliver_everything();
    }

    fn deliver_everything(&mut self) {
        let mut links: Vec<u64> = self.wires.keys().copied().collect();
        links.sort_unstable();
        for link in links {
            let requests =
                self.wires.get_mut(&link).map(|wire| std::mem::take(&mut wire.to_node)).unwrap_or_default();
            for (attempt, append) in requests {
                self.say(|| format!("node takes {attempt:?} on {link}, after {:?}", append.previous));
                self.node.append((LinkId(link), attempt), &append);
            }
            self.node.commit(usize::MAX / 2);
            self.answer();
            let replies =
                self.wires.get_mut(&link).map(|wire| std::mem::take(&mut wire.to_client)).unwrap_or_default();
            for (attempt, answer) in replies {
                self.say(|| format!("reply on {link} to {attempt:?}: {answer:?}"));
                self.state.reply(self.now, LinkId(link), attempt, answer);
            }
        }
    }

    /// What a pipeline promises.
    fn check(&self, spared: fn(&AppendError) -> bool) {
        let own: Vec<_> = self.node.entries().iter().filter(|entry| !entry.payload.is_empty()).collect();
        let id = |payload: &Bytes| u32::from_le_bytes(payload[..].try_into().unwrap());
        let logged: HashMap<u32, Appended> = own.iter().map(|entry| (id(&entry.payload), entry.at)).collect();
        assert_eq!(logged.len(), own.len(), "nothing is in the log twice");
        assert!(own.is_sorted_by_key(|entry| id(&entry.payload)), "the log's order is the calls' order");
        for call in 0..self.called {
            let outcome = self.outcomes.get(&call).unwrap_or_else(|| panic!("{call} has no outcome"));
            match (outcome, logged.get(&call)) {
                (Ok(said), found) => assert_eq!(Some(said), found, "{call} lies where it was acknowledged"),
                (Err(error), None) => assert!(spared(error), "{call}: {error:?} was not called for"),
                (Err(error), Some(_)) => {
                    assert!(error.may_have_happened(), "{call} is in the log in spite of {error:?}");
                    assert!(spared(error), "{call}: {error:?} was not called for");
                }
            }
        }
    }
}

fn run(seeds: u64, faults: Faults, spared: fn(&AppendError) -> bool) {
    for seed in 0..seeds {
        let mut world = World::new(seed, faults);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..world.rng.random_range(50..400) {
                world.step();
            }
            world.heal();
            world.check(spared);
        }));
        if let Err(panic) = outcome {
            let healed =
                world.transcript.iter().position(|line| line == "heal").unwrap_or(world.transcript.len());
            let told = &world.transcript[healed.saturating_sub(60)..world.transcript.len().min(healed + 60)];
            println!("seed {seed}, {faults:?}\n{}", told.join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}

const CALM: Faults = Faults {
    cuts: false,
    reorder: false,
    crashes: false,
    refusals: false,
    forgetting: false,
    expectations: false,
    deadlines: false,
};

#[test]
fn s27_lost_links_and_crashes_cost_no_append() {
    run(2000, Faults { cuts: true, crashes: true, ..CALM }, |_| false);
}

#[test]
fn s27_answers_out_of_order_cost_no_append() {
    run(2000, Faults { cuts: true, crashes: true, reorder: true, ..CALM }, |_| false);
}

#[test]
fn s28_a_conflict_is_definite_and_what_follows_it_goes_on() {
    let spared = |error: &AppendError| {
        matches!(
            error,
            AppendError::Conflict { .. }
                | AppendError::Refused { refusal: Refusal { code: Code::Conflict, .. }, .. }
        )
    };
    run(2000, Faults { expectations: true, ..CALM }, |error| matches!(error, AppendError::Conflict { .. }));
    run(3000, Faults { expectations: true, cuts: true, crashes: true, reorder: true, ..CALM }, spared);
}

#[test]
fn s28_a_forgotten_writer_is_replaced_or_its_unknown_appends_are_named() {
    run(2000, Faults { forgetting: true, ..CALM }, |_| false);
    let spared = |error: &AppendError| matches!(error, AppendError::UnknownOutcome { .. });
    run(3000, Faults { forgetting: true, cuts: true, crashes: true, reorder: true, ..CALM }, spared);
}

#[test]
fn s28_refusals_are_tried_again_unless_they_are_final() {
    let spared = |error: &AppendError| {
        matches!(error, AppendError::Refused { refusal: Refusal { code: Code::TooLarge, .. }, .. })
    };
    run(1000, Faults { refusals: true, ..CALM }, spared);
    run(3000, Faults { refusals: true, cuts: true, crashes: true, reorder: true, ..CALM }, spared);
}

#[test]
fn s27_everything_at_once() {
    let all = Faults {
        cuts: true,
        reorder: true,
        crashes: true,
        refusals: true,
        forgetting: true,
        expectations: true,
        deadlines: true,
    };
    run(6000, all, |_| true);
    run(3000, Faults { expectations: false, ..all }, |error| !matches!(error, AppendError::Conflict { .. }));
}
