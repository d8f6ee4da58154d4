//! The writers' table against the rules S27 and S28.

use bytes::Bytes;
use loglog_proto::error::Code;
use proptest::prelude::*;

use super::*;

const LENGTH: Length = Length::new(40);
const MEMORY: Length = Length::new(400);
const SEQUENCES: usize = 4;

fn append(writer: u64, previous: Option<u64>, sequence: u64, known_end: Option<u64>) -> Append {
    Append {
        writer: WriterId::new(writer),
        previous: previous.map(Sequence::new),
        sequence: Sequence::new(sequence),
        known_end: known_end.map(Offset::new),
        expect_end: None,
        payload: Bytes::new(),
        payload_crc: 0,
    }
}

fn table() -> Writers {
    Writers::new(MEMORY, SEQUENCES, Offset::ZERO)
}

fn record(table: &mut Writers, writer: u64, sequence: u64, offset: u64) {
    table.record(WriterId::new(writer), Sequence::new(sequence), Offset::new(offset), LENGTH, Term::new(1));
}

fn code(decision: Decision) -> Option<Code> {
    match decision {
        Decision::Refuse(refusal) => Some(refusal.code),
        _ => None,
    }
}

#[test]
fn s28_decides_in_order() {
    let mut table = table();
    let end = Offset::new(80);
    record(&mut table, 7, 5, 0);
    record(&mut table, 7, 6, 40);
    assert_eq!(code(table.decide(&append(8, None, 1, None), end)), Some(Code::UnknownWriter));
    assert_eq!(table.decide(&append(8, None, 1, Some(0)), end), Decision::Go);
    assert_eq!(code(table.decide(&append(8, Some(1), 2, Some(0)), end)), Some(Code::OutOfOrder));
    let Decision::Repeat(appended) = table.decide(&append(7, None, 5, Some(0)), end) else { panic!() };
    assert_eq!((appended.offset, appended.end), (Offset::ZERO, Offset::new(40)));
    assert_eq!(code(table.decide(&append(7, None, 4, Some(0)), end)), Some(Code::UnknownWriter));
    assert_eq!(table.decide(&append(7, Some(6), 7, None), end), Decision::Go);
    assert_eq!(code(table.decide(&append(7, Some(5), 7, None), end)), Some(Code::OutOfOrder));
    assert_eq!(code(table.decide(&append(7, None, 7, Some(0)), end)), Some(Code::OutOfOrder));
    let conditional = Append { expect_end: Some(Offset::new(40)), ..append(7, Some(6), 7, None) };
    assert_eq!(code(table.decide(&conditional, end)), Some(Code::Conflict));
    assert_eq!(table.decide(&Append { expect_end: Some(end), ..conditional }, end), Decision::Go);
}

#[test]
fn s28_an_end_older_than_the_table_proves_nothing() {
    let table = table();
    let end = Offset::new(1000);
    assert_eq!(code(table.decide(&append(7, None, 1, Some(599)), end)), Some(Code::UnknownWriter));
    assert_eq!(table.decide(&append(7, None, 1, Some(600)), end), Decision::Go);
}

#[test]
fn s27_a_writer_is_forgotten_a_while_after_its_last_entry() {
    let mut table = table();
    record(&mut table, 7, 1, 0);
    table.commit(Offset::new(40));
    assert!(matches!(table.decide(&append(7, None, 1, Some(0)), Offset::new(400)), Decision::Repeat(_)));
    assert_eq!(code(table.decide(&append(7, None, 1, Some(0)), Offset::new(401))), Some(Code::UnknownWriter));
    table.commit(Offset::new(1000));
    assert!(table.is_empty());
}

#[test]
fn s27_only_the_last_sequences_are_listed() {
    let mut table = table();
    for sequence in 1..=6 {
        record(&mut table, 7, sequence, sequence * 40);
    }
    let end = Offset::new(280);
    assert_eq!(code(table.decide(&append(7, Some(1), 2, None), end)), Some(Code::UnknownWriter));
    assert!(matches!(table.decide(&append(7, Some(2), 3, None), end), Decision::Repeat(_)));
    // The list shrinks with the log, and older ones come back into it.
    table.roll_back(Offset::new(240));
    assert!(matches!(table.decide(&append(7, Some(1), 2, None), Offset::new(240)), Decision::Repeat(_)));
}

#[test]
fn s27_a_trim_shortens_what_is_remembered() {
    let mut table = table();
    record(&mut table, 7, 1, 0);
    table.commit(Offset::new(40));
    table.trim(Offset::new(40));
    assert_eq!(code(table.decide(&append(7, None, 1, Some(0)), Offset::new(40))), Some(Code::UnknownWriter));
    assert_eq!(table.decide(&append(7, None, 1, Some(40)), Offset::new(40)), Decision::Go);
}

proptest! {
    /// Whatever was appended, committed and rolled back: the table answers as one rebuilt from the log.
    #[test]
    fn s27_the_table_is_a_function_of_the_log(
        steps in proptest::collection::vec((0u8..10, 1u64..4, 0usize..6), 1..120),
    ) {
        let mut table = table();
        let mut log: Vec<(u64, u64, u64)> = Vec::new();
        let (mut end, mut committed) = (0u64, 0u64);
        let mut last = HashMap::<u64, u64>::new();
        for (step, writer, count) in steps {
            match step {
                0 => {
                    let keep = log.iter().filter(|(_, _, at)| *at < committed).count();
                    let keep = keep + (log.len() - keep) * count / 6;
                    end = log.get(keep).map_or(end, |(_, _, at)| *at);
                    log.truncate(keep);
                    table.roll_back(Offset::new(end));
                    last = log.iter().map(|(writer, sequence, _)| (*writer, *sequence)).collect();
                }
                1 | 2 => {
                    committed = log.iter().map(|(_, _, at)| at + 40).filter(|to| *to > committed).nth(count).unwrap_or(committed);
                    table.commit(Offset::new(committed));
                }
                _ => {
                    let sequence = last.get(&writer).map_or(1, |last| last + 1);
                    record(&mut table, writer, sequence, end);
                    log.push((writer, sequence, end));
                    last.insert(writer, sequence);
                    end += 40;
                }
            }
            let mut rebuilt = Writers::new(MEMORY, SEQUENCES, Offset::ZERO);
            for (writer, sequence, at) in log.iter().filter(|(_, _, at)| at + MEMORY.get() >= end) {
                record(&mut rebuilt, *writer, *sequence, *at);
            }
            for writer in 1..4 {
                let known = last.get(&writer).copied().unwrap_or(0);
                for sequence in known.saturating_sub(8)..known + 2 {
                    for previous in [None, Some(known)] {
                        if previous.is_some_and(|previous| previous >= sequence) { continue; }
                        let asked = append(writer, previous, sequence, Some(end.saturating_sub(100)));
                        prop_assert_eq!(table.decide(&asked, Offset::new(end)), rebuilt.decide(&asked, Offset::new(end)));
                    }
                }
            }
        }
    }
}
