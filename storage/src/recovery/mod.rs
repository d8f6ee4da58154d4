//! Recovery: from whatever lies in the directory to a log that may be trusted.
//!
//! ```text
//!     meta (chosen, rewritten, synced) ─► headers (chained) ─► from the mark's segment on: every entry
//!        ─► torn tail aside and cut, or corrupt: refuse ─► kept above the mark: rewritten, synced ─► go
//! ```
//!
//! Owns:   the order of these steps.
//! Keeps:  what it hands out above the mark is on the disk, not only in the page cache (S8).
//! Never:  unlinks or cuts anything unsaid: it is copied aside, synced and reported (S7); panics over bytes.

pub(crate) mod cut;
mod gap;
mod report;
pub(crate) mod survey;
pub(crate) mod walk;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use loglog_proto::header::SegmentHeader;
use loglog_proto::{Index, Length, LogId, Offset};

pub use self::gap::{Gap, Until};
pub use self::report::{Loss, OpenError, RecoveryReport};
use self::survey::{Chain, Found};
use self::walk::{Stop, Walker};
use crate::dir::{OpenOptions, Recovered};
use crate::error::Meant;
use crate::install;
use crate::keeper::SegmentKeeper;
use crate::meta::{Mark, Meta, MetaError};
use crate::names;
use crate::reader::LogReader;
use crate::scan::position;
use crate::shared::{Segment, Shared, Table};
use crate::vfs::{OpenMode, Vfs, VfsFile};
use crate::writer::{Active, LogWriter, WriterStart};

/// Everything that a recovery works on.
struct Recovery<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    options: OpenOptions,
    group_bytes_max: Length,
    mark: Mark,
    /// The last change of members that was applied: committed, whether the mark says so or not (S12).
    applied: Index,
    report: RecoveryReport,
}

/// Where damage begins that no power cut explains, or with which a segment is not accepted.
struct Damage {
    path: PathBuf,
    /// The log would end here.
    cut: Offset,
    batch: Option<LogId>,
    detail: String,
}

/// What is left of the log, and its last batch.
struct Kept {
    segments: Vec<Found>,
    last: LogId,
    end: Offset,
    walker: Walker,
}

pub(crate) fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: OpenOptions,
    group_bytes_max: Length,
) -> Result<Recovered, OpenError> {
    let begun = Instant::now();
    let path = dir.join(names::META);
    if !vfs.exists(&path).meant("look for", &path)? {
        return Err(OpenError::NotFormed { path: dir.to_owned() });
    }
    if let Some(expected) = options.cluster {
        // Another cluster's directory is not even rewritten in place.
        let found = Meta::peek(&*vfs, &path)?.0.cluster;
        if found != expected {
            return Err(OpenError::Cluster { path: dir.to_owned(), expected, found });
        }
    }
    let (mut meta, findings) = Meta::open(&*vfs, dir, options.accept_loss)?;
    // Renames and unlinks of the last life may not have reached the disk.
    vfs.sync_dir(dir).meant("sync", dir)?;
    let install_finished = install::finish(&*vfs, dir, &mut meta)?;
    raise_mark(&mut meta, &options)?;
    let report = RecoveryReport {
        meta_slots_invalid: findings.slots_invalid,
        mark_pages_invalid: findings.marks_invalid,
        install_finished,
        ..RecoveryReport::default()
    };
    let (mark, applied) = (meta.mark(), meta.state().membership.index);
    let mut recovery = Recovery { vfs: &*vfs, dir, options, group_bytes_max, mark, applied, report };
    let kept = recovery.run(&mut meta)?;
    // Only now: what refuses changes nothing.
    meta.mirror().map_err(meta_failure)?;
    let mut report = recovery.report;
    report.segments = kept.segments.len();

    let state = meta.state();
    let start = state.start;
    let active =
        kept.segments.last().map(|it| Active::open(&*vfs, it.path.clone(), it.header, it.end)).transpose()?;
    let segments: VecDeque<Segment> = kept
        .segments
        .into_iter()
        .map(|found| Segment { id: 0, header: found.header, end: found.end, path: found.path })
        .collect();
    let table = Table { start, segments, last: kept.last };
    let limit = state.segment_bytes_max;
    let shared =
        Arc::new(Shared::new(Arc::clone(&vfs), dir.to_owned(), table, (limit.get(), options.tail_bytes)));
    let cluster = state.cluster;
    meta.watch(Arc::clone(&shared));
    let floor = meta.mark().offset;
    let writer = LogWriter::new(WriterStart {
        shared: Arc::clone(&shared),
        cluster,
        active,
        segment_bytes_max: limit,
        floor,
        group_bytes_max,
    });
    assert_eq!((writer.last(), writer.end()), (kept.last, kept.end), "the writer goes on where the log ends");
    report.took = begun.elapsed();
    Ok(Recovered {
        meta,
        writer,
        keeper: SegmentKeeper::new(Arc::clone(&shared)),
        reader: LogReader::new(shared),
        tail: kept.walker.tail,
        controls: kept.walker.controls,
        last: kept.last,
        end: kept.end,
        report,
    })
}

