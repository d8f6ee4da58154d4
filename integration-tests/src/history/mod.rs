//! History: what clients asked of a log, what they were answered and when, and what was left in the end. The checker judges it.
//!
//! ```text
//!     operation  invoked ──► sent ─► answered          one append, however often it was sent
//!                            sent ─► (lost)
//!                            sent ─► answered ──► completed
//!     read, end, trim        invoked ──► completed
//!     final log              once, when all is over
//! ```
//!
//! Time is a number that never sinks, the same clock for all that is recorded: simulated milliseconds, or microseconds of a real clock.
//! Two things at the same tick count as concurrent, so a finer clock proves more.
//!
//! Owns:   the facts, and the payload of each operation, which is a function of its id.
//! Keeps:  recording costs an element of a vector; ids of operations are dense, from the history's first on.
//! Never:  does I/O, reads a clock, judges.

mod payload;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::response::Appended;
use loglog_proto::{NodeId, Offset, Sequence, WriterId};

pub use payload::{op_of, payload, payload_len};

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

/// Names an append, all its attempts together. Its payload is a function of it: [`payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

/// All that was asked and answered.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The id of the first operation that [`History::invoke`] gives.
    first: u64,
    /// Appends, those of one writer in the order in which they were invoked.
    pub operations: Vec<Operation>,
    /// Reads of raw bytes.
    pub reads: Vec<Read>,
    /// Entries that came out of a client which decodes.
    pub sightings: Vec<Sighting>,
    /// Ends that were told.
    pub ends: Vec<EndSeen>,
    /// Trims that were asked for.
    pub trims: Vec<Trim>,
    /// What each node held when all was over.
    pub finals: Vec<FinalLog>,
    /// What the run went through.
    pub evidence: Evidence,
}

/// An append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub id: OpId,
    /// Whose it is.
    pub author: Author,
    /// Only if it will lie here.
    pub expect_end: Option<Offset>,
    /// Before anything of it was sent.
    pub invoked: Tick,
    /// Each time it was sent.
    pub attempts: Vec<Attempt>,
    /// When whoever asked learnt the outcome. [`None`]: never.
    pub completed: Option<Tick>,
}

/// Who appends, and where in his order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Author {
    /// As the entry will say.
    Wire {
        /// The entry's writer.
        writer: WriterId,
        /// The entry's sequence.
        sequence: Sequence,
    },
    /// The client library draws writer and sequences itself; this is the order in which one pipeline was handed its appends.
    Pipeline {
        /// Which pipeline.
        stream: u64,
        /// The how-manieth; grows by one.
        number: u64,
    },
}

/// An append on its way, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Before it was sent.
    pub sent: Tick,
    /// What it named as the writer's entry before it; the inner [`None`]: it named that there is none. The outer: the client library knows.
    pub previous: Option<Option<Sequence>>,
    /// When it was answered, and what. [`None`]: not yet, or never.
    pub answer: Option<(Tick, Answer)>,
}

/// What an attempt was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is committed.
    Acknowledged(Appended),
    /// The log ends elsewhere than the append says.
    Conflict {
        /// Here.
        end: Offset,
    },
    /// Refused for another reason.
    Refused(Code),
    /// The connection was lost, or the time was up: this copy may be in the log, or get there yet.
    Unknown,
}

/// A read of raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Who served it.
    pub node: NodeId,
    /// From here.
    pub offset: Offset,
    /// At most so many bytes.
    pub limit: u64,
    /// Before it was sent.
    pub invoked: Tick,
    /// When it was answered.
    pub completed: Tick,
    /// What.
    pub answer: ReadAnswer,
}

/// What a read was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// Bytes of the log from the read's offset on.
    Data {
        /// Perhaps none.
        bytes: Bytes,
        /// The committed end that came with them.
        end: Offset,
    },
    /// The offset lies before the start.
    Trimmed {
        /// The start.
        start: Offset,
    },
    /// The offset lies behind the committed end.
    BeyondEnd {
        /// The end.
        end: Offset,
    },
}

/// A data entry that a client saw and decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which reader saw it.
    pub reader: u64,
    /// Its first byte.
    pub offset: Offset,
    /// The byte behind it.
    pub end: Offset,
    /// Whose payload it had: what [`op_of`] says.
    pub op: Option<OpId>,
    /// When it was seen.
    pub at: Tick,
}

/// An end that a node told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSeen {
    /// Who.
    pub node: NodeId,
    /// Whether it was asked for one that is no older than the request.
    pub linearizable: bool,
    /// The start that came with it.
    pub start: Offset,
    /// The end.
    pub end: Offset,
    /// Before it was asked for.
    pub invoked: Tick,
    /// When it was answered.
    pub completed: Tick,
}

