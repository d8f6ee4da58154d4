//! The checker's own tests: right histories pass, and each way in which a log can go wrong is told by the violation that is meant for it.

use bytes::Bytes;
use loglog_proto::entry::{Kind, Prefix};
use loglog_proto::error::Code;
use loglog_proto::response::Appended;
use loglog_proto::{Length, NodeId, Offset, Sequence, Term, WriterId};
use proptest::prelude::*;

use super::generator::World;
use super::{Enough, Violation, Witness, check};
use crate::history::{
    Answer, Attempt, Author, EndSeen, History, OpId, Operation, Read, ReadAnswer, Tick, Trim, op_of, payload,
};

/// Long enough that whatever a mutation looks for is there.
const STEPS: usize = 400;

/// A right history without trims: all of the log can be judged.
fn whole() -> World {
    World::new(7, STEPS, false)
}

/// One whose begin is trimmed.
fn trimmed() -> World {
    World::new(8, STEPS, true)
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

#[track_caller]
fn rejected(world: &World, is_meant: impl Fn(&Violation) -> bool) {
    let verdict = check(&world.history, &Enough::default());
    assert!(verdict.violations.iter().any(is_meant), "not what was meant: {verdict}");
}

/// Expects a violation of this kind.
macro_rules! rejected {
    ($world:expr, $pattern:pat $(if $guard:expr)?) => {
        rejected(&$world, |violation| matches!(violation, $pattern $(if $guard)?))
    };
}

/// Expects violations of these kinds only.
macro_rules! rejected_only {
    ($world:expr, $pattern:pat) => {{
        rejected!($world, $pattern);
        let verdict = check(&$world.history, &Enough::default());
        assert!(verdict.violations.iter().all(|it| matches!(it, $pattern)), "more than was meant: {verdict}");
    }};
}

/// The last operation that `is_wanted`.
fn pick(history: &mut History, is_wanted: impl Fn(&Operation) -> bool) -> &mut Operation {
    history.operations.iter_mut().rfind(|it| is_wanted(it)).expect("an operation that can be changed so")
}

fn is_wire(operation: &Operation) -> bool {
    matches!(operation.author, Author::Wire { .. })
}

fn is_acknowledged(operation: &Operation) -> bool {
    operation.acknowledged().is_some()
}

/// Acknowledged by its only attempt.
fn is_simple(operation: &Operation) -> bool {
    is_acknowledged(operation) && operation.attempts.len() == 1
}

fn is_conflict(operation: &Operation) -> bool {
    matches!(operation.attempts[..], [Attempt { answer: Some((_, Answer::Conflict { .. })), .. }])
}

fn acknowledgement(operation: &mut Operation) -> &mut Appended {
    let attempts = operation.attempts.iter_mut().rev();
    let answer = attempts.filter_map(|it| it.answer.as_mut()).map(|(_, answer)| answer);
    match answer.into_iter().next() {
        Some(Answer::Acknowledged(appended)) => appended,
        other => panic!("no acknowledgement: {other:?}"),
    }
}

/// The last entry in the log for which this holds.
fn find(entries: &[(Prefix, Bytes)], is_wanted: impl Fn(&Prefix, Option<OpId>) -> bool) -> usize {
    let is_wanted =
        |(prefix, payload): &(Prefix, Bytes)| prefix.kind == Kind::Data && is_wanted(prefix, op_of(payload));
    entries.iter().rposition(is_wanted).expect("an entry that can be changed so")
}

/// The last entry of an operation for which this holds.
fn find_of(world: &World, entries: &[(Prefix, Bytes)], is_wanted: impl Fn(&Operation) -> bool) -> usize {
    find(entries, |_, op| op.is_some_and(|op| is_wanted(world.history.operation(op))))
}

/// Two entries next to each other and equally long, by two authors or one.
fn twins(entries: &[(Prefix, Bytes)], same_author: bool) -> usize {
    let is_twin = |at: &usize| {
        let [(one, _), (other, _)] = &entries[*at..*at + 2] else { return false };
        let is_data = one.kind == Kind::Data && other.kind == Kind::Data;
        is_data && one.last_of_batch && one.term == other.term && (one.writer == other.writer) == same_author
    };
    (0..entries.len() - 1).rev().find(is_twin).expect("two such entries")
}

/// Changes the places of two neighbours; both stay whole batches.
fn swap(entries: &mut [(Prefix, Bytes)], at: usize) {
    let lasts = [entries[at].0.last_of_batch, entries[at + 1].0.last_of_batch];
    entries.swap(at, at + 1);
    (entries[at].0.last_of_batch, entries[at + 1].0.last_of_batch) = (lasts[0], lasts[1]);
}

/// Has every acknowledgement say what is in the log.
fn acknowledge_what_is_there(world: &mut World) {
    let (entries, offsets) = (world.entries(), world.offsets());
    for ((prefix, payload), offset) in entries.iter().zip(offsets) {
        let Some(op) = op_of(payload) else { continue };
        let place = Appended { offset, end: offset + prefix.entry_len(), term: prefix.term };
        let operation = world.history.operations.iter_mut().find(|it| it.id == op).unwrap();
        for (_, answer) in operation.attempts.iter_mut().filter_map(|it| it.answer.as_mut()) {
            if let Answer::Acknowledged(appended) = answer {
                *appended = place;
            }
        }
        if let Some(expected) = &mut operation.expect_end {
            *expected = offset;
        }
    }
    // Where these lie by now, nobody says.
    world.history.operations.retain(|it| !it.attempts.iter().any(is_conflict_answer));
}

fn is_conflict_answer(attempt: &Attempt) -> bool {
    matches!(attempt.answer, Some((_, Answer::Conflict { .. })))
}

#[test]
fn right_histories_pass_and_are_rich() {
    for world in [whole(), trimmed()] {
        let enough = Enough::acks(300).leader_changes(10).faults("kill", 10);
        let facts = check(&world.history, &enough).passed();
        assert!(facts.refused > 20 && facts.reads > 150 && facts.certain_ends > 20, "{facts}");
        let lost = |it: &&Operation| it.attempts.last().is_some_and(|it| it.answer.is_none());
        assert!(world.history.operations.iter().filter(lost).count() > 10);
        assert!(world.history.operations.iter().filter(|it| it.attempts.len() > 2).count() > 10);
    }
    assert!(trimmed().history.trims.len() > 10);
}

#[test]
fn what_is_rewritten_without_a_change_passes() {
    let mut world = whole();
    let entries = world.entries();
    world.rewrite(&entries);
    let _ = check(&world.history, &Enough::default()).passed();
    acknowledge_what_is_there(&mut world);
    let _ = check(&world.history, &Enough::default()).passed();
}

// The log itself.

#[test]
fn no_log_at_all() {
    let mut world = whole();
    world.history.finals.clear();
    rejected_only!(world, Violation::NoFinalLog);
}

#[test]
fn a_byte_that_differs_on_one_node() {
    let mut world = whole();
    let mut log = world.history.finals[1].log.to_vec();
    log[5000] ^= 1;
    world.history.finals[1].log = Bytes::from(log);
    rejected_only!(world, Violation::NodesDiffer { .. });
}

#[test]
fn a_byte_changed_on_all_nodes() {
    let mut world = whole();
    world.log[5000] ^= 1;
    world.everywhere();
    rejected!(world, Violation::NotFramed(_));
}

#[test]
fn a_node_with_fewer_bytes_than_it_says() {
    let mut world = whole();
    let log = &mut world.history.finals[0].log;
    *log = log.slice(..log.len() - 1);
    rejected!(world, Violation::FinalCutShort { .. });
}

#[test]
fn a_node_that_has_committed_half_an_entry() {
    let mut world = whole();
    let last = &mut world.history.finals[2];
    last.committed = last.committed.saturating_back(Length::new(3));
    rejected_only!(world, Violation::CommittedWithinBatch { .. });
}

#[test]
fn a_log_that_ends_within_an_entry() {
    let mut world = whole();
    world.log.extend_from_slice(&[0; 10]);
    world.everywhere();
    rejected_only!(world, Violation::EntryCutShort { .. });
}

#[test]
fn zeros_in_the_log() {
    let mut world = whole();
    world.log.extend_from_slice(&[0; 100]);
    world.everywhere();
    rejected_only!(world, Violation::NotFramed(_));
}

#[test]
fn a_batch_that_has_no_end() {
    let mut world = whole();
    let mut entries = world.entries();
    entries.last_mut().unwrap().0.last_of_batch = false;
    world.rewrite(&entries);
    rejected!(world, Violation::BatchNotEnded { .. });
}

#[test]
fn a_batch_that_goes_on_in_another_term() {
    let mut world = whole();
    let mut entries = world.entries();
    let noop = entries.iter().rposition(|(prefix, _)| prefix.kind == Kind::Noop).unwrap();
    entries[noop - 1].0.last_of_batch = false;
    world.rewrite(&entries);
    rejected!(world, Violation::BatchNotEnded { .. });
}

#[test]
fn a_term_that_sinks() {
    let mut world = whole();
    let mut entries = world.entries();
    entries.last_mut().unwrap().0.term = Term::new(1);
    world.rewrite(&entries);
    rejected!(world, Violation::TermSank { .. });
}

#[test]
fn a_term_without_a_noop() {
    let mut world = whole();
    let mut entries = world.entries();
    let noop = entries.iter().rposition(|(prefix, _)| prefix.kind == Kind::Noop).unwrap();
    entries.remove(noop);
    world.rewrite(&entries);
    rejected!(world, Violation::TermNotOpened { .. });
}

// What is in it.

#[test]
fn other_bytes_under_a_right_checksum() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = find(&entries, |prefix, _| prefix.payload_len > 20);
    let mut payload = entries[at].1.to_vec();
    payload[15] ^= 1;
    entries[at].1 = Bytes::from(payload);
    world.rewrite(&entries);
    rejected!(world, Violation::Stranger { .. });
}

