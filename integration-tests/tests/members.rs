//! Members come, go, die and are replaced, and the log is trimmed, while appends go on.

use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::clock::now;
use loglog_integration_tests::history::{FinalLog, Trim};
use loglog_integration_tests::http::get_json;
use loglog_integration_tests::load::{Load, LoadOptions};
use loglog_integration_tests::{Cluster, RawClient, until, within};
use loglog_proto::error::{Code, Detail};
use loglog_proto::manage::{Change, Manage, NewMember};
use loglog_proto::request::{Read, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{NodeId, Offset};

use crate::cluster::same_logs;

/// A new leader is wanted within 2 s.
const RESUME: Duration = Duration::from_secs(20);
const LOAD: LoadOptions = LoadOptions { writers: 4, in_flight: 32, readers: 1 };

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_loglogd")
}

fn node(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn new_member(id: u32) -> NewMember {
    NewMember { node: node(id), peer: None, client: None }
}

/// All nodes agree, hold the same files and serve the same bytes from their start on; returns those.
fn check_same(cluster: &Cluster) -> Vec<FinalLog> {
    let (end, took) = cluster.converge();
    let segments = cluster.assert_identical_files(end);
    let logs = same_logs(cluster, end);
    println!("converged in {took:?}: {end} bytes, {segments} segments, the same on every node");
    logs
}

/// Clients that knew one node only have found the new one: they upload to it.
fn noticed(cluster: &Cluster, id: u32) {
    let took = until("clients upload to the new node", RESUME * 3, || {
        cluster.status(id).is_some_and(|status| status.upload_bytes > 0)
    });
    println!("clients upload to node {id} after another {took:?}");
}

#[test]
fn s26_one_node_grows_to_three_and_five_and_shrinks_to_three_under_load_and_kills() {
    let mut cluster = Cluster::alone(program());
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(2000, RESUME);
    for id in [2, 3] {
        cluster.join(id);
        println!("node {id} votes after {:?}", cluster.take_in(id));
        noticed(&cluster, id);
    }
    // A follower dies and comes back; then the leader does.
    for victim in [cluster.follower(), cluster.leader().0] {
        let since = Instant::now();
        cluster.kill(victim);
        println!("node {victim} killed: appends went on after {:?}", load.resumed(since, RESUME).all);
        cluster.restart(victim);
    }
    for id in [4, 5] {
        cluster.join(id);
        println!("node {id} votes after {:?}", cluster.take_in(id));
        noticed(&cluster, id);
    }
    let (leader, _) = cluster.leader();
    cluster.kill(leader);
    load.resumed(Instant::now(), RESUME);
    cluster.restart(leader);
    // Two go, whichever leads then is one of them.
    let (leader, _) = cluster.leader();
    let other = cluster.ids().find(|id| *id != leader).unwrap();
    for id in [leader, other] {
        let since = Instant::now();
        let managed = cluster.manage(&Change::Remove(node(id))).unwrap();
        assert!(managed.members.iter().all(|member| member.node != id), "{managed:?}");
        let resumed = load.resumed(since, RESUME);
        println!("node {id} removed after {:?}, appends went on after {:?}", since.elapsed(), resumed.all);
        cluster.forget(id);
    }
    load.progress(1000, RESUME);
    let mut finished = load.finish();
    let logs = check_same(&cluster);
    assert_eq!(cluster.ids().count(), 3);
    println!("{}", finished.check(logs, &Enough::acks(3000)));
}

#[test]
fn s22_s25_a_wiped_follower_is_replaced_while_appends_go_on() {
    let mut cluster = Cluster::start(program(), 3);
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(5000, RESUME);
    let victim = cluster.follower();
    cluster.kill(victim);
    cluster.wipe(victim);
    cluster.join(victim);
    // The one that died may have been heard from a moment ago.
    let began = Instant::now();
    let (managed, _) =
        within("it is replaced", RESUME, || match cluster.manage(&Change::Replace(new_member(victim))) {
            Ok(managed) => Some(managed),
            Err(refusal) if refusal.code == Code::Forbidden => None,
            Err(refusal) => panic!("{refusal}"),
        });
    let successor = managed.members.iter().find(|member| member.node == victim).unwrap();
    assert_eq!(successor.role, "learner");
    cluster.manage(&Change::Promote(node(victim))).unwrap();
    println!("node {victim} votes again {:?} after it was wiped", began.elapsed());
    load.progress(1000, RESUME);
    let mut finished = load.finish();
    let logs = check_same(&cluster);
    println!("{}", finished.check(logs, &Enough::acks(3000)));
    // It counts: with it and one other the log goes on.
    let other = cluster.ids().find(|id| *id != victim).unwrap();
    cluster.kill(other);
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(200, RESUME);
    let _ = load.finish();
}

#[test]
fn s25_s36_a_follower_behind_the_trimmed_start_begins_anew_while_appends_go_on() {
    let mut cluster = Cluster::start(program(), 3);
    let load = Load::start(cluster.clients(), LoadOptions { readers: 0, ..LOAD });
    load.progress(2000, RESUME);
    let victim = cluster.follower();
    cluster.kill(victim);
    let (leader, _) = cluster.leader();
    until("the log has grown by some segments", RESUME, || {
        cluster.status(leader).is_some_and(|status| status.segments > 6)
    });
    let committed = cluster.status(leader).unwrap().committed;
    let (asked, invoked) = (Offset::new(committed), now());
    let managed = cluster.manage(&Change::Trim(asked)).unwrap();
    let trim = Trim { asked, invoked, answer: Some((now(), Offset::new(managed.start))) };
    assert!(managed.start > 0 && managed.start <= committed, "{managed:?}");
    let began = Instant::now();
    cluster.restart(victim);
    until("it has what the others have", RESUME, || {
        cluster
            .status(victim)
            .is_some_and(|status| status.start == managed.start && status.role == "follower")
    });
    println!("node {victim} began anew at {} after {:?}", managed.start, began.elapsed());
    for actor in ["consensus", "segment-writer", "storage-group"] {
        let report = get_json(&cluster.admin(victim), &format!("/api/actors/{actor}"));
        assert_eq!(
            (&report["restarts"], &report["panics"]),
            (&0.into(), &0.into()),
            "nothing failed: {report}"
        );
    }
    load.progress(500, RESUME);
    let mut finished = load.finish();
    finished.history.trims.push(trim);
    let logs = check_same(&cluster);
    assert!(!logs[0].log.is_empty());
    println!("{}", finished.check(logs, &Enough::acks(2500)));
    for id in cluster.ids() {
        assert_eq!(cluster.status(id).unwrap().start, managed.start, "node {id}");
        let mut client = RawClient::connect(cluster.client(id));
        let read = Read { offset: Offset::ZERO, limit: 100, wait_ms: 0, min_end: None };
        let ResponseBody::Refused(refusal) = client.ask(RequestBody::Read(read)) else { panic!() };
        assert_eq!((refusal.code, refusal.detail), (Code::Trimmed, Detail::Number(managed.start)));
    }
    // It is so after a restart of all, too.
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.restart(id);
    }
    check_same(&cluster);
    assert!(cluster.ids().all(|id| cluster.status(id).unwrap().start == managed.start));
}

