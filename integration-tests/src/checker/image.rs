//! Image: the log as put together from all that anybody saw of it: final logs first, then reads, trimmed parts included.
//!
//! ```text
//!     final logs            ├──────────────────┤
//!     reads         ├────┤ ├────┤       ├──┤
//!     image         ├────┤ ├───────────────────┤        each byte once, with who told it first
//! ```
//!
//! Keeps:  a byte is what it was when it was first seen; whoever tells otherwise is reported.

use std::collections::BTreeMap;
use std::fmt;

use loglog_proto::{Length, NodeId, Offset};

use super::violation::Violation;
use crate::history::{FinalLog, History, ReadAnswer, Tick};

/// Who told some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What a node held in the end.
    Final(NodeId),
    /// A read.
    Read(NodeId, Tick),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final(node) => write!(f, "the final log of node {node}"),
            Self::Read(node, at) => write!(f, "what node {node} served at {at}"),
        }
    }
}

/// All bytes known.
#[derive(Debug)]
pub(super) struct Image {
    /// Where final logs begin, in order.
    pub(super) starts: Vec<Offset>,
    /// Where the last one ends.
    pub(super) end: Offset,
    /// From `base` on; zeros where nothing is known.
    bytes: Vec<u8>,
    base: u64,
    /// By begin: end and source of what is known. Neither overlaps another.
    known: BTreeMap<u64, (u64, Source)>,
}

impl Image {
    /// Puts it together. [`None`] without a final log.
    pub(super) fn assemble(history: &History, found: &mut Vec<Violation>) -> Option<Self> {
        let finals: Vec<&FinalLog> =
            history.finals.iter().filter(|it| reaches_its_committed_end(it, found)).collect();
        let end = finals.iter().map(|it| it.committed).max()?;
        let mut starts: Vec<Offset> = finals.iter().map(|it| it.start).collect();
        starts.sort_unstable();
        let base = history.reads.iter().map(|it| it.offset).fold(starts[0], Offset::min).get();
        let mut image = Self { starts, end, bytes: Vec::new(), base, known: BTreeMap::new() };
        image.bytes.resize(usize::try_from(end.get() - base).expect("a log that fits into memory"), 0);
        for log in finals {
            let committed = (log.committed - log.start).as_usize();
            image.add(log.start, &log.log[..committed], Source::Final(log.node), found);
        }
        for read in &history.reads {
            let ReadAnswer::Data { bytes, .. } = &read.answer else { continue };
            if read.offset + Length::of(bytes.len()) <= end {
                image.add(read.offset, bytes, Source::Read(read.node, read.completed), found);
            }
        }
        Some(image)
    }

    /// What is known without a gap, in order: where it begins, and the bytes.
    pub(super) fn runs(&self) -> Vec<(Offset, &[u8])> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (begin, (end, _)) in &self.known {
            match runs.last_mut() {
                Some(last) if last.1 == *begin => last.1 = *end,
                _ => runs.push((*begin, *end)),
            }
        }
        runs.iter().map(|(begin, end)| (Offset::new(*begin), self.slice(*begin, *end))).collect()
    }

    fn slice(&self, begin: u64, end: u64) -> &[u8] {
        &self.bytes[index(begin - self.base)..index(end - self.base)]
    }

    /// Takes what is new, compares what is not; reports the first byte that differs.
    fn add(&mut self, offset: Offset, bytes: &[u8], of: Source, found: &mut Vec<Violation>) {
        let (begin, mut at) = (offset.get(), offset.get());
        let end = begin + bytes.len() as u64;
        let mut is_reported = false;
        while at < end {
            let before = self.known.range(..=at).next_back().filter(|(_, (end, _))| *end > at);
            if let Some((_, (known_end, other))) = before {
                let (upto, other) = (end.min(*known_end), *other);
                let (ours, theirs) = (&bytes[index(at - begin)..index(upto - begin)], self.slice(at, upto));
                if ours != theirs && !is_reported {
                    let place = ours.iter().zip(theirs).position(|(our, their)| our != their);
                    let place = place.expect("they differ somewhere");
                    found.push(differs(at + place as u64, (of, ours[place]), (other, theirs[place])));
                    is_reported = true;
                }
                at = upto;
            } else {
                let next = self.known.range(at..).next().map_or(end, |(begin, _)| end.min(*begin));
                let (from, to) = (index(at - self.base), index(next - self.base));
                self.bytes[from..to].copy_from_slice(&bytes[index(at - begin)..index(next - begin)]);
                self.known.insert(at, (next, of));
                at = next;
            }
        }
    }
}

fn differs(at: u64, (of, found): (Source, u8), (other, known): (Source, u8)) -> Violation {
    let at = Offset::new(at);
    match (of, other) {
        (Source::Final(_), _) => Violation::NodesDiffer { at, of, found, other, known },
        (Source::Read(..), Source::Final(_)) => Violation::ReadDiffers { at, of, found, other, known },
        (Source::Read(..), Source::Read(..)) => Violation::ByteChanged { at, of, found, other, known },
    }
}

fn reaches_its_committed_end(log: &FinalLog, found: &mut Vec<Violation>) -> bool {
    let (start, committed) = (log.start, log.committed);
    let end = start + Length::of(log.log.len());
    let reaches = start <= committed && committed <= end;
    if !reaches {
        found.push(Violation::FinalCutShort { node: log.node, start, end, committed });
    }
    reaches
}

fn index(length: u64) -> usize {
    usize::try_from(length).expect("it lies in memory")
}
