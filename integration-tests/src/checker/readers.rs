//! Readers: what was served lies within what is committed, and every end that was told is one.

use std::collections::HashMap;

use loglog_proto::{Length, Offset};

use super::fact::{Fact, Witness};
use super::log::Log;
use super::placed::Placed;
use super::violation::Violation;
use crate::history::{History, ReadAnswer};

/// Checks all but the bytes, which the image has compared.
pub(super) fn check(
    history: &History,
    log: &Log,
    placed: &Placed,
    facts: &[Fact],
    found: &mut Vec<Violation>,
) {
    reads(history, found);
    ends(log, facts, found);
    sightings(history, log, placed, found);
}

fn reads(history: &History, found: &mut Vec<Violation>) {
    for read in &history.reads {
        let (node, offset, limit) = (read.node, read.offset, read.limit);
        match &read.answer {
            ReadAnswer::Data { bytes, end } => {
                let length = bytes.len();
                if offset + Length::of(length) > *end {
                    found.push(Violation::ReadBeyondEnd { node, offset, length, end: *end });
                }
                if length as u64 > limit {
                    found.push(Violation::ReadTooLong { node, offset, length, limit });
                }
            }
            ReadAnswer::BeyondEnd { end } if *end >= offset => {
                found.push(Violation::BeyondEndUntrue { node, offset, end: *end });
            }
            ReadAnswer::BeyondEnd { .. } | ReadAnswer::Trimmed { .. } => {}
        }
    }
}

fn ends(log: &Log, facts: &[Fact], found: &mut Vec<Violation>) {
    for fact in facts {
        let is_end = match fact.by {
            // Compared with the entries themselves.
            Witness::Acknowledged(_) | Witness::Reader(_) => continue,
            // It is judged by the entry before, whose batch may be growing.
            Witness::Conflict(_) => log.is_boundary(fact.end),
            Witness::Linearizable(_) | Witness::Known(_) | Witness::Read(_) => log.is_batch_end(fact.end),
        };
        if fact.end > log.end {
            found.push(Violation::EndBeyondFinal { fact: *fact, last: log.end });
        } else if is_end == Some(false) {
            found.push(Violation::EndWithinBatch(*fact));
        }
    }
}

/// Each reader saw what is there, one data entry after the other.
fn sightings(history: &History, log: &Log, placed: &Placed, found: &mut Vec<Violation>) {
    // How many data entries lie before each entry.
    let mut rank = Vec::with_capacity(log.entries.len());
    let mut data = 0_usize;
    for entry in &log.entries {
        rank.push(data);
        data += usize::from(entry.is_data());
    }
    let mut last: HashMap<u64, (Offset, Option<usize>)> = HashMap::new();
    for seen in &history.sightings {
        let entry = log.entries.binary_search_by_key(&seen.offset, |entry| entry.offset).ok();
        let op = entry.and_then(|it| placed.operation(it)).map(|it| history.operations[it].id);
        let is_there = entry.is_some_and(|it| log.entries[it].end == seen.end) && op == seen.op;
        if seen.op.is_none() || !is_there && (log.knows(seen.offset) || seen.end > log.end) {
            let (reader, op, offset, end) = (seen.reader, seen.op, seen.offset, seen.end);
            found.push(Violation::SightingDiffers { reader, op, offset, end });
        }
        let rank = entry.map(|it| rank[it]);
        if let Some((before, before_rank)) = last.insert(seen.reader, (seen.offset, rank)) {
            let is_next = rank.zip(before_rank).is_none_or(|(rank, before)| rank == before + 1);
            if before >= seen.offset || !is_next {
                let (reader, offset) = (seen.reader, seen.offset);
                found.push(Violation::SightingOrder { reader, offset, before });
            }
        }
    }
}
