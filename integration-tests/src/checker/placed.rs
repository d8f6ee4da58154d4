//! Placed: which entry is whose operation, and whether each writer's are in order.
//!
//! Owns:   *once*, *as invoked*, *in order*, *without holes*.

use std::collections::HashMap;

use loglog_proto::response::Appended;
use loglog_proto::{Offset, Sequence};

use super::answers::refusal_of;
use super::log::{Content, Log};
use super::violation::Violation;
use crate::history::{Author, History, OpId, Operation};

/// Where operations lie.
#[derive(Debug)]
pub(super) struct Placed {
    /// By the operation's place in the history: its first entry's place in the log.
    entries: Vec<Option<usize>>,
    /// By the entry's place in the log: the operation's place in the history.
    operations: Vec<Option<usize>>,
}

impl Placed {
    /// Finds each entry's operation.
    pub(super) fn find(history: &History, log: &Log, found: &mut Vec<Violation>) -> Self {
        let by_id = names(history, found);
        let mut placed = Self {
            entries: vec![None; history.operations.len()],
            operations: Vec::with_capacity(log.entries.len()),
        };
        for (number, entry) in log.entries.iter().enumerate() {
            let at = entry.offset;
            let place = match entry.content {
                Content::Noop | Content::Control => None,
                Content::Nobodys => {
                    found.push(Violation::Stranger { at });
                    None
                }
                Content::Of(op) => {
                    let place = by_id.get(&op).copied();
                    if place.is_none_or(|it| history.operations[it].attempts.is_empty()) {
                        found.push(Violation::NeverSent { at, op });
                    }
                    place
                }
            };
            placed.operations.push(place);
            let Some(place) = place else { continue };
            let Operation { id: op, author, .. } = history.operations[place];
            let (writer, sequence) = (entry.writer, entry.sequence);
            if matches!(author, Author::Wire { .. }) && author != (Author::Wire { writer, sequence }) {
                found.push(Violation::WrongAuthor { at, op, author, writer: writer.get(), sequence });
            }
            match placed.entries[place] {
                None => placed.entries[place] = Some(number),
                Some(first) => {
                    let first = log.entries[first].offset;
                    found.push(Violation::Twice { op, first, second: at });
                }
            }
        }
        placed.check_writers(history, log, found);
        placed.check_pipelines(history, log, found);
        placed
    }

    /// Where an operation lies, as its acknowledgement must say.
    pub(super) fn place(&self, operation: usize, log: &Log) -> Option<Appended> {
        self.entries[operation].map(|entry| log.entries[entry].place())
    }

    /// Whose entry this is.
    pub(super) fn operation(&self, entry: usize) -> Option<usize> {
        self.operations[entry]
    }

    /// A writer's sequences rise, and each entry's predecessor is the one that it named.
    fn check_writers(&self, history: &History, log: &Log, found: &mut Vec<Violation>) {
        let mut last = HashMap::new();
        // Where what is known without a gap up to here begins.
        let (mut known_from, mut known_to) = (Offset::ZERO, Offset::ZERO);
        for (entry, operation) in log.entries.iter().zip(&self.operations) {
            let at = entry.offset;
            if at != known_to {
                known_from = at;
            }
            known_to = entry.end;
            if !entry.is_data() {
                continue;
            }
            let before: Option<(Sequence, Offset)> = last.insert(entry.writer, (entry.sequence, at));
            if let Some((before, _)) = before.filter(|(before, _)| *before >= entry.sequence) {
                let (writer, sequence) = (entry.writer.get(), entry.sequence);
                found.push(Violation::SequenceOrder { writer, at, found: sequence, before });
                continue;
            }
            // What nobody saw may have been the one before it.
            let is_certain =
                known_from == Offset::ZERO || before.is_some_and(|(_, before)| before >= known_from);
            if let Some(operation) = operation.filter(|_| is_certain) {
                let before = before.map(|(before, _)| before);
                check_previous(&history.operations[operation], at, before, found);
            }
        }
    }

    /// What a pipeline was handed earlier lies before what it was handed later; and what never had an outcome is not passed over.
    fn check_pipelines(&self, history: &History, log: &Log, found: &mut Vec<Violation>) {
        let mut last: HashMap<u64, (u64, OpId)> = HashMap::new();
        for (entry, operation) in log.entries.iter().zip(&self.operations) {
            let Some(Operation { id: op, author, .. }) = operation.map(|it| &history.operations[it]) else {
                continue;
            };
            let Author::Pipeline { stream, number } = *author else { continue };
            match last.insert(stream, (number, *op)) {
                Some((before, behind)) if before > number => {
                    let (op, author, at) = (*op, *author, entry.offset);
                    found.push(Violation::PipelineOrder { op, author, at, behind });
                }
                _ => {}
            }
        }
        let mut open: HashMap<u64, OpId> = HashMap::new();
        for (operation, entry) in history.operations.iter().zip(&self.entries) {
            let Author::Pipeline { stream, .. } = operation.author else { continue };
            match (entry, open.get(&stream)) {
                (Some(entry), Some(hole)) if log.is_whole() => {
                    let (op, author, at) = (operation.id, operation.author, log.entries[*entry].offset);
                    let (named, found_there) = (hole.to_string(), "not in the log".to_owned());
                    found.push(Violation::Hole { op, author, at, named, found: found_there });
                }
                (None, None) if operation.attempts.iter().all(|it| it.answer.is_none()) => {
                    open.insert(stream, operation.id);
                }
                _ => {}
            }
        }
    }
}

fn check_previous(operation: &Operation, at: Offset, before: Option<Sequence>, found: &mut Vec<Violation>) {
    // A copy that was refused for good did not write it.
    let may_have_written = operation
        .attempts
        .iter()
        .filter(|it| it.answer.is_none_or(|(_, answer)| refusal_of(answer).is_none()));
    let named: Vec<Option<Option<Sequence>>> = may_have_written.map(|it| it.previous).collect();
    if named.iter().any(|it| it.is_none_or(|it| it == before)) || named.is_empty() {
        return;
    }
    let name = |it: Option<Sequence>| it.map_or_else(|| "none".to_owned(), |it| format!("sequence {it}"));
    let named: Vec<String> = named.into_iter().flatten().map(name).collect();
    let (op, author) = (operation.id, operation.author);
    found.push(Violation::Hole { op, author, at, named: named.join(" or "), found: name(before) });
}

/// Operations by id; each has a name of its own.
fn names(history: &History, found: &mut Vec<Violation>) -> HashMap<OpId, usize> {
    let mut by_id = HashMap::with_capacity(history.operations.len());
    let mut by_author = HashMap::with_capacity(history.operations.len());
    for (place, it) in history.operations.iter().enumerate() {
        let alike = [by_id.insert(it.id, place), by_author.insert(it.author, place)];
        if let Some(one) = alike.into_iter().flatten().next() {
            let one = history.operations[one].id;
            found.push(Violation::NamedAlike { one, other: it.id, author: it.author });
        }
    }
    by_id
}