#[test]
fn an_entry_that_nobody_invoked() {
    let mut world = whole();
    let mut entries = world.entries();
    let (mut prefix, _) = *entries.last().unwrap();
    (prefix.kind, prefix.writer, prefix.last_of_batch) = (Kind::Data, WriterId::new(99), true);
    entries.push((prefix, payload(OpId::new(1 << 40))));
    world.rewrite(&entries);
    rejected_only!(world, Violation::NeverSent { .. });
}

#[test]
fn an_entry_that_was_never_sent() {
    let mut world = whole();
    let entries = world.entries();
    let at = find_of(&world, &entries, |it| !is_acknowledged(it));
    let op = op_of(&entries[at].1).unwrap();
    pick(&mut world.history, |it| it.id == op).attempts.clear();
    rejected!(world, Violation::NeverSent { .. });
}

#[test]
fn an_entry_under_anothers_name() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = find_of(&world, &entries, is_wire);
    entries[at].0.writer = WriterId::new(77);
    world.rewrite(&entries);
    rejected!(world, Violation::WrongAuthor { .. });
}

#[test]
fn an_entry_with_another_sequence() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = find_of(&world, &entries, is_wire);
    entries[at].0.sequence = Sequence::new(entries[at].0.sequence.get() + 1);
    world.rewrite(&entries);
    rejected!(world, Violation::WrongAuthor { .. });
}

