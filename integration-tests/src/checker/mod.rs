//! Checker: whether a history keeps what the log promises.
//!
//! ```text
//!     history ──► image ──► log ──► placed ──┬─► answers    each append against its place
//!                 bytes     entries whose    ├─► time       what was known holds for what comes later
//!                                            ├─► readers    what was served, every end that was told
//!                                            └─► trims      every start that was told
//! ```
//!
//! | Promise | Kept in |
//! | --- | --- |
//! | committed bytes are the same on all nodes, for all readers, at all times | `image` |
//! | entries are framed, contiguous, whole batches, in terms that do not sink | `log` |
//! | an entry is what an operation appended, under its name, once; writers' entries in order, without holes | `placed` |
//! | acknowledged means exactly there; refused for good means never there; an expected end is heeded | `answers` |
//! | real time counts: appends, linearizable ends, conflicts | `time` |
//! | reads end at committed ends | `readers` |
//! | what is trimmed was asked for | `trims` |
//!
//! Owns:   the judgement: a list of violations, each with its facts; and whether enough was seen for the list to mean anything.
//! Keeps:  time and memory grow with the history's size (sorting aside), not with its square.
//! Never:  panics at what it is shown; changes or asks anything.

mod answers;
mod enough;
mod fact;
mod image;
mod log;
mod placed;
mod readers;
mod time;
mod trims;
mod verdict;
mod violation;

#[cfg(test)]
mod generator;
#[cfg(test)]
mod mutations_test;

pub use enough::Enough;
pub use fact::{Fact, Witness};
pub use image::Source;
pub use verdict::{Facts, Verdict};
pub use violation::Violation;

use crate::history::History;

/// Judges `history`, which must show at least as much as `enough` says.
pub fn check(history: &History, enough: &Enough) -> Verdict {
    let mut found = Vec::new();
    let mut entries = 0;
    if let Some(image) = image::Image::assemble(history, &mut found) {
        let log = log::Log::decode(history, &image, &mut found);
        let placed = placed::Placed::find(history, &log, &mut found);
        let facts = fact::facts(history);
        answers::check(history, &log, &placed, &mut found);
        time::check(history, &log, &placed, &facts, &mut found);
        readers::check(history, &log, &placed, &facts, &mut found);
        trims::check(history, &log, &mut found);
        entries = log.entries.iter().filter(|entry| entry.is_data()).count() as u64;
    } else {
        found.push(Violation::NoFinalLog);
    }
    let facts = Facts::of(history, entries);
    enough.check(history, &facts, &mut found);
    Verdict { violations: found, facts }
}
