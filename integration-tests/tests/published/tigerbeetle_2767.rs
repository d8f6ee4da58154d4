//! tigerbeetle 2767: a node whose disk was lost was formatted anew and joined under its old name. It had forgotten what it had promised: with
//! one that was behind it made a majority, and the only copy of an acknowledged operation, on the third, was thrown away.
//!
//! Here: two nodes hold what the third never saw; one of these is wiped and comes back as it was configured. It does not vote, the two of them
//! elect nobody, and once the one that has the entries is back, all are there. The wiped node is taken in again by `members replace`.
//!
//! Fails if a node goes by its number without its incarnation, or if a new directory votes before it was taken in (S22, S24).

use loglog_integration_tests::Appender;

use super::{append_is_not_acknowledged, goes_on, never, others, replace, start, why};
use crate::repair::{fill, verify_compare};

#[test]
fn tigerbeetle_2767_a_wiped_node_does_not_vote_and_makes_no_majority() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 100, 200_000);
    let _ = cluster.converge();
    let (whole, _) = cluster.leader();
    let [behind, wiped] = others(&cluster, whole)[..] else { panic!("three nodes") };
    cluster.kill(behind);
    fill(&mut appender, 1, 50, 200_000);
    let end = appender.acknowledged.last().unwrap().end.get();
    cluster.kill(whole);
    cluster.kill(wiped);
    cluster.wipe(wiped);

    cluster.launch(wiped);
    cluster.restart(behind);
    let said = append_is_not_acknowledged(&cluster, behind, &appender);
    never("the two of them make a majority", || {
        cluster.says(wiped, "serving") || cluster.status(behind).is_some_and(|it| it.role == "leader")
    });
    assert!(cluster.status(behind).unwrap().committed < end, "the other one never had it");
    let status = cluster.ended(wiped);
    assert_eq!(status.code(), Some(1));
    let why = why(&cluster, wiped);
    assert!(why.contains("directory was lost"), "{why}");
    println!("node {wiped} says: {why}\nnode {behind} answered an append with: {said}");

    // It is the same for a wiped node that asks to be taken in: until the members say so it counts for nothing.
    cluster.wipe(wiped);
    cluster.join(wiped);
    never("the two of them make a majority", || {
        cluster.status(behind).is_some_and(|it| it.role == "leader")
            || cluster.status(wiped).is_some_and(|it| it.role != "joining")
    });

    cluster.restart(whole);
    fill(&mut appender, 1, 20, 50_000);
    replace(&cluster, wiped);
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}
