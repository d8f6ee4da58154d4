//! Certain answers: what may be said only once the node knows that it still leads and that what it judged by is committed (S30).
//!
//! Owns:   answers that wait for a ReadIndex round begun after they were decided.
//! Never:  begins a round itself: it says when one is wanted.

use loglog_proto::error::{Code, Refusal};
use loglog_proto::{Index, Offset};

use crate::effects::{Answer, Committed};

/// The waiting answers.
#[derive(Debug)]
pub(crate) struct Certain<T> {
    waiting: Vec<Waiting<T>>,
    round: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    token: T,
    what: What,
    stage: Stage,
    /// Ticks since it was decided.
    age: u32,
}

#[derive(Debug)]
enum What {
    End,
    Refusal { refusal: Refusal, judged_end: Offset },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Decided,
    Asked { round: u64, ticks: u32 },
    Confirmed { index: Index },
}

/// Ticks after which an answer is given up.
const DEADLINE_TICKS: u32 = 100;
/// Ticks after which a round that nobody confirmed is begun again.
const ROUND_TICKS: u32 = 10;

impl<T> Certain<T> {
    pub(crate) const fn new() -> Self {
        Self { waiting: Vec::new(), round: 0 }
    }

    /// The committed end, no older than now.
    pub(crate) fn end(&mut self, token: T) {
        self.waiting.push(Waiting { token, what: What::End, stage: Stage::Decided, age: 0 });
    }

    /// A refusal that was judged against the log up to `judged_end`.
    pub(crate) fn refuse(&mut self, token: T, refusal: Refusal, judged_end: Offset) {
        let what = What::Refusal { refusal, judged_end };
        self.waiting.push(Waiting { token, what, stage: Stage::Decided, age: 0 });
    }

    /// The number of the round to begin now, if one is wanted.
    pub(crate) fn begin_round(&mut self) -> Option<u64> {
        if !self.waiting.iter().any(|it| it.stage == Stage::Decided) {
            return None;
        }
        self.round += 1;
        for it in self.waiting.iter_mut().filter(|it| it.stage == Stage::Decided) {
            it.stage = Stage::Asked { round: self.round, ticks: 0 };
        }
        Some(self.round)
    }

    /// A round was confirmed: everything committed when it began lies at or before `index`.
    pub(crate) fn confirm(&mut self, confirmed: u64, index: Index) {
        for it in &mut self.waiting {
            if matches!(it.stage, Stage::Asked { round, .. } if round <= confirmed) {
                it.stage = Stage::Confirmed { index };
            }
        }
    }

    /// Time passes; a round that got lost is begun again, and what never becomes certain is given up (S20).
    pub(crate) fn tick(&mut self, answers: &mut Vec<(T, Answer)>) {
        for it in self.waiting.extract_if(.., |it| it.age >= DEADLINE_TICKS) {
            let message = "the answer did not become certain in time: the log does not grow, ask again later";
            answers.push((it.token, Answer::Refused(Refusal::new(Code::TimedOut, message))));
        }
        for it in &mut self.waiting {
            it.age += 1;
            if let Stage::Asked { ticks, .. } = &mut it.stage {
                *ticks += 1;
                if *ticks >= ROUND_TICKS {
                    it.stage = Stage::Decided;
                }
            }
        }
    }

    /// The answers that have become certain.
    pub(crate) fn take(&mut self, start: Offset, committed: Committed, answers: &mut Vec<(T, Answer)>) {
        let certain = |it: &mut Waiting<T>| {
            let judged_end = match &it.what {
                What::End => Offset::ZERO,
                What::Refusal { judged_end, .. } => *judged_end,
            };
            matches!(it.stage, Stage::Confirmed { index } if index <= committed.index)
                && judged_end <= committed.offset
        };
        for it in self.waiting.extract_if(.., certain) {
            let answer = match it.what {
                What::End => Answer::End { start, end: committed.offset },
                What::Refusal { refusal, .. } => Answer::Refused(refusal),
            };
            answers.push((it.token, answer));
        }
    }

    /// The node leads no more: nothing here will become certain.
    pub(crate) fn abandon(&mut self, refusal: &Refusal, answers: &mut Vec<(T, Answer)>) {
        answers.extend(self.waiting.drain(..).map(|it| (it.token, Answer::Refused(refusal.clone()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(index: u64, offset: u64) -> Committed {
        Committed { index: Index::new(index), offset: Offset::new(offset) }
    }

    fn taken(certain: &mut Certain<u32>, committed: Committed) -> Vec<u32> {
        let mut answers = Vec::new();
        certain.take(Offset::ZERO, committed, &mut answers);
        answers.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn s30_a_refusal_waits_for_a_round_and_for_what_it_was_judged_by() {
        let mut certain = Certain::new();
        certain.refuse(1, Refusal::new(Code::Conflict, ""), Offset::new(100));
        assert!(taken(&mut certain, committed(9, 100)).is_empty(), "no round was begun");
        let round = certain.begin_round().unwrap();
        certain.refuse(2, Refusal::new(Code::Conflict, ""), Offset::new(100));
        certain.confirm(round, Index::new(5));
        assert!(taken(&mut certain, committed(4, 100)).is_empty(), "the round's index is not committed here");
        assert!(
            taken(&mut certain, committed(9, 99)).is_empty(),
            "the end it was judged by is not committed"
        );
        assert_eq!(
            taken(&mut certain, committed(5, 100)),
            [1],
            "the second was decided after the round began"
        );
        assert_eq!(certain.begin_round(), Some(round + 1));
    }

    #[test]
    fn s20_a_lost_round_is_begun_again() {
        let mut certain = Certain::new();
        certain.end(1);
        assert!(certain.begin_round().is_some());
        for _ in 0..ROUND_TICKS {
            assert!(certain.begin_round().is_none());
            certain.tick(&mut Vec::new());
        }
        assert!(certain.begin_round().is_some());
    }

    #[test]
    fn s20_what_never_becomes_certain_is_given_up() {
        let (mut certain, mut answers) = (Certain::new(), Vec::new());
        certain.end(1);
        for _ in 0..=DEADLINE_TICKS {
            assert!(answers.is_empty());
            certain.begin_round();
            certain.tick(&mut answers);
        }
        assert!(matches!(&answers[..], [(1, Answer::Refused(refusal))] if refusal.code == Code::TimedOut));
    }
}