#[test]
fn an_entry_twice() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = find(&entries, |prefix, _| prefix.last_of_batch);
    let (mut prefix, payload) = entries[at].clone();
    (prefix.last_of_batch, prefix.term) = (true, entries.last().unwrap().0.term);
    entries.push((prefix, payload));
    world.rewrite(&entries);
    rejected!(world, Violation::Twice { .. });
    rejected!(world, Violation::SequenceOrder { .. });
}

#[test]
fn a_writers_entries_in_the_wrong_order() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = twins(&entries, true);
    swap(&mut entries, at);
    world.rewrite(&entries);
    acknowledge_what_is_there(&mut world);
    rejected!(world, Violation::SequenceOrder { .. });
}

#[test]
fn a_pipelines_entries_in_the_wrong_order() {
    let mut world = whole();
    let mut entries = world.entries();
    let of_pipeline = |it: &Operation| !is_wire(it);
    let later = find_of(&world, &entries, of_pipeline);
    let (writer, sequence) = (entries[later].0.writer, entries[later].0.sequence);
    let earlier = find(&entries, |prefix, _| prefix.writer == writer && prefix.sequence < sequence);
    let payload = entries[later].1.clone();
    entries[later].1 = std::mem::replace(&mut entries[earlier].1, payload);
    world.rewrite(&entries);
    rejected!(world, Violation::PipelineOrder { .. });
}