/// A trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// What lies before it may go.
    pub asked: Offset,
    /// Before it was asked for.
    pub invoked: Tick,
    /// When it was answered, and where the log starts then. [`None`]: it may have happened, or happen yet.
    pub answer: Option<(Tick, Offset)>,
}

/// What a node holds when all is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalLog {
    /// Which node.
    pub node: NodeId,
    /// Offset of the first byte of `log`, which is the node's first.
    pub start: Offset,
    /// Raw bytes, to the committed end at least. What lies behind it is not looked at.
    pub log: Bytes,
    /// The node's committed end.
    pub committed: Offset,
}

/// What a run went through: whether it was worth anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// How often another node led, or the same in another term.
    pub leader_changes: u64,
    /// Faults that really took effect, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Tick {
    /// Wraps a plain number.
    #[must_use]
    pub const fn new(at: u64) -> Self {
        Self(at)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl OpId {
    /// Wraps a plain number.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {:x}", self.0)
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire { writer, sequence } => write!(f, "writer {writer}, sequence {sequence}"),
            Self::Pipeline { stream, number } => write!(f, "pipeline {stream}, number {number}"),
        }
    }
}

impl History {
    /// An empty one. Its operations' ids begin at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one that is to be joined with others, each of another `part`: its ids are its own.
    #[must_use]
    pub fn part(part: u32) -> Self {
        Self { first: u64::from(part) << 32, ..Self::default() }
    }

    /// Begins an append; returns its id, from which its [`payload`] follows. Nothing of it has been sent yet.
    pub fn invoke(&mut self, author: Author, expect_end: Option<Offset>, at: Tick) -> OpId {
        let id = OpId(self.first + self.operations.len() as u64);
        let (attempts, completed) = (Vec::with_capacity(1), None);
        self.operations.push(Operation { id, author, expect_end, invoked: at, attempts, completed });
        id
    }

    /// Notes that an append is sent; returns the attempt's number within the operation.
    ///
    /// # Panics
    /// If the operation was not invoked here.
    pub fn sent(&mut self, op: OpId, previous: Option<Option<Sequence>>, at: Tick) -> usize {
        let attempts = &mut self.operation_mut(op).attempts;
        attempts.push(Attempt { sent: at, previous, answer: None });
        attempts.len() - 1
    }

    /// Notes what an attempt was answered.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn answered(&mut self, op: OpId, attempt: usize, answer: Answer, at: Tick) {
        self.operation_mut(op).attempts[attempt].answer = Some((at, answer));
    }

    /// Notes that whoever asked has learnt the outcome.
    ///
    /// # Panics
    /// If the operation was not invoked here.
    pub fn completed(&mut self, op: OpId, at: Tick) {
        self.operation_mut(op).completed = Some(at);
    }

    /// An operation.
    ///
    /// # Panics
    /// If it was not invoked here.
    #[must_use]
    pub fn operation(&self, op: OpId) -> &Operation {
        &self.operations[self.place(op)]
    }

    fn operation_mut(&mut self, op: OpId) -> &mut Operation {
        let place = self.place(op);
        &mut self.operations[place]
    }

    fn place(&self, op: OpId) -> usize {
        let place = op.0.checked_sub(self.first).and_then(|it| usize::try_from(it).ok());
        place.filter(|it| *it < self.operations.len()).unwrap_or_else(|| panic!("{op} was not invoked here"))
    }

    /// Notes that a fault has taken effect.
    pub fn fault(&mut self, kind: &str) {
        match self.evidence.faults.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.evidence.faults.insert(kind.to_owned(), 1)),
        }
    }

    /// Joins another part. What is recorded from now on goes into parts that are joined later: only they know their operations.
    pub fn join(&mut self, mut other: Self) {
        self.operations.append(&mut other.operations);
        self.reads.append(&mut other.reads);
        self.sightings.append(&mut other.sightings);
        self.ends.append(&mut other.ends);
        self.trims.append(&mut other.trims);
        self.finals.append(&mut other.finals);
        self.evidence.leader_changes += other.evidence.leader_changes;
        for (kind, count) in other.evidence.faults {
            *self.evidence.faults.entry(kind).or_default() += count;
        }
    }
}

impl Operation {
    /// The first acknowledgement, and when it came.
    #[must_use]
    pub fn acknowledged(&self) -> Option<(Tick, Appended)> {
        self.acknowledgements().min_by_key(|(at, _)| *at)
    }

    /// Every acknowledgement.
    pub fn acknowledgements(&self) -> impl Iterator<Item = (Tick, Appended)> + '_ {
        self.attempts.iter().filter_map(|attempt| match attempt.answer {
            Some((at, Answer::Acknowledged(appended))) => Some((at, appended)),
            _ => None,
        })
    }
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        match (refusal.code, &refusal.detail) {
            (Code::Conflict, Detail::Number(end)) => Self::Conflict { end: Offset::new(*end) },
            (code, _) => Self::Refused(code),
        }
    }
}
