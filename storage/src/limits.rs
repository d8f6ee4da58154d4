//! The segment limit, and where in the log it changed (S35).
//!
//! Owns:   which limit holds for a segment that begins at a given offset.
//! Keeps:  the answer is a function of the log; changes in order.
//! Never:  learns what is committed: a change counts as soon as it is in the log, and truncation undoes it.

use loglog_proto::{Length, Offset};

/// The limits of all segments.
#[derive(Clone, Debug)]
pub(crate) struct SegmentLimits {
    first: Length,
    /// From which offset on a segment that begins there has which limit.
    changes: Vec<(Offset, Length)>,
}

impl SegmentLimits {
    pub(crate) fn new(first: Length) -> Self {
        Self { first, changes: Vec::new() }
    }

    /// The limit of the segment that begins at `base`.
    pub(crate) fn at(&self, base: Offset) -> Length {
        let change = self.changes.iter().rev().find(|(from, _)| *from <= base);
        change.map_or(self.first, |(_, limit)| *limit)
    }

    /// Segments that begin at `from` (the end of the entry that says so) or later have `limit`.
    pub(crate) fn change(&mut self, from: Offset, limit: Length) {
        let last = self.changes.last().map_or(Offset::ZERO, |(from, _)| *from);
        assert!(from >= last, "changes of the segment limit arrive in the log's order");
        self.changes.push((from, limit));
    }

    /// The log was cut: what it said from `to` on is undone.
    pub(crate) fn truncate(&mut self, to: Offset) {
        self.changes.retain(|(from, _)| *from <= to);
    }

    /// Forgets changes that no segment beginning at `base` or later needs apart.
    pub(crate) fn settle(&mut self, base: Offset) {
        let passed = self.changes.partition_point(|(from, _)| *from <= base);
        if let Some((_, limit)) = self.changes.drain(..passed).next_back() {
            self.first = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s35_a_new_limit_counts_from_the_next_segment_and_truncation_undoes_it() {
        let mut limits = SegmentLimits::new(Length::new(10));
        limits.change(Offset::new(100), Length::new(20));
        limits.change(Offset::new(200), Length::new(30));
        let at = |limits: &SegmentLimits, base| limits.at(Offset::new(base)).get();
        assert_eq!([at(&limits, 99), at(&limits, 100), at(&limits, 199), at(&limits, 200)], [10, 20, 20, 30]);
        limits.truncate(Offset::new(199));
        assert_eq!([at(&limits, 99), at(&limits, 100), at(&limits, 300)], [10, 20, 20]);
        limits.settle(Offset::new(150));
        assert_eq!(at(&limits, 150), 20);
    }
}
