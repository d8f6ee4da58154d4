//! Installing a snapshot: the segments from a new start on, copied from another node, in place of our own log (S25).
//!
//! ```text
//!     segment, append … ─► install-<base>.tmp, whole, checked, synced
//!        ─► one synced slot of meta {start, membership, installing}         ◄── the point of no return
//!        ─► rename ─► unlink the old ─► mark ─► a slot without "installing"
//! ```
//!
//! Owns:   the files of an installation; finishing one that was interrupted.
//! Keeps:  before the point of no return the old log is untouched; behind it recovery finishes, however often it is
//!         interrupted.
//! Never:  trusts what it was sent: every CRC, the chain and the batch count are checked before that point.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{Length, LogId, Offset};

use crate::dir::DataDir;
use crate::error::{IoFailure, Meant};
use crate::meta::{Mark, Meta, MetaError, MetaOpenError, MetaState};
use crate::names::{self, Name};
use crate::reader::LogReader;
use crate::recovery::OpenError;
use crate::recovery::survey::{Found, accept};
use crate::recovery::walk::Walker;
use crate::scan::position;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Why a snapshot was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// What was sent is no log that begins and ends where it should. The old log stays.
    #[error("the snapshot is refused at offset {offset}: {detail}")]
    Invalid {
        /// Where.
        offset: Offset,
        /// What does not hold.
        detail: String,
    },
    /// The disk is full. The old log stays.
    #[error("no space for the snapshot in {}", path.display())]
    NoSpace {
        /// The file that found no room.
        path: PathBuf,
    },
    /// A call failed. Final (S2); recovery finishes or discards.
    #[error(transparent)]
    Failed(#[from] IoFailure),
    /// As for a save of `meta`.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// Receives the segments of a snapshot. Dropping it leaves the old log; its files go with the next recovery.
#[derive(Debug)]
pub struct Installer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    state: MetaState,
    segments: Vec<Found>,
    file: Option<Arc<dyn VfsFile>>,
}

impl DataDir {
    /// Begins to receive a snapshot, after which `meta` will hold `state`, its start and membership the snapshot's.
    ///
    /// # Errors
    /// Those of removing what an earlier attempt has left.
    pub fn install(&self, state: MetaState) -> Result<Installer, InstallError> {
        let (vfs, dir) = (Arc::clone(self.vfs()), self.path().to_owned());
        for (_, path) in files(&*vfs, &dir, |name| matches!(name, Name::Install(_)))? {
            vfs.remove(&path).meant("remove", &path)?;
        }
        Ok(Installer { vfs, dir, state, segments: Vec::new(), file: None })
    }
}

impl DataDir {
    /// Puts a snapshot that was received whole in place of the log, whose generation has ended and which `ours` reads. Its last batch is
    /// `last`, which ends at `end`. Then open the directory again.
    ///
    /// # Errors
    /// [`InstallError::Invalid`] leaves the old log, also where that holds the snapshot's last batch by now: another leader may have
    /// brought it, and more behind it that was acknowledged, so that what is here is the log and the snapshot is less of it (Raft §7).
    pub fn finish_install(
        &self,
        mut installer: Installer,
        last: LogId,
        end: Offset,
        ours: &LogReader,
    ) -> Result<(), InstallError> {
        let mark = Mark { index: last.index, offset: end };
        let invalid = |detail: String| InstallError::Invalid { offset: mark.offset, detail };
        if ours.holds(last) {
            return Err(invalid(format!("our own log holds batch {last} by now")));
        }
        let (mut meta, _) = Meta::open(&**self.vfs(), self.path(), false).map_err(|error| match error {
            MetaOpenError::Io(failure) => InstallError::Failed(failure),
            other => invalid(other.to_string()),
        })?;
        let (state, membership) = (meta.state(), installer.state.membership.index);
        if meta.mark() >= mark
            || state.start.index > installer.state.start.index
            || state.membership.index > membership
        {
            return Err(invalid(format!("our own log has reached batch {} meanwhile", meta.mark().index)));
        }
        // Votes went on while the snapshot was received.
        (installer.state.term, installer.state.vote) = (state.term, state.vote);
        installer.commit(&mut meta, mark)
    }
}

