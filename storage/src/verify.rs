//! Checks a whole directory, every byte of it, and changes nothing. Takes no lock: of a running node's directory it
//! may see a group half written at the very end, and says so as a note.
//!
//! Owns:   the full check: headers, chain (S11), every CRC, batches, mark, `meta`.
//! Keeps:  a finding names file and offset; what recovery would mend by itself is a note, not damage.
//! Never:  stops at the first finding.

use std::path::{Path, PathBuf};

use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::limits::WRITE_GROUP_BYTES_MAX;
use loglog_proto::{Index, Length, LogId, Offset};

use crate::error::{IoFailure, Meant, to_usize};
use crate::meta::{Mark, Meta, MetaOpenError, MetaState};
use crate::names::{self, Name};
use crate::recovery::cut::{Search, used_end};
use crate::recovery::survey::{Found, accept, read_header};
use crate::recovery::walk::{Stop, Walker};
use crate::scan::position;
use crate::vfs::{OpenMode, OsVfs, Vfs, VfsFile, read_full_at};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in the log, if it is about the log.
    pub offset: Option<Offset>,
    /// What it is.
    pub what: String,
    /// Whether synced bytes are damaged or missing. False: recovery mends it by itself, or it is only worth knowing.
    pub damage: bool,
}

/// A segment that was read entirely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSegment {
    /// Its header.
    pub header: SegmentHeader,
    /// Behind its last whole batch.
    pub end: Offset,
    /// CRC-32C of header and whole batches: equal on every node that has the same segment (S35).
    pub crc: u32,
    /// Its file.
    pub path: PathBuf,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// What `meta` holds; none where it is damaged or missing.
    pub state: Option<MetaState>,
    /// The mark, if a page of it is valid.
    pub mark: Option<Mark>,
    /// The segments, in order.
    pub segments: Vec<VerifiedSegment>,
    /// Whole batches.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Behind the last whole batch.
    pub end: Offset,
    /// The last whole batch.
    pub last: Option<LogId>,
    /// Files that recovery has kept aside.
    pub side_files: Vec<PathBuf>,
    /// Files that are not ours.
    pub foreign_files: Vec<PathBuf>,
    /// Whether a snapshot is being put in place: the next start finishes it, and only then the log is what `meta` says.
    pub is_installing: bool,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether no synced byte is damaged or missing.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.damage)
    }

    fn find(&mut self, path: &Path, offset: Option<Offset>, damage: bool, what: String) {
        self.findings.push(Finding { path: path.to_owned(), offset, what, damage });
    }
}

/// Checks the directory `dir`.
///
/// # Errors
/// Those of reading.
pub fn verify(dir: &Path) -> Result<VerifyReport, IoFailure> {
    verify_on(&OsVfs::default(), dir)
}

/// [`verify`] over any file system.
///
/// # Errors
/// Those of reading.
pub fn verify_on(vfs: &dyn Vfs, dir: &Path) -> Result<VerifyReport, IoFailure> {
    verify_with(vfs, dir, WRITE_GROUP_BYTES_MAX)
}

/// [`verify_on`] with a G of a test's own.
///
/// # Errors
/// Those of reading.
#[doc(hidden)]
pub fn verify_with(vfs: &dyn Vfs, dir: &Path, group_bytes_max: Length) -> Result<VerifyReport, IoFailure> {
    let mut report = VerifyReport::default();
    check_meta(vfs, dir, &mut report)?;
    let mut files = Vec::new();
    for name in vfs.list(dir).meant("list", dir)? {
        let path = dir.join(&name);
        match Name::of(&name) {
            Name::Segment(base) => files.push((base, path)),
            Name::Side => report.side_files.push(path),
            Name::Foreign => report.foreign_files.push(path),
            Name::Temporary | Name::Install(_) => {
                report.find(
                    &path,
                    None,
                    false,
                    "no part of the log: prepared ahead, or unfinished; the next start removes it".to_owned(),
                );
            }
            Name::Lock | Name::Meta | Name::Checkpoint => {}
        }
    }
    files.sort();
    Check { vfs, group_bytes_max, report: &mut report, before: None, next: None }.segments(&files)?;
    check_mark(dir, &mut report);
    Ok(report)
}

fn check_meta(vfs: &dyn Vfs, dir: &Path, report: &mut VerifyReport) -> Result<(), IoFailure> {
    let path = dir.join(names::META);
    match Meta::peek(vfs, &path) {
        Ok((state, mark, findings)) => {
            report.is_installing = findings.is_installing;
            if findings.is_installing {
                let what = "a snapshot's installation was interrupted; the next start finishes it";
                report.find(&path, None, false, what.to_owned());
            }
            if findings.slots_invalid > 0 {
                report.find(
                    &path,
                    None,
                    false,
                    "one slot is not valid; a power cut may have torn it".to_owned(),
                );
            }
            match (mark, findings.marks_invalid) {
                (None, _) => report.find(&path, None, true, "neither mark page is valid".to_owned()),
                (Some(_), 0) => {}
                (Some(_), _) => report.find(&path, None, false, "one mark page is not valid".to_owned()),
            }
            report.mark = mark.map(|mark| mark.max(state.start.mark()));
            report.end = state.start.offset;
            report.state = Some(state);
        }
        Err(MetaOpenError::Corrupt { detail, .. }) => report.find(&path, None, true, detail),
        Err(MetaOpenError::Io(failure)) if failure.source.kind() == std::io::ErrorKind::NotFound => {
            report.find(&path, None, true, "it is missing".to_owned());
        }
        Err(MetaOpenError::Io(failure)) => return Err(failure),
    }
    Ok(())
}

