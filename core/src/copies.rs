//! Copies: raw bytes of our log for a peer (S34), and what it holds where (S10).
//!
//! Owns:   what is served, and what is refused with which code.
//! Keeps:  only while our log holds the batch that is named, committed or not; whole batches, none behind that one; each entry is
//!         checked before it leaves.
//! Never:  waits for anything but the disk: a shell calls it where that may take its time.

use bytes::Bytes;
use loglog_proto::entry::{Prefix, encode_into};
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::limits::BATCH_BYTES_MAX;
use loglog_proto::peer::{Copied, Copy, Locate, Located, PEER_FRAME_BYTES_MAX};
use loglog_proto::walk::{WholeBatches, whole_batches};
use loglog_proto::{Index, Length, LogId};
use loglog_storage::{LogReader, NewBatch, ReadError};

/// The most bytes in one answer.
const BYTES_MAX: usize = PEER_FRAME_BYTES_MAX / 2;

const _: () = assert!(BATCH_BYTES_MAX <= BYTES_MAX);

/// Raw bytes for a peer, if our log holds the batch it names: then it holds the same bytes before it.
///
/// # Errors
/// The refusal to answer with: `Trimmed`, `NotUploaded`, `BadRequest`, `Unavailable`, and `Damaged` where our own bytes are.
pub fn copy(reader: &LogReader, copy: Copy) -> Result<Copied, Refusal> {
    let start = reader.start();
    if copy.offset < start {
        return Err(Refusal::trimmed(copy.offset, start));
    }
    check_held(reader, copy.last)?;
    let segment = reader.segment_of_index(copy.first).filter(|segment| {
        let base = segment.header.base_offset;
        let is_first = copy.first == segment.header.base_index;
        base <= copy.offset && copy.offset < segment.end && is_first == (copy.offset == base)
    });
    let Some(segment) = segment.filter(|_| copy.first <= copy.last.index) else {
        let message = format!("batch {} does not begin at offset {}", copy.first, copy.offset);
        return Err(Refusal::new(Code::BadRequest, message));
    };
    let count_max = copy.last.index.get() - copy.first.get() + 1;
    let limit = usize::try_from(copy.limit).unwrap_or(usize::MAX).clamp(1, BYTES_MAX);
    let read = |limit: usize, count_max: u64| {
        let bytes = reader.read(copy.offset, limit, segment.end).map_err(refusal)?;
        let whole = whole_batches(copy.offset, &bytes, segment.header.term, count_max);
        Ok((bytes, whole))
    };
    let (mut bytes, mut whole) = read(limit, count_max)?;
    if whole.count == 0 && whole.stop.is_none() && limit < BATCH_BYTES_MAX {
        (bytes, whole) = read(BATCH_BYTES_MAX, 1)?;
    }
    // What was read may have been cut meanwhile, and replaced.
    check_held(reader, copy.last)?;
    let WholeBatches { count, end, stop } = whole;
    if count == 0 {
        let why = stop.map_or_else(|| "the batch is cut short".to_owned(), |stop| stop.to_string());
        let message = format!("damaged here, in {}: {why}", segment.path.display());
        return Err(Refusal::new(Code::Damaged, message));
    }
    // Bytes that turn out damaged behind whole batches are refused when they are asked for next.
    let bytes = bytes.slice(..(end - copy.offset).as_usize());
    Ok(Copied { id: copy.id, header: Some(segment.header), offset: copy.offset, bytes })
}