impl Installer {
    /// Behind the last byte received.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.segments.last().map_or(self.state.start.offset, |segment| segment.end)
    }

    /// Begins the next segment.
    ///
    /// # Errors
    /// [`InstallError::Invalid`] if it does not continue the one before (S11).
    pub fn segment(&mut self, header: SegmentHeader) -> Result<(), InstallError> {
        let base = header.base_offset;
        accept(&self.state, self.segments.last(), base, &header)
            .map_err(|detail| InstallError::Invalid { offset: base, detail })?;
        self.sync_last()?;
        let path = self.dir.join(names::install(base));
        let file = self.vfs.open(&path, OpenMode::CreateNew).meant("create", &path).map_err(full)?;
        file.write_all_at(&header.encode(), 0).meant("write", &path).map_err(full)?;
        self.segments.push(Found { path, header, len: HEADER as u64, end: base });
        self.file = Some(file);
        Ok(())
    }

    /// Adds bytes of the log to the segment begun last.
    ///
    /// # Errors
    /// [`InstallError::NoSpace`] leaves the old log; others are final.
    ///
    /// # Panics
    /// If no segment was begun.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), InstallError> {
        let file = self.file.as_ref().expect("a segment was begun");
        let segment = self.segments.last_mut().expect("a segment was begun");
        let pos = position(segment.header.base_offset, segment.end);
        file.allocate(pos, bytes.len() as u64).meant("reserve space in", &segment.path).map_err(full)?;
        file.write_all_at(bytes, pos).meant("write to", &segment.path).map_err(full)?;
        segment.end += Length::of(bytes.len());
        segment.len += bytes.len() as u64;
        Ok(())
    }

    fn sync_last(&mut self) -> Result<(), IoFailure> {
        match (self.file.take(), self.segments.last()) {
            (Some(file), Some(segment)) => file.sync_all().meant("sync", &segment.path),
            _ => Ok(()),
        }
    }

    /// Checks what was received and puts it in place of the old log, whose last batch will be `mark`: the snapshot's
    /// own. `meta` is that of the generation that ends here: open the directory again. On return all is durable.
    ///
    /// # Errors
    /// [`InstallError::Invalid`] leaves the old log; others are final, and recovery finishes or discards.
    ///
    /// # Panics
    /// If the mark would sink.
    pub fn commit(mut self, meta: &mut Meta, mark: Mark) -> Result<(), InstallError> {
        assert!(mark >= meta.mark(), "the mark never sinks");
        self.sync_last()?;
        self.check(mark)?;
        self.vfs.sync_dir(&self.dir).meant("sync", &self.dir)?;
        meta.save_install(self.state.clone(), Some(mark))?;
        finish(&*self.vfs, &self.dir, meta).map_err(|error| match error {
            OpenError::Io(failure) => InstallError::Failed(failure),
            other => InstallError::Invalid { offset: self.end(), detail: other.to_string() },
        })?;
        Ok(())
    }

    /// Every entry, every batch, and that the last one is the mark.
    fn check(&self, mark: Mark) -> Result<(), InstallError> {
        let start = self.state.start;
        let mut walker =
            Walker::new(Mark { index: start.index.previous(), offset: start.offset }, start.index);
        for segment in &self.segments {
            let refused = |offset, detail| Err(InstallError::Invalid { offset, detail });
            if segment.header.base_index != walker.next {
                return refused(segment.header.base_offset, format!("it begins with batch {}", walker.next));
            }
            let file = self.vfs.open(&segment.path, OpenMode::Read).meant("open", &segment.path)?;
            if let Some(stop) = walker.walk(&*file, segment)? {
                return refused(stop.at, stop.detail);
            }
            walker.tail.clear();
            if walker.end == segment.header.base_offset {
                return refused(walker.end, "a segment without a batch".to_owned());
            }
        }
        let found = Mark { index: walker.next.previous(), offset: self.end() };
        if found == mark {
            return Ok(());
        }
        let detail = format!("it ends with batch {} at {}, not {}", found.index, found.offset, mark.index);
        Err(InstallError::Invalid { offset: found.offset, detail })
    }
}

fn full(failure: IoFailure) -> InstallError {
    if failure.is_no_space() {
        InstallError::NoSpace { path: failure.path }
    } else {
        InstallError::Failed(failure)
    }
}

/// Finishes an installation that is past its point of no return. Says whether there was one.
pub(crate) fn finish(vfs: &dyn Vfs, dir: &Path, meta: &mut Meta) -> Result<bool, OpenError> {
    let Some(mark) = meta.install() else { return Ok(false) };
    for (base, path) in files(vfs, dir, |name| matches!(name, Name::Install(_)))? {
        let segment = dir.join(names::segment(base));
        vfs.rename(&path, &segment).meant("rename to", &segment)?;
    }
    vfs.sync_dir(dir).meant("sync", dir)?;
    let segments = files(vfs, dir, |name| matches!(name, Name::Segment(_)))?;
    let installed = chain(vfs, &segments, meta.state().start.offset, mark.offset)?;
    for (base, path) in segments.iter().rev() {
        if !installed.contains(base) {
            vfs.remove(path).meant("remove", path)?;
        }
    }
    vfs.sync_dir(dir).meant("sync", dir)?;
    let state = meta.state().clone();
    meta.finish_install(state, mark).map_err(crate::recovery::meta_failure)?;
    Ok(true)
}

/// The bases of the files that lead from `start` to `end`: installed ones are cut to their exact length, so that each
/// names the next.
fn chain(
    vfs: &dyn Vfs,
    segments: &[(Offset, PathBuf)],
    start: Offset,
    end: Offset,
) -> Result<BTreeSet<Offset>, IoFailure> {
    let mut installed = BTreeSet::new();
    let mut at = start;
    while at < end {
        let Some((base, path)) = segments.iter().find(|(base, _)| *base == at) else { break };
        let file = vfs.open(path, OpenMode::Read).meant("open", path)?;
        let len = file.len().meant("ask the length of", path)?;
        installed.insert(*base);
        if len <= HEADER as u64 {
            break;
        }
        at += Length::new(len - HEADER as u64);
    }
    Ok(installed)
}

/// Our files of one sort, by base offset.
fn files(vfs: &dyn Vfs, dir: &Path, which: fn(&Name) -> bool) -> Result<Vec<(Offset, PathBuf)>, IoFailure> {
    let mut found = Vec::new();
    for name in vfs.list(dir).meant("list", dir)? {
        let kind = Name::of(&name);
        if let (true, Name::Install(base) | Name::Segment(base)) = (which(&kind), kind) {
            found.push((base, dir.join(&name)));
        }
    }
    found.sort();
    Ok(found)
}