#[test]
fn s36_a_trim_between_two_segments_is_rounded_down() {
    let cluster = Cluster::start(program(), 3);
    let load = Load::start(cluster.clients(), LoadOptions { readers: 0, ..LOAD });
    let (leader, _) = cluster.leader();
    until("there are some segments", RESUME, || {
        cluster.status(leader).is_some_and(|status| status.segments > 4)
    });
    let managed = cluster.manage(&Change::Trim(Offset::new(1_500_000))).unwrap();
    assert!(managed.start > 0 && managed.start < 1_500_000, "{managed:?}");
    assert!(managed.message.contains("where the segment begins that holds"), "{}", managed.message);
    let again = cluster.manage(&Change::Trim(Offset::new(1_500_000))).unwrap();
    assert_eq!(again.start, managed.start);
    let beyond = cluster.manage(&Change::Trim(Offset::new(1 << 50))).unwrap_err();
    assert_eq!(beyond.code, Code::BadRequest);
    let _ = load.finish();
    check_same(&cluster);
}

#[test]
fn s26_what_makes_no_sense_or_breaks_the_quorum_is_refused() {
    let mut cluster = Cluster::start(program(), 3);
    let refused = |cluster: &Cluster, what: Change| cluster.manage(&what).unwrap_err();
    let (leader, _) = cluster.leader();
    let [one, other] = cluster.ids().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };

    assert_eq!(refused(&cluster, Change::Promote(node(9))).code, Code::BadRequest);
    assert_eq!(refused(&cluster, Change::Lead(node(9))).code, Code::BadRequest);
    let itself = cluster.manage(&Change::Replace(new_member(one))).unwrap();
    assert!(itself.message.contains("nothing to replace"), "{}", itself.message);
    let nowhere = NewMember { node: node(9), peer: None, client: None };
    assert_eq!(refused(&cluster, Change::Add(nowhere)).code, Code::BadRequest);
    let taken = NewMember {
        node: node(9),
        peer: Some(cluster.peer(one).to_owned()),
        client: Some(cluster.client(one).to_owned()),
    };
    assert_eq!(refused(&cluster, Change::Add(taken)).code, Code::WrongNode);

    // A follower says who leads; everybody lists; a dry run changes nothing.
    let mut client = RawClient::connect(cluster.client(one));
    let ask = |client: &mut RawClient, what, dry_run| {
        client.ask(RequestBody::Manage(Box::new(Manage { what, dry_run })))
    };
    let ResponseBody::Refused(refusal) = ask(&mut client, Change::Remove(node(one)), false) else { panic!() };
    assert_eq!(refusal.detail, Detail::Text(cluster.client(leader).to_owned()));
    let ResponseBody::Managed(list) = ask(&mut client, Change::List, false) else { panic!() };
    assert_eq!(list.members.len(), 3);
    let mut client = RawClient::connect(cluster.client(leader));
    let ResponseBody::Managed(dry) = ask(&mut client, Change::Remove(node(one)), true) else { panic!() };
    assert_eq!(dry.members.len(), 2);
    let ResponseBody::Managed(list) = ask(&mut client, Change::List, false) else { panic!() };
    assert_eq!(list.members.len(), 3);

    // The lead is moved where it is wanted.
    cluster.manage(&Change::Lead(node(one))).unwrap();
    let (_, took) = within("it leads", RESUME, || (cluster.leader().0 == one).then_some(()));
    println!("the lead was moved within {took:?}");

    // One node is down: the other must not go.
    cluster.kill(leader);
    until("the leader knows", RESUME, || {
        let mut client = RawClient::connect(cluster.client(one));
        match ask(&mut client, Change::List, false) {
            ResponseBody::Managed(list) => {
                list.members.iter().any(|it| it.node == leader && it.active == Some(false))
            }
            _ => false,
        }
    });
    let refusal = refused(&cluster, Change::Remove(node(other)));
    assert_eq!(refusal.code, Code::Forbidden, "{refusal}");
    // The dead one may go, and then the other; the last one may not.
    cluster.manage(&Change::Remove(node(leader))).unwrap();
    cluster.manage(&Change::Remove(node(other))).unwrap();
    let refusal = refused(&cluster, Change::Remove(node(one)));
    assert_eq!(refusal.code, Code::Forbidden, "{refusal}");
    until("a removed node says so", RESUME, || {
        cluster.status(other).is_some_and(|status| status.role == "removed" || status.role == "follower")
    });
}

#[test]
fn a_node_comes_back_to_members_it_never_heard_of() {
    let mut cluster = Cluster::start(program(), 3);
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(500, RESUME);
    let asleep = cluster.follower();
    cluster.kill(asleep);
    load.progress(500, RESUME);
    for id in [4, 5] {
        cluster.join(id);
        cluster.take_in(id);
    }
    load.progress(500, RESUME);
    for id in [1, 2, 3].into_iter().filter(|id| *id != asleep) {
        within("it is removed", RESUME * 2, || cluster.manage(&Change::Remove(node(id))).ok());
        load.progress(50, RESUME * 2);
        cluster.forget(id);
    }
    load.progress(500, RESUME);
    let mut finished = load.finish();
    // All whom it knows are gone; its leader is new to it.
    cluster.restart(asleep);
    println!("{}", finished.check(check_same(&cluster), &Enough::acks(2100)));
}