/// Takes an entry out of the log that was not acknowledged and that its writer's next one names.
fn without(is_wanted: impl Fn(&Operation) -> bool, answer: Option<(Tick, Answer)>) -> World {
    let mut world = whole();
    let mut entries = world.entries();
    let last = find_of(&world, &entries, &is_wanted);
    let writer = entries[last].0.writer;
    let at = find(&entries[..last], |prefix, _| prefix.writer == writer && !prefix.last_of_batch);
    let op = op_of(&entries.remove(at).1).unwrap();
    for attempt in &mut pick(&mut world.history, |it| it.id == op).attempts {
        attempt.answer = answer;
    }
    world.rewrite(&entries);
    acknowledge_what_is_there(&mut world);
    world
}

#[test]
fn a_hole_in_a_writers_order() {
    rejected_only!(without(is_wire, Some((Tick::new(0), Answer::Unknown))), Violation::Hole { .. });
}

#[test]
fn a_hole_in_a_pipeline() {
    rejected_only!(without(|it| !is_wire(it), None), Violation::Hole { .. });
}

// Answers to appends.

#[test]
fn an_acknowledged_entry_that_is_gone() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = find_of(&world, &entries, is_acknowledged);
    entries.truncate(at);
    entries.last_mut().unwrap().0.last_of_batch = true;
    world.rewrite(&entries);
    world.history.operations.retain(|it| !it.attempts.iter().any(is_conflict_answer));
    rejected_only!(world, Violation::AcknowledgedLost { .. });
}

#[test]
fn acknowledged_at_another_offset() {
    let mut world = whole();
    let place = acknowledgement(pick(&mut world.history, is_simple));
    (place.offset, place.end) = (place.offset + Length::new(1), place.end + Length::new(1));
    rejected!(world, Violation::AcknowledgedElsewhere { .. });
}

#[test]
fn acknowledged_with_another_end() {
    let mut world = whole();
    acknowledgement(pick(&mut world.history, is_simple)).end += Length::new(1);
    rejected!(world, Violation::AcknowledgedElsewhere { .. });
}

#[test]
fn acknowledged_in_another_term() {
    let mut world = whole();
    let place = acknowledgement(pick(&mut world.history, is_simple));
    place.term = Term::new(place.term.get() + 1);
    rejected_only!(world, Violation::AcknowledgedElsewhere { .. });
}

/// Two neighbours that were acknowledged where nobody can look any more.
fn unseen(world: &mut World) -> [usize; 2] {
    world.history.reads.clear();
    world.history.sightings.clear();
    let start = world.history.finals.iter().map(|it| it.start).min().unwrap();
    let operations = world.history.operations.iter().enumerate();
    let mut places: Vec<_> = operations.filter_map(|(at, it)| Some((it.acknowledged()?.1, at))).collect();
    places.sort_unstable_by_key(|(place, _)| place.offset);
    let is_unseen = |pair: &&[(Appended, usize)]| pair[0].0.end == pair[1].0.offset && pair[1].0.end < start;
    let pair = places.windows(2).find(is_unseen).expect("two neighbours that are trimmed");
    [pair[0].1, pair[1].1]
}

#[test]
fn acknowledged_with_a_length_that_it_cannot_have_although_it_is_trimmed() {
    let mut world = trimmed();
    let [_, at] = unseen(&mut world);
    for attempt in &mut world.history.operations[at].attempts {
        if let Some((_, Answer::Acknowledged(place))) = &mut attempt.answer {
            place.offset += Length::new(1);
        }
    }
    rejected!(world, Violation::AcknowledgedLength { .. });
}

#[test]
fn two_acknowledged_for_one_place_although_it_is_trimmed() {
    let mut world = trimmed();
    let [one, at] = unseen(&mut world);
    let length = {
        let place = world.history.operations[at].acknowledged().unwrap().1;
        place.end - place.offset
    };
    let there = world.history.operations[one].acknowledged().unwrap().1.offset;
    for attempt in &mut world.history.operations[at].attempts {
        if let Some((_, Answer::Acknowledged(place))) = &mut attempt.answer {
            (place.offset, place.end) = (there, there + length);
        }
    }
    rejected_only!(world, Violation::PlacesOverlap { .. });
}

#[test]
fn retries_that_were_told_different_places() {
    let mut world = whole();
    let operation = pick(&mut world.history, |it| it.acknowledgements().count() == 2);
    acknowledgement(operation).offset += Length::new(1);
    rejected!(world, Violation::RetriesDisagree { .. });
}

