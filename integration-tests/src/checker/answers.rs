//! Answers: what each append was told, against where it lies.
//!
//! Owns:   acknowledgements, conflicts, refusals for good.
//!
//! **What a refusal proves.** A refusal speaks about one copy of an append. It proves that the *operation* is not in the log and never will
//! be only where no other copy can have been written or be written yet. Call a copy *loose* if it was not answered, or answered
//! `Interrupted`, `TimedOut` or `Internal`; all others are not written and gone:
//!
//! - **No copy is loose, none acknowledged**: refused for good. Every code counts, `UnknownWriter` too: its "may have happened" is
//!   about other copies, and nothing was written by the one that got it (S28: nothing is written in the refusals).
//! - **`Conflict{end}` with `end` beyond the expected end**: refused for good, whatever else is loose. The decision looks for the sequence in
//!   the writers' table before it looks at the end (S28), so no copy lay in what is committed now (S30: it is answered once what it was judged by
//!   is); and the log never ends where the append says again, so none will.
//! - **`Conflict{end}` with `end` before the expected end, and a loose copy**: proves nothing. The log may grow to just that end.
//! - **`OutOfOrder`, `NotLeader`, `DiskFull`, … and a loose copy**: proves nothing; that copy may be written later, by another leader.

use loglog_proto::Length;
use loglog_proto::entry::OVERHEAD;
use loglog_proto::error::Code;
use loglog_proto::response::Appended;

use super::log::Log;
use super::placed::Placed;
use super::violation::Violation;
use crate::history::{Answer, History, Operation, payload_len};

/// Checks every operation by itself, and that no two were acknowledged for one place.
pub(super) fn check(history: &History, log: &Log, placed: &Placed, found: &mut Vec<Violation>) {
    let mut places = Vec::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let place = placed.place(number, log);
        let acknowledged = operation.acknowledged();
        check_acknowledgements(operation, log, place, found);
        check_conflicts(operation, log, found);
        if let (Some(place), Some(code)) = (place, refused_for_good(operation)) {
            found.push(Violation::RefusedInLog { op: operation.id, at: place.offset, code });
        }
        if let Some(place) = place.or(acknowledged.map(|(_, it)| it)) {
            places.push((place.offset, place.end, operation.id));
            if let Some(expected) = operation.expect_end.filter(|it| *it != place.offset) {
                let (op, found_at) = (operation.id, place.offset);
                found.push(Violation::ExpectedEndIgnored { op, expected, found: found_at });
            }
        }
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let [(_, end, one), (at, _, other)] = *pair else { continue };
        if at < end {
            found.push(Violation::PlacesOverlap { one, other, at });
        }
    }
}

fn check_acknowledgements(
    operation: &Operation,
    log: &Log,
    place: Option<Appended>,
    found: &mut Vec<Violation>,
) {
    let op = operation.id;
    let Some((at, acknowledged)) = operation.acknowledged() else { return };
    for (_, again) in operation.acknowledgements().filter(|(_, it)| *it != acknowledged) {
        found.push(Violation::RetriesDisagree { op, first: acknowledged, again });
    }
    let (Appended { offset, end, .. }, length) = (acknowledged, Length::of(payload_len(op) + OVERHEAD));
    match place {
        Some(place) if place != acknowledged => {
            found.push(Violation::AcknowledgedElsewhere { op, acknowledged, found: place });
        }
        Some(_) => {}
        None if offset + length != end => {
            found.push(Violation::AcknowledgedLength { op, offset, end, length: length.get() });
        }
        None if log.knows(offset) || offset >= log.end => {
            found.push(Violation::AcknowledgedLost { op, at, acknowledged });
        }
        // Trimmed, and nobody read it.
        None => {}
    }
}

fn check_conflicts(operation: &Operation, log: &Log, found: &mut Vec<Violation>) {
    let (op, expected) = (operation.id, operation.expect_end);
    for (at, answer) in operation.attempts.iter().filter_map(|attempt| attempt.answer) {
        let Answer::Conflict { end } = answer else { continue };
        let why = match expected {
            None => Some("it expected no end"),
            Some(expected) if expected == end => Some("that is the end it expected"),
            Some(_) if log.is_boundary(end) == Some(false) => Some("no entry ends there"),
            Some(_) => None,
        };
        if let Some(why) = why {
            found.push(Violation::ConflictUntrue { op, expected, end, at, why });
        }
        if let Some((_, acknowledged)) = operation.acknowledged()
            && expected.is_some_and(|expected| end > expected)
        {
            let acknowledged = acknowledged.offset;
            found.push(Violation::RefusedAndAcknowledged { op, acknowledged, end });
        }
    }
}

/// The refusal that proves that an operation is not in the log and never will be; see above.
pub(super) fn refused_for_good(operation: &Operation) -> Option<Code> {
    let answers = || operation.attempts.iter().map(|attempt| attempt.answer.map(|(_, answer)| answer));
    if operation.acknowledged().is_some() {
        return None;
    }
    let is_beyond = |end| operation.expect_end.is_some_and(|expected| end > expected);
    if answers().any(|it| matches!(it, Some(Answer::Conflict { end }) if is_beyond(end))) {
        return Some(Code::Conflict);
    }
    let mut last = None;
    for answer in answers() {
        last = Some(refusal_of(answer?)?);
    }
    last
}

/// Why a copy was not written; [`None`] if it may have been.
pub(super) fn refusal_of(answer: Answer) -> Option<Code> {
    match answer {
        Answer::Acknowledged(_) | Answer::Unknown => None,
        Answer::Refused(Code::Interrupted | Code::TimedOut | Code::Internal) => None,
        Answer::Conflict { .. } => Some(Code::Conflict),
        Answer::Refused(code) => Some(code),
    }
}
