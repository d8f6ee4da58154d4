//! redpanda 3039: an append was written and its answer got lost, or the leader was killed. The client sent it again, was told that it was out
//! of order, took a new name as such clients do, and sent it once more: it was in the log twice.
//!
//! Fails if what was appended is not looked up before it is appended again, here or at the next leader (S27, S28).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::{Enough, check};
use loglog_integration_tests::clock::now;
use loglog_integration_tests::history::{Answer, Author, History, OpId, payload};
use loglog_integration_tests::proxy::Cut;
use loglog_integration_tests::{
    Cluster, Layout, Load, LoadOptions, Network, Proxies, RawClient, until, within,
};
use loglog_proto::request::{Append, PROTOCOL_VERSION, RequestBody};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::{Offset, RequestId, Sequence, WriterId};

use super::{DEADLINE, start};
use crate::cluster::same_logs;

/// What the client is to the proxies.
const CLIENT: u32 = 99;
const WINDOW: u64 = 32;

/// One writer whose answers are swallowed on their way; it sends all again to the same leader, to the next one, and to that again.
#[test]
fn redpanda_3039_an_append_whose_answer_was_lost_is_in_the_log_once() {
    let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3);
    // Between the client and the nodes, not between nodes.
    let mut ends = layout.clone();
    for place in ends.places.values_mut() {
        place.peer.clone_from(&place.client);
    }
    ends.places.insert(CLIENT, ends.places[&1].clone());
    let proxies = Proxies::new(&ends, Cut::Silent);
    let ways = proxies.ways_of(CLIENT);
    let mut cluster = Cluster::form(layout);
    let mut writer = Writer::new();
    for round in 0..3 {
        let (leader, _) = cluster.leader();
        let before = cluster.status(leader).unwrap().committed;
        proxies.cut(leader, CLIENT);
        // The hello's answer would be swallowed, too: nobody needs it.
        let mut deaf = RawClient::silent(&ways[&leader]);
        deaf.send(RequestBody::Hello { version: PROTOCOL_VERSION, cluster: None, credentials: None })
            .unwrap();
        let first = writer.begun + 1;
        writer.invoke(WINDOW);
        writer.send(&mut deaf, first);
        until("all of it is committed", DEADLINE, || {
            cluster.status(leader).is_some_and(|it| it.committed >= before + writer.bytes(first))
        });
        let unheard = deaf.socket();
        unheard.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(deaf.try_receive().is_err(), "round {round}: no answer came through");
        proxies.heal();

        // Again, at the same leader; then it dies, and once more at its successor.
        let heard = writer.append_again(&cluster, leader, first);
        cluster.kill(leader);
        let (next, _) = within("another leads", DEADLINE, || {
            let (next, _) = cluster.leader();
            (next != leader).then_some(next)
        });
        let again = writer.append_again(&cluster, next, first);
        assert_eq!(heard, again, "round {round}: one append, one place, whoever is asked");
        cluster.restart(leader);
        println!(
            "round {round}: {WINDOW} appends, acknowledged by node {leader} and node {next} at the same places"
        );
    }
    let (end, _) = cluster.converge();
    writer.history.finals = same_logs(&cluster, end);
    let facts = check(&writer.history, &Enough::acks(3 * WINDOW)).passed();
    assert_eq!(facts.entries, 3 * WINDOW, "each once");
}

/// The client library's pipelines, while leaders are killed and answers are lost with them.
#[test]
fn redpanda_3039_pipelines_through_dying_leaders_double_nothing() {
    let mut cluster = start(3);
    let load = Load::start(cluster.clients(), LoadOptions { writers: 8, in_flight: 64, readers: 1 });
    for _ in 0..4 {
        load.progress(500, DEADLINE);
        let (leader, _) = cluster.leader();
        let since = Instant::now();
        cluster.kill(leader);
        load.resumed(since, DEADLINE);
        cluster.restart(leader);
    }
    let mut finished = load.finish();
    let (end, _) = cluster.converge();
    let facts = finished.check(same_logs(&cluster, end), &Enough::acks(2000));
    assert_eq!(facts.entries, facts.acknowledged, "each append is in the log once: {facts}");
}

/// One writer, who notes all that he sends and hears.
struct Writer {
    history: History,
    begun: u64,
}

impl Writer {
    fn new() -> Self {
        Self { history: History::new(), begun: 0 }
    }

    fn op(sequence: u64) -> OpId {
        OpId::new(sequence - 1)
    }

    fn invoke(&mut self, count: u64) {
        for _ in 0..count {
            self.begun += 1;
            let author = Author::Wire { writer: WriterId::new(7), sequence: Sequence::new(self.begun) };
            assert_eq!(self.history.invoke(author, None, now()), Self::op(self.begun));
        }
    }

    /// Payload bytes from this sequence on.
    fn bytes(&self, first: u64) -> u64 {
        (first..=self.begun).map(|it| payload(Self::op(it)).len() as u64).sum()
    }

    /// Sends all from this sequence on in one go; returns which request is which one's which attempt.
    fn send(&mut self, client: &mut RawClient, first: u64) -> HashMap<RequestId, (u64, usize)> {
        let attempts = (first..=self.begun).map(|sequence| {
            let previous = (sequence > 1).then(|| Sequence::new(sequence - 1));
            (sequence, self.history.sent(Self::op(sequence), Some(previous), now()))
        });
        let attempts: Vec<(u64, usize)> = attempts.collect();
        let appends = (first..=self.begun).map(|sequence| {
            RequestBody::Append(Append {
                writer: WriterId::new(7),
                previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
                sequence: Sequence::new(sequence),
                known_end: (first == 1).then_some(Offset::ZERO),
                expect_end: None,
                crc: None,
                payload: Some(payload(Self::op(sequence))),
            })
        });
        client.send_together(appends).unwrap().into_iter().zip(attempts).collect()
    }

    /// Sends all from this sequence on to one node, until it acknowledges every one; returns their places.
    fn append_again(&mut self, cluster: &Cluster, id: u32, first: u64) -> Vec<Appended> {
        let mut client = RawClient::connect(cluster.client(id));
        let (places, _) = within("all are acknowledged", DEADLINE, || {
            let mut waiting = self.send(&mut client, first);
            let mut places = BTreeMap::new();
            while !waiting.is_empty() {
                let response = client.receive().expect("an answer");
                let (sequence, attempt) = waiting.remove(&response.id).expect("an answer to what was sent");
                let answer = match response.body {
                    ResponseBody::Appended(appended) => {
                        places.insert(sequence, appended);
                        Answer::Acknowledged(appended)
                    }
                    // Who has just begun to lead may say so.
                    ResponseBody::Refused(refusal) if refusal.code.is_retryable() => Answer::from(&refusal),
                    other => panic!("sequence {sequence} is not acknowledged: {other:?}"),
                };
                self.history.answered(Self::op(sequence), attempt, answer, now());
            }
            let is_all = places.len() as u64 == self.begun + 1 - first;
            is_all.then(|| places.into_values().collect())
        });
        places
    }
}
