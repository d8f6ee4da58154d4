//! nats-server 7545: one node was cut off, three killed and one removed in quick succession; when all were back, acknowledged records were
//! gone. (There a removal did not need a majority of those who had the data.)
//!
//! Fails if a change of members counts by anything but a majority of the voters before it, if two changes are under way at once, or if
//! a start does not know which members its log names (S12, S26).

use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::proxy::Cut;
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, Network, Proxies, RawClient, within};
use loglog_proto::manage::{Change, Manage, Managed};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;

use super::{DEADLINE, never, node, others};
use crate::cluster::same_logs;

const LOAD: LoadOptions = LoadOptions { writers: 4, in_flight: 32, readers: 1 };

#[test]
fn nats_7545_changes_of_members_with_cuts_and_kills_lose_nothing() {
    let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), 5);
    let proxies = Proxies::new(&layout, Cut::Silent);
    let mut cluster = Cluster::form(layout.through(&proxies));
    let load = Load::start(cluster.clients(), LOAD);
    load.progress(500, DEADLINE);

    // The leader is cut off; its successor is killed with a removal under way, and so are the one that was cut off and a third.
    let (cut, _) = cluster.leader();
    let since = Instant::now();
    proxies.isolate(cut, &others(&cluster, cut));
    load.resumed(since, DEADLINE);
    let (leader, _) = within("another leads", DEADLINE, || {
        let leads = |id: &u32| cluster.status(*id).is_some_and(|it| it.role == "leader");
        cluster.ids().find(|id| *id != cut && leads(id))
    });
    let [third, removed, fifth] =
        others(&cluster, cut).into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..]
    else {
        panic!("five nodes")
    };
    begin_to_remove(&cluster, leader, removed);
    for id in [cut, leader, third] {
        cluster.kill(id);
    }
    // Two of five, or one of four: whatever became of the removal, that is no majority, and asking again makes it none.
    never("a minority changes the members or leads", || {
        [removed, fifth].iter().any(|id| {
            let asked = try_to_manage(&cluster, *id, Change::Remove(node(removed)));
            asked.is_some() || cluster.status(*id).is_some_and(|it| it.role == "leader")
        })
    });
    for id in [cut, leader, third] {
        cluster.launch(id);
    }
    proxies.heal();
    cluster.all_serve();
    let since = Instant::now();
    load.resumed(since, DEADLINE);
    is_removed(&cluster, removed);
    cluster.forget(removed);
    load.progress(200, DEADLINE);

    // Another takes its place. One sleeps through the next removal; those who saw it begin are killed, and the sleeper is needed.
    cluster.join(6);
    cluster.take_in(6);
    let (leader, _) = cluster.leader();
    let [asleep, removed, killed, _] = others(&cluster, leader)[..] else { panic!("five nodes") };
    cluster.freeze(asleep);
    load.progress(200, DEADLINE);
    begin_to_remove(&cluster, leader, removed);
    cluster.kill(leader);
    cluster.kill(killed);
    cluster.thaw(asleep);
    let since = Instant::now();
    cluster.restart(leader);
    println!("appends went on {:?} after a majority was back", load.resumed(since, DEADLINE).all);
    cluster.restart(killed);
    is_removed(&cluster, removed);
    cluster.forget(removed);
    load.progress(200, DEADLINE);

    let mut finished = load.finish();
    let (end, _) = cluster.converge();
    cluster.assert_identical_files(end);
    assert_eq!(cluster.ids().count(), 4);
    println!("{}", finished.check(same_logs(&cluster, end), &Enough::acks(1000)));
}

/// Asks for a removal and does not wait for what comes of it.
fn begin_to_remove(cluster: &Cluster, leader: u32, id: u32) {
    let manage = Manage { what: Change::Remove(node(id)), dry_run: false };
    RawClient::connect(cluster.client(leader)).send(RequestBody::Manage(Box::new(manage))).unwrap();
}

/// Asks one node; what was done, if anything was.
fn try_to_manage(cluster: &Cluster, id: u32, what: Change) -> Option<Managed> {
    let mut client = RawClient::open(cluster.client(id), Duration::from_secs(1)).ok()?;
    match client.try_ask(RequestBody::Manage(Box::new(Manage { what, dry_run: false }))).ok()? {
        ResponseBody::Managed(managed) => Some(*managed),
        _ => None,
    }
}

/// It is no member any more, by the removal that had begun or by another one.
fn is_removed(cluster: &Cluster, id: u32) {
    within("it is removed", DEADLINE, || {
        let (leader, _) = cluster.leader();
        let list = try_to_manage(cluster, leader, Change::List)?;
        if list.members.iter().all(|member| member.node != id) {
            return Some(());
        }
        let _ = try_to_manage(cluster, leader, Change::Remove(node(id)));
        None
    });
}