/// What was trimmed was committed: a mark behind the start (its page was lost, the slot was not) is raised to it. So it is to what the
/// process itself has handed out as committed, which it had synced before.
fn raise_mark(meta: &mut Meta, options: &OpenOptions) -> Result<(), OpenError> {
    let implied = meta.state().start.mark();
    for mark in [Some(implied), options.known.map(|known| known.committed)].into_iter().flatten() {
        if meta.mark().index < mark.index {
            meta.save_mark(mark).and_then(|()| meta.sync()).map_err(meta_failure)?;
        }
    }
    Ok(())
}

pub(crate) fn meta_failure(error: MetaError) -> OpenError {
    match error {
        MetaError::Failed(failure) => OpenError::Io(failure),
        MetaError::TooLarge { .. } | MetaError::Poisoned { .. } => {
            OpenError::Meta { path: PathBuf::from(names::META), at: 0, detail: error.to_string() }
        }
    }
}

/// What these segments come to, the last of which ends where the walker stands.
fn kept(segments: Vec<Found>, walker: Walker, meta: &Meta) -> Kept {
    let start = meta.state().start;
    let last = LogId {
        term: segments.last().map_or(start.previous_term, |segment| segment.header.term),
        index: walker.next.previous(),
    };
    let end = segments.last().map_or(start.offset, |segment| segment.end);
    Kept { segments, last, end, walker }
}

