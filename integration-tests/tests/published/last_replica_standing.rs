//! The last replica standing: in Kafka the set of those that must have an entry could shrink to one. When that last one lost its power, and
//! with it what it had not synced, it was elected again as the only candidate, and the others cut off what it no longer had
//! (KIP-966).
//!
//! Here a majority is one of all voters, however many are there: the last one acknowledges nothing, keeps and serves what it has, and no
//! new cluster can be made of the others' empty directories. When one of those comes back whole, appends go on.
//!
//! Fails if the quorum shrinks with the nodes that answer (S1), or if nodes that were wiped form a cluster of their own (S22, S24).

use loglog_integration_tests::{Appender, Cluster, RawClient};
use loglog_proto::Offset;
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;

use super::{append_is_not_acknowledged, files, goes_on, never, others, replace, start};
use crate::repair::{fill, verify_compare};

#[test]
fn last_replica_standing_acknowledges_nothing_serves_what_it_has_and_is_not_voted_down() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 100, 2 << 20);
    let (end, _) = cluster.converge();
    let (last, _) = cluster.leader();
    let log = cluster.log_of(last, end);
    let [one, other] = others(&cluster, last)[..] else { panic!("three nodes") };
    cluster.kill(one);
    cluster.kill(other);
    println!("alone, it answers an append with: {}", append_is_not_acknowledged(&cluster, last, &appender));
    assert_eq!(cluster.log_of(last, end), log, "it serves what is committed");

    // It loses its power: nobody but itself is there to be elected.
    cluster.kill(last);
    let kept = |cluster: &Cluster| {
        files(&cluster.data(last)).into_keys().filter(|name| name.ends_with(".seg")).collect::<Vec<_>>()
    };
    let before = kept(&cluster);
    assert!(before.len() > 1, "{before:?}");
    cluster.restart(last);
    println!("and after a restart with: {}", append_is_not_acknowledged(&cluster, last, &appender));

    // The others' disks are gone. They are what they were by name only: no majority, neither with the last one nor without it.
    let saved = cluster.data(one).with_extension("saved");
    std::fs::rename(cluster.data(one), &saved).unwrap();
    cluster.wipe(other);
    cluster.launch(one);
    cluster.launch(other);
    never("a cluster of the forgetful", || {
        let leads = |id: &u32| cluster.status(*id).is_some_and(|it| it.role == "leader");
        cluster.says(one, "serving") || cluster.says(other, "serving") || cluster.ids().any(|id| leads(&id))
    });
    for id in [one, other] {
        assert_eq!(cluster.ended(id).code(), Some(1), "node {id} is told that it is not who it was");
    }
    append_is_not_acknowledged(&cluster, last, &appender);
    let ResponseBody::Refused(refusal) =
        RawClient::connect(cluster.client(last)).ask(RequestBody::End { linearizable: true })
    else {
        panic!("what it knows may be old")
    };
    println!("asked for the end it says: {refusal}");
    assert_eq!(cluster.log_of(last, end), log, "it serves what is committed");
    assert_eq!(kept(&cluster), before, "it keeps its files");

    // One was not gone for good.
    cluster.wipe(one);
    std::fs::rename(&saved, cluster.data(one)).unwrap();
    cluster.restart(one);
    fill(&mut appender, 1, 20, 50_000);
    let up = [last, one].map(|id| cluster.status(id).unwrap().committed);
    assert!(up.iter().all(|committed| Offset::new(*committed) > end), "appends go on: {up:?}");
    cluster.join(other);
    replace(&cluster, other);
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}
