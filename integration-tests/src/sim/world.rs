//! The world: nodes, network, clients and what is to come.
//!
//! Owns:   the main loop, rounds of faults and healing, what a run comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use loglog_proto::{ClusterId, Incarnation, Length, NodeId, RaftId, Term};
use loglog_storage::Member;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::Clients;
use super::dials::{Counts, Dials, Fault};
use super::judge::Judge;
use super::node::{At, Event, Node};
use super::operator::Operator;
use super::queue::{Micros, Queue, SECOND};

/// Simulated time in a cluster-hour.
pub const HOUR: Micros = 3600 * SECOND;
/// One round of faults.
const ROUND: Micros = 300 * SECOND;
/// In which a healed cluster must have converged.
const HEAL_MAX: Micros = 120 * SECOND;
/// How large a write group is at most, here (S3).
pub(super) const GROUP: Length = Length::new(256 << 10);
/// Memory for the log's end, few bytes: a group or two.
pub(super) const TAIL_BYTES: usize = 48 << 10;
/// Bytes of a segment, one of these in a run: in small ones an uncommitted tail takes several.
const SEGMENTS: [Length; 3] = [Length::new(6 << 10), Length::new(16 << 10), Length::new(48 << 10)];
/// Free bytes below which a leader takes no data (S37).
pub(super) const FREE_MIN: u64 = 1 << 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything random comes from.
    pub seed: u64,
    /// Nodes at the start; drawn from the seed, 3 to 5, if none.
    pub nodes: Option<u32>,
    /// Simulated time of faults, microseconds; a multiple of a round, or one round cut short.
    pub time: Micros,
    /// Faults set by hand, over those drawn from the seed.
    pub dials: Vec<(Fault, f64)>,
    /// Keep every event, in words.
    pub transcript: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What went against a promise; none in a good run.
    pub violation: Option<String>,
    /// Simulated time, microseconds.
    pub time: Micros,
    /// Nodes at the start.
    pub nodes: u32,
    /// Appends acknowledged, refused for good, never settled.
    pub acknowledged: u64,
    /// Operations: appends, reads, ends that got an answer.
    pub operations: u64,
    /// Terms in which a node led.
    pub leaders: u64,
    /// Snapshots installed.
    pub installs: u64,
    /// Payloads fetched from peers.
    pub fetched: u64,
    /// Repairs of damaged logs.
    pub mended: u64,
    /// Longest time from healing to convergence, microseconds.
    pub heal_max: Micros,
    /// Faults that took effect.
    pub counts: Counts,
    /// Events handled.
    pub events: u64,
    /// Of every event in order: equal transcripts have equal hashes.
    pub hash: u64,
    /// Every event, if it was asked for.
    pub transcript: Vec<String>,
}

/// Operations and strokes in an hour for it to count.
const COUNTED: (u64, u64) = (10_000, 20);

impl Report {
    /// Whether enough happened for its time to count: 10,000 operations and 20 strokes in an hour.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        let of = |each: u64| each.saturating_mul(self.time) / HOUR;
        self.violation.is_none() && self.operations >= of(COUNTED.0) && self.counts.strokes() >= of(COUNTED.1)
    }
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) dials: Dials,
    pub(super) segment: Length,
    pub(super) queue: Queue<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) by_id: HashMap<RaftId, At>,
    /// Directions that are cut, and which fault has cut them.
    pub(super) cuts: BTreeMap<(At, At), Fault>,
    /// Whether the cuts have swallowed anything.
    pub(super) is_cut_felt: bool,
    /// Links that are open, by the generations at either end.
    pub(super) links: HashMap<(At, At), (u64, u64)>,
    pub(super) connecting: BTreeSet<(At, At)>,
    /// Messages of long ago: from, to, life, frame.
    pub(super) old: Vec<(RaftId, RaftId, u64, Bytes)>,
    pub(super) clients: Clients,
    pub(super) operator: Operator,
    pub(super) judge: Judge,
    pub(super) counts: Counts,
    pub(super) leaders: BTreeMap<Term, RaftId>,
    pub(super) installs: u64,
    pub(super) fetched: u64,
    pub(super) mended: u64,
    /// Whether faults strike.
    pub(super) is_stormy: bool,
    pub(super) incarnations: u32,
    events: u64,
    hash: DefaultHasher,
    transcript: Option<Vec<String>>,
}