fn check_mark(dir: &Path, report: &mut VerifyReport) {
    if let Some(mark) = report.mark
        && report.end < mark.offset
    {
        let end = report.end;
        let what = format!("the log ends at {end}, short of the mark {}", mark.offset);
        report.find(dir, Some(end), true, what);
    }
    if let Some(state) = report.state.as_ref().filter(|_| !report.is_installing) {
        let last = report.last.map_or(state.start.index.previous(), |last| last.index);
        let (end, applied) = (report.end, state.membership.index);
        if last < applied {
            let what = format!("the log ends with batch {last}, short of batch {applied}, which was applied");
            report.find(dir, Some(end), true, what);
        }
    }
}

/// A check of all segments.
struct Check<'a> {
    vfs: &'a dyn Vfs,
    group_bytes_max: Length,
    report: &'a mut VerifyReport,
    before: Option<Found>,
    /// Index of the next batch, as far as it was counted.
    next: Option<Index>,
}

impl Check<'_> {
    fn segments(&mut self, files: &[(Offset, PathBuf)]) -> Result<(), IoFailure> {
        for (at, (base, path)) in files.iter().enumerate() {
            let (len, header) = read_header(self.vfs, path)?;
            let end = base.get().saturating_add(len.saturating_sub(HEADER as u64));
            let start = self.report.state.as_ref().map(|state| state.start.offset);
            if start.is_some_and(|start| *base < start && end <= start.get()) {
                self.report.find(path, None, false, "trimmed; the next start removes it".to_owned());
                continue;
            }
            match header {
                Ok(header) => self.segment(*base, path, len, header, at + 1 == files.len())?,
                Err(detail) => {
                    self.report.find(path, Some(*base), true, detail);
                    (self.before, self.next) = (None, None);
                }
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        base: Offset,
        path: &Path,
        len: u64,
        header: SegmentHeader,
        is_last: bool,
    ) -> Result<(), IoFailure> {
        if let Some(state) = &self.report.state
            && (self.before.is_some() || self.report.segments.is_empty())
            && let Err(detail) = accept(state, self.before.as_ref(), base, &header)
        {
            self.report.find(path, Some(base), true, detail);
        }
        if let Some(next) = self.next.filter(|next| *next != header.base_index) {
            let what =
                format!("its header says that it begins with batch {}; it is {next}", header.base_index);
            self.report.find(path, Some(base), true, what);
        }
        let base = header.base_offset;
        if base.get().checked_add(len).is_none() {
            self.report.find(path, Some(base), true, "it lies beyond the last possible offset".to_owned());
            return Ok(());
        }
        let file = self.vfs.open(path, OpenMode::Read).meant("open", path)?;
        let end = base + Length::new(len.saturating_sub(HEADER as u64));
        let mut found = Found { path: path.to_owned(), header, len, end };
        // A mark that was never reached leaves nothing for the walker to collect.
        let nowhere = Mark { index: Index::new(u64::MAX), offset: Offset::new(u64::MAX) };
        let mark = self.report.mark.filter(|mark| mark.offset > base && mark.offset <= end);
        let mut walker = Walker::new(mark.unwrap_or(nowhere), header.base_index);
        let stop = walker.walk(&*file, &found)?;
        if let Some(stop) = &stop {
            self.judge(&*file, &found, walker.end, stop, is_last)?;
        }
        let whole = walker.end;
        self.report.segments.push(VerifiedSegment {
            header,
            end: whole,
            crc: crc_of(&*file, path, position(base, whole))?,
            path: path.to_owned(),
        });
        self.report.batches += walker.batches;
        self.report.entries += walker.entries;
        self.report.bytes += (whole - base).get();
        self.report.end = whole;
        if walker.batches > 0 {
            self.report.last = Some(LogId { term: header.term, index: walker.next.previous() });
        }
        if is_last {
            found.end = whole;
        }
        self.next = stop.is_none().then_some(walker.next);
        self.before = Some(found);
        Ok(())
    }

    /// The end of the valid batches is not the end of the file.
    fn judge(
        &mut self,
        file: &dyn VfsFile,
        segment: &Found,
        whole: Offset,
        stop: &Stop,
        is_last: bool,
    ) -> Result<(), IoFailure> {
        let Found { path, header, len, .. } = segment;
        let cut = position(header.base_offset, whole);
        let used = used_end(file, path, cut, *len)?;
        let below_mark = self.report.mark.is_some_and(|mark| whole < mark.offset);
        if !is_last || below_mark {
            self.report.find(path, Some(stop.at), true, stop.detail.clone());
        } else if used > cut {
            let search = Search { file, path, base: header.base_offset, term: header.term };
            let proof = search.valid_entry(stop.at + self.group_bytes_max, used)?;
            let what = match proof {
                Some(valid) => {
                    format!("{}, and a valid entry at {valid}, too far for a torn write", stop.detail)
                }
                None => {
                    format!("a torn tail of {} bytes; the next start cuts it ({})", used - cut, stop.detail)
                }
            };
            self.report.find(path, Some(whole), proof.is_some(), what);
        }
        Ok(())
    }
}

fn crc_of(file: &dyn VfsFile, path: &Path, len: u64) -> Result<u32, IoFailure> {
    let mut chunk = vec![0; to_usize(len.min(1 << 20))];
    let (mut crc, mut at) = (0, 0);
    while at < len {
        let wanted = to_usize((len - at).min(1 << 20));
        let found = read_full_at(file, &mut chunk[..wanted], at).meant("read", path)?;
        if found == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &chunk[..found]);
        at += found as u64;
    }
    Ok(crc)
}