#[test]
fn refused_for_good_and_in_the_log() {
    let mut world = whole();
    for attempt in &mut pick(&mut world.history, is_simple).attempts {
        attempt.answer = Some((attempt.answer.unwrap().0, Answer::Refused(Code::NotLeader)));
    }
    rejected_only!(world, Violation::RefusedInLog { code: Code::NotLeader, .. });
}

#[test]
fn refused_for_an_end_beyond_the_expected_one_and_in_the_log_by_an_earlier_copy() {
    let mut world = whole();
    let operation = pick(&mut world.history, |it| it.expect_end.is_some() && is_simple(it));
    let (at, Answer::Acknowledged(place)) = operation.attempts[0].answer.unwrap() else { panic!() };
    operation.attempts[0].answer = None;
    let answer = Some((Tick::new(at.get() + 1), Answer::Conflict { end: place.end }));
    operation.attempts.push(Attempt { sent: at, previous: operation.attempts[0].previous, answer });
    rejected!(world, Violation::RefusedInLog { code: Code::Conflict, .. });
}

#[test]
fn acknowledged_and_refused_for_an_end_beyond_the_expected_one() {
    let mut world = whole();
    let operation = pick(&mut world.history, |it| it.expect_end.is_some() && is_simple(it));
    let (at, place) = operation.acknowledged().unwrap();
    let answer = Some((Tick::new(at.get() + 1), Answer::Conflict { end: place.end }));
    operation.attempts.push(Attempt { sent: at, previous: operation.attempts[0].previous, answer });
    rejected!(world, Violation::RefusedAndAcknowledged { .. });
}

#[test]
fn a_loose_copy_may_be_in_the_log_although_the_next_was_refused() {
    let mut world = whole();
    let operation = pick(&mut world.history, is_simple);
    let at = operation.attempts[0].answer.unwrap().0;
    operation.attempts[0].answer = Some((at, Answer::Refused(Code::TimedOut)));
    let answer = Some((Tick::new(at.get() + 1), Answer::Refused(Code::NotLeader)));
    operation.attempts.push(Attempt { sent: at, previous: operation.attempts[0].previous, answer });
    let _ = check(&world.history, &Enough::default()).passed();
}

#[test]
fn an_expected_end_that_was_ignored() {
    let mut world = whole();
    let expected = &mut pick(&mut world.history, |it| it.expect_end.is_some() && is_simple(it)).expect_end;
    *expected = expected.map(|it| it + Length::new(40));
    rejected_only!(world, Violation::ExpectedEndIgnored { .. });
}

#[test]
fn a_conflict_with_the_very_end_that_was_expected() {
    let mut world = whole();
    let operation = pick(&mut world.history, is_conflict);
    let Some((_, Answer::Conflict { end })) = operation.attempts[0].answer else { panic!() };
    operation.expect_end = Some(end);
    rejected_only!(world, Violation::ConflictUntrue { .. });
}

#[test]
fn a_conflict_with_an_end_that_is_none() {
    let mut world = whole();
    let operation = pick(&mut world.history, is_conflict);
    let Some((_, Answer::Conflict { end })) = &mut operation.attempts[0].answer else { panic!() };
    *end += Length::new(3);
    rejected!(world, Violation::ConflictUntrue { .. });
}

#[test]
fn a_conflict_that_nobody_could_have_met() {
    let mut world = whole();
    pick(&mut world.history, is_conflict).expect_end = None;
    rejected_only!(world, Violation::ConflictUntrue { .. });
}

// Time.

#[test]
fn a_conflict_judged_by_an_old_end() {
    let mut world = whole();
    let first = world.offsets()[1];
    let operation = pick(&mut world.history, is_conflict);
    let (_, answer) = operation.attempts[0].answer.as_mut().unwrap();
    *answer = Answer::Conflict { end: first };
    operation.expect_end = Some(Offset::ZERO);
    rejected!(world, Violation::StaleConflict { .. });
}

#[test]
fn swapped_entries_of_two_writers() {
    let mut world = whole();
    let mut entries = world.entries();
    let at = twins(&entries, false);
    swap(&mut entries, at);
    world.rewrite(&entries);
    rejected!(world, Violation::AcknowledgedElsewhere { .. });
}

