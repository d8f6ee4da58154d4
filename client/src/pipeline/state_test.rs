//! The state's single decisions, one a test; the runs with everything at once are in `sim_test.rs`.

use std::time::Duration;

use bytes::Bytes;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::Append;
use loglog_proto::response::Appended;
use loglog_proto::{Length, Offset, Sequence, Term};

use super::*;

const LIMITS: LinkLimits = LinkLimits { appends_max: 4096, bytes_max: 1 << 20 };
const KNOWN: Offset = Offset::new(500);

/// A state with a link, and the clock's hand.
struct Bench {
    state: State<u32>,
    now: Duration,
    link: LinkId,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings { entries_max: 1024, timeout: None })
    }

    fn with(settings: Settings) -> Self {
        let mut bench = Self { state: State::new(settings, 7), now: Duration::ZERO, link: LinkId(1) };
        bench.state.connected(bench.link, LIMITS, KNOWN);
        bench
    }

    fn append(&mut self, id: u32) {
        self.append_expecting(id, None);
    }

    fn append_expecting(&mut self, id: u32, expect_end: Option<Offset>) {
        let payload = Bytes::copy_from_slice(&id.to_le_bytes());
        let crc = loglog_proto::crc32c(&payload);
        self.state.append(Wish { token: id, payload, crc, expect_end, called: self.now });
    }

    fn sends(&mut self) -> Vec<Append> {
        let effects = self.state.advance(self.now);
        effects.sends.into_iter().map(|(_, append)| append).collect()
    }

    fn done(&mut self) -> Vec<(u32, Result<Appended, AppendError>)> {
        self.state.advance(self.now).done
    }

    fn acknowledge(&mut self, sequence: u64) {
        self.reply(sequence, Ok(place(sequence)));
    }

    fn refuse(&mut self, sequence: u64, refusal: Refusal) {
        self.reply(sequence, Err(refusal));
    }

    fn reply(&mut self, sequence: u64, reply: Result<Appended, Refusal>) {
        let generation = self.state.identity.generation;
        let attempt = Attempt { generation, sequence: Sequence::new(sequence) };
        self.state.reply(self.now, self.link, attempt, reply);
    }

    /// The link breaks, and there is another once it was asked for.
    fn reconnect(&mut self) {
        self.state.disconnected(self.now, self.link);
        self.wait();
        assert!(self.state.advance(self.now).connect);
        self.link = LinkId(self.link.0 + 1);
        self.state.connected(self.link, LIMITS, Offset::new(9000));
    }

    /// Lets the time pass that the state asked for.
    fn wait(&mut self) {
        self.now = self.now.max(self.state.wake_at().expect("it waits for something"));
    }
}

fn place(sequence: u64) -> Appended {
    let offset = Offset::new(sequence * 100);
    Appended { offset, end: offset + Length::new(36), term: Term::new(1) }
}

fn numbers(sends: &[Append]) -> Vec<(Option<u64>, u64)> {
    sends.iter().map(|append| (append.previous.map(Sequence::get), append.sequence.get())).collect()
}

fn outcome_unknown() -> Refusal {
    Refusal::new(Code::UnknownWriter, "")
}

#[test]
fn s28_each_append_names_the_one_before_it() {
    let mut bench = Bench::new();
    (0..3).for_each(|id| bench.append(id));
    assert_eq!(numbers(&bench.sends()), [(None, 1), (Some(1), 2), (Some(2), 3)]);
    bench.acknowledge(1);
    bench.append(3);
    assert_eq!(numbers(&bench.sends()), [(Some(3), 4)]);
}

#[test]
fn s29_every_append_carries_the_first_known_end_until_an_acknowledgement() {
    let mut bench = Bench::new();
    bench.append(0);
    bench.append(1);
    assert!(bench.sends().iter().all(|append| append.known_end == Some(KNOWN)));
    bench.reconnect();
    bench.append(2);
    let again = bench.sends();
    assert_eq!(numbers(&again), [(None, 1), (Some(1), 2), (Some(2), 3)]);
    assert!(again.iter().all(|append| append.known_end == Some(KNOWN)), "never a newer one");
    bench.acknowledge(1);
    bench.append(3);
    assert_eq!(bench.sends()[0].known_end, None);
}

#[test]
fn s29_without_an_end_nothing_is_sent_until_one_is_learnt() {
    let mut bench = Bench::new();
    bench.state.identity.known_end = None;
    bench.append(0);
    let effects = bench.state.advance(bench.now);
    assert!(effects.learn_end && effects.sends.is_empty());
    bench.state.end_learnt(bench.now, bench.link, Some(Offset::new(77)));
    assert_eq!(bench.sends()[0].known_end, Some(Offset::new(77)));
}

