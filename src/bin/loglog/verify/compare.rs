//! Two directories of one cluster: the same log, byte for byte?
//!
//! A segment file is a function of the log (S35), so two nodes' files of the same base are equal as far as both go.
//! Behind the mark of either, an uncommitted end may differ; the nodes settle that among themselves.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use loglog_proto::header::HEADER;
use loglog_proto::{Length, Offset};
use loglog_storage::{VerifiedSegment, VerifyReport};
use serde_json::{Value, json};

/// Bytes compared at a time.
const CHUNK: usize = 1 << 16;

/// Where two directories do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    dirs: [PathBuf; 2],
    offset: Option<Offset>,
    what: String,
    /// Whether it must not be: false where it is not committed on both.
    pub(super) damage: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.damage { "DIFFERENT" } else { "note" };
        let place = self.offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
        write!(f, "{word}: {} and {}{place}: {}", self.dirs[0].display(), self.dirs[1].display(), self.what)
    }
}

impl Difference {
    pub(super) fn as_json(&self) -> Value {
        json!({
            "directories": self.dirs.each_ref().map(|dir| dir.to_string_lossy().into_owned()),
            "offset": self.offset.map(Offset::get),
            "what": self.what,
            "damage": self.damage,
        })
    }
}

/// Every difference between two checked directories.
pub(super) fn compare(
    one: (&Path, &VerifyReport),
    other: (&Path, &VerifyReport),
) -> io::Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut differ = |offset, what: &str, damage| {
        let dirs = [one.0.to_owned(), other.0.to_owned()];
        found.push(Difference { dirs, offset, what: what.to_owned(), damage });
    };
    if let (Some(a), Some(b)) = (&one.1.state, &other.1.state)
        && a.cluster != b.cluster
    {
        differ(None, "they belong to different clusters", true);
        return Ok(found);
    }
    // Below this both say that it is committed.
    let mark = |report: &VerifyReport| report.mark.map_or(Offset::ZERO, |mark| mark.offset);
    let certain = mark(one.1).min(mark(other.1));
    for segment in &one.1.segments {
        let base = segment.header.base_offset;
        match other.1.segments.iter().find(|candidate| candidate.header.base_offset == base) {
            Some(same) => {
                if let Some(offset) = first_difference(segment, same)? {
                    differ(Some(offset), "their bytes differ", offset < certain);
                }
            }
            None if covers(other.1, base) => {
                differ(Some(base), "only in the first does a segment begin here", base < certain);
            }
            None => {}
        }
    }
    for segment in &other.1.segments {
        let base = segment.header.base_offset;
        if covers(one.1, base) && !one.1.segments.iter().any(|same| same.header.base_offset == base) {
            differ(Some(base), "only in the second does a segment begin here", base < certain);
        }
    }
    Ok(found)
}

/// Whether `offset` lies within what `report` saw of the log, its ends excluded.
fn covers(report: &VerifyReport, offset: Offset) -> bool {
    let start = report.segments.first().map_or(report.end, |segment| segment.header.base_offset);
    start < offset && offset < report.end
}

/// Where the two files begin to differ, as far as both are whole; the base where it is their headers.
fn first_difference(a: &VerifiedSegment, b: &VerifiedSegment) -> io::Result<Option<Offset>> {
    if (a.end, a.crc) == (b.end, b.crc) {
        return Ok(None);
    }
    let base = a.header.base_offset;
    let length = a.end.min(b.end) - base + Length::of(HEADER);
    let open = |path| File::open(path).map(|file| BufReader::new(file).take(length.get()));
    let (mut a, mut b) = (open(&a.path)?, open(&b.path)?);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0_u64;
    while at < length.get() {
        let wanted = usize::try_from(length.get() - at).unwrap_or(CHUNK).min(CHUNK);
        a.read_exact(&mut left[..wanted])?;
        b.read_exact(&mut right[..wanted])?;
        if let Some(place) = left[..wanted].iter().zip(&right[..wanted]).position(|(a, b)| a != b) {
            let position = at + place as u64;
            return Ok(Some(base + Length::new(position.saturating_sub(HEADER as u64))));
        }
        at += wanted as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use loglog_proto::header::SegmentHeader;
    use loglog_proto::{ClusterId, Index, Term};
    use loglog_storage::Mark;

    use super::*;

    /// A report on one segment that holds `bytes`, all of it behind a header; the mark lies at its end.
    fn report(dir: &Path, bytes: &[u8], crc: u32) -> VerifyReport {
        let header = SegmentHeader {
            cluster: ClusterId::new(1).unwrap(),
            base_offset: Offset::new(1000),
            base_index: Index::new(2),
            term: Term::new(1),
            previous_term: Term::new(0),
        };
        let path = dir.join("segment");
        let mut file = File::create(&path).unwrap();
        file.write_all(&[0; HEADER]).unwrap();
        file.write_all(bytes).unwrap();
        let end = header.base_offset + Length::of(bytes.len());
        VerifyReport {
            mark: Some(Mark { index: Index::new(3), offset: end }),
            segments: vec![VerifiedSegment { header, end, crc, path }],
            end,
            ..VerifyReport::default()
        }
    }

    #[test]
    fn equal_as_far_as_both_go() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let longer = report(a.path(), &[7; 200_000], 1);
        let shorter = report(b.path(), &[7; 150_000], 2);
        assert_eq!(compare((a.path(), &longer), (b.path(), &shorter)).unwrap(), []);
    }

    #[test]
    fn the_first_different_byte_is_named_and_weighed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = report(a.path(), &[7; 200_000], 1);
        let mut bytes = [7; 200_000];
        bytes[123_456] = 8;
        let mut other = report(b.path(), &bytes, 2);
        let found = compare((a.path(), &one), (b.path(), &other)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].offset, found[0].damage), (Some(Offset::new(124_456)), true));
        // Behind a mark it is not committed on both.
        other.mark = Some(Mark { index: Index::new(2), offset: Offset::new(1000) });
        assert!(!compare((a.path(), &one), (b.path(), &other)).unwrap()[0].damage);
    }

    #[test]
    fn a_segment_that_only_one_has_is_seen_unless_it_was_trimmed_or_not_yet_written() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = report(a.path(), &[7; 100], 1);
        let mut other = report(b.path(), &[7; 100], 1);
        let mut extra = other.segments[0].clone();
        extra.header.base_offset = Offset::new(1050);
        other.segments.push(extra.clone());
        let found = compare((a.path(), &one), (b.path(), &other)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].offset, Some(Offset::new(1050)));
        other.segments[1].header.base_offset = Offset::new(1100);
        assert_eq!(compare((a.path(), &one), (b.path(), &other)).unwrap(), []);
    }
}
