//! Which segments there are, by their names and headers alone (S11).
//!
//! Owns:   the first look at the directory.
//! Keeps:  a segment is accepted only if base offset, base index and previous term continue the one before.
//! Never:  removes anything but our own temporary files and what a trim has left.

use std::path::{Path, PathBuf};

use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{Length, Offset};

use super::{OpenError, Recovery};
use crate::error::{IoFailure, Meant};
use crate::meta::{LogStart, MetaState};
use crate::names::Name;
use crate::vfs::{OpenMode, Vfs, read_full_at};

/// A segment that its header and the one before it vouch for.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// Behind its last whole batch; for a sealed segment the end of the file.
    pub(crate) end: Offset,
}

/// The first segment that is not accepted, and why.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) path: PathBuf,
    pub(crate) offset: Offset,
    pub(crate) detail: String,
}

/// All segments from the start on.
pub(crate) struct Chain {
    pub(crate) kept: Vec<Found>,
    pub(crate) broken: Option<Broken>,
    /// The broken one and those behind it: base offset by name, path, bytes.
    pub(crate) rest: Vec<(Offset, PathBuf, u64)>,
}

/// Looks at the directory; removes temporary files and what lies wholly before the start.
pub(super) fn survey(recovery: &mut Recovery<'_>, state: &MetaState) -> Result<Chain, OpenError> {
    let (vfs, dir) = (recovery.vfs, recovery.dir);
    let mut files = Vec::new();
    for name in vfs.list(dir).meant("list", dir)? {
        let path = dir.join(&name);
        match Name::of(&name) {
            Name::Segment(base) => files.push((base, path)),
            Name::Temporary | Name::Install(_) => {
                vfs.remove(&path).meant("remove", &path)?;
                recovery.report.temporary_files_removed += 1;
            }
            Name::Lock | Name::Meta | Name::Checkpoint | Name::Side | Name::Foreign => {}
        }
    }
    files.sort();
    let mut segments = Vec::new();
    for (base, path) in files {
        let (len, header) = read_header(vfs, &path)?;
        let end = base.get().saturating_add(len.saturating_sub(HEADER as u64));
        if base < state.start.offset && end <= state.start.offset.get() {
            vfs.remove(&path).meant("remove", &path)?;
            recovery.report.trimmed_segments_removed += 1;
        } else {
            segments.push((base, path, len, header));
        }
    }
    if recovery.report.trimmed_segments_removed > 0 {
        vfs.sync_dir(dir).meant("sync", dir)?;
    }
    Ok(link(state, segments))
}

type Candidate = (Offset, PathBuf, u64, Result<SegmentHeader, String>);

/// Chains the headers, from the start on.
fn link(state: &MetaState, segments: Vec<Candidate>) -> Chain {
    let mut chain = Chain { kept: Vec::new(), broken: None, rest: Vec::new() };
    for (base, path, len, header) in segments {
        if chain.broken.is_some() {
            chain.rest.push((base, path, len));
            continue;
        }
        let accepted = header.and_then(|header| {
            accept(state, chain.kept.last(), base, &header)?;
            Ok(header)
        });
        match accepted {
            Ok(header) => {
                let end = base + Length::new(len.saturating_sub(HEADER as u64));
                chain.kept.push(Found { path, header, len, end });
            }
            Err(detail) => {
                chain.broken = Some(Broken { path: path.clone(), offset: base, detail });
                chain.rest.push((base, path, len));
            }
        }
    }
    chain
}

/// Whether `header`, of the file named after `base`, continues the segment before it.
pub(crate) fn accept(
    state: &MetaState,
    before: Option<&Found>,
    base: Offset,
    header: &SegmentHeader,
) -> Result<(), String> {
    let differs = |what: &str, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        Err(format!("its header has {what} {found}; {expected} would continue the log"))
    };
    if header.cluster != state.cluster {
        return differs("cluster id", &state.cluster, &header.cluster);
    }
    if header.base_offset != base {
        return Err(format!("its header has base offset {}, its name says {base}", header.base_offset));
    }
    let Some(before) = before else { return accept_first(state.start, header) };
    if base != before.end {
        return differs("base offset", &before.end, &base);
    }
    if header.previous_term != before.header.term {
        return differs("previous term", &before.header.term, &header.previous_term);
    }
    if header.term < header.previous_term {
        return differs("term", &header.previous_term, &header.term);
    }
    if header.base_index <= before.header.base_index {
        return differs("base index", &"a later one", &header.base_index);
    }
    Ok(())
}

fn accept_first(start: LogStart, header: &SegmentHeader) -> Result<(), String> {
    let expected = (start.offset, start.index, start.previous_term);
    let found = (header.base_offset, header.base_index, header.previous_term);
    if expected == found && header.term >= header.previous_term {
        return Ok(());
    }
    Err(format!(
        "the log starts at offset {}, batch {}, after term {}; this segment is the first one there and starts at \
         offset {}, batch {}, after term {}",
        expected.0, expected.1, expected.2, found.0, found.1, found.2
    ))
}

/// Length and header of a segment file.
pub(crate) fn read_header(
    vfs: &dyn Vfs,
    path: &Path,
) -> Result<(u64, Result<SegmentHeader, String>), IoFailure> {
    let file = vfs.open(path, OpenMode::Read).meant("open", path)?;
    let len = file.len().meant("ask the length of", path)?;
    let mut bytes = [0; HEADER];
    let found = read_full_at(&*file, &mut bytes, 0).meant("read", path)?;
    Ok((len, SegmentHeader::decode(&bytes[..found]).map_err(|error| error.to_string())))
}
