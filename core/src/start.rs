//! Start: what consensus needs to know of a log that recovery found.
//!
//! Owns:   the writers' table as the log gives it (S27), the terms in the segments' headers.
//! Never:  changes anything.

use loglog_proto::entry::{Kind, Prefix};
use loglog_proto::limits::{WRITER_MEMORY, WRITER_SEQUENCES_MAX};
use loglog_proto::{Index, Term};
use loglog_storage::{LogReader, Recovered, ScanError};

use crate::writers::Writers;

/// First index of each term in the segments' headers.
#[must_use]
pub fn terms_of(reader: &LogReader) -> Vec<(Index, Term)> {
    let mut terms: Vec<(Index, Term)> = Vec::new();
    for segment in reader.segments() {
        if terms.last().is_none_or(|(_, term)| *term < segment.header.term) {
            terms.push((segment.header.base_index, segment.header.term));
        }
    }
    terms
}

/// Reads the remembered part of the log for who appended what (S27). Where damage is accepted, the part behind it, and what
/// the damage is.
///
/// # Errors
/// Damage that is not accepted, or a read that failed.
pub fn rebuild_writers(
    recovered: &Recovered,
    accept_damage: bool,
) -> Result<(Writers, Option<ScanError>), ScanError> {
    let reader = &recovered.reader;
    let remembered = recovered.end.saturating_back(WRITER_MEMORY);
    let mut from = reader.segment_base_at_or_before(remembered).unwrap_or(reader.start()).max(reader.start());
    let mut writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, from);
    let mut damage = None;
    // What is surely committed is let go as the scan goes on: the table never holds more than it will.
    let mark = recovered.meta.mark().offset;
    for segment in reader.segments() {
        if segment.end <= from {
            continue;
        }
        let begin = segment.header.base_offset.max(from);
        let scanned = reader.scan(begin, segment.end, &mut |entry| {
            let Prefix { kind, writer, sequence, term, .. } = entry.prefix;
            if kind == Kind::Data {
                writers.record(writer, sequence, entry.offset, entry.len(), term);
            }
            if entry.prefix.last_of_batch && entry.end() <= mark {
                writers.commit(entry.end());
            }
        });
        if let Err(error) = scanned {
            if !accept_damage {
                return Err(error);
            }
            from = segment.end;
            writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, from);
            damage = Some(error);
        }
    }
    // Everything up to the mark is committed; the rest may yet be truncated.
    writers.commit(mark.max(from));
    Ok((writers, damage))
}
