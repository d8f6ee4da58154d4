//! Log: the image decoded into entries.
//!
//! Owns:   framing, checksums, terms, batches; where entries begin.
//! Keeps:  what nobody saw is not guessed: an offset is known, or it is not.

use loglog_proto::entry::{EntryRef, Kind};
use loglog_proto::response::Appended;
use loglog_proto::walk::{Entries, last_entry};
use loglog_proto::{Length, Offset, Sequence, Term, WriterId};

use super::image::Image;
use super::violation::Violation;
use crate::history::{History, OpId, op_of};

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) end: Offset,
    pub(super) writer: WriterId,
    pub(super) sequence: Sequence,
    pub(super) content: Content,
    term: Term,
    is_last_of_batch: bool,
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It opens a term.
    Noop,
    /// The cluster's own.
    Control,
    /// An operation's payload.
    Of(OpId),
    /// Data of no operation.
    Nobodys,
}

/// Everything decoded.
#[derive(Debug)]
pub(super) struct Log {
    /// In order.
    pub(super) entries: Vec<Entry>,
    /// What was decoded, in order: begin and end, both where entries begin.
    runs: Vec<(Offset, Offset)>,
    /// Where the last final log ends.
    pub(super) end: Offset,
}

impl Log {
    /// Decodes what can be, and checks it as far as the operations need not be known.
    pub(super) fn decode(history: &History, image: &Image, found: &mut Vec<Violation>) -> Self {
        let mut log = Self { entries: Vec::new(), runs: Vec::new(), end: image.end };
        // Without a final log that begins there, a run is read from the first place on that an acknowledgement names.
        let acknowledged = history.operations.iter().filter_map(|it| it.acknowledged());
        let mut places: Vec<Offset> = acknowledged.map(|(_, appended)| appended.offset).collect();
        places.sort_unstable();
        let first_in = |places: &[Offset], begin: Offset, end: Offset| {
            let place = places.get(places.partition_point(|it| *it < begin)).copied();
            place.filter(|it| *it < end)
        };
        for (begin, bytes) in image.runs() {
            let end = begin + Length::of(bytes.len());
            if let Some(start) = first_in(&image.starts, begin, end) {
                let (before, behind) = bytes.split_at((start - begin).as_usize());
                let from = log.backwards(start, before, found);
                let so_far = found.len();
                let to = log.forwards(start, behind, found);
                if to != end && found.len() == so_far {
                    found.push(Violation::EntryCutShort { at: to, end });
                }
                log.runs.push((from, to));
            } else {
                let from = if begin == Offset::ZERO { Some(begin) } else { first_in(&places, begin, end) };
                let Some(from) = from else { continue };
                let to = log.forwards(from, &bytes[(from - begin).as_usize()..], found);
                log.runs.push((from, to));
            }
        }
        log.check_terms_and_batches(found);
        for it in &history.finals {
            if log.is_batch_end(it.committed) == Some(false) {
                let (node, committed) = (it.node, it.committed);
                found.push(Violation::CommittedWithinBatch { node, committed });
            }
        }
        log
    }

    /// The entries before `end`, as far back as `bytes` reach; returns where the first begins.
    fn backwards(&mut self, end: Offset, mut bytes: &[u8], found: &mut Vec<Violation>) -> Offset {
        let (mut from, first) = (end, self.entries.len());
        loop {
            match last_entry(from, bytes) {
                Ok(Some(entry)) => {
                    from = entry.offset;
                    bytes = &bytes[..bytes.len() - entry.len().as_usize()];
                    self.entries.push(Entry::from(&entry));
                }
                Ok(None) => break,
                Err(error) => {
                    found.push(Violation::NotFramed(error));
                    break;
                }
            }
        }
        self.entries[first..].reverse();
        from
    }

