//! Time: what was known at a moment holds for all that begins later.
//!
//! ```text
//!     fact: at t the log was known to be committed up to E
//!     ├─► whatever is invoked after t lies at or behind E
//!     └─► whatever is asked after t, and must not be old, is answered with E or more
//! ```
//!
//! An acknowledgement is such a fact, so the first rule holds the order of appends in real time, too.
//!
//! Keeps:  one pass over what is sorted, by offset for the first rule, by time for the second.

use loglog_proto::{NodeId, Offset};

use super::fact::{Fact, Witness};
use super::log::Log;
use super::placed::Placed;
use super::violation::Violation;
use crate::history::{Answer, History, OpId, Tick};

/// Checks all.
pub(super) fn check(
    history: &History,
    log: &Log,
    placed: &Placed,
    facts: &[Fact],
    found: &mut Vec<Violation>,
) {
    nothing_new_lies_before_what_is_old(history, log, placed, facts, found);
    no_certain_answer_is_old(history, facts, found);
}

fn nothing_new_lies_before_what_is_old(
    history: &History,
    log: &Log,
    placed: &Placed,
    facts: &[Fact],
    found: &mut Vec<Violation>,
) {
    let operations = history.operations.iter().enumerate();
    let place = |(number, operation): (usize, &crate::history::Operation)| {
        let place = placed.place(number, log).or(operation.acknowledged().map(|(_, it)| it))?;
        Some((place.offset, operation.invoked, operation.id))
    };
    let mut places: Vec<(Offset, Tick, OpId)> = operations.filter_map(place).collect();
    places.sort_unstable();
    let mut facts: Vec<&Fact> = facts.iter().collect();
    facts.sort_unstable_by_key(|fact| fact.end);
    let mut places = places.into_iter().peekable();
    // Of all that lies before the fact's end, what was invoked last.
    let mut newest: Option<(Tick, Offset, OpId)> = None;
    for fact in facts {
        while let Some((at, invoked, op)) = places.next_if(|(at, ..)| *at < fact.end) {
            newest = newest.max(Some((invoked, at, op)));
        }
        let Some((invoked, at, op)) = newest.filter(|(invoked, ..)| *invoked > fact.at) else { continue };
        let fact = *fact;
        found.push(match fact.by {
            Witness::Acknowledged(_) => Violation::RealTimeOrder { op, invoked, at, fact },
            _ => Violation::WrittenIntoThePast { op, invoked, at, fact },
        });
    }
}

/// Who must not answer with something old.
enum Certain {
    End(NodeId),
    Conflict(OpId),
}

fn no_certain_answer_is_old(history: &History, facts: &[Fact], found: &mut Vec<Violation>) {
    let mut answers = Vec::new();
    for seen in history.ends.iter().filter(|it| it.linearizable) {
        answers.push((seen.invoked, seen.end, Certain::End(seen.node)));
    }
    for operation in &history.operations {
        for attempt in &operation.attempts {
            if let Some((_, Answer::Conflict { end })) = attempt.answer {
                answers.push((attempt.sent, end, Certain::Conflict(operation.id)));
            }
        }
    }
    answers.sort_by_key(|(asked, ..)| *asked);
    let mut facts: Vec<&Fact> = facts.iter().collect();
    facts.sort_by_key(|fact| fact.at);
    let mut facts = facts.into_iter().peekable();
    // By the kind of witness, since each breaks another promise: the greatest end that was known.
    let mut known: [Option<Fact>; 3] = [None; 3];
    for (asked, end, who) in answers {
        while let Some(fact) = facts.next_if(|fact| fact.at < asked) {
            let known = &mut known[kind(fact.by)];
            if known.is_none_or(|it| it.end < fact.end) {
                *known = Some(*fact);
            }
        }
        for (kind, fact) in known.iter().enumerate() {
            let Some(fact) = fact.filter(|it| it.end > end) else { continue };
            found.push(match who {
                Certain::Conflict(op) => Violation::StaleConflict { op, sent: asked, end, fact },
                Certain::End(node) if kind == ACKNOWLEDGED => {
                    Violation::StaleEnd { node, end, invoked: asked, fact }
                }
                Certain::End(node) if kind == LINEARIZABLE => {
                    Violation::EndWentBack { node, end, invoked: asked, fact }
                }
                Certain::End(node) => Violation::EndBehindSeen { node, end, invoked: asked, fact },
            });
        }
    }
}

const ACKNOWLEDGED: usize = 0;
const LINEARIZABLE: usize = 1;
const SEEN: usize = 2;

const fn kind(witness: Witness) -> usize {
    match witness {
        Witness::Acknowledged(_) => ACKNOWLEDGED,
        Witness::Linearizable(_) => LINEARIZABLE,
        Witness::Known(_) | Witness::Conflict(_) | Witness::Read(_) | Witness::Reader(_) => SEEN,
    }
}