#[test]
fn s27_a_late_acknowledgement_on_a_lost_link_is_true_and_a_late_refusal_is_nothing() {
    let mut bench = Bench::new();
    bench.append(0);
    bench.append(1);
    assert_eq!(bench.sends().len(), 2);
    bench.reconnect();
    assert_eq!(bench.sends().len(), 2);
    let attempt = |number| Attempt { generation: 0, sequence: Sequence::new(number) };
    bench.state.reply(bench.now, LinkId(1), attempt(1), Ok(place(1)));
    bench.state.reply(bench.now, LinkId(1), attempt(2), Err(Refusal::new(Code::TooLarge, "")));
    assert_eq!(bench.done(), [(0, Ok(place(1)))]);
    bench.acknowledge(2);
    assert_eq!(bench.done(), [(1, Ok(place(2)))]);
}

#[test]
fn s28_what_follows_a_conflict_skips_it() {
    let mut bench = Bench::new();
    bench.append(0);
    bench.append_expecting(1, Some(Offset::new(1)));
    bench.append(2);
    assert_eq!(bench.sends().len(), 3);
    bench.acknowledge(1);
    bench.refuse(2, Refusal::conflict(Offset::new(1), Offset::new(700)));
    assert!(bench.sends().is_empty(), "the third's answer is awaited");
    bench.refuse(3, Refusal::out_of_order(Some(Sequence::new(1))));
    assert_eq!(numbers(&bench.sends()), [(Some(1), 3)], "at once, and past the refused one");
}

#[test]
fn conflicts_in_a_row_do_not_hold_up_the_next_append() {
    let mut bench = Bench::new();
    for id in 0..50 {
        bench.append_expecting(id, Some(Offset::new(1)));
        assert_eq!(bench.sends().len(), 1, "append {id} goes out at once");
        bench.refuse(u64::from(id) + 1, Refusal::conflict(Offset::new(1), Offset::new(700)));
        assert_eq!(bench.done().len(), 1);
    }
}

#[test]
fn a_conflict_is_definite_unless_a_loose_try_may_yet_meet_the_expected_end() {
    let expected = Offset::new(1000);
    for (is_loose, end, definite) in [(false, 900, true), (true, 1036, true), (true, 900, false)] {
        let mut bench = Bench::new();
        bench.append_expecting(0, Some(expected));
        assert_eq!(bench.sends().len(), 1);
        if is_loose {
            bench.reconnect();
            assert_eq!(bench.sends().len(), 1);
        }
        bench.refuse(1, Refusal::conflict(expected, Offset::new(end)));
        let (_, outcome) = bench.done().remove(0);
        let error = outcome.unwrap_err();
        assert_eq!(matches!(error, AppendError::Conflict { .. }), definite, "{error:?}");
        assert_eq!(error.may_have_happened(), !definite, "{error:?}");
    }
}

#[test]
fn an_append_that_was_given_up_and_written_all_the_same_is_found_out() {
    let timeout = Duration::from_secs(1);
    let mut bench = Bench::with(Settings { entries_max: 10, timeout: Some(timeout) });
    bench.append(0);
    assert_eq!(bench.sends().len(), 1);
    bench.now += timeout / 2;
    bench.append(1);
    assert_eq!(numbers(&bench.sends()), [(Some(1), 2)]);
    bench.reconnect();
    assert_eq!(bench.sends().len(), 2);
    bench.now = timeout;
    let (id, outcome) = bench.done().remove(0);
    assert!(id == 0 && outcome.unwrap_err().may_have_happened());
    bench.reconnect();
    assert_eq!(numbers(&bench.sends()), [(None, 2)], "as if the first were not in the log");
    bench.refuse(2, Refusal::out_of_order(Some(Sequence::new(1))));
    assert_eq!(numbers(&bench.sends()), [(Some(1), 2)], "it is");
}

#[test]
fn a_deadline_before_anything_was_sent_is_definite() {
    let timeout = Duration::from_secs(1);
    let mut state = State::new(Settings { entries_max: 10, timeout: Some(timeout) }, 1);
    let payload = Bytes::new();
    state.append(Wish { token: 0, payload, crc: 0, expect_end: None, called: Duration::ZERO });
    assert!(state.advance(Duration::ZERO).connect);
    state.connect_failed(Duration::ZERO, "nobody listens");
    let (_, outcome) = state.advance(timeout).done.remove(0);
    let error = outcome.unwrap_err();
    assert!(!error.may_have_happened() && error.to_string().contains("nobody listens"), "{error}");
}

