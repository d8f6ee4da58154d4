//! Networks that fail between three real nodes: whatever is cut or lost, nothing that was acknowledged changes, a minority
//! acknowledges nothing, and all agree once the network is whole again.
//!
//! The same stories run through proxies (bytes of a connection are swallowed, or it ends) and, where root's powers may be used,
//! between network namespaces (packets are dropped).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::clock::now;
use loglog_integration_tests::history::{self, Answer, Author, History, ReadAnswer, payload};
use loglog_integration_tests::proxy::Cut;
use loglog_integration_tests::{
    Cluster, Layout, Load, LoadOptions, Netns, Network, Proxies, RawClient, until,
};
use loglog_proto::request::{Append, Read, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{NodeId, Offset, Sequence, WriterId};

use crate::cluster::same_logs;

/// A new leader is wanted within 2 s.
const RESUME: Duration = Duration::from_secs(20);
/// After the network is whole again all are to agree within 10 s.
const CONVERGE: Duration = Duration::from_secs(100);
/// How long the minority is left alone at least: longer than any time-out of an election.
const APART: Duration = Duration::from_secs(3);
/// Long enough that TCP, which waits twice as long each time before it tries again, is slow to notice the healing.
const LONG: Duration = Duration::from_secs(14);
const LOAD: LoadOptions = LoadOptions { writers: 4, in_flight: 32, readers: 3 };

fn layout() -> Layout {
    Layout::new(env!("CARGO_BIN_EXE_loglogd"), 3)
}

fn others(cluster: &Cluster, node: u32) -> Vec<u32> {
    cluster.ids().filter(|id| *id != node).collect()
}

/// What a client of one node gets from it while that is cut off.
struct Minority {
    node: u32,
    address: String,
    /// What it was sent, and all that it answered.
    history: History,
    /// How many bytes it served.
    served: u64,
    /// What it answered to appends, and how often.
    answers: BTreeMap<String, usize>,
}

/// Its operations' part of the history.
const MINORITY: u32 = 1000;

impl Minority {
    fn at(cluster: &Cluster, node: u32) -> Self {
        let (address, history) = (cluster.client(node).to_owned(), History::part(MINORITY));
        Self { node, address, history, served: 0, answers: BTreeMap::new() }
    }

    /// Sends an append; it must not be acknowledged.
    fn append(&mut self) {
        let mut client = RawClient::open(&self.address, Duration::from_secs(1)).expect("it serves clients");
        let writer = WriterId::new(0xa10e_0000 + self.history.operations.len() as u64);
        let sequence = Sequence::new(1);
        let op = self.history.invoke(Author::Wire { writer, sequence }, None, now());
        let attempt = self.history.sent(op, Some(None), now());
        let append = Append {
            writer,
            previous: None,
            sequence,
            known_end: Some(Offset::ZERO),
            expect_end: None,
            crc: None,
            payload: Some(payload(op)),
        };
        let (answer, said) = match client.try_ask(RequestBody::Append(append)) {
            Ok(ResponseBody::Refused(refusal)) => (Answer::from(&refusal), refusal.code.to_string()),
            Ok(other) => panic!("node {} alone answered an append: {other:?}", self.node),
            Err(error) => (Answer::Unknown, format!("nothing ({:?})", error.kind())),
        };
        self.history.answered(op, attempt, answer, now());
        *self.answers.entry(said).or_default() += 1;
    }

    /// Reads on; it must never claim a linearizable end.
    fn read(&mut self) {
        let mut client = RawClient::open(&self.address, RESUME).expect("it serves clients");
        loop {
            let (offset, limit, invoked) = (Offset::new(self.served), 1 << 20, now());
            match client.ask(RequestBody::Read(Read { offset, limit, wait_ms: 50, min_end: None })) {
                ResponseBody::Data(data) if data.bytes.is_empty() => break,
                ResponseBody::Data(data) => {
                    self.served += data.bytes.len() as u64;
                    let (node, completed) = (NodeId::new(self.node).unwrap(), now());
                    let answer = ReadAnswer::Data { bytes: data.bytes, end: data.end };
                    let read = history::Read { node, offset, limit, invoked, completed, answer };
                    self.history.reads.push(read);
                }
                other => panic!("node {} does not serve {offset}: {other:?}", self.node),
            }
        }
    }

    fn claims_no_end(&self) {
        let mut client = RawClient::open(&self.address, RESUME).expect("it serves clients");
        match client.ask(RequestBody::End { linearizable: true }) {
            ResponseBody::Refused(_) => {}
            other => panic!("node {} alone claims an end: {other:?}", self.node),
        }
    }
}

/// Cuts the leader off as `cut` does, looks on while the others go on, and heals.
fn leader_cut_off(cluster: &Cluster, network: &dyn Network, (how, cut): (&str, Cutting), apart: Duration) {
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(500, RESUME);
    let (leader, _) = cluster.leader();
    let others = others(cluster, leader);
    let mut minority = Minority::at(cluster, leader);
    let since = Instant::now();
    cut(network, leader, &others);
    // What was on its way is committed, or never will be here.
    minority.append();
    let resumed = load.resumed(since, RESUME);
    println!(
        "{how}: node {leader} led; appends went on after {:?}, every writer's after {:?}",
        resumed.first, resumed.all
    );
    let alone = cluster.status(leader).expect("it answers its clients").committed;
    // At least as long as it takes to be served all that it knows.
    let enough = Instant::now() + RESUME;
    while since.elapsed() < apart || minority.served < alone && Instant::now() < enough {
        minority.append();
        minority.read();
        minority.claims_no_end();
        load.progress(100, RESUME);
    }
    let still = cluster.status(leader).expect("it answers its clients").committed;
    assert_eq!(still, alone, "node {leader} alone commits nothing");
    assert_eq!(minority.served, alone, "it serves all that it knows to be committed, and no more");
    let ahead = others.iter().filter_map(|id| cluster.status(*id)).map(|it| it.committed).max().unwrap();
    assert!(ahead > alone, "the others went on");
    let healed = Instant::now();
    network.heal();
    until("the node that was cut off has caught up", CONVERGE, || {
        cluster.status(leader).is_some_and(|it| it.committed >= ahead)
    });
    println!(
        "  it answered {:?}; healed: {} bytes caught up after {:?}",
        minority.answers,
        ahead - alone,
        healed.elapsed()
    );
    agree(cluster, load, healed, minority.history);
}

/// Ends the load; all nodes must agree, hold the same files, and those hold what was acknowledged. What `minority` was told must be true.
fn agree(cluster: &Cluster, load: Load, healed: Instant, minority: History) {
    let mut finished = load.finish();
    let (end, _) = cluster.converge();
    let took = healed.elapsed();
    assert!(took < CONVERGE, "converged after {took:?}");
    let segments = cluster.assert_identical_files(end);
    finished.history.join(minority);
    let facts = finished.check(same_logs(cluster, end), &Enough::acks(500));
    println!("  all agree {took:?} after the network was healed: {facts}; {end} bytes, {segments} segments");
}

/// A new cluster for each way to cut its leader off.
fn partitions(layout: &Layout, network: &dyn Network, cuts: &[(&str, Cutting)]) {
    for cut in cuts {
        leader_cut_off(&Cluster::form(layout.clone()), network, *cut, APART);
    }
}

/// Cuts one node off from others.
type Cutting = fn(&dyn Network, u32, &[u32]);

const BOTH_WAYS: (&str, Cutting) = ("both ways cut", |network, node, others| network.isolate(node, others));
const ONE_WAY: [(&str, Cutting); 2] = [
    ("what it sends is cut", |network, node, others| network.silence(node, others)),
    ("what it hears is cut", |network, node, others| network.deafen(node, others)),
];

#[test]
fn s01_s16_a_leader_behind_silent_proxies_acknowledges_nothing_and_serves_only_what_is_committed() {
    let layout = layout();
    let proxies = Proxies::new(&layout, Cut::Silent);
    partitions(&layout.through(&proxies), &proxies, &[BOTH_WAYS]);
}

#[test]
fn s01_s16_a_leader_behind_refusing_proxies_acknowledges_nothing_and_serves_only_what_is_committed() {
    let layout = layout();
    let proxies = Proxies::new(&layout, Cut::Refusing);
    partitions(&layout.through(&proxies), &proxies, &[BOTH_WAYS]);
}

#[test]
fn a_leader_that_only_hears_or_is_only_heard_is_replaced() {
    let layout = layout();
    let proxies = Proxies::new(&layout, Cut::Silent);
    partitions(&layout.through(&proxies), &proxies, &ONE_WAY);
}

#[test]
fn s01_s16_a_leader_whose_packets_are_dropped_acknowledges_nothing_and_serves_only_what_is_committed() {
    let Some(netns) = Netns::new(3) else { return };
    partitions(&layout().within(&netns), &netns, &[BOTH_WAYS]);
}

#[test]
fn a_leader_whose_packets_are_dropped_one_way_is_replaced() {
    let Some(netns) = Netns::new(3) else { return };
    partitions(&layout().within(&netns), &netns, &ONE_WAY);
}

#[test]
fn a_leader_that_was_not_heard_for_long_comes_back_soon() {
    let Some(netns) = Netns::new(3) else { return };
    leader_cut_off(&Cluster::form(layout().within(&netns)), &netns, ONE_WAY[0], LONG);
}

#[test]
fn a_fifth_of_all_packets_lost_loses_no_entry() {
    let Some(netns) = Netns::new(3) else { return };
    let cluster = Cluster::form(layout().within(&netns));
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(500, RESUME);
    let (before, since, term) = (load.acknowledged(), Instant::now(), cluster.leader().0);
    netns.lose(20);
    // Nothing is asked of anybody meanwhile, but that what is acknowledged is true.
    until("some seconds have passed", RESUME, || since.elapsed() > 2 * APART);
    println!(
        "20 % of all packets lost: {} appends in {:?} (node {term} led before)",
        load.acknowledged() - before,
        since.elapsed()
    );
    let healed = Instant::now();
    netns.heal();
    let resumed = load.resumed(healed, CONVERGE);
    println!("  healed: appends went on after {:?}, every writer's after {:?}", resumed.first, resumed.all);
    agree(&cluster, load, healed, History::new());
}
