//! `loglog inspect`: what lies in a file or a directory, damaged or not. Needs no node, changes nothing.
//!
//! Never:  judges: that is `loglog verify`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use loglog_proto::Length;
use loglog_proto::entry::Kind;
use loglog_storage::{InspectedEntry, Item, inspect};
use serde_json::{Value, json};

use crate::exit::{Outcome, Stop};
use crate::output::Output;
use crate::table::grouped;

/// Bytes of a payload that are shown.
const PREVIEW: usize = 32;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A segment file, a meta file, or a data directory.
    path: PathBuf,

    /// Show every entry of a directory too, not only of a file.
    #[arg(long)]
    entries: bool,

    /// Print each thing as a JSON object on a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let cannot =
        |error: std::io::Error| Stop::failed(format!("cannot read {}: {error}", args.path.display()));
    let is_dir = std::fs::metadata(&args.path).map_err(cannot)?.is_dir();
    let mut show = Show {
        output: Output::new(),
        entries: args.entries || !is_dir,
        json: args.json,
        counts: Counts::default(),
    };
    let mut outcome = Ok(());
    inspect(&args.path, &mut |item| {
        outcome = show.item(item);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|failure| Stop::failed(failure.to_string()))?;
    outcome?;
    show.sum()?;
    show.output.flush()
}

/// What was seen of the current segment.
#[derive(Default)]
struct Counts {
    open: bool,
    data: u64,
    others: u64,
    payload_bytes: u64,
    batches: u64,
    bad_crcs: u64,
    damaged: Length,
    zeros: Length,
}

struct Show {
    output: Output,
    entries: bool,
    json: bool,
    counts: Counts,
}

impl Show {
    fn item(&mut self, item: &Item<'_>) -> Outcome {
        if matches!(item, Item::Segment { .. } | Item::Meta { .. } | Item::Other { .. }) {
            self.sum()?;
        }
        self.counts.take(item);
        if matches!(item, Item::Entry(entry) if !self.entries && entry.crc_ok) {
            return Ok(());
        }
        if self.json { self.output.line(as_json(item)) } else { self.output.line(as_text(item)) }
    }

    /// Closes a segment with what was seen of it.
    fn sum(&mut self) -> Outcome {
        let counts = std::mem::take(&mut self.counts);
        if !counts.open || self.json {
            return Ok(());
        }
        self.output.line(counts.text())
    }
}

impl Counts {
    fn take(&mut self, item: &Item<'_>) {
        match item {
            Item::Segment { .. } => self.open = true,
            Item::Entry(entry) => {
                self.data += u64::from(entry.kind == Kind::Data);
                self.others += u64::from(entry.kind != Kind::Data);
                self.payload_bytes += entry.payload.len() as u64;
                self.batches += u64::from(entry.last_of_batch);
                self.bad_crcs += u64::from(!entry.crc_ok);
            }
            Item::Damage { len, .. } => self.damaged += *len,
            Item::Zeros { len, .. } => self.zeros += *len,
            Item::Meta { .. } | Item::Other { .. } => {}
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "  in all: {} data entries and {} others in {} batches, {} payload bytes, {} bytes prepared",
            grouped(self.data),
            grouped(self.others),
            grouped(self.batches),
            grouped(self.payload_bytes),
            grouped(self.zeros.get())
        );
        if self.bad_crcs > 0 || self.damaged > Length::ZERO {
            let (bad, damaged) = (grouped(self.bad_crcs), grouped(self.damaged.get()));
            text.push_str(&format!("; {bad} entries with a wrong CRC, {damaged} bytes that are no entry"));
        }
        text
    }
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Data => "data",
        Kind::Noop => "noop",
        Kind::Control => "control",
    }
}

fn as_text(item: &Item<'_>) -> String {
    match item {
        Item::Segment { path, header: Ok(header), len } => format!(
            "segment {}: {} bytes, cluster {}, base offset {}, base index {}, term {}, previous term {}",
            path.display(),
            grouped(*len),
            header.cluster,
            header.base_offset,
            header.base_index,
            header.term,
            header.previous_term
        ),
        Item::Segment { path, header: Err(error), len } => {
            format!("segment {}: {} bytes, NO VALID HEADER: {error}", path.display(), grouped(*len))
        }
        Item::Entry(entry) => entry_text(entry),
        Item::Damage { offset, len, error } => format!("  DAMAGE at {offset}, {len} bytes: {error}"),
        Item::Zeros { offset, len } => format!("  zeros from {offset} on, {len} bytes"),
        Item::Meta { path, found: Ok((state, mark)) } => format!(
            "meta {}: cluster {}, node {} (incarnation {}), term {}, vote {}, {} voters and {} learners, start {}, \
             mark {}, segments of {} bytes",
            path.display(),
            state.cluster,
            state.node,
            state.incarnation,
            state.term,
            state.vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string()),
            state.membership.voters.len(),
            state.membership.learners.len(),
            state.start.offset,
            mark.map_or_else(|| "none valid".to_owned(), |mark| mark.offset.to_string()),
            state.segment_bytes_max
        ),
        Item::Meta { path, found: Err(error) } => format!("meta {}: DAMAGED: {error}", path.display()),
        Item::Other { path, what } => format!("other {}: {what}", path.display()),
    }
}

