//! Changes to the log's members and leader, asked for at a cluster in the same process.

use std::time::{Duration, Instant};

use loglog_proto::error::Code;
use loglog_proto::{NodeId, Offset};

use crate::testing::cluster::FakeCluster;
use crate::{Change, Client, Error, Managed, NewMember};

fn id(node: u32) -> NodeId {
    NodeId::new(node).unwrap()
}

/// A client that is given one node only.
async fn client(cluster: &FakeCluster, at: usize) -> Client {
    let builder = Client::builder().endpoints(cluster.nodes[at].address.as_str());
    builder.request_timeout(Duration::from_secs(2)).connect().await.unwrap()
}

fn nodes(managed: &Managed) -> Vec<(u32, &str)> {
    managed.members.iter().map(|member| (member.node, member.role.as_str())).collect()
}

#[tokio::test]
async fn a_change_finds_the_leader_and_is_made_once() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 1).await;
    let new = NewMember { node: id(4), peer: Some("h:2".into()), client: Some("h:1".into()) };
    let would = client.dry_run(Change::Add(new.clone())).await.unwrap();
    assert_eq!(nodes(&would), [(1, "voter"), (2, "voter"), (3, "voter"), (4, "learner")]);
    assert_eq!(cluster.log.members().len(), 3, "that was only said");
    let added = client.add_member(new).await.unwrap();
    assert_eq!((nodes(&added), added.membership), (nodes(&would), 1));
    assert_eq!(nodes(&client.promote(id(4)).await.unwrap())[3], (4, "voter"));
    // The lead moves, and the client goes where it went.
    client.move_leader(id(3)).await.unwrap();
    assert_eq!(nodes(&client.remove(id(4)).await.unwrap()).len(), 3);
    assert_eq!(client.trim(Offset::new(31)).await.unwrap().start, 0);
    let same_place = NewMember { node: id(2), peer: None, client: None };
    assert_eq!(nodes(&client.replace(same_place).await.unwrap())[1], (2, "learner"));
    assert_eq!(cluster.log.members()[1].address, cluster.nodes[1].address);
}

#[tokio::test]
async fn what_may_be_granted_later_is_asked_for_again_and_what_stands_is_told_at_once() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 0).await;
    cluster.log.set_busy(3);
    client.remove(id(3)).await.unwrap();
    cluster.log.set_busy(u32::MAX);
    let began = Instant::now();
    let Error::Refused(refusal) = client.remove(id(2)).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.code, Code::Unavailable);
    assert!(began.elapsed() > Duration::from_secs(1), "given up at the request's time only");
    cluster.log.set_busy(0);
    client.remove(id(2)).await.unwrap();
    let began = Instant::now();
    let error = client.remove(id(1)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code == Code::Forbidden), "{error}");
    let error = client.trim(Offset::new(1 << 40)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code == Code::BadRequest), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_leader_that_is_removed_hands_over_and_the_client_goes_along() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 0).await;
    assert_eq!(nodes(&client.remove(id(1)).await.unwrap()), [(2, "voter"), (3, "voter")]);
    assert_eq!(cluster.log.leader(), Some(id(2)));
    client.append("after").await.unwrap();
}

#[tokio::test]
async fn members_are_the_leaders_word_and_any_nodes_where_none_leads() {
    let cluster = FakeCluster::start().await;
    let client = client(&cluster, 2).await;
    let lags = |managed: &Managed| managed.members.iter().filter_map(|member| member.lag).count();
    assert_eq!(lags(&client.members().await.unwrap()), 3);
    // The connection was the leader's, and is not any more.
    cluster.lead(Some(1));
    let managed = client.members().await.unwrap();
    assert_eq!(lags(&managed), 3);
    assert!(managed.members[1].leads);
    cluster.lead(None);
    let managed = client.members().await.unwrap();
    assert_eq!((managed.members.len(), lags(&managed)), (3, 0));
}