/// Runs one seed.
#[must_use]
pub fn run(options: &Options) -> Report {
    let mut world = World::new(options);
    let result = catch_unwind(AssertUnwindSafe(|| world.live(options.time)));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
            Some(format!("panicked: {text}"))
        }
    };
    world.report(violation)
}

impl World {
    fn new(options: &Options) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let mut dials = Dials::draw(&mut rng);
        for (fault, strength) in &options.dials {
            dials.set(*fault, *strength);
        }
        let count = options.nodes.unwrap_or_else(|| [3, 3, 4, 5][rng.random_range(0..4)]);
        let segment = SEGMENTS[rng.random_range(0..SEGMENTS.len())];
        let mut world = Self {
            rng,
            dials,
            segment,
            queue: Queue::new(),
            nodes: Vec::new(),
            by_id: HashMap::new(),
            cuts: BTreeMap::new(),
            is_cut_felt: false,
            links: HashMap::new(),
            connecting: BTreeSet::new(),
            old: Vec::new(),
            clients: Clients::new(),
            operator: Operator::default(),
            judge: Judge::new(),
            counts: Counts::default(),
            leaders: BTreeMap::new(),
            installs: 0,
            fetched: 0,
            mended: 0,
            is_stormy: false,
            incarnations: 6,
            events: 0,
            hash: DefaultHasher::new(),
            transcript: options.transcript.then(Vec::new),
        };
        let ids: Vec<RaftId> = (1..=count).map(|node| world.draw_id(node)).collect();
        let voters: Vec<Member> = ids.iter().map(|id| member(*id)).collect();
        for id in ids {
            world.form(id, &voters);
        }
        world
    }

    pub(super) fn draw_id(&mut self, node: u32) -> RaftId {
        self.incarnations += 1;
        let incarnation = Incarnation::new(self.incarnations).expect("not 0");
        RaftId::new(NodeId::new(node).expect("not 0"), incarnation)
    }

    /// Rounds of faults, each followed by healing, until the time is up.
    fn live(&mut self, time: Micros) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            self.queue.push(0, Event::Start { at });
        }
        self.clients.begin(&mut self.queue);
        self.queue.push(SECOND, Event::Operator);
        self.queue.push(SECOND, Event::Nemesis);
        // It comes to be in peace: a static cluster forms only with all its nodes present (S24).
        self.pass(3 * SECOND)?;
        while self.queue.now() < time {
            self.is_stormy = true;
            self.pass(ROUND.min(time))?;
            self.heal()?;
        }
        self.final_check()
    }

    fn pass(&mut self, time: Micros) -> Result<(), String> {
        let until = self.queue.now() + time;
        while self.queue.now() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Everybody is up and reaches everybody, nothing is lost any more: all must converge and go on.
    fn heal(&mut self) -> Result<(), String> {
        self.calm();
        let began = self.queue.now();
        let until = began + HEAL_MAX;
        let acknowledged = self.judge.acknowledged();
        self.clients.ask_for_progress();
        loop {
            for _ in 0..50 {
                self.step()?;
            }
            let why = match self.is_converged() {
                Ok(()) if self.judge.acknowledged() > acknowledged && self.clients.have_progressed() => break,
                Ok(()) => format!("clients get nothing done: {}", self.clients.describe()),
                Err(why) => why,
            };
            if self.queue.now() > until {
                return Err(format!("healed, and after {} s not converged: {why}", HEAL_MAX / SECOND));
            }
        }
        let took = self.queue.now() - began;
        self.judge.heal_max = self.judge.heal_max.max(took);
        self.compare_logs()
    }

    fn step(&mut self) -> Result<(), String> {
        let event = self.queue.pop().expect("there are always ticks");
        self.events += 1;
        match event.node(&self.by_id).and_then(|at| self.paused_for(at)) {
            Some(wait) => self.queue.push(wait, event),
            None => self.handle(event),
        }
        match self.judge.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick { at, generation } => self.tick(at, generation),
            Event::Turn { at, generation } => self.turn_due(at, generation),
            Event::Written { at, generation } => self.write(at, generation),
            Event::Space { at, generation } => self.look_at_space(at, generation),
            Event::Look { at, generation } => self.look_for_missing(at, generation),
            Event::OldRead { at, generation, fetch } => self.old_read(at, generation, fetch),
            Event::Said { from, to, life, frame } => self.said(from, to, life, frame),
            Event::Connect { from, to } => self.connect(from, to),
            Event::Accepted { at, generation, to, peer, accepted } => {
                self.accepted(at, (generation, to), peer, accepted);
            }
            Event::CopyAsked { from, generation, to, want, copy } => {
                self.copy_asked(from, generation, to, want, copy);
            }
            Event::Copied { at, generation, want, bytes } => self.copied(at, generation, &want, &bytes),
            Event::InstallStep { at, generation } => self.install_step(at, generation),
            Event::Mend { at, generation } => self.mend(at, generation),
            Event::Start { at } => self.start(at),
            Event::Restart { at, generation } => self.restart_in_place(at, generation),
            Event::PowerFails { at, generation } => self.power_fails(at, generation),
            Event::Asked { to, token, ask } => self.asked(to, token, ask),
            Event::Answered { token, answer } => self.answered(token, answer),
            Event::Client { client } => self.client(client),
            Event::Operator => self.operate(),
            Event::Nemesis => self.strike(),
            Event::Undo(undo) => self.undo(undo),
        }
    }

    /// Something happened that is worth a line, and a part of the transcript's hash.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>12} {}", self.queue.now(), line());
        self.hash.write(line.as_bytes());
        if let Some(transcript) = &mut self.transcript {
            transcript.push(line);
        }
    }

    /// A promise is broken.
    pub(super) fn violate(&mut self, what: String) {
        self.tell(|| format!("VIOLATION {what}"));
        let now = self.queue.now();
        self.judge.violation.get_or_insert(format!("at {:.6} s: {what}", now as f64 / SECOND as f64));
    }

    pub(super) fn chance(&mut self, fault: Fault) -> bool {
        let strength = self.dials.of(fault);
        self.is_stormy && strength > 0.0 && self.rng.random_bool(strength)
    }

    pub(super) fn count(&mut self, fault: Fault) {
        self.counts.add(fault);
        if fault.group() != super::dials::Group::Message {
            self.tell(|| format!("fault {fault}"));
        }
    }

    fn report(self, violation: Option<String>) -> Report {
        Report {
            violation,
            time: self.queue.now(),
            nodes: u32::try_from(self.judge.nodes_at_start).unwrap_or(u32::MAX),
            acknowledged: self.judge.acknowledged(),
            operations: self.judge.operations,
            leaders: self.leaders.len() as u64,
            installs: self.installs,
            fetched: self.fetched,
            mended: self.mended,
            heal_max: self.judge.heal_max,
            counts: self.counts,
            events: self.events,
            hash: self.hash.finish(),
            transcript: self.transcript.unwrap_or_default(),
        }
    }
}

pub(super) fn cluster() -> ClusterId {
    ClusterId::new(5).expect("not 0")
}

pub(super) fn member(id: RaftId) -> Member {
    Member { id, peer_address: format!("p{id}"), client_address: format!("c{id}") }
}