fn entry_text(entry: &InspectedEntry<'_>) -> String {
    let index = entry.index.map_or_else(|| "?".to_owned(), |index| index.to_string());
    let crc = if entry.crc_ok { "" } else { "  WRONG CRC" };
    let last = if entry.last_of_batch { "." } else { " " };
    let mut text = format!(
        "  {:>12} {:>8}{last} {:<7} term {} writer {} sequence {} payload {}{crc}",
        entry.offset.get(),
        index,
        kind(entry.kind),
        entry.term,
        entry.writer,
        entry.sequence,
        entry.payload.len(),
    );
    if entry.kind == Kind::Data {
        let shown = &entry.payload[..entry.payload.len().min(PREVIEW)];
        let more = if shown.len() < entry.payload.len() { "…" } else { "" };
        text.push_str(&format!("  \"{}\"{more}", shown.escape_ascii()));
    }
    text
}

fn as_json(item: &Item<'_>) -> Value {
    match item {
        Item::Segment { path, header, len } => {
            let mut value = json!({ "item": "segment", "path": path.to_string_lossy(), "bytes": len });
            match header {
                Ok(header) => {
                    value["cluster"] = header.cluster.to_string().into();
                    value["base_offset"] = header.base_offset.get().into();
                    value["base_index"] = header.base_index.get().into();
                    value["term"] = header.term.get().into();
                    value["previous_term"] = header.previous_term.get().into();
                }
                Err(error) => value["error"] = error.as_str().into(),
            }
            value
        }
        Item::Entry(entry) => json!({
            "item": "entry",
            "offset": entry.offset.get(),
            "index": entry.index.map(loglog_proto::Index::get),
            "position": entry.position,
            "kind": kind(entry.kind),
            "last_of_batch": entry.last_of_batch,
            "term": entry.term.get(),
            "writer": entry.writer.to_string(),
            "sequence": entry.sequence.get(),
            "payload_bytes": entry.payload.len(),
            "crc_ok": entry.crc_ok,
        }),
        Item::Damage { offset, len, error } => json!({
            "item": "damage", "offset": offset.get(), "bytes": len.get(), "error": error.to_string(),
        }),
        Item::Zeros { offset, len } => json!({ "item": "zeros", "offset": offset.get(), "bytes": len.get() }),
        Item::Meta { path, found } => {
            let mut value = json!({ "item": "meta", "path": path.to_string_lossy() });
            match found {
                Ok((state, mark)) => {
                    value["cluster"] = state.cluster.to_string().into();
                    value["node"] = state.node.get().into();
                    value["incarnation"] = state.incarnation.to_string().into();
                    value["term"] = state.term.get().into();
                    value["vote"] = state.vote.map(|vote| vote.to_string()).into();
                    value["voters"] = state.membership.voters.len().into();
                    value["learners"] = state.membership.learners.len().into();
                    value["start"] = state.start.offset.get().into();
                    value["mark"] = mark.map(|mark| mark.offset.get()).into();
                    value["segment_bytes_max"] = state.segment_bytes_max.get().into();
                }
                Err(error) => value["error"] = error.as_str().into(),
            }
            value
        }
        Item::Other { path, what } => {
            json!({ "item": "other", "path": path.to_string_lossy(), "what": what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::{Index, Offset, Sequence, Term, WriterId};

    fn entry(payload: &[u8], crc_ok: bool) -> InspectedEntry<'_> {
        InspectedEntry {
            index: Some(Index::new(2)),
            offset: Offset::new(100),
            position: 164,
            kind: Kind::Data,
            last_of_batch: true,
            term: Term::new(1),
            writer: WriterId::new(0xab),
            sequence: Sequence::new(3),
            payload,
            crc_ok,
        }
    }

    #[test]
    fn an_entry_is_one_line_whatever_is_in_it() {
        let text = as_text(&Item::Entry(entry(b"two\nlines\xff", true)));
        assert!(text.contains("sequence 3 payload 10  \"two\\nlines\\xff\""), "{text}");
        let text = as_text(&Item::Entry(entry(&[b'x'; 100], false)));
        assert!(text.contains("WRONG CRC") && text.ends_with("\"…"), "{text}");
        assert_eq!(as_json(&Item::Entry(entry(b"x", true)))["payload_bytes"], 1);
    }

    #[test]
    fn what_is_wrong_is_counted() {
        let mut counts = Counts::default();
        counts.take(&Item::Entry(entry(b"x", true)));
        assert!(!counts.text().contains("wrong"));
        counts.take(&Item::Entry(entry(b"x", false)));
        assert!(
            counts.text().contains("2 data entries") && counts.text().contains("1 entries with a wrong CRC")
        );
    }
}
