//! Fact: at some moment somebody knew that the log is committed up to here. Everything about time follows from these.
//!
//! Owns:   collecting them from all that was answered.

use std::fmt;

use loglog_proto::{NodeId, Offset};

use crate::history::{Answer, History, OpId, ReadAnswer, Tick};

/// The log was known to be committed up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Up to here.
    pub end: Offset,
    /// From then on, at the latest.
    pub at: Tick,
    /// By what.
    pub by: Witness,
}

/// What told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// An append was acknowledged.
    Acknowledged(OpId),
    /// A linearizable end.
    Linearizable(NodeId),
    /// What a node knew, perhaps late.
    Known(NodeId),
    /// A conflict.
    Conflict(OpId),
    /// A read.
    Read(NodeId),
    /// A reader that saw an entry.
    Reader(u64),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {} told the end {}", self.at, self.by, self.end)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged(op) => write!(f, "the acknowledgement of {op}"),
            Self::Linearizable(node) => write!(f, "a linearizable answer of node {node}"),
            Self::Known(node) => write!(f, "node {node}"),
            Self::Conflict(op) => write!(f, "the conflict of {op}"),
            Self::Read(node) => write!(f, "a read of node {node}"),
            Self::Reader(reader) => write!(f, "an entry that reader {reader} saw"),
        }
    }
}

/// All that `history` tells.
pub(super) fn facts(history: &History) -> Vec<Fact> {
    let mut facts = Vec::new();
    for operation in &history.operations {
        for (at, answer) in operation.attempts.iter().filter_map(|attempt| attempt.answer) {
            let (end, by) = match answer {
                Answer::Acknowledged(appended) => (appended.end, Witness::Acknowledged(operation.id)),
                Answer::Conflict { end } => (end, Witness::Conflict(operation.id)),
                Answer::Refused(_) | Answer::Unknown => continue,
            };
            facts.push(Fact { end, at, by });
        }
    }
    for read in &history.reads {
        let (ReadAnswer::Data { end, .. } | ReadAnswer::BeyondEnd { end }) = read.answer else { continue };
        facts.push(Fact { end, at: read.completed, by: Witness::Read(read.node) });
    }
    for seen in &history.ends {
        let by = if seen.linearizable { Witness::Linearizable } else { Witness::Known };
        facts.push(Fact { end: seen.end, at: seen.completed, by: by(seen.node) });
    }
    for seen in &history.sightings {
        facts.push(Fact { end: seen.end, at: seen.at, by: Witness::Reader(seen.reader) });
    }
    facts
}
