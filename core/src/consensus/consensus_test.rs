//! Consensus with one voter, driven by a shell that syncs when it is told to.

use std::collections::HashSet;

use loglog_proto::error::Code;
use loglog_proto::limits::{PAYLOAD_BYTES_MAX, WRITER_MEMORY, WRITER_SEQUENCES_MAX};
use loglog_proto::peer::{RaftEntry, RaftKind, RaftMessage};
use loglog_proto::{ClusterId, Incarnation, NodeId};
use loglog_storage::{LogStart, Member, Membership, RecoveredEntry};
use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::batch::Reference;
use crate::write_queue::WriteGroup;

fn meta() -> MetaState {
    let (node, incarnation) = (NodeId::new(1).unwrap(), Incarnation::new(7).unwrap());
    let member = Member {
        id: RaftId::new(node, incarnation),
        peer_address: "127.0.0.1:1".into(),
        client_address: "127.0.0.1:2".into(),
    };
    MetaState {
        cluster: ClusterId::new(5).unwrap(),
        node,
        incarnation,
        term: Term::new(1),
        vote: None,
        membership: Membership { index: Index::new(1), voters: vec![member], learners: Vec::new() },
        start: LogStart { offset: Offset::ZERO, index: Index::new(2), previous_term: Term::new(1) },
        segment_bytes_max: Length::new(1 << 20),
    }
}

/// The disk and the clients of a node.
struct Shell {
    consensus: Consensus<u64>,
    meta: MetaState,
    mark: Mark,
    written: Vec<NewBatch>,
    unsynced: VecDeque<WriteGroup>,
    answers: Vec<(u64, Answer)>,
}

impl Shell {
    fn new() -> Self {
        let mark = Mark { index: Index::new(1), offset: Offset::ZERO };
        Self::recover(meta(), mark, Vec::new())
    }

