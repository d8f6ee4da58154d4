//! What the directory itself tells of batches that are damaged or missing: enough to ask other nodes for them (S10).
//!
//! ```text
//!     ───────────────────▓▓▓▓▓▓▓▓▓▓▓──────────        ▓ not here wholly
//!      terms         first, offset   until            term: by the segment's header, or by what is left of the batch
//! ```
//!
//! Owns:   the description of the first gap in the log.
//! Never:  decides what fills it.

use std::path::Path;

use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{Index, Length, LogId, Offset, Term};

use super::cut::used_end;
use super::survey::{Chain, read_header};
use super::{Damage, Kept, Recovery};
use crate::error::{IoFailure, Meant};
use crate::meta::{Mark, MetaState};
use crate::names;
use crate::scan::{Scanner, Step};
use crate::vfs::OpenMode;

/// The first gap in the log: where it begins, and what vouches for what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Index of the first batch that is not here wholly.
    pub first: Index,
    /// Where it begins.
    pub offset: Offset,
    /// Its term, where the header of its segment or what is left of it tells.
    pub term: Option<Term>,
    /// What the next sound segment behind the gap says; none where none follows.
    pub until: Option<Until>,
    /// The header of the segment before the gap, where nothing is missing: its file is merely too long.
    pub excess: Option<SegmentHeader>,
    /// Behind the last byte that the damaged file holds, or the gap's begin if there is no file.
    pub used: Offset,
    /// The saved commit: what lies below was acknowledged.
    pub mark: Mark,
    /// First index of each term before the gap.
    pub terms: Vec<(Index, Term)>,
}

/// Where the next sound segment begins, and what its header says of the batch before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The last batch of the gap.
    pub last: LogId,
    /// Where it ends.
    pub offset: Offset,
}

impl Gap {
    /// The term of a batch before the gap, or of the first one in it.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index >= self.first {
            return self.term.filter(|_| index == self.first);
        }
        self.terms.iter().rfind(|(first, _)| *first <= index).map(|(_, term)| *term)
    }

    /// Whether some of what is missing was acknowledged for certain.
    #[must_use]
    pub fn is_below_mark(&self) -> bool {
        self.first <= self.mark.index
    }
}

/// Describes the gap with which what is kept of the log ends.
pub(super) fn describe(
    recovery: &Recovery<'_>,
    state: &MetaState,
    chain: &Chain,
    kept: &Kept,
    damage: &Damage,
) -> Result<Gap, IoFailure> {
    let (first, offset) = (kept.last.index.next(), kept.end);
    let headers = headers(recovery, state, chain)?;
    let before = kept.segments.last().filter(|before| before.path == damage.path).map(|before| before.header);
    let continues = |next: &SegmentHeader| {
        (next.base_offset, next.base_index, next.previous_term) == (offset, first, kept.last.term)
    };
    let excess = before.filter(|_| headers.iter().any(continues));
    let mut behind = headers.iter().filter(|next| next.base_offset > offset && next.base_index > first);
    let until = behind.next().map(|next| Until {
        last: LogId { term: next.previous_term, index: next.base_index.previous() },
        offset: next.base_offset,
    });
    // Else a header is unsound, or a file is missing: then there is none of that name.
    let path = match damage.batch {
        Some(_) => damage.path.clone(),
        None => recovery.dir.join(names::segment(offset)),
    };
    let (mut term, mut used) = (damage.batch.map(|batch| batch.term), offset);
    if recovery.vfs.exists(&path).meant("look for", &path)? {
        let base = before.map_or(offset, |before| before.base_offset);
        let found = look(recovery, &path, base)?;
        used = used.max(found.0);
        term = term.or(found.1.filter(|_| base == offset));
    }
    let mut terms = vec![(state.start.index.previous(), state.start.previous_term)];
    for segment in &kept.segments {
        if terms.last().is_none_or(|(_, term)| *term != segment.header.term) {
            terms.push((segment.header.base_index, segment.header.term));
        }
    }
    Ok(Gap { first, offset, term, until, excess, used, mark: recovery.mark, terms })
}

/// Every sound header in the directory, in order.
fn headers(
    recovery: &Recovery<'_>,
    state: &MetaState,
    chain: &Chain,
) -> Result<Vec<SegmentHeader>, IoFailure> {
    let mut headers: Vec<SegmentHeader> = chain.kept.iter().map(|segment| segment.header).collect();
    for (base, path, _) in &chain.rest {
        if let (_, Ok(header)) = read_header(recovery.vfs, path)?
            && header.base_offset == *base
            && header.cluster == state.cluster
        {
            headers.push(header);
        }
    }
    Ok(headers)
}

/// How far the file of the segment at `base` holds anything, and the term of its first entry if that is sound.
fn look(recovery: &Recovery<'_>, path: &Path, base: Offset) -> Result<(Offset, Option<Term>), IoFailure> {
    let file = recovery.vfs.open(path, OpenMode::Read).meant("open", path)?;
    let len = file.len().meant("ask the length of", path)?;
    let used = used_end(&*file, path, HEADER as u64, len)?;
    let end = base + Length::new(used.saturating_sub(HEADER as u64));
    let term = match Scanner::new(&*file, base, base, end).step().meant("read", path)? {
        Step::Entry(entry) => Some(entry.prefix.term),
        Step::Invalid(_) | Step::End => None,
    };
    Ok((end, term))
}