#[test]
fn an_entry_before_one_that_was_acknowledged_before_it_was_invoked() {
    let mut world = whole();
    let mut entries = world.entries();
    let is_over = |it: &Operation| is_acknowledged(it) && is_wire(it);
    let pair = |at: &usize| {
        let ops = [0, 1].map(|it| op_of(&entries[at + it].1).map(|op| world.history.operation(op)));
        let [Some(one), Some(other)] = ops else { return false };
        let is_later = one.acknowledged().is_some_and(|(at, _)| at < other.invoked);
        is_over(one) && is_over(other) && is_later && entries[*at].0.writer != entries[at + 1].0.writer
    };
    let at = (0..entries.len() - 1).rev().find(pair).expect("one after the other");
    swap(&mut entries, at);
    world.rewrite(&entries);
    acknowledge_what_is_there(&mut world);
    rejected_only!(world, Violation::RealTimeOrder { .. });
}

#[test]
fn an_entry_in_a_part_that_was_read_before_it_was_invoked() {
    let mut world = whole();
    for operation in &mut world.history.operations {
        // Without acknowledgements only readers tell.
        operation.attempts.retain_mut(|it| {
            it.answer = it.answer.filter(|(_, it)| !matches!(it, Answer::Acknowledged(_)));
            true
        });
    }
    let is_read = |it: &&Read| matches!(it.answer, ReadAnswer::Data { end, .. } if end > Offset::ZERO);
    let read = world.history.reads.iter().rfind(is_read).unwrap().clone();
    let ReadAnswer::Data { end, .. } = read.answer else { panic!() };
    let (entries, offsets) = (world.entries(), world.offsets());
    let below = offsets.iter().filter(|it| **it < end).count();
    let at = find(&entries[..below], |_, _| true);
    let op = op_of(&entries[at].1).unwrap();
    pick(&mut world.history, |it| it.id == op).invoked = Tick::new(read.completed.get() + 1);
    rejected_only!(world, Violation::WrittenIntoThePast { .. });
}

/// The last linearizable end.
fn last_certain(world: &mut World) -> &mut EndSeen {
    world.history.ends.iter_mut().rfind(|it| it.linearizable).unwrap()
}

#[test]
fn a_linearizable_end_before_what_was_acknowledged() {
    let mut world = whole();
    let first = world.offsets()[1];
    last_certain(&mut world).end = first;
    rejected!(world, Violation::StaleEnd { .. });
}

#[test]
fn a_linearizable_end_that_went_back() {
    let mut world = whole();
    let first = world.offsets()[1];
    last_certain(&mut world).end = first;
    rejected!(world, Violation::EndWentBack { .. });
}

#[test]
fn a_linearizable_end_before_what_a_reader_saw() {
    let mut world = whole();
    let first = world.offsets()[1];
    last_certain(&mut world).end = first;
    rejected!(world, Violation::EndBehindSeen { fact, .. } if !matches!(fact.by, Witness::Acknowledged(_)));
}

#[test]
fn an_old_end_is_right_where_no_linearizable_one_was_asked_for() {
    let mut world = whole();
    let first = world.offsets()[1];
    let seen = last_certain(&mut world);
    (seen.end, seen.linearizable) = (first, false);
    let _ = check(&world.history, &Enough::default()).passed();
}

// Readers.

/// A read that brought some bytes, for which this holds.
fn read(world: &mut World, is_wanted: impl Fn(&Read) -> bool) -> (&mut Read, Bytes, Offset) {
    let is_wanted = |it: &&mut Read| {
        matches!(&it.answer, ReadAnswer::Data { bytes, .. } if bytes.len() > 10) && is_wanted(it)
    };
    let read = world.history.reads.iter_mut().rfind(is_wanted).expect("a read that can be changed so");
    let ReadAnswer::Data { bytes, end } = &read.answer else { panic!() };
    let (bytes, end) = (bytes.clone(), *end);
    (read, bytes, end)
}

#[test]
fn a_read_with_another_byte() {
    let mut world = whole();
    let (read, bytes, end) = read(&mut world, |_| true);
    let mut bytes = bytes.to_vec();
    bytes[5] ^= 1;
    read.answer = ReadAnswer::Data { bytes: Bytes::from(bytes), end };
    rejected_only!(world, Violation::ReadDiffers { .. });
}

