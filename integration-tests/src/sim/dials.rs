//! Faults, how strong each is in a run, and how often each took effect.
//!
//! Owns:   their names on the command line, the draw of a run's dials from its seed.
//! Never:  does any of them.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $group:ident;)*) => {
        /// Something that goes wrong, or that an operator or a client does in between.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it is about.
            #[must_use]
            pub const fn group(self) -> Group {
                match self { $(Self::$name => Group::$group,)* }
            }
        }
    };
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One message: they are many, and count for little.
    Message,
    /// Links, machines, disks, clocks: one stroke each.
    Stroke,
    /// What an operator does.
    Operator,
    /// What clients do.
    Client,
}

faults! {
    /// A message between nodes is lost.
    Loss = "loss", Message;
    /// A message between nodes comes twice.
    Duplicate = "duplicate", Message;
    /// An old message between nodes comes again.
    Replay = "replay", Message;
    /// A message is delayed, so that later ones overtake it.
    Delay = "delay", Message;
    /// A client's request or its answer is lost.
    ClientLoss = "client-loss", Message;
    /// A client's request comes twice.
    ClientReplay = "client-replay", Message;
    /// A partition: counts once it has swallowed a message.
    Partition = "partition", Stroke;
    /// The leader reaches nobody, or is not reached either, while clients go on asking it: counts once that has swallowed a message.
    Isolate = "isolate", Stroke;
    /// A direction between two nodes is cut: counts once it has swallowed a message.
    OneWay = "one-way", Stroke;
    /// A process is killed: the page cache stays, unsynced.
    Kill = "kill", Stroke;
    /// The power of one node fails: what was unsynced may be lost.
    PowerCut = "power-cut", Stroke;
    /// The power of all nodes fails at once.
    Blackout = "blackout", Stroke;
    /// A node dies between two effects of one turn.
    CrashAtEffect = "crash-at-effect", Stroke;
    /// The leader dies, and a node as soon as it has given a vote in the election that follows.
    CrashAtVote = "crash-at-vote", Stroke;
    /// The power fails in the middle of a storage operation.
    CrashInDisk = "crash-in-disk", Stroke;
    /// The power fails, and fails again while the node recovers.
    CrashInRecovery = "crash-in-recovery", Stroke;
    /// A write fails, or stops half-way.
    FailedWrite = "failed-write", Stroke;
    /// A sync fails, of a file or a directory.
    FailedSync = "failed-sync", Stroke;
    /// Another call fails: create, rename, remove, allocate, a change of length.
    FailedCall = "failed-call", Stroke;
    /// A disk is full for a while: counts once a write or an append was refused.
    FullDisk = "full-disk", Stroke;
    /// A disk is through with no write for a while: counts once one is held up.
    HungDisk = "hung-disk", Stroke;
    /// A bit of a segment flips.
    BitFlip = "bit-flip", Stroke;
    /// A page of a segment is zeros.
    ZeroPage = "zero-page", Stroke;
    /// A segment file is cut short.
    CutFile = "cut-file", Stroke;
    /// A segment file is gone.
    LostFile = "lost-file", Stroke;
    /// A wall clock jumps, by up to a year.
    ClockJump = "clock-jump", Stroke;
    /// A node's clock runs up to four times too slow or too fast for a while.
    Drift = "drift", Stroke;
    /// A node's disk and network are slow for a while.
    Slow = "slow", Stroke;
    /// A process stands still for a while, and finds all its messages then.
    Pause = "pause", Stroke;
    /// The storage group is restarted in place, as after a panic.
    RestartInPlace = "restart-in-place", Stroke;
    /// A node's directory is wiped; it comes back under another incarnation.
    Wipe = "wipe", Stroke;
    /// The log is trimmed.
    Trim = "trim", Operator;
    /// Another node is made to lead.
    MoveLeader = "move-leader", Operator;
    /// A member is added.
    Add = "add", Operator;
    /// A learner is promoted.
    Promote = "promote", Operator;
    /// A member is removed.
    Remove = "remove", Operator;
    /// A wiped member is replaced.
    Replace = "replace", Operator;
    /// An upload does not reach a node.
    UploadMissed = "upload-missed", Client;
    /// An upload carries other bytes than the append.
    UploadOther = "upload-other", Client;
    /// An append's own payload is damaged on its way.
    PayloadDamaged = "payload-damaged", Client;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How strong each fault is: a probability for a message or a client's doings, a weight for a stroke or an operator's.
#[derive(Clone, Debug)]
pub struct Dials {
    strength: BTreeMap<Fault, f64>,
}

impl Dials {
    /// Drawn for one run: each fault is left out of every fourth, and as strong as chance has it in the others. So a bug that some
    /// faults hide from others is found as well.
    pub fn draw(rng: &mut StdRng) -> Self {
        let strength = Fault::ALL.iter().map(|fault| {
            let strength: f64 = if rng.random_bool(0.25) { 0.0 } else { rng.random() };
            let most = match fault {
                // Most runs are to get far; some get next to nothing through.
                Fault::Loss => 0.3 * strength,
                Fault::Replay => 0.5 * strength,
                Fault::Duplicate | Fault::Delay => 0.2 * strength,
                Fault::ClientLoss | Fault::ClientReplay => 0.05,
                Fault::UploadMissed => 0.3,
                Fault::UploadOther | Fault::PayloadDamaged => 0.05,
                Fault::Blackout => 0.5,
                _ => 1.0,
            };
            (*fault, strength * most)
        });
        Self { strength: strength.collect() }
    }

    /// How strong it is.
    #[must_use]
    pub fn of(&self, fault: Fault) -> f64 {
        self.strength.get(&fault).copied().unwrap_or(0.0)
    }

    /// Sets one; 0 turns it off.
    pub fn set(&mut self, fault: Fault, strength: f64) {
        self.strength.insert(fault, strength);
    }

    /// Those that are not off.
    pub fn active(&self) -> impl Iterator<Item = Fault> + '_ {
        self.strength.iter().filter(|(_, strength)| **strength > 0.0).map(|(fault, _)| *fault)
    }
}

/// How often each fault took effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Fault, u64>);

impl Counts {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// All of another run.
    pub fn merge(&mut self, other: &Self) {
        for (fault, count) in &other.0 {
            *self.0.entry(*fault).or_default() += count;
        }
    }

    /// How often this one did.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Strokes that took effect: single messages do not count.
    #[must_use]
    pub fn strokes(&self) -> u64 {
        self.0.iter().filter(|(fault, _)| fault.group() == Group::Stroke).map(|(_, count)| count).sum()
    }
}