    /// The entries from `begin` on; returns where the last one ends.
    fn forwards(&mut self, begin: Offset, bytes: &[u8], found: &mut Vec<Violation>) -> Offset {
        let mut walk = Entries::new(begin, bytes);
        loop {
            match walk.next_entry() {
                Ok(Some(entry)) => self.entries.push(Entry::from(&entry)),
                Ok(None) => break,
                Err(error) => {
                    found.push(Violation::NotFramed(error));
                    break;
                }
            }
        }
        walk.at()
    }

    fn check_terms_and_batches(&self, found: &mut Vec<Violation>) {
        let mut before: Option<&Entry> = None;
        for entry in &self.entries {
            let at = entry.offset;
            let last_term = before.map_or(Term::ZERO, |it| it.term);
            if entry.term < last_term {
                found.push(Violation::TermSank { at, found: entry.term, before: last_term });
            }
            let neighbour = before.filter(|it| it.end == at);
            let opens_term = neighbour.map_or(at == Offset::ZERO, |it| it.term < entry.term);
            if opens_term && entry.content != Content::Noop {
                found.push(Violation::TermNotOpened { at, term: entry.term });
            }
            let is_alone = matches!(entry.content, Content::Noop | Content::Control);
            if (opens_term || is_alone) && neighbour.is_some_and(|it| !it.is_last_of_batch) {
                found.push(Violation::BatchNotEnded { at });
            }
            if is_alone && !entry.is_last_of_batch {
                found.push(Violation::BatchNotEnded { at: entry.end });
            }
            before = Some(entry);
        }
        if let Some(last) = before.filter(|it| it.end == self.end && !it.is_last_of_batch) {
            found.push(Violation::BatchNotEnded { at: last.end });
        }
    }

    /// Whether the bytes from here on were decoded.
    pub(super) fn knows(&self, at: Offset) -> bool {
        self.run_of(at).is_some_and(|(_, end)| at < end)
    }

    /// Whether all that ever was in the log was decoded.
    pub(super) fn is_whole(&self) -> bool {
        self.runs[..] == [(Offset::ZERO, self.end)]
    }

    /// Whether an entry begins or ends here. [`None`]: nobody knows.
    pub(super) fn is_boundary(&self, at: Offset) -> Option<bool> {
        let (_, end) = self.run_of(at)?;
        Some(at == end || self.entries.binary_search_by_key(&at, |entry| entry.offset).is_ok())
    }

    /// Whether a batch begins or ends here. [`None`]: nobody knows.
    pub(super) fn is_batch_end(&self, at: Offset) -> Option<bool> {
        let is_boundary = self.is_boundary(at)?;
        let before = self.entries.partition_point(|entry| entry.offset < at).checked_sub(1);
        let before = before.map(|it| &self.entries[it]).filter(|it| it.end == at);
        Some(is_boundary && before.is_none_or(|it| it.is_last_of_batch))
    }

    fn run_of(&self, at: Offset) -> Option<(Offset, Offset)> {
        let before = self.runs.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        Some(self.runs[before]).filter(|(_, end)| at <= *end)
    }
}

impl Entry {
    /// What its acknowledgement must say.
    pub(super) fn place(&self) -> Appended {
        Appended { offset: self.offset, end: self.end, term: self.term }
    }

    pub(super) fn is_data(&self) -> bool {
        !matches!(self.content, Content::Noop | Content::Control)
    }
}

impl From<&EntryRef<'_>> for Entry {
    fn from(entry: &EntryRef<'_>) -> Self {
        let content = match entry.prefix.kind {
            Kind::Noop => Content::Noop,
            Kind::Control => Content::Control,
            Kind::Data => op_of(entry.payload).map_or(Content::Nobodys, Content::Of),
        };
        Self {
            offset: entry.offset,
            end: entry.end(),
            writer: entry.prefix.writer,
            sequence: entry.prefix.sequence,
            content,
            term: entry.prefix.term,
            is_last_of_batch: entry.prefix.last_of_batch,
        }
    }
}
