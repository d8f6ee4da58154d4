//! Trims: the log begins where somebody asked for it or before, where an entry begins, and never goes back.

use loglog_proto::Offset;

use super::log::Log;
use super::violation::Violation;
use crate::history::{History, ReadAnswer, Tick};

/// Checks every start that was told.
pub(super) fn check(history: &History, log: &Log, found: &mut Vec<Violation>) {
    let mut asked: Vec<(Tick, Offset)> =
        history.trims.iter().map(|trim| (trim.invoked, trim.asked)).collect();
    asked.sort_unstable();
    let mut most = Offset::ZERO;
    for (_, asked) in &mut asked {
        most = most.max(*asked);
        *asked = most;
    }
    let asked_by = |at: Tick| {
        let before = asked.partition_point(|(invoked, _)| *invoked <= at).checked_sub(1);
        before.map_or(Offset::ZERO, |it| asked[it].1)
    };
    let last = history.finals.iter().map(|it| it.start).max().unwrap_or(Offset::ZERO);
    let mut told = |what: &dyn Fn() -> String, start: Offset, at: Tick| {
        let asked = asked_by(at);
        if start > asked {
            found.push(Violation::TrimmedTooFar { what: what(), start, asked });
        }
        if start > last {
            found.push(Violation::StartWentBack { what: what(), start, last });
        }
        if log.is_boundary(start) == Some(false) {
            found.push(Violation::StartWithinEntry { what: what(), start });
        }
    };
    for trim in &history.trims {
        if let Some((at, start)) = trim.answer {
            told(&|| format!("the answer to the trim to {} at {at}", trim.asked), start, at);
        }
    }
    for seen in &history.ends {
        told(&|| format!("node {} at {}", seen.node, seen.completed), seen.start, seen.completed);
    }
    for read in &history.reads {
        if let ReadAnswer::Trimmed { start } = read.answer {
            told(&|| format!("a read of node {} at {}", read.node, read.completed), start, read.completed);
        }
    }
    for log in &history.finals {
        told(&|| format!("the final log of node {}", log.node), log.start, Tick::new(u64::MAX));
    }
    for read in &history.reads {
        if let ReadAnswer::Trimmed { start } = read.answer
            && read.offset >= start
        {
            let (node, offset) = (read.node, read.offset);
            found.push(Violation::TrimmedUntrue { node, offset, start });
        }
    }
}
