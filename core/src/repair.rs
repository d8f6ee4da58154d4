//! Repair: what to do about a gap in the log, given what the other nodes say (S10).
//!
//! ```text
//!     gap, answers ─► Copy    somebody holds the very batch, or has committed one where ours is unknown
//!                  ─► Cut     what is committed elsewhere contradicts our log above the mark
//!                  ─► Trim    nothing is missing: a file is too long
//!                  ─► Wait    for anything else
//! ```
//!
//! Why a copy is right although nothing of it need be committed: a term has one leader, who orders its batches once. So two logs that hold
//! a batch of the same index and term are equal up to it (Log Matching, Raft §5.3), and a segment, whose batches are all of one term, may be
//! copied as far as the peer holds it. Where our own term is unknown, only a committed batch vouches for what follows: if ours
//! was another, it was never committed.
//!
//! Owns:   that decision.
//! Never:  cuts at or below the mark; takes silence for an answer.

use loglog_proto::header::SegmentHeader;
use loglog_proto::peer::Located;
use loglog_proto::{Index, LogId, Term};
use loglog_storage::{Gap, Until};

/// What one peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the first batch of the gap.
    pub first: Located,
    /// Of its last, where that is known.
    pub until: Option<Located>,
}

impl Answer {
    /// What is left of it where the peer did not give what it says it holds: the answer comes from its memory, and its own disk may be
    /// damaged at the same place. What it knows to be committed is proof all the same.
    #[must_use]
    pub fn without_what_it_holds(self) -> Self {
        let nothing = |located: Located| Located { held: None, ..located };
        Self { first: nothing(self.first), until: self.until.map(nothing) }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Copy from this answer's peer on, from the gap's begin, up to this batch.
    Copy {
        /// Which answer's.
        peer: usize,
        /// The last batch.
        last: LogId,
    },
    /// Cut the log at the gap: nothing from there on was ever committed.
    Cut,
    /// Cut the file before the gap to its exact length.
    Trim(SegmentHeader),
    /// Ask again later.
    Wait(Why),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No peer says anything.
    Silence,
    /// Nobody who answers holds the batch, nor has anybody committed another one there.
    NotHeld,
    /// What is committed elsewhere contradicts what was committed here: no repair is known.
    Contradiction,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silence => "no other node answers",
            Self::NotHeld => {
                "no node that answers holds the damaged batch, or has committed another one in its place"
            }
            Self::Contradiction => {
                "the other nodes have committed other batches than this one: is it theirs?"
            }
        })
    }
}

/// The next step. Answers of peers that are silent are `None`.
#[must_use]
pub fn decide(gap: &Gap, answers: &[Option<Answer>]) -> Step {
    if let Some(header) = gap.excess {
        return Step::Trim(header);
    }
    // Whoever holds the last batch of the gap holds all of it.
    let whole = |until: Until| {
        let holds = |held: LogId| held.term == until.last.term && held.index >= until.last.index;
        best(answers, |answer| answer.until?.held.filter(|held| holds(*held)).map(|_| until.last))
    };
    let copy = match (gap.term, gap.until) {
        (Some(term), until) => {
            let held = |answer: &Answer| {
                let held = answer.first.held.filter(|held| held.term == term)?;
                Some(LogId { index: held.index.min(trusted(gap.first, term, until)), term })
            };
            until.and_then(whole).or_else(|| best(answers, held))
        }
        (None, Some(until)) => whole(until).or_else(|| {
            let contradicts =
                |it: Located| it.committed.is_some_and(|it| it.index == until.last.index && it != until.last);
            let is_disproved = answers.iter().flatten().filter_map(|it| it.until).any(contradicts);
            is_disproved.then(|| best(answers, |answer| committed_there(gap.first, answer))).flatten()
        }),
        (None, None) => best(answers, |answer| committed_there(gap.first, answer)),
    };
    if let Some((peer, last)) = copy {
        return Step::Copy { peer, last };
    }
    match answers.iter().flatten().any(|answer| contradicts(gap, answer)) {
        true if gap.is_below_mark() => Step::Wait(Why::Contradiction),
        true => Step::Cut,
        false if answers.iter().all(Option::is_none) => Step::Wait(Why::Silence),
        false => Step::Wait(Why::NotHeld),
    }
}

/// How far the log of a peer that holds a gap's first batch, of this term, is surely ours: as far as our own log had batches of that
/// term. Behind them a peer may hold more of the term that were never committed, where we hold what a later leader wrote.
fn trusted(first: Index, term: Term, until: Option<Until>) -> Index {
    match until {
        None => Index::new(u64::MAX),
        Some(until) if until.last.term == term => until.last.index,
        // Somewhere in the gap another term begins.
        Some(_) => first,
    }
}