#[test]
fn a_byte_that_changed_between_two_reads_and_is_trimmed_by_now() {
    let mut world = trimmed();
    let start = world.history.finals.iter().map(|it| it.start).min().unwrap();
    let (read, bytes, end) = read(&mut world, |it| it.offset + Length::new(11) < start);
    let mut again = read.clone();
    let mut bytes = bytes.to_vec();
    bytes[5] ^= 1;
    again.answer = ReadAnswer::Data { bytes: Bytes::from(bytes), end };
    world.history.reads.push(again);
    rejected_only!(world, Violation::ByteChanged { .. });
}

#[test]
fn an_acknowledged_entry_that_readers_saw_otherwise_before_it_was_trimmed() {
    let mut world = trimmed();
    let start = world.history.finals.iter().map(|it| it.start).min().unwrap();
    // A reader of all that was trimmed.
    let bytes = Bytes::copy_from_slice(&world.log[..usize::try_from(start.get()).unwrap()]);
    let (offset, limit, now) = (Offset::ZERO, 1 << 30, Tick::new(1 << 30));
    let answer = ReadAnswer::Data { bytes, end: start };
    let (node, invoked, completed) = (node(1), now, now);
    world.history.reads.push(Read { node, offset, limit, invoked, completed, answer });
    let _ = check(&world.history, &Enough::default()).passed();
    let place = acknowledgement(pick(&mut world.history, |it| {
        is_simple(it) && it.acknowledged().is_some_and(|(_, it)| it.end < start)
    }));
    place.term = Term::new(place.term.get() + 1);
    rejected_only!(world, Violation::AcknowledgedElsewhere { .. });
}

#[test]
fn a_read_beyond_the_committed_end() {
    let mut world = whole();
    let (read, bytes, _) = read(&mut world, |_| true);
    read.answer = ReadAnswer::Data { bytes, end: read.offset };
    rejected!(world, Violation::ReadBeyondEnd { .. });
}

#[test]
fn a_read_longer_than_asked_for() {
    let mut world = whole();
    read(&mut world, |_| true).0.limit = 3;
    rejected_only!(world, Violation::ReadTooLong { .. });
}

#[test]
fn an_end_beyond_all_there_is() {
    let mut world = whole();
    let seen = world.history.ends.iter_mut().rfind(|it| !it.linearizable).unwrap();
    seen.end = Offset::new(1 << 40);
    rejected!(world, Violation::EndBeyondFinal { .. });
}

#[test]
fn an_end_within_an_entry() {
    let mut world = whole();
    let seen = world.history.ends.iter_mut().rfind(|it| !it.linearizable && it.end > Offset::ZERO).unwrap();
    seen.end = seen.end.saturating_back(Length::new(1));
    rejected_only!(world, Violation::EndWithinBatch { .. });
}

#[test]
fn an_end_within_a_batch() {
    let mut world = whole();
    let (entries, offsets) = (world.entries(), world.offsets());
    let seen = world.history.ends.iter_mut().rfind(|it| !it.linearizable && it.end > Offset::ZERO).unwrap();
    let below = offsets.iter().filter(|it| **it < seen.end).count();
    let within = (1..below).rev().find(|it| !entries[it - 1].0.last_of_batch).unwrap();
    seen.end = offsets[within];
    rejected_only!(world, Violation::EndWithinBatch { .. });
}

#[test]
fn beyond_the_end_where_it_is_not() {
    let mut world = whole();
    let is_beyond = |it: &&mut Read| matches!(it.answer, ReadAnswer::BeyondEnd { .. });
    let read = world.history.reads.iter_mut().rfind(is_beyond).unwrap();
    read.offset = Offset::ZERO;
    rejected_only!(world, Violation::BeyondEndUntrue { .. });
}

#[test]
fn a_reader_that_saw_an_entry_elsewhere() {
    let mut world = whole();
    let [.., one, other] = &mut world.history.sightings[..] else { panic!() };
    std::mem::swap(&mut one.op, &mut other.op);
    rejected_only!(world, Violation::SightingDiffers { .. });
}

#[test]
fn a_reader_that_saw_something_that_nobody_appended() {
    let mut world = whole();
    world.history.sightings.last_mut().unwrap().op = None;
    rejected_only!(world, Violation::SightingDiffers { .. });
}

#[test]
fn a_reader_that_saw_an_entry_twice() {
    let mut world = whole();
    let last = *world.history.sightings.last().unwrap();
    world.history.sightings.push(last);
    rejected_only!(world, Violation::SightingOrder { .. });
}