#[test]
fn s28_a_forgotten_writer_with_nothing_unknown_is_replaced() {
    let mut bench = Bench::new();
    let old = bench.state.identity.writer;
    bench.append(0);
    bench.append(1);
    assert_eq!(bench.sends().len(), 2);
    bench.refuse(1, outcome_unknown());
    bench.refuse(2, outcome_unknown());
    bench.wait_or_not();
    let effects = bench.state.advance(bench.now);
    assert!(effects.learn_end && effects.sends.is_empty(), "the end known before was too old");
    bench.state.heard_end(Offset::new(3));
    bench.state.end_learnt(bench.now, bench.link, Some(Offset::new(8000)));
    let sends = bench.sends();
    assert_eq!(numbers(&sends), [(None, 1), (Some(1), 2)]);
    assert!(sends.iter().all(|append| append.writer != old && append.known_end == Some(Offset::new(8000))));
}

#[test]
fn s28_a_forgotten_writer_leaves_unknown_what_may_have_been_written() {
    let mut bench = Bench::new();
    bench.append(0);
    assert_eq!(bench.sends().len(), 1);
    bench.reconnect();
    bench.append(1);
    assert_eq!(bench.sends().len(), 2);
    bench.refuse(1, outcome_unknown());
    bench.refuse(2, outcome_unknown());
    bench.wait_or_not();
    let effects = bench.state.advance(bench.now);
    assert!(
        matches!(&effects.done[..], [(0, Err(AppendError::UnknownOutcome { .. }))]),
        "{:?}",
        effects.done
    );
    bench.wait();
    assert!(
        bench.state.advance(bench.now).learn_end,
        "the second was never written: it goes on under a new name"
    );
}

#[test]
fn a_retryable_refusal_waits_longer_each_time() {
    let mut bench = Bench::new();
    bench.append(0);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(numbers(&bench.sends()), [(None, 1)]);
        bench.refuse(1, Refusal::new(Code::Busy, ""));
        assert!(bench.sends().is_empty());
        let began = bench.now;
        bench.wait();
        waits.push(bench.now - began);
    }
    assert!(waits[0] <= Duration::from_millis(10) && waits[8] >= Duration::from_millis(500), "{waits:?}");
}

#[test]
fn a_node_that_does_not_lead_is_left() {
    let mut bench = Bench::new();
    bench.append(0);
    assert_eq!(bench.sends().len(), 1);
    bench.refuse(1, Refusal::not_leader(Some("h:1".into())));
    let effects = bench.state.advance(bench.now);
    assert_eq!(effects.leave, Some(Some("h:1".to_owned())));
    bench.wait();
    assert!(bench.state.advance(bench.now).connect);
}

#[test]
fn a_link_that_answers_only_some_is_left_after_a_while() {
    let mut bench = Bench::new();
    bench.append(0);
    bench.append(1);
    assert_eq!(bench.sends().len(), 2);
    bench.refuse(1, Refusal::new(Code::Busy, ""));
    assert!(bench.state.advance(bench.now).leave.is_none());
    bench.wait();
    assert_eq!(bench.state.advance(bench.now).leave, Some(None));
    bench.now += Duration::from_secs(1);
    assert!(bench.state.advance(bench.now).connect);
}

#[test]
fn the_window_and_the_nodes_limits_bound_what_is_out() {
    let mut bench = Bench::with(Settings { entries_max: 3, timeout: None });
    (0..5).for_each(|id| bench.append(id));
    assert_eq!(bench.sends().len(), 3);
    bench.acknowledge(2);
    assert!(bench.sends().is_empty(), "the oldest is not answered");
    bench.acknowledge(1);
    assert_eq!(numbers(&bench.sends()), [(Some(3), 4), (Some(4), 5)]);

    let mut state = State::new(Settings { entries_max: 9, timeout: None }, 1);
    state.connected(LinkId(1), LinkLimits { appends_max: 9, bytes_max: 10 }, KNOWN);
    for token in 0..3 {
        let payload = Bytes::from_static(b"12345678");
        state.append(Wish { token, payload, crc: 0, expect_end: None, called: Duration::ZERO });
    }
    assert_eq!(state.advance(Duration::ZERO).sends.len(), 1, "one always, more within the node's limit");
}

impl Bench {
    fn wait_or_not(&mut self) {
        if let Some(at) = self.state.wake_at() {
            self.now = self.now.max(at);
        }
    }
}
