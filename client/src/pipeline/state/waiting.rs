//! An append without an outcome.

use loglog_proto::error::{Detail, Refusal};
use loglog_proto::{Offset, Sequence, WriterId};

use super::types::Wish;
use crate::append_error::AppendError;

/// An append without an outcome, and what its tries have met.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) wish: Wish<T>,
    pub(super) sequence: Sequence,
    pub(super) stage: Stage,
    /// Whether a try may have been written, or may yet be.
    pub(super) loose: bool,
    /// Whether the last answer was that the writer is unknown.
    pub(super) forgotten: bool,
    /// What the last try met.
    pub(super) last: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No try on this link.
    Idle,
    /// A try on this link has no answer.
    Out,
    /// A try on this link was refused.
    Refused,
}

impl<T> Waiting<T> {
    /// The outcome of an append whose try met a conflict.
    pub(super) fn conflict(&self, refusal: &Refusal, writer: WriterId) -> AppendError {
        match (self.wish.expect_end, &refusal.detail) {
            (Some(expected), Detail::Number(end)) if !self.loose || *end > expected.get() => {
                AppendError::Conflict { expected, end: Offset::new(*end) }
            }
            _ => self.refused(refusal, writer),
        }
    }

    /// The outcome of an append whose try was refused for good.
    pub(super) fn refused(&self, refusal: &Refusal, writer: WriterId) -> AppendError {
        let may_have_happened = self.loose || refusal.code.may_have_happened();
        AppendError::Refused { refusal: refusal.clone(), may_have_happened, writer, sequence: self.sequence }
    }
}