    fn recover(meta: MetaState, mark: Mark, written: Vec<NewBatch>) -> Self {
        let mut writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, Offset::ZERO);
        let mut terms: Vec<(Index, Term)> = Vec::new();
        let mut tail = Vec::new();
        for batch in &written {
            if terms.last().is_none_or(|(_, term)| *term < batch.log_id.term) {
                terms.push((batch.log_id.index, batch.log_id.term));
            }
            let mut end = batch.offset;
            let mut entries = Vec::new();
            for new in &batch.entries {
                if new.kind == Kind::Data {
                    writers.record(new.writer, new.sequence, end, entry_len(new), batch.log_id.term);
                }
                entries.push(RecoveredEntry {
                    kind: new.kind,
                    writer: new.writer,
                    sequence: new.sequence,
                    offset: end,
                    payload_len: u32::try_from(new.payload.len()).unwrap(),
                    payload_crc: new.payload_crc,
                    payload: if new.kind == Kind::Data { Bytes::new() } else { new.payload.clone() },
                });
                end += entry_len(new);
            }
            if batch.log_id.index > mark.index {
                tail.push(RecoveredBatch { log_id: batch.log_id, offset: batch.offset, end, entries });
            }
        }
        writers.commit(mark.offset);
        let recovery = Recovery { meta: meta.clone(), mark, tail, terms, writers };
        let logger = Logger::root(slog::Discard, slog::o!());
        let consensus = Consensus::new(Settings::default(), recovery, StdRng::seed_from_u64(1), &logger);
        Self { consensus, meta, mark, written, unsynced: VecDeque::new(), answers: Vec::new() }
    }

    fn turn(&mut self) {
        let effects = self.consensus.turn(1234);
        if let Some(meta) = effects.save {
            self.meta = *meta;
        }
        self.unsynced.extend(effects.groups);
        if let Some(mark) = effects.mark {
            assert!(mark.offset >= self.mark.offset, "the mark never sinks");
            assert!(mark.offset <= self.synced_end(), "the mark never passes what is synced");
            self.mark = mark;
        }
        self.answers.extend(effects.answers);
    }

    fn sync(&mut self) -> bool {
        let Some(group) = self.unsynced.pop_front() else { return false };
        for batch in group.batches.iter().cloned() {
            assert_eq!(batch.offset, self.synced_end(), "batches are contiguous");
            self.written.push(batch);
        }
        self.consensus.synced(group.number);
        self.turn();
        true
    }

    fn settle(&mut self) {
        self.turn();
        while self.sync() {}
    }

    fn synced_end(&self) -> Offset {
        self.written.last().map_or(Offset::ZERO, |batch| {
            batch.entries.iter().fold(batch.offset, |end, entry| end + entry_len(entry))
        })
    }

    fn append(&mut self, token: u64, writer: u64, previous: Option<u64>, sequence: u64) {
        self.append_expecting(token, writer, previous, sequence, None);
    }

    fn append_expecting(
        &mut self,
        token: u64,
        writer: u64,
        previous: Option<u64>,
        sequence: u64,
        end: Option<u64>,
    ) {
        let payload = Bytes::from(format!("{writer}:{sequence}"));
        let append = Append {
            writer: WriterId::new(writer),
            previous: previous.map(Sequence::new),
            sequence: Sequence::new(sequence),
            known_end: Some(Offset::ZERO),
            expect_end: end.map(Offset::new),
            payload_crc: loglog_proto::crc32c(&payload),
            payload,
        };
        self.consensus.append(token, append);
    }

    fn answer(&self, token: u64) -> Option<&Answer> {
        let mut found = self.answers.iter().filter(|(to, _)| *to == token).map(|(_, answer)| answer);
        let first = found.next();
        assert!(found.next().is_none(), "one answer each");
        first
    }

    fn code(&self, token: u64) -> Option<Code> {
        match self.answer(token) {
            Some(Answer::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    }

    fn appended(&self, token: u64) -> Option<Appended> {
        match self.answer(token) {
            Some(Answer::Appended(appended)) => Some(*appended),
            _ => None,
        }
    }
}

#[test]
fn s14_a_sole_voter_leads_once_its_vote_is_to_be_saved() {
    let mut shell = Shell::new();
    shell.turn();
    assert_eq!(shell.consensus.status().role, Role::Leader);
    assert_eq!((shell.meta.term, shell.meta.vote.map(RaftId::node)), (Term::new(2), NodeId::new(1)));
    let noop = &shell.unsynced[0].batches[0];
    assert_eq!(
        (noop.log_id.index, noop.offset, noop.entries[0].kind),
        (Index::new(2), Offset::ZERO, Kind::Noop)
    );
    assert_eq!(&noop.entries[0].payload[..], &1234u64.to_le_bytes());
}

#[test]
fn s01_nothing_is_acknowledged_before_its_sync() {
    let mut shell = Shell::new();
    shell.settle();
    shell.append(1, 7, None, 1);
    shell.turn();
    assert_eq!(shell.answer(1), None);
    let committed = shell.consensus.status().committed;
    shell.turn();
    assert_eq!(shell.answer(1), None);
    shell.sync();
    let appended = shell.appended(1).unwrap();
    assert_eq!(appended.offset, committed.offset);
    assert_eq!(shell.consensus.status().committed.offset, appended.end);
}

#[test]
fn s21_offsets_lie_behind_all_of_rafts_own_entries() {
    let mut shell = Shell::new();
    shell.append(1, 7, None, 1);
    shell.settle();
    assert_eq!(shell.appended(1).unwrap().offset, Offset::new(40), "behind the noop that opens the term");
}

#[test]
fn s28_a_repeat_is_answered_with_the_first_place_once_that_is_committed() {
    let mut shell = Shell::new();
    shell.settle();
    shell.append(1, 7, None, 1);
    shell.turn();
    shell.append(2, 7, None, 1);
    shell.turn();
    assert_eq!((shell.answer(1), shell.answer(2)), (None, None));
    shell.settle();
    assert_eq!(shell.appended(1), shell.appended(2));
    assert_eq!(shell.written.len(), 2, "the noop and one batch");
    shell.append(3, 7, None, 1);
    shell.settle();
    assert_eq!(shell.appended(3), shell.appended(1));
}

#[test]
fn s30_a_refusal_waits_until_what_it_was_judged_by_is_committed() {
    let mut shell = Shell::new();
    shell.settle();
    let end = shell.consensus.status().committed.offset.get();
    shell.append(1, 7, None, 1);
    shell.append_expecting(2, 7, Some(1), 2, Some(end));
    shell.append(3, 7, Some(5), 6);
    shell.turn();
    assert_eq!((shell.answer(2), shell.answer(3)), (None, None));
    shell.settle();
    assert_eq!((shell.code(2), shell.code(3)), (Some(Code::Conflict), Some(Code::OutOfOrder)));
    assert_eq!(shell.written.iter().map(|batch| batch.entries.len()).sum::<usize>(), 2);
}

#[test]
fn s20_a_linearizable_end_before_the_terms_first_commit_is_answered_after_it() {
    let mut shell = Shell::new();
    shell.consensus.end(1);
    shell.turn();
    assert_eq!(shell.answer(1), None);
    shell.settle();
    assert_eq!(shell.answer(1), Some(&Answer::End { start: Offset::ZERO, end: Offset::new(40) }));
}

#[test]
fn s27_after_a_restart_a_repeat_is_still_recognised() {
    let mut shell = Shell::new();
    shell.settle();
    shell.append(1, 7, None, 1);
    shell.settle();
    let first = shell.appended(1).unwrap();
    for mark in [shell.mark, Mark { index: Index::new(1), offset: Offset::ZERO }] {
        let mut again = Shell::recover(shell.meta.clone(), mark, shell.written.clone());
        again.append(2, 7, None, 1);
        again.append(3, 7, Some(1), 2);
        again.settle();
        assert_eq!(again.appended(2), Some(first));
        assert!(again.appended(3).unwrap().offset > first.end, "behind the new term's noop");
        assert_eq!(again.consensus.status().term, Term::new(3));
    }
}

#[test]
fn s12_a_start_trusts_the_mark_and_commits_the_rest_anew() {
    let mut shell = Shell::new();
    shell.settle();
    shell.append(1, 7, None, 1);
    shell.settle();
    let genesis = Mark { index: Index::new(1), offset: Offset::ZERO };
    for mark in [genesis, shell.mark] {
        let mut again = Shell::recover(shell.meta.clone(), mark, shell.written.clone());
        let committed = again.consensus.status().committed;
        assert_eq!(
            (committed.index, committed.offset),
            (mark.index, mark.offset),
            "no more than the mark is certain"
        );
        again.turn();
        assert_eq!(again.consensus.status().committed, committed, "before the new term's noop is synced");
        again.settle();
        assert_eq!(again.consensus.status().committed.offset, again.synced_end());
    }
}

#[test]
fn s12_s16_a_change_of_members_behind_the_mark_is_told_before_anything_is_answered() {
    let mut shell = Shell::new();
    shell.settle();
    shell.append(1, 7, None, 1);
    shell.settle();
    // Saved with its index, as such a change is, and then the node died.
    let mut meta = shell.meta.clone();
    meta.membership.index = shell.mark.index;
    let genesis = Mark { index: Index::new(1), offset: Offset::ZERO };
    let mut again = Shell::recover(meta, genesis, shell.written.clone());
    let told = again.consensus.turn(0).committed.map(|it| (it.index, it.offset));
    assert_eq!(told, Some((shell.mark.index, shell.mark.offset)));
    assert_eq!(again.consensus.turn(0).committed, None, "once");
}

#[test]
fn s16_readers_see_what_was_delivered_and_no_more() {
    let mut shell = Shell::new();
    shell.settle();
    let before = shell.consensus.status().committed;
    shell.append(1, 7, None, 1);
    shell.turn();
    let group = shell.unsynced.pop_front().unwrap();
    shell.consensus.synced(group.number);
    // raft-rs counts it as committed here; nobody was told yet.
    assert_eq!(shell.consensus.status().committed, before);
    assert!(shell.consensus.turn(0).committed.unwrap().offset > before.offset);
}

#[test]
fn s18_timeouts_come_from_the_seed() {
    let timeouts = |seed| {
        let recovery = |meta: MetaState| Recovery {
            mark: Mark { index: Index::new(1), offset: Offset::ZERO },
            tail: Vec::new(),
            terms: Vec::new(),
            writers: Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, Offset::ZERO),
            meta,
        };
        let mut two = meta();
        let other = RaftId::new(NodeId::new(2).unwrap(), Incarnation::new(9).unwrap());
        two.membership.voters.push(Member { id: other, ..two.membership.voters[0].clone() });
        let logger = Logger::root(slog::Discard, slog::o!());
        let settings = Settings::default();
        let mut consensus =
            Consensus::<u64>::new(settings, recovery(two), StdRng::seed_from_u64(seed), &logger);
        let mut drawn = Vec::new();
        for tick in 0..200 {
            consensus.tick();
            let effects = consensus.turn(tick);
            assert!(
                effects.save.is_none() && effects.groups.is_empty(),
                "s18: without a majority nobody's term moves"
            );
            drawn.push(consensus.timeout.2);
        }
        let ticks = settings.election_ticks;
        assert!(drawn.iter().all(|timeout| (ticks..2 * ticks).contains(timeout)));
        drawn
    };
    assert_eq!(timeouts(1), timeouts(1));
    assert_ne!(timeouts(1), timeouts(2));
}

