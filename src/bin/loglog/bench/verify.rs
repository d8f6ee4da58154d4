//! Verify: what was acknowledged, looked for in the log.
//!
//! Owns:   which entries of the log are whose, and what each must be.
//! Keeps:  every entry of the bench's own between the ends is there once, in its writer's order, with the bytes that were sent; what
//!         others appended meanwhile is passed over.
//! Never:  repairs or appends.

use std::collections::BTreeMap;

use clap::ValueEnum;
use futures_util::StreamExt as _;
use loglog_client::{Client, Entry, Offset, WriterId};
use loglog_proto::Length;

use super::payload::Source;
use crate::connect::stop;
use crate::exit::{Exit, Outcome, Stop};

/// How much is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Verify {
    /// Nothing but the bytes by which the log grew.
    None,
    /// Each writer's first and last entry.
    Ends,
    /// Every entry.
    All,
}

/// What one writer was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Its number among the bench's writers.
    pub(super) writer: u64,
    /// How many appends were acknowledged.
    pub(super) count: u64,
    /// Where its first and last lie.
    pub(super) places: (Offset, Offset),
}

/// What has been found of one writer.
struct Found {
    told: Told,
    last: Option<(u64, Offset)>,
    count: u64,
}

/// Looks for what was `told`, between `ends`. Returns how many entries were checked.
pub(super) async fn verify(
    how: Verify,
    client: &Client,
    source: &Source,
    ends: (Offset, Offset),
    told: &[Told],
) -> Outcome<u64> {
    match how {
        Verify::None => Ok(0),
        Verify::Ends => first_and_last(client, source, told).await,
        Verify::All => every(client, source, ends, told).await,
    }
}

async fn first_and_last(client: &Client, source: &Source, told: &[Told]) -> Outcome<u64> {
    for one in told {
        for (offset, number) in [(one.places.0, 0), (one.places.1, one.count - 1)] {
            let mut entries = client.entries(offset..offset + Length::new(1));
            let entry = entries.next().await.transpose().map_err(|error| stop(&error))?;
            let holds = entry.is_some_and(|entry| source.holds(&entry.payload, one.writer, number));
            if !holds {
                return Err(lost(format!(
                    "append {number} of writer {} was acknowledged at offset {offset}, and is not there",
                    one.writer
                )));
            }
        }
    }
    Ok(2 * told.len() as u64)
}

async fn every(client: &Client, source: &Source, ends: (Offset, Offset), told: &[Told]) -> Outcome<u64> {
    let mut check = Check::new(source, told);
    let mut entries = client.entries(ends.0..ends.1);
    while let Some(entry) = entries.next().await {
        check.take(&entry.map_err(|error| stop(&error))?)?;
    }
    check.end()
}

/// Goes over the log's entries, in order.
struct Check<'a> {
    source: &'a Source,
    /// Whose first entry is told to lie where: an entry's writer is known by it from there on.
    firsts: BTreeMap<Offset, Told>,
    found: BTreeMap<WriterId, Found>,
    /// The writer of the entry before: entries of one come in a row.
    checked: u64,
}

impl<'a> Check<'a> {
    fn new(source: &'a Source, told: &[Told]) -> Self {
        let firsts = told.iter().map(|told| (told.places.0, *told)).collect();
        Self { source, firsts, found: BTreeMap::new(), checked: 0 }
    }

    fn take(&mut self, entry: &Entry) -> Outcome {
        if let Some(told) = self.firsts.remove(&entry.offset) {
            self.found.insert(entry.writer, Found { told, last: None, count: 0 });
        }
        // Others append, too.
        let Some(found) = self.found.get_mut(&entry.writer) else { return Ok(()) };
        let (writer, at, sequence) = (found.told.writer, entry.offset, entry.sequence.get());
        if let Some((last, place)) = found.last.filter(|(last, _)| *last >= sequence) {
            return Err(lost(format!(
                "writer {writer}'s sequence {sequence} lies at offset {at}, behind its sequence {last} at {place}"
            )));
        }
        if !self.source.holds(&entry.payload, writer, found.count) {
            return Err(lost(format!(
                "the entry at offset {at} is not what writer {writer} sent as its append {}",
                found.count
            )));
        }
        (found.last, found.count) = (Some((sequence, at)), found.count + 1);
        self.checked += 1;
        Ok(())
    }

    fn end(self) -> Outcome<u64> {
        if let Some((offset, told)) = self.firsts.first_key_value() {
            return Err(lost(format!("writer {}'s first entry is not at offset {offset}", told.writer)));
        }
        for Found { told, last, count } in self.found.into_values() {
            if count != told.count {
                return Err(lost(format!(
                    "writer {} was told of {} appends, and the log has {count} of them",
                    told.writer, told.count
                )));
            }
            if last.is_none_or(|(_, place)| place != told.places.1) {
                return Err(lost(format!(
                    "writer {}'s last entry is not at offset {}",
                    told.writer, told.places.1
                )));
            }
        }
        Ok(self.checked)
    }
}

fn lost(what: String) -> Stop {
    Stop::new(Exit::Damaged, what)
}

#[cfg(test)]
mod tests {
    use loglog_client::{Sequence, Term};

    use super::super::payload::Mix;
    use super::*;

    fn entry(source: &Source, (writer, number): (u64, u64), sequence: u64, at: u64) -> Entry {
        Entry {
            offset: Offset::new(at),
            end: Offset::new(at + 42),
            term: Term::new(1),
            writer: WriterId::new(100 + writer),
            sequence: Sequence::new(sequence),
            payload: source.payload(writer, number),
        }
    }

    fn told(writer: u64, count: u64, first: u64, last: u64) -> Told {
        Told { writer, count, places: (Offset::new(first), Offset::new(last)) }
    }

    fn check(source: &Source, told: &[Told], entries: &[Entry]) -> Result<u64, String> {
        let mut check = Check::new(source, told);
        let result = entries.iter().try_for_each(|entry| check.take(entry)).and_then(|()| check.end());
        result.map_err(|stop| match stop {
            Stop::Failure(Exit::Damaged, message) => message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_was_told_is_found_and_whatever_else_is_seen() {
        let source = Source::new(Mix::one(10), None, 1).unwrap();
        let of = |what, sequence, at| entry(&source, what, sequence, at);
        let all = [told(0, 2, 42, 126), told(1, 1, 84, 84)];
        let good = [of((9, 0), 1, 0), of((0, 0), 1, 42), of((1, 0), 1, 84), of((0, 1), 2, 126)];
        assert_eq!(check(&source, &all, &good), Ok(3));
        let with = |at: usize, entry: Entry| {
            let mut entries = good.to_vec();
            entries[at] = entry;
            check(&source, &all, &entries).unwrap_err()
        };
        assert!(with(3, of((0, 0), 2, 126)).contains("not what writer 0 sent as its append 1"));
        assert!(with(3, of((0, 1), 1, 126)).contains("behind its sequence 1"));
        assert!(with(3, of((9, 1), 2, 126)).contains("the log has 1 of them"));
        assert!(with(1, of((9, 1), 2, 42)).contains("not what writer 0 sent as its append 0"));
        let without = [good[0].clone(), good[1].clone(), good[3].clone()];
        assert!(check(&source, &all, &without).unwrap_err().contains("first entry is not at offset 84"));
        let mut twice = good.to_vec();
        twice.push(of((0, 2), 3, 168));
        assert!(check(&source, &all, &twice).unwrap_err().contains("the log has 3 of them"));
    }
}
