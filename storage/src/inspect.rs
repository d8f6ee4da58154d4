//! Shows what lies in a file or directory, damaged or not: for a dump tool. Changes nothing, takes no lock.
//!
//! ```text
//!     a segment file ─► header ─► entry, entry, damage, entry … ─► zeros
//! ```
//!
//! Owns:   the walk over bytes that need not make sense.
//! Keeps:  every byte behind a header is part of exactly one item.
//! Never:  judges what recovery would do; [`crate::verify()`] tells whether a directory is sound.

use std::ops::ControlFlow;
use std::path::Path;

use loglog_proto::entry::{EntryError, EntryRef, Kind};
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::limits::ENTRY_BYTES_MAX;
use loglog_proto::{Index, Length, Offset, Sequence, Term, WriterId};

use crate::error::{IoFailure, Meant, to_usize};
use crate::meta::{Mark, Meta, MetaOpenError, MetaState};
use crate::names::Name;
use crate::recovery::cut::{Search, used_end};
use crate::recovery::survey::read_header;
use crate::scan::{Scanner, Step, position};
use crate::vfs::{OpenMode, OsVfs, Vfs, VfsFile, read_full_at};

/// An entry as it lies there.
#[derive(Clone, Debug)]
pub struct InspectedEntry<'a> {
    /// Index of its batch; none behind damage, where batches cannot be counted.
    pub index: Option<Index>,
    /// Where in the log it begins.
    pub offset: Offset,
    /// Where in the file.
    pub position: u64,
    /// What it is for.
    pub kind: Kind,
    /// Whether its batch ends with it.
    pub last_of_batch: bool,
    /// Its term.
    pub term: Term,
    /// Who appended it.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
    /// Its content.
    pub payload: &'a [u8],
    /// Whether its CRC matches.
    pub crc_ok: bool,
}

/// One thing that lies there.
#[derive(Debug)]
pub enum Item<'a> {
    /// A segment file begins.
    Segment {
        /// The file.
        path: &'a Path,
        /// Its header, or why it has none.
        header: Result<SegmentHeader, String>,
        /// Bytes of the file.
        len: u64,
    },
    /// An entry of it.
    Entry(InspectedEntry<'a>),
    /// Bytes of it that are no entry, up to the next entry or the end.
    Damage {
        /// Where in the log they begin.
        offset: Offset,
        /// How many they are.
        len: Length,
        /// What does not hold.
        error: EntryError,
    },
    /// Zeros up to its end: space prepared for entries to come.
    Zeros {
        /// Where in the log they begin.
        offset: Offset,
        /// How many they are.
        len: Length,
    },
    /// A `meta` file.
    Meta {
        /// The file.
        path: &'a Path,
        /// What it holds, and its mark if that is valid; or what is wrong.
        found: Result<(MetaState, Option<Mark>), String>,
    },
    /// Any other file.
    Other {
        /// The file.
        path: &'a Path,
        /// What we know of it.
        what: &'static str,
    },
}

/// Takes items; says whether it wants more.
pub type Visit<'v> = dyn FnMut(&Item<'_>) -> ControlFlow<()> + 'v;

/// Shows what lies in `path`: a data directory, a segment file or a `meta` file.
///
/// # Errors
/// Those of reading.
pub fn inspect(path: &Path, visit: &mut Visit<'_>) -> Result<(), IoFailure> {
    inspect_on(&OsVfs::default(), path, visit)
}