/// The peer that offers most.
fn best(answers: &[Option<Answer>], last: impl Fn(&Answer) -> Option<LogId>) -> Option<(usize, LogId)> {
    let offers = answers.iter().enumerate().filter_map(|(at, answer)| Some((at, last(answer.as_ref()?)?)));
    offers.max_by_key(|(at, last)| (last.index, std::cmp::Reverse(*at)))
}

/// How far a peer holds the segment of a batch that it knows to be committed.
fn committed_there(index: Index, answer: &Answer) -> Option<LogId> {
    answer.first.held.filter(|_| answer.first.committed.is_some_and(|it| it.index == index))
}

/// Whether a peer has committed a batch, at or before the gap's first, that is not ours: then none of ours from there on ever was.
fn contradicts(gap: &Gap, answer: &Answer) -> bool {
    let Some(committed) = answer.first.committed else { return false };
    gap.term_at(committed.index).is_some_and(|ours| ours != committed.term)
}

#[cfg(test)]
mod tests {
    use loglog_proto::{ClusterId, Offset, RequestId, Term};
    use loglog_storage::{Mark, Until};

    use super::*;

    fn id(term: u32, index: u64) -> LogId {
        LogId { term: Term::new(term), index: Index::new(index) }
    }

    fn located(held: Option<LogId>, committed: LogId) -> Located {
        Located { id: RequestId::new(1), held, committed: Some(committed) }
    }

    fn answer(held: Option<LogId>, committed: LogId) -> Option<Answer> {
        Some(Answer { first: located(held, committed), until: None })
    }

    /// Batch 20, of term 3, is damaged; before it lie batches of term 1, of term 2 from 8 on, of term 3 from 15 on.
    fn gap(mark: u64) -> Gap {
        Gap {
            first: Index::new(20),
            offset: Offset::new(1000),
            term: Some(Term::new(3)),
            until: None,
            excess: None,
            used: Offset::new(2000),
            mark: Mark { index: Index::new(mark), offset: Offset::new(900) },
            terms: vec![
                (Index::new(1), Term::new(1)),
                (Index::new(8), Term::new(2)),
                (Index::new(15), Term::new(3)),
            ],
        }
    }

    #[test]
    fn s10_who_holds_the_batch_gives_it_committed_or_not() {
        for mark in [10, 25] {
            assert_eq!(decide(&gap(mark), &[]), Step::Wait(Why::Silence));
            assert_eq!(decide(&gap(mark), &[None, None]), Step::Wait(Why::Silence));
            let longer = [answer(Some(id(3, 22)), id(3, 18)), None, answer(Some(id(3, 30)), id(3, 17))];
            assert_eq!(decide(&gap(mark), &longer), Step::Copy { peer: 2, last: id(3, 30) });
            let equal = [answer(Some(id(3, 22)), id(3, 20)), answer(Some(id(3, 22)), id(3, 20))];
            assert_eq!(decide(&gap(mark), &equal), Step::Copy { peer: 0, last: id(3, 22) });
        }
    }

    /// Found by a reviewer: of two that say they hold the batch, the one that is asked first was damaged there too, and was asked for ever.
    #[test]
    fn s10_who_does_not_give_what_it_holds_is_left_out() {
        let until = Until { last: id(3, 29), offset: Offset::new(5000) };
        let wide = Gap { until: Some(until), ..gap(25) };
        let holds = |last| {
            let located = located(Some(last), id(3, 19));
            Some(Answer { first: located, until: Some(located) })
        };
        for gap in [gap(25), wide] {
            let mut answers = [holds(id(3, 29)), None, holds(id(3, 29))];
            for peer in [0, 2] {
                assert_eq!(decide(&gap, &answers), Step::Copy { peer, last: id(3, 29) });
                answers[peer] = answers[peer].map(Answer::without_what_it_holds);
            }
            assert_eq!(decide(&gap, &answers), Step::Wait(Why::NotHeld), "nobody is left");
        }
        let proof = answer(Some(id(4, 20)), id(4, 20)).map(Answer::without_what_it_holds);
        assert_eq!(
            decide(&gap(10), &[proof]),
            Step::Cut,
            "what is committed there disproves ours, copied or not"
        );
    }

