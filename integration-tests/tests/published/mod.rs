//! Failures that were published about other systems, one file each, tried with LogLog. Each test bears the name of what it is about:
//! system and number of the report.
//!
//! Owns:   the schedules that lost, doubled or deleted something elsewhere, and what must become of them here.
//! Never:  repeats another suite's test: where one tells the same story, the one here goes further.

mod etcd_11488_5230_6378;
mod etcd_14370;
mod last_replica_standing;
mod nats_4410;
mod nats_7545;
mod nats_7549;
mod nats_7556;
mod nats_7567;
mod redpanda_3039;
mod tigerbeetle_2767;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_integration_tests::appender::payload;
use loglog_integration_tests::sim::queue::SECOND;
use loglog_integration_tests::sim::{Counts, Fault, Options, run};
use loglog_integration_tests::{Appender, Cluster, RawClient, raw, until, within};
use loglog_proto::crc32c;
use loglog_proto::error::Code;
use loglog_proto::manage::{Change, NewMember};
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{NodeId, Sequence, WriterId};

use crate::repair::{check, fill};

/// Ten times what anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longer than several elections take.
const ELECTIONS: Duration = Duration::from_millis(2500);

fn start(nodes: u32) -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), nodes)
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn others(cluster: &Cluster, node: u32) -> Vec<u32> {
    cluster.ids().filter(|id| *id != node).collect()
}

/// Looks on for as long as several elections take: what must not be never is.
fn never(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    until(what, DEADLINE, || {
        assert!(!is(), "{what}");
        began.elapsed() > ELECTIONS
    });
}

/// Length and CRC of every file of a directory, by name. The lock's existence means nothing. Of a node that runs, a file may get another
/// name between the listing and the look: it is left out.
fn files(dir: &Path) -> BTreeMap<String, (u64, u32)> {
    let of = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => read.map(|bytes| Some((name, (bytes.len() as u64, crc32c(&bytes))))).unwrap(),
        }
    };
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(of).filter(|(name, _)| name != "lock").collect()
}

/// Sends an append to one node, once; whatever it answers, it must not be an acknowledgement. Returns what was said. It is the one that
/// `appender` sends next: should it be in the log after all, then once.
fn append_is_not_acknowledged(cluster: &Cluster, id: u32, appender: &Appender) -> String {
    let sequence = appender.upcoming();
    let append = Append {
        writer: WriterId::new(1),
        previous: Some(Sequence::new(sequence.get() - 1)),
        sequence,
        known_end: None,
        expect_end: None,
        crc: None,
        payload: Some(payload(1, sequence.get())),
    };
    let mut client = RawClient::open(cluster.client(id), Duration::from_secs(1)).expect("it serves clients");
    match client.try_ask(RequestBody::Append(append)) {
        Ok(ResponseBody::Refused(refusal)) => refusal.code.to_string(),
        Ok(other) => panic!("node {id} acknowledges what is on no majority's disks: {other:?}"),
        Err(error) => format!("nothing ({:?})", error.kind()),
    }
}

/// Why a node that ended by itself did not start.
fn why(cluster: &Cluster, id: u32) -> String {
    let error = cluster.records(id).into_iter().rev().find_map(|it| it["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| panic!("node {id} says why it ends"))
}

/// Has it lead.
fn lead(cluster: &Cluster, id: u32) {
    within("it leads", DEADLINE, || {
        cluster.manage(&Change::Lead(node(id))).ok()?;
        (cluster.leader().0 == id).then_some(())
    });
}

/// A node that was wiped, and waits to be taken in, takes its own place and votes.
fn replace(cluster: &Cluster, id: u32) {
    let successor = NewMember { node: node(id), peer: None, client: None };
    // The one that died may have been heard from a moment ago.
    within("it is replaced", DEADLINE, || match cluster.manage(&Change::Replace(successor.clone())) {
        Ok(_) => Some(()),
        Err(refusal) if refusal.code == Code::Forbidden => None,
        Err(refusal) => panic!("{refusal}"),
    });
    cluster.manage(&Change::Promote(node(id))).unwrap();
}

/// The cluster takes appends, all nodes agree, and hold all that was ever acknowledged.
fn goes_on(cluster: &Cluster, appender: &mut Appender) {
    fill(appender, 1, 20, 50_000);
    check(cluster, std::slice::from_ref(appender));
}

/// Runs seeds in the simulator with these faults and no others; nothing may go wrong, and each fault must have struck.
fn simulate(seeds: std::ops::Range<u64>, nodes: u32, faults: &[Fault]) {
    let (mut counts, mut acknowledged) = (Counts::default(), 0);
    let dial = |fault: &Fault| (*fault, f64::from(u8::from(faults.contains(fault))));
    for seed in seeds {
        let dials = Fault::ALL.iter().map(dial).collect();
        let options = Options { seed, nodes: Some(nodes), time: 300 * SECOND, dials, transcript: false };
        let report = run(&options);
        assert_eq!(report.violation, None, "seed {seed} with {nodes} nodes and {faults:?} only");
        counts.merge(&report.counts);
        acknowledged += report.acknowledged;
    }
    println!("{acknowledged} acknowledged, {counts:?}");
    assert!(acknowledged > 1000, "{acknowledged}");
    assert!(faults.iter().all(|fault| counts.of(*fault) > 0), "each took effect: {counts:?}");
}

/// The append of one writer's next entry.
fn append(sequence: u64, payload: impl Into<Bytes>) -> RequestBody {
    RequestBody::Append(raw::append(sequence, Some(payload.into())))
}