#[test]
fn s37_a_nearly_full_disk_refuses_appends_and_recovers() {
    let mut shell = Shell::new();
    shell.settle();
    shell.consensus.set_available(Settings::default().free_min);
    shell.append(1, 7, None, 1);
    shell.settle();
    assert_eq!(shell.code(1), Some(Code::DiskFull));
    shell.consensus.set_available(u64::MAX);
    shell.append(2, 7, None, 1);
    shell.settle();
    assert!(shell.appended(2).is_some());
}

#[test]
fn large_appends_are_spread_over_batches_and_groups() {
    let mut shell = Shell::new();
    shell.settle();
    for token in 1..=12u64 {
        let payload = Bytes::from(vec![0; 700_000]);
        let append = Append {
            writer: WriterId::new(7),
            previous: (token > 1).then(|| Sequence::new(token - 1)),
            sequence: Sequence::new(token),
            known_end: Some(Offset::ZERO),
            expect_end: None,
            payload_crc: loglog_proto::crc32c(&payload),
            payload,
        };
        shell.consensus.append(token, append);
    }
    shell.turn();
    assert!(shell.unsynced.iter().all(|group| group.batches.len() <= 6));
    shell.settle();
    assert!((1..=12).all(|token| shell.appended(token).is_some()));
}

proptest! {
    /// Appends, repeats, syncs and crashes in any order: every acknowledged one lies once, at its place, in each writer's order.
    #[test]
    fn s28_exactly_once_through_crashes(steps in proptest::collection::vec((0u8..12, 1u64..4), 1..150)) {
        let mut shell = Shell::new();
        let mut acknowledged = Vec::new();
        let mut next = [1u64; 4];
        let mut tokens = 0;
        let mut meaning = Vec::new();
        for (step, writer) in steps {
            let at = usize::try_from(writer).unwrap();
            match step {
                0 => {
                    // A crash: what was synced stays, what was with the writer is gone or not.
                    let mut written = shell.written.clone();
                    if let Some(group) = shell.unsynced.pop_front() && writer == 1 {
                        written.extend(group.batches.iter().cloned());
                    }
                    for (token, answer) in shell.answers.drain(..) {
                        if let Answer::Appended(it) = answer { acknowledged.push((meaning[usize::try_from(token).unwrap()], it)); }
                    }
                    shell = Shell::recover(shell.meta.clone(), shell.mark, written);
                    // What each writer has in the log is where it goes on: the rest of its pipeline is sent again.
                    for (writer, next) in next.iter_mut().enumerate() {
                        let of_writer = shell.written.iter().flat_map(|batch| &batch.entries);
                        let last = of_writer.filter(|it| it.writer.get() == writer as u64).map(|it| it.sequence.get()).max();
                        *next = last.unwrap_or(0) + 1;
                    }
                }
                1 | 2 => shell.turn(),
                3 | 4 => { shell.sync(); }
                5 => shell.settle(),
                _ => {
                    let sequence = if step == 6 { next[at].saturating_sub(1).max(1) } else { next[at] };
                    meaning.push((writer, sequence));
                    shell.append(tokens, writer, (sequence > 1).then(|| sequence - 1), sequence);
                    tokens += 1;
                    next[at] = next[at].max(sequence + 1);
                }
            }
        }
        shell.settle();
        for (token, answer) in shell.answers.drain(..) {
            if let Answer::Appended(it) = answer { acknowledged.push((meaning[usize::try_from(token).unwrap()], it)); }
        }
        let mut seen = HashSet::new();
        let mut places = std::collections::HashMap::new();
        let mut lasts = [0u64; 4];
        for batch in &shell.written {
            let mut at = batch.offset;
            for entry in &batch.entries {
                if entry.kind == Kind::Data {
                    let (writer, sequence) = (entry.writer.get(), entry.sequence.get());
                    prop_assert!(seen.insert((writer, sequence)), "doubled");
                    let last = &mut lasts[usize::try_from(writer).unwrap()];
                    prop_assert_eq!(*last + 1, sequence, "in order, none left out");
                    *last = sequence;
                    places.insert((writer, sequence), at);
                }
                at += entry_len(entry);
            }
        }
        for (what, appended) in acknowledged {
            prop_assert_eq!(places.get(&what), Some(&appended.offset));
        }
    }
}