    /// Found by the simulator (seed 125 of its first day): a peer that was cut off held batches 20 to 33 of term 3, of which the others
    /// had committed 20 to 29 and then 30 of term 4. Copied whole, they took the place of our own segment of term 4.
    #[test]
    fn s10_what_lies_behind_the_gap_stays_ours() {
        let says = |first: LogId, until: Option<LogId>| {
            let until = located(until, id(3, 19));
            Some(Answer { first: located(Some(first), id(3, 19)), until: Some(until) })
        };
        let until = |last| Gap { until: Some(Until { last, offset: Offset::new(5000) }), ..gap(25) };
        let same = until(id(3, 29));
        let cut_off = says(id(3, 33), Some(id(3, 33)));
        assert_eq!(decide(&same, &[cut_off]), Step::Copy { peer: 0, last: id(3, 29) });
        let behind = says(id(3, 25), None);
        assert_eq!(decide(&same, &[behind]), Step::Copy { peer: 0, last: id(3, 25) }, "a part of it");
        // The gap reaches into a later term; where that begins, only those know who hold its last batch.
        let later = until(id(5, 40));
        let holds = says(id(3, 24), Some(id(5, 44)));
        assert_eq!(decide(&later, &[cut_off, holds]), Step::Copy { peer: 1, last: id(5, 40) });
        assert_eq!(decide(&later, &[cut_off]), Step::Copy { peer: 0, last: id(3, 20) }, "one is sure");
    }

    #[test]
    fn s10_only_what_is_committed_elsewhere_disproves_ours_and_only_above_the_mark() {
        let decided = |mark, held, committed| decide(&gap(mark), &[None, answer(held, committed)]);
        assert_eq!(decided(10, Some(id(4, 20)), id(4, 20)), Step::Cut, "another batch there");
        assert_eq!(decided(10, None, id(4, 16)), Step::Cut, "another one before it");
        assert_eq!(decided(10, None, id(3, 14)), Step::Cut, "or the same term too early");
        assert_eq!(
            decided(10, Some(id(4, 20)), id(3, 19)),
            Step::Wait(Why::NotHeld),
            "held is not committed"
        );
        assert_eq!(decided(10, None, id(3, 19)), Step::Wait(Why::NotHeld), "it may come");
        assert_eq!(decided(10, None, id(2, 9)), Step::Wait(Why::NotHeld));
        assert_eq!(decided(25, Some(id(4, 20)), id(4, 20)), Step::Wait(Why::Contradiction));
        assert_eq!(decided(20, Some(id(4, 20)), id(4, 20)), Step::Wait(Why::Contradiction));
        assert_eq!(decided(25, None, id(3, 19)), Step::Wait(Why::NotHeld));
        let both = [answer(Some(id(4, 20)), id(3, 19)), answer(Some(id(3, 21)), id(3, 19))];
        assert_eq!(decide(&gap(10), &both), Step::Copy { peer: 1, last: id(3, 21) });
    }

    #[test]
    fn s10_where_the_term_is_unknown_the_next_segment_or_a_commit_vouches() {
        let unknown = Gap { term: None, ..gap(10) };
        assert_eq!(decide(&unknown, &[answer(Some(id(4, 30)), id(3, 19))]), Step::Wait(Why::NotHeld));
        let committed = [answer(Some(id(4, 30)), id(4, 20))];
        assert_eq!(decide(&unknown, &committed), Step::Copy { peer: 0, last: id(4, 30) });
        assert_eq!(decide(&unknown, &[answer(None, id(4, 18))]), Step::Cut, "ours ends before");

        let until = Until { last: id(4, 40), offset: Offset::new(5000) };
        let hole = Gap { until: Some(until), ..unknown };
        let says = |first: Located, until: Located| Some(Answer { first, until: Some(until) });
        let holds = says(located(Some(id(3, 25)), id(3, 20)), located(Some(id(4, 44)), id(4, 39)));
        assert_eq!(decide(&hole, &[None, holds]), Step::Copy { peer: 1, last: id(4, 40) });
        let lacks = says(located(Some(id(3, 25)), id(3, 20)), located(None, id(3, 25)));
        assert_eq!(decide(&hole, &[lacks]), Step::Wait(Why::NotHeld), "ours may be longer");
        let other = says(located(Some(id(3, 25)), id(3, 20)), located(Some(id(5, 60)), id(5, 40)));
        assert_eq!(
            decide(&hole, &[lacks, other]),
            Step::Copy { peer: 0, last: id(3, 25) },
            "what follows is void"
        );
    }

    #[test]
    fn s10_a_file_that_is_too_long_needs_nobody() {
        let header = SegmentHeader {
            cluster: ClusterId::new(1).unwrap(),
            base_offset: Offset::ZERO,
            base_index: Index::new(2),
            term: Term::new(1),
            previous_term: Term::new(1),
        };
        assert_eq!(decide(&Gap { excess: Some(header), ..gap(25) }, &[]), Step::Trim(header));
    }
}