impl Recovery<'_> {
    fn run(&mut self, meta: &mut Meta) -> Result<Kept, OpenError> {
        let chain = survey::survey(self, meta.state())?;
        let (kept, damage) = self.walk(&chain, meta)?;
        let kept = match damage {
            None => kept,
            Some(damage) if self.options.accept_loss || self.is_disproved(&kept) => {
                self.accept(meta, chain, kept, damage)?
            }
            Some(damage) => {
                let gap = Box::new(gap::describe(self, meta.state(), &chain, &kept, &damage)?);
                let Damage { path, cut, detail, .. } = damage;
                return Err(OpenError::Corrupt { path, offset: cut, detail, gap });
            }
        };
        self.rewrite(&kept)?;
        Ok(kept)
    }

    /// Whether the log ends, by what is damaged, where peers have proved that nothing behind was ever committed.
    fn is_disproved(&self, kept: &Kept) -> bool {
        let is_above_mark = kept.end >= self.mark.offset && kept.last.index >= self.mark.index;
        is_above_mark && self.options.uncommitted_from == Some(kept.end)
    }

    /// Reads every entry from the mark's segment on, or from an earlier one that is suspected. A torn tail is cut on the way.
    fn walk(&mut self, chain: &Chain, meta: &Meta) -> Result<(Kept, Option<Damage>), OpenError> {
        let segments = &chain.kept;
        let from =
            segments.iter().rposition(|segment| segment.header.base_offset < self.mark.offset).unwrap_or(0);
        let from = match self.options.scan_from {
            Some(suspect) => {
                let at = segments.iter().rposition(|segment| segment.header.base_offset <= suspect);
                at.unwrap_or(0).min(from)
            }
            None => from,
        };
        if let Some(known) = &self.options.known
            && let Some(at) = segments.iter().rposition(|it| it.header.base_offset <= known.suspect)
            && at < from
            && let Some((kept, damage)) = self.walk_suspect(at, chain, meta)?
        {
            return Ok((kept, Some(damage)));
        }
        let (mut from, mut is_vouched_for) = (from, false);
        loop {
            let (kept, damage) = self.walk_from(from, chain, meta)?;
            let read = kept.segments.len().saturating_sub(from);
            match damage {
                Some(_) if from > 0 && read == 0 => {
                    // What would be the last segment now was not read yet.
                    from = kept.segments.len().saturating_sub(1);
                }
                Some(_) if from > 0 && kept.end < self.mark.offset && !is_vouched_for => {
                    // Batches are counted from a header on. The mark, which was not reached, cannot vouch for it: the segment before does.
                    from -= 1;
                    is_vouched_for = true;
                }
                damage => return Ok((kept, damage)),
            }
        }
    }

    /// Reads every entry of one segment below the mark. If it is whole, that says nothing of those around it.
    fn walk_suspect(
        &mut self,
        at: usize,
        chain: &Chain,
        meta: &Meta,
    ) -> Result<Option<(Kept, Damage)>, OpenError> {
        let mut segments = chain.kept[..=at].to_vec();
        let mut walker = Walker::new(self.mark, segments[at].header.base_index);
        let Some(damage) = self.walk_segment(&mut walker, &mut segments[at], false)? else { return Ok(None) };
        if segments[at].end == segments[at].header.base_offset {
            segments.truncate(at);
        }
        Ok(Some((kept(segments, walker, meta), damage)))
    }

    /// Reads every entry of the segments from `from` on.
    fn walk_from(
        &mut self,
        from: usize,
        chain: &Chain,
        meta: &Meta,
    ) -> Result<(Kept, Option<Damage>), OpenError> {
        let mut segments = chain.kept.clone();
        let mut damage = chain.broken.as_ref().map(|broken| Damage {
            path: broken.path.clone(),
            cut: broken.offset,
            batch: None,
            detail: broken.detail.clone(),
        });
        let first = segments.get(from).map_or(meta.state().start.index, |segment| segment.header.base_index);
        let mut walker = Walker::new(self.mark, first);
        for at in from..segments.len() {
            let segment = &mut segments[at];
            let is_last = at + 1 == chain.kept.len() && damage.is_none();
            if let Some(found) = self.walk_segment(&mut walker, segment, is_last)? {
                damage = Some(found);
                segments.truncate(at + 1);
                break;
            }
        }
        self.report.batches_scanned = walker.batches;
        while segments.last().is_some_and(|last| last.end == last.header.base_offset) {
            let Some(empty) = segments.pop() else { break };
            let SegmentHeader { base_offset: base, term, .. } = empty.header;
            if damage.is_none() && (base < self.mark.offset || walker.next <= self.applied) {
                let detail = "nothing is left of what was below the mark or applied".to_owned();
                let batch = Some(LogId { term, index: walker.next });
                damage = Some(Damage { path: empty.path, cut: base, batch, detail });
            } else if damage.is_none() {
                self.remove_empty(&empty)?;
            }
        }
        let kept = kept(segments, walker, meta);
        let durable = self.options.known.map_or(Offset::ZERO, |known| known.durable);
        if damage.is_none() && (kept.end < self.mark.offset.max(durable) || kept.last.index < self.applied) {
            damage = Some(Damage {
                path: kept.segments.last().map_or(self.dir.to_owned(), |segment| segment.path.clone()),
                cut: kept.end,
                batch: None,
                detail: format!(
                    "the log ends here, short of the mark {} or of batch {}, which was applied, or of {durable}, \
                     which was synced",
                    self.mark.offset, self.applied
                ),
            });
        }
        Ok((kept, damage))
    }

    /// Walks one segment, sets its `end`, cuts its torn tail if it is the last; says what damage it holds.
    fn walk_segment(
        &mut self,
        walker: &mut Walker,
        segment: &mut Found,
        is_last: bool,
    ) -> Result<Option<Damage>, OpenError> {
        self.report.segments_scanned += 1;
        let batch = |walker: &Walker| Some(LogId { term: segment.header.term, index: walker.next });
        if segment.header.base_index != walker.next {
            let (claimed, counted) = (segment.header.base_index, walker.next);
            let detail =
                format!("its header says that it begins with batch {claimed}; it is batch {counted}");
            let (path, cut) = (segment.path.clone(), segment.header.base_offset);
            segment.end = cut;
            return Ok(Some(Damage { path, cut, batch: batch(walker), detail }));
        }
        let file = self.vfs.open(&segment.path, OpenMode::ReadWrite).meant("open", &segment.path)?;
        if is_last {
            // The length seen may be that of a cut that never reached the disk.
            file.sync_all().meant("sync", &segment.path)?;
        }
        let stop = walker.walk(&*file, segment)?;
        segment.end = walker.end;
        let Some(stop) = stop else { return Ok(None) };
        let damage = |detail: String| Damage {
            path: segment.path.clone(),
            cut: segment.end,
            batch: batch(walker),
            detail,
        };
        if walker.next <= self.applied {
            return Ok(Some(damage(format!("below a change of members that was applied: {}", stop.detail))));
        }
        if segment.end < self.mark.offset {
            return Ok(Some(damage(format!("below the mark: {}", stop.detail))));
        }
        if !is_last {
            let detail = format!("a later segment shows that this one was synced: {}", stop.detail);
            return Ok(Some(damage(detail)));
        }
        self.judge(&*file, segment, &stop).map(|proof| proof.map(damage))
    }

    /// The last segment's invalid end: zeros, torn, or proven corrupt.
    fn judge(
        &mut self,
        file: &dyn VfsFile,
        segment: &Found,
        stop: &Stop,
    ) -> Result<Option<String>, OpenError> {
        if let Some(known) = self.options.known.filter(|known| segment.end < known.durable) {
            // No power was cut since: nothing can have torn it.
            return Ok(Some(format!("{}, below {}, up to which it was synced", stop.detail, known.durable)));
        }
        let cut = position(segment.header.base_offset, segment.end);
        let used = cut::used_end(file, &segment.path, cut, segment.len)?;
        if used == cut {
            return Ok(None);
        }
        let beyond = stop.at + self.group_bytes_max;
        let SegmentHeader { base_offset: base, term, .. } = segment.header;
        let search = cut::Search { file, path: &segment.path, base, term };
        if let Some(valid) = search.valid_entry(beyond, used)? {
            let detail =
                format!("{}, but a valid entry lies at {valid}, more than a write group beyond", stop.detail);
            return Ok(Some(detail));
        }
        let aside = cut::copy_aside(self, file, segment, cut, used)?;
        self.report.side_files.push(aside);
        self.report.torn_at = Some(segment.end);
        self.report.torn_bytes += used - cut;
        if segment.end > segment.header.base_offset {
            crate::writer::cut_file(file, &segment.path, cut, used, self.group_bytes_max)?;
        }
        Ok(None)
    }

    /// The last segment holds nothing valid: it is as if it had never been made (S35).
    fn remove_empty(&mut self, empty: &Found) -> Result<(), OpenError> {
        self.vfs.remove(&empty.path).meant("remove", &empty.path)?;
        self.vfs.sync_dir(self.dir).meant("sync", self.dir)?;
        self.report.empty_segments_removed += 1;
        Ok(())
    }

    /// Cuts the log at the damage, for an owner who accepts the loss or where nothing is lost; all of it is kept aside.
    fn accept(
        &mut self,
        meta: &mut Meta,
        chain: Chain,
        kept: Kept,
        damage: Damage,
    ) -> Result<Kept, OpenError> {
        let stays = kept.segments.len();
        let (old_mark, new_mark) = (self.mark, Mark { index: kept.last.index, offset: kept.end });
        let whole =
            chain.kept.into_iter().map(|found| (found.header.base_offset, found.path, found.len)).skip(stays);
        let rest: Vec<_> = whole.chain(chain.rest).collect();
        let mut bytes: u64 = rest.iter().map(|(_, _, len)| len).sum();
        let mut cut_last = None;
        if let Some(last) = kept.segments.last() {
            let file = self.vfs.open(&last.path, OpenMode::ReadWrite).meant("open", &last.path)?;
            let cut = position(last.header.base_offset, last.end);
            let used = cut::used_end(&*file, &last.path, cut, last.len)?;
            if used > cut {
                let aside = cut::copy_aside(self, &*file, last, cut, used)?;
                self.report.side_files.push(aside);
                bytes += used - cut;
                cut_last = Some((file, &last.path, cut, used));
            }
        }
        // What the old one says in one way and not in the other is wrong anyway: the log is what is left of it.
        if new_mark.index < old_mark.index || new_mark.offset < old_mark.offset {
            self.mark = new_mark;
        }
        meta.accept_loss(self.mark, kept.last.index).map_err(meta_failure)?;
        for (base, path, _) in rest.iter().rev() {
            cut::rename_aside(self, *base, path)?;
        }
        if let Some((file, path, cut, used)) = cut_last {
            crate::writer::cut_file(&*file, path, cut, used, self.group_bytes_max)?;
        }
        let Damage { detail, .. } = damage;
        let loss = Loss { from: kept.end, last: kept.last, mark: old_mark, bytes, detail };
        if self.is_disproved(&kept) {
            self.report.disproved = Some(loss);
        } else {
            self.report.lost = Some(loss);
        }
        Ok(kept)
    }

    /// Rewrites and syncs everything above the mark, in place (S8), and makes the last file's length durable.
    fn rewrite(&mut self, kept: &Kept) -> Result<(), OpenError> {
        for (at, segment) in kept.segments.iter().enumerate() {
            let is_last = at + 1 == kept.segments.len();
            let from = segment.header.base_offset.max(self.mark.offset);
            if segment.end > from || is_last {
                let file = self.vfs.open(&segment.path, OpenMode::ReadWrite).meant("open", &segment.path)?;
                self.report.bytes_rewritten += cut::rewrite(&*file, segment, from, self.group_bytes_max)?;
            }
        }
        Ok(())
    }
}