/// [`inspect`] over any file system.
///
/// # Errors
/// Those of reading.
pub fn inspect_on(vfs: &dyn Vfs, path: &Path, visit: &mut Visit<'_>) -> Result<(), IoFailure> {
    let Ok(names) = vfs.list(path) else { return one(vfs, path, visit).map(|_| ()) };
    for name in names {
        if one(vfs, &path.join(name), visit)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn one(vfs: &dyn Vfs, path: &Path, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, IoFailure> {
    let what = match path.file_name().map_or(Name::Foreign, Name::of) {
        Name::Segment(base) | Name::Install(base) => return segment(vfs, path, Some(base), visit),
        Name::Meta => return meta(vfs, path, visit),
        Name::Lock => "the lock",
        Name::Checkpoint => "a checkpoint of the writers' table",
        Name::Temporary => "no part of the log: prepared ahead, or unfinished; the next start removes it",
        Name::Side => "kept aside by recovery",
        // A copy of a segment under another name, or nothing of ours.
        Name::Foreign => match vfs.open(path, OpenMode::Read) {
            Ok(_) if read_header(vfs, path)?.1.is_ok() => return segment(vfs, path, None, visit),
            _ => "not ours",
        },
    };
    Ok(visit(&Item::Other { path, what }))
}

fn meta(vfs: &dyn Vfs, path: &Path, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, IoFailure> {
    let found = match Meta::peek(vfs, path) {
        Ok((state, mark, _)) => Ok((state, mark)),
        Err(MetaOpenError::Io(failure)) => return Err(failure),
        Err(MetaOpenError::Corrupt { detail, .. }) => Err(detail),
    };
    Ok(visit(&Item::Meta { path, found }))
}

/// A walk over one segment file.
struct Walk<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    base: Offset,
    term: Term,
    /// Behind the last byte of the file.
    end: Offset,
    /// File position behind the last byte that is not zero.
    used: u64,
    /// Index of the next batch, while batches can be counted.
    index: Option<Index>,
}

fn segment(
    vfs: &dyn Vfs,
    path: &Path,
    named: Option<Offset>,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, IoFailure> {
    let (len, header) = read_header(vfs, path)?;
    let known = header.clone().ok();
    if visit(&Item::Segment { path, header, len }).is_break() {
        return Ok(ControlFlow::Break(()));
    }
    let base = known.map(|header| header.base_offset).or(named);
    let Some(base) = base.filter(|base| base.get().checked_add(len).is_some()) else {
        return Ok(ControlFlow::Continue(()));
    };
    if len <= HEADER as u64 {
        return Ok(ControlFlow::Continue(()));
    }
    let file = vfs.open(path, OpenMode::Read).meant("open", path)?;
    let used = used_end(&*file, path, HEADER as u64, len)?;
    let term = match known {
        Some(header) => header.term,
        None => first_term(&*file, path)?,
    };
    let end = base + Length::new(len - HEADER as u64);
    let mut walk = Walk { file: &*file, path, base, term, end, used, index: known.map(|h| h.base_index) };
    walk.run(visit)
}

/// The term of the first entry, right or wrong: all that is left where the header is gone.
fn first_term(file: &dyn VfsFile, path: &Path) -> Result<Term, IoFailure> {
    let mut bytes = [0; 4];
    read_full_at(file, &mut bytes, HEADER as u64 + 4).meant("read", path)?;
    Ok(Term::new(u32::from_le_bytes(bytes)))
}

impl Walk<'_> {
    fn run(&mut self, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, IoFailure> {
        let mut at = self.base;
        while at < self.end {
            if position(self.base, at) >= self.used {
                return Ok(visit(&Item::Zeros { offset: at, len: self.end - at }));
            }
            let (error, next) = match self.entries(at, visit)? {
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
                ControlFlow::Continue((stopped, error)) => {
                    at = stopped;
                    let Some(error) = error else { break };
                    if position(self.base, at) >= self.used {
                        continue;
                    }
                    self.behind(at, error, visit)?
                }
            };
            self.index = None;
            if let Some(error) = error
                && visit(&Item::Damage { offset: at, len: next - at, error }).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            at = next;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows valid entries from `at` on; says where and why they end.
    fn entries(
        &mut self,
        at: Offset,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<(), (Offset, Option<EntryError>)>, IoFailure> {
        let mut scanner = Scanner::new(self.file, self.base, at, self.end);
        loop {
            let at = scanner.at();
            match scanner.step().meant("read", self.path)? {
                Step::Entry(entry) => {
                    let item = Item::Entry(inspected(&entry, self.base, self.index, true));
                    if visit(&item).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    if entry.prefix.last_of_batch {
                        self.index = self.index.map(Index::next);
                    }
                }
                Step::Invalid(error) => return Ok(ControlFlow::Continue((at, Some(error)))),
                Step::End => return Ok(ControlFlow::Continue((at, None))),
            }
        }
    }

    /// What is not valid at `at`: a whole entry but for its CRC is shown as one; else damage up to the next entry.
    fn behind(
        &self,
        at: Offset,
        error: EntryError,
        visit: &mut Visit<'_>,
    ) -> Result<(Option<EntryError>, Offset), IoFailure> {
        if matches!(error, EntryError::Crc { .. }) {
            let left = (self.end - at).get().min(ENTRY_BYTES_MAX as u64);
            let mut bytes = vec![0; to_usize(left)];
            let pos = position(self.base, at);
            let found = read_full_at(self.file, &mut bytes, pos).meant("read", self.path)?;
            if let Ok(entry) = EntryRef::decode_unchecked(at, &bytes[..found]) {
                // The walk ends soon enough if nobody wants more.
                let _ = visit(&Item::Entry(inspected(&entry, self.base, None, false)));
                return Ok((None, entry.end()));
            }
        }
        let search = Search { file: self.file, path: self.path, base: self.base, term: self.term };
        let used_end = self.base + Length::new(self.used - HEADER as u64);
        let next = search.valid_entry(at + Length::new(1), self.used)?.unwrap_or(used_end);
        Ok((Some(error), next))
    }
}

fn inspected<'a>(
    entry: &EntryRef<'a>,
    base: Offset,
    index: Option<Index>,
    crc_ok: bool,
) -> InspectedEntry<'a> {
    InspectedEntry {
        index,
        offset: entry.offset,
        position: position(base, entry.offset),
        kind: entry.prefix.kind,
        last_of_batch: entry.prefix.last_of_batch,
        term: entry.prefix.term,
        writer: entry.prefix.writer,
        sequence: entry.prefix.sequence,
        payload: entry.payload,
        crc_ok,
    }
}