/// The bytes that a batch of our log will have once it is written, if it is all that the peer wants.
#[must_use]
pub fn unsynced(batch: &NewBatch, copy: Copy) -> Option<Copied> {
    if (copy.first, copy.last, copy.offset) != (batch.log_id.index, batch.log_id, batch.offset) {
        return None;
    }
    let mut bytes = Vec::new();
    for (at, entry) in batch.entries.iter().enumerate() {
        let prefix = Prefix {
            kind: entry.kind,
            last_of_batch: at + 1 == batch.entries.len(),
            payload_len: u32::try_from(entry.payload.len()).expect("payloads are under 16 MiB"),
            term: batch.log_id.term,
            writer: entry.writer,
            sequence: entry.sequence,
        };
        let offset = batch.offset + Length::of(bytes.len());
        encode_into(&mut bytes, offset, &prefix, &entry.payload, entry.payload_crc);
    }
    Some(Copied { id: copy.id, header: None, offset: batch.offset, bytes: Bytes::from(bytes) })
}

/// What our log holds at an index. `committed` is how far we know it to be committed.
///
/// # Errors
/// `Trimmed`, with the start, where the index lies before it.
pub fn locate(reader: &LogReader, committed: Index, locate: Locate) -> Result<Located, Refusal> {
    let Locate { id, index } = locate;
    let segments = reader.segments();
    if segments.first().is_some_and(|first| index < first.header.base_index) {
        let refusal = Refusal::new(Code::Trimmed, format!("batch {index} was trimmed"));
        return Err(Refusal { detail: Detail::Number(reader.start().get()), ..refusal });
    }
    let last = reader.last();
    let batch = |index: Index| reader.term_at(index).map(|term| LogId { term, index });
    let held = reader.segment_of_index(index).and_then(|segment| {
        let next = segments.iter().find(|next| next.header.base_index > index);
        let last = next.map_or(last.index, |next| next.header.base_index.previous());
        Some(LogId { term: segment.header.term, index: last }).filter(|last| last.index >= index)
    });
    Ok(Located { id, held, committed: batch(committed.min(index).min(last.index)) })
}

fn check_held(reader: &LogReader, batch: LogId) -> Result<(), Refusal> {
    if reader.holds(batch) {
        return Ok(());
    }
    Err(Refusal::new(Code::NotUploaded, format!("batch {batch} is not in this node's log")))
}