#[test]
fn a_disk_that_is_slower_than_the_leaders_leaves_the_rest_at_the_gate() {
    let mut meta = meta();
    let own = meta.membership.voters[0].id;
    let leader = RaftId::new(NodeId::new(2).unwrap(), Incarnation::new(7).unwrap());
    let (peer_address, client_address) = ("127.0.0.1:3".into(), "127.0.0.1:4".into());
    meta.membership.voters.push(Member { id: leader, peer_address, client_address });
    let mark = Mark { index: Index::new(1), offset: Offset::ZERO };
    let mut shell = Shell::recover(meta, mark, Vec::new());
    let payload = Bytes::from(vec![0; PAYLOAD_BYTES_MAX]);
    let payload_crc = loglog_proto::crc32c(&payload);
    let bring = |shell: &mut Shell| {
        shell.turn();
        for want in shell.consensus.wanted() {
            shell.consensus.payloads(&want, vec![payload.clone()]).unwrap();
        }
        shell.turn();
    };
    let log_id = |index| LogId { term: Term::new(if index == 1 { 1 } else { 5 }), index: Index::new(index) };
    for index in 2..=9 {
        let reference = Reference {
            writer: WriterId::new(7),
            sequence: Sequence::new(index),
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload_crc,
        };
        let content = Content::Data(vec![reference]).encode();
        let before = log_id(index - 1);
        let message = RaftMessage {
            kind: RaftKind::Append,
            from: leader,
            to: own,
            term: Term::new(5),
            log_term: before.term,
            index: before.index,
            commit: Index::new(1),
            commit_term: Term::new(1),
            reject: false,
            reject_hint: Index::ZERO,
            context: Bytes::new(),
            entries: vec![RaftEntry { log_id: log_id(index), content, inline: Bytes::new() }],
        };
        shell.consensus.step(1, message).unwrap();
        bring(&mut shell);
    }
    // Two are being written, four wait: 64 MiB.
    assert_eq!(shell.consensus.raw.store().last(), log_id(7));
    while shell.sync() {
        bring(&mut shell);
    }
    let written: Vec<LogId> = shell.written.iter().map(|batch| batch.log_id).collect();
    assert_eq!(written, (2..=9).map(log_id).collect::<Vec<_>>());
}