#[test]
fn a_reader_that_left_an_entry_out() {
    let mut world = whole();
    let reader = world.history.sightings[0].reader;
    let of_reader: Vec<usize> = (0..world.history.sightings.len())
        .filter(|it| world.history.sightings[*it].reader == reader)
        .collect();
    world.history.sightings.remove(of_reader[of_reader.len() / 2]);
    rejected_only!(world, Violation::SightingOrder { .. });
}

// Trims.

#[test]
fn more_trimmed_than_was_asked_for() {
    let mut world = trimmed();
    world.history.trims.clear();
    rejected_only!(world, Violation::TrimmedTooFar { .. });
}

#[test]
fn trimmed_before_it_was_asked_for() {
    let mut world = trimmed();
    for trim in &mut world.history.trims {
        (trim.invoked, trim.answer) = (Tick::new(1 << 30), None);
    }
    rejected_only!(world, Violation::TrimmedTooFar { .. });
}

#[test]
fn a_trim_that_was_acknowledged_and_undone() {
    let mut world = trimmed();
    let log = Bytes::copy_from_slice(&world.log);
    for of in &mut world.history.finals {
        let committed = usize::try_from(of.committed.get()).unwrap();
        (of.start, of.log) = (Offset::ZERO, log.slice(..committed));
    }
    rejected_only!(world, Violation::StartWentBack { .. });
}

#[test]
fn a_log_that_begins_within_an_entry() {
    let mut world = trimmed();
    let asked = Offset::new(world.log.len() as u64);
    world.history.trims.insert(0, Trim { asked, invoked: Tick::new(0), answer: None });
    let log = &mut world.history.finals[0];
    (log.start, log.log) = (log.start + Length::new(1), log.log.slice(1..));
    rejected_only!(world, Violation::StartWithinEntry { .. });
}

#[test]
fn trimmed_where_it_is_not() {
    let mut world = trimmed();
    let is_trimmed = |it: &&mut Read| matches!(it.answer, ReadAnswer::Trimmed { .. });
    let read = world.history.reads.iter_mut().rfind(is_trimmed).unwrap();
    let ReadAnswer::Trimmed { start } = read.answer else { panic!() };
    read.offset = start;
    rejected_only!(world, Violation::TrimmedUntrue { .. });
}

// The history itself.

#[test]
fn a_run_in_which_too_little_happened() {
    let world = whole();
    for enough in [
        Enough::acks(1 << 20),
        Enough::default().leader_changes(1 << 20),
        Enough::default().faults("kill", 1 << 20),
        Enough::default().faults("flood", 1),
    ] {
        let verdict = check(&world.history, &enough);
        assert!(matches!(verdict.violations[..], [Violation::TooLittle { .. }]), "{verdict}");
    }
}

#[test]
fn operations_that_have_one_name() {
    let mut world = whole();
    let author = world.history.operations[0].author;
    world.history.operations.last_mut().unwrap().author = author;
    rejected!(world, Violation::NamedAlike { .. });
}

#[test]
fn every_violation_is_told_in_one_line() {
    let mut world = whole();
    world.history.finals[0].log = Bytes::new();
    for violation in check(&world.history, &Enough::acks(1 << 20)).violations {
        assert!(!violation.to_string().contains('\n'), "{violation:?}");
    }
}

#[test]
fn ten_thousand_operations_are_judged_soon() {
    let world = World::new(9, 8_000, true);
    let began = std::time::Instant::now();
    let facts = check(&world.history, &Enough::acks(7_000)).passed();
    println!("{facts} in {:?}", began.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_right_history_passes(seed in any::<u64>(), steps in 0_usize..150, with_trims in any::<bool>()) {
        let world = World::new(seed, steps, with_trims);
        let verdict = check(&world.history, &Enough::default());
        prop_assert!(verdict.is_pass(), "{verdict}");
    }

    /// Whatever byte of whatever node or read is another: it is noticed.
    #[test]
    fn every_changed_byte_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut world = World::new(seed, 60, true);
        let of = &mut world.history.finals[0];
        let committed = usize::try_from((of.committed - of.start).get()).unwrap();
        let mut log = of.log.to_vec();
        log[at.index(committed)] ^= 1 << bit;
        of.log = Bytes::from(log);
        prop_assert!(!check(&world.history, &Enough::default()).is_pass());
    }
}