fn refusal(error: ReadError) -> Refusal {
    match error {
        ReadError::Trimmed { start } => Refusal {
            detail: loglog_proto::error::Detail::Number(start.get()),
            ..Refusal::new(Code::Trimmed, error.to_string())
        },
        // It was there a moment ago: cut.
        ReadError::BeyondEnd { .. } => Refusal::new(Code::NotUploaded, error.to_string()),
        ReadError::Io(_) => Refusal::new(Code::Unavailable, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use loglog_proto::entry::Kind;
    use loglog_proto::{
        ClusterId, Incarnation, Length, NodeId, Offset, RaftId, RequestId, Sequence, Term, WriterId,
    };
    use loglog_storage::vfs::SimVfs;
    use loglog_storage::{
        DataDir, LogStart, Mark, Member, Membership, MetaState, NewBatch, NewEntry, OpenOptions, Recovered,
    };

    use super::*;
    use crate::chunk::Chunk;

    const D: &str = "/d";

    /// A log of eight batches of 100 bytes, from index 2 on, three to a segment: five of term 1, three of term 2.
    fn log() -> (SimVfs, DataDir, Recovered) {
        let sim = SimVfs::new();
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new(D)).unwrap();
        let id = RaftId::new(NodeId::new(1).unwrap(), Incarnation::new(7).unwrap());
        let member = Member { id, peer_address: String::new(), client_address: String::new() };
        let state = MetaState {
            cluster: ClusterId::new(5).unwrap(),
            node: id.node(),
            incarnation: id.incarnation(),
            term: Term::new(2),
            vote: None,
            membership: Membership { index: Index::new(1), voters: vec![member], learners: Vec::new() },
            start: LogStart::GENESIS,
            segment_bytes_max: Length::new(300),
        };
        dir.form(&state).unwrap();
        let mut log = dir.open(OpenOptions::default()).unwrap();
        let batches: Vec<NewBatch> = (0..8).map(|at| batch(if at < 5 { 1 } else { 2 }, at)).collect();
        log.writer.write(&batches).unwrap();
        (sim, dir, log)
    }

    fn batch(term: u32, at: u64) -> NewBatch {
        let payload = Bytes::from(vec![b'.'; 68]);
        let payload_crc = loglog_proto::crc32c(&payload);
        let (writer, sequence) = (WriterId::new(5), Sequence::new(at));
        let entry = NewEntry { kind: Kind::Data, writer, sequence, payload, payload_crc };
        NewBatch { log_id: log_id(term, at + 2), offset: Offset::new(at * 100), entries: vec![entry] }
    }

    fn log_id(term: u32, index: u64) -> LogId {
        LogId { term: Term::new(term), index: Index::new(index) }
    }

    fn asked(first: u64, offset: u64, last: LogId, limit: u64) -> Copy {
        Copy { id: RequestId::new(1), first: Index::new(first), last, offset: Offset::new(offset), limit }
    }

    /// Base of the segment that the answer comes from, and bytes.
    fn answer(log: &Recovered, copied: Copy) -> Result<(u64, usize), Code> {
        let copied = copy(&log.reader, copied).map_err(|refusal| refusal.code)?;
        let expected = log.reader.read(copied.offset, copied.bytes.len(), log.reader.end()).unwrap();
        assert_eq!(copied.bytes, expected);
        Ok((copied.header.unwrap().base_offset.get(), copied.bytes.len()))
    }

    #[test]
    fn s34_a_copy_is_whole_batches_of_one_segment_and_none_behind_the_last() {
        let (_sim, _dir, log) = log();
        let last = log_id(2, 9);
        assert_eq!(answer(&log, asked(2, 0, last, 10_000)), Ok((0, 300)), "to the segment's end");
        assert_eq!(answer(&log, asked(3, 100, last, 199)), Ok((0, 100)), "whole batches");
        assert_eq!(answer(&log, asked(3, 100, last, 1)), Ok((0, 100)), "one at least");
        assert_eq!(answer(&log, asked(2, 0, log_id(1, 3), 10_000)), Ok((0, 200)), "none behind the last");
        assert_eq!(answer(&log, asked(5, 300, last, 10_000)), Ok((300, 200)), "a term's end ends a segment");
        for (first, offset) in [(2, 100), (3, 0), (5, 200), (4, 250), (9, 800), (10, 800), (0, 0)] {
            let refused = answer(&log, asked(first, offset, last, 10_000));
            assert!(
                matches!(refused, Err(Code::BadRequest | Code::Damaged)),
                "{first} {offset}: {refused:?}"
            );
        }
    }

    #[test]
    fn s34_only_who_holds_the_last_batch_serves() {
        let (_sim, _dir, mut log) = log();
        for other in [log_id(1, 9), log_id(2, 10), log_id(2, 4), log_id(3, 9)] {
            assert_eq!(answer(&log, asked(2, 0, other, 10_000)), Err(Code::NotUploaded), "{other}");
        }
        assert_eq!(answer(&log, asked(8, 600, log_id(2, 9), 10_000)), Ok((500, 200)));
        log.writer.truncate(Index::new(8), Offset::new(600), log_id(2, 7)).unwrap();
        assert_eq!(answer(&log, asked(8, 600, log_id(2, 9), 10_000)), Err(Code::NotUploaded));
        log.writer.write(&[batch(3, 6), batch(3, 7)]).unwrap();
        assert_eq!(answer(&log, asked(8, 600, log_id(2, 9), 10_000)), Err(Code::NotUploaded));
        assert_eq!(answer(&log, asked(8, 600, log_id(3, 9), 10_000)), Ok((600, 200)));
    }

    #[test]
    fn s34_a_batch_that_is_not_synced_has_the_bytes_that_it_will_have_and_is_in_no_segment() {
        let (_sim, _dir, mut log) = log();
        let mut next = batch(2, 8);
        next.entries.push(batch(2, 9).entries.remove(0));
        let wanted = asked(10, 800, next.log_id, 1);
        assert_eq!(copy(&log.reader, wanted).unwrap_err().code, Code::NotUploaded);
        let copied = unsynced(&next, wanted).unwrap();
        // Who copies a log cannot do with it: where segments begin would be open.
        assert!(Chunk::check(&wanted, copied.clone()).unwrap_err().contains("no segment"));
        log.writer.write(std::slice::from_ref(&next)).unwrap();
        assert_eq!(copy(&log.reader, wanted).unwrap().bytes, copied.bytes);
        for (first, offset, last) in [
            (9, 800, next.log_id),
            (10, 700, next.log_id),
            (10, 800, log_id(3, 10)),
            (10, 800, log_id(2, 11)),
        ] {
            assert_eq!(unsynced(&next, asked(first, offset, last, 1000)), None);
        }
    }

    #[test]
    fn s34_what_is_damaged_or_trimmed_is_not_served() {
        let (sim, _dir, mut log) = log();
        sim.corrupt(&Path::new(D).join(format!("{:016x}.seg", 0)), 64 + 150, 1).unwrap();
        let last = log_id(2, 9);
        assert_eq!(answer(&log, asked(2, 0, last, 10_000)), Ok((0, 100)), "what lies before it is");
        assert_eq!(answer(&log, asked(3, 100, last, 10_000)), Err(Code::Damaged));
        assert_eq!(answer(&log, asked(4, 200, last, 10_000)), Ok((0, 100)));

        log.meta.save_mark(Mark { index: Index::new(9), offset: Offset::new(800) }).unwrap();
        let mut state = log.meta.state().clone();
        state.start =
            LogStart { offset: Offset::new(300), index: Index::new(5), previous_term: Term::new(1) };
        log.meta.save(state.clone()).unwrap();
        log.keeper.trim(state.start).unwrap();
        let refusal = copy(&log.reader, asked(2, 0, last, 10_000)).unwrap_err();
        assert_eq!((refusal.code, refusal.detail), (Code::Trimmed, Detail::Number(300)));
        assert_eq!(answer(&log, asked(5, 300, last, 10_000)), Ok((300, 200)));
    }
    #[test]
    fn s10_a_node_says_what_it_holds_and_what_is_committed() {
        let (_sim, _dir, mut log) = log();
        let located = |log: &Recovered, committed, index| {
            let asked = Locate { id: RequestId::new(1), index: Index::new(index) };
            locate(&log.reader, Index::new(committed), asked).map(|it| (it.held, it.committed))
        };
        assert_eq!(located(&log, 7, 3), Ok((Some(log_id(1, 4)), Some(log_id(1, 3)))));
        assert_eq!(located(&log, 7, 8), Ok((Some(log_id(2, 9)), Some(log_id(2, 7)))));
        assert_eq!(located(&log, 5, 5), Ok((Some(log_id(1, 6)), Some(log_id(1, 5)))));
        assert_eq!(located(&log, 50, 10), Ok((None, Some(log_id(2, 9)))), "beyond what is here");
        assert_eq!(located(&log, 1, 2), Ok((Some(log_id(1, 4)), Some(log_id(1, 1)))), "genesis");

        log.meta.save_mark(Mark { index: Index::new(9), offset: Offset::new(800) }).unwrap();
        let mut state = log.meta.state().clone();
        state.start =
            LogStart { offset: Offset::new(300), index: Index::new(5), previous_term: Term::new(1) };
        log.meta.save(state.clone()).unwrap();
        log.keeper.trim(state.start).unwrap();
        assert_eq!(located(&log, 9, 4).unwrap_err().code, Code::Trimmed);
        assert_eq!(located(&log, 9, 5), Ok((Some(log_id(1, 6)), Some(log_id(1, 5)))));
    }
}
