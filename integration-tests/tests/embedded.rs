//! A node inside the program: how it starts, ends, is shared, moves out and grows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use loglog::{
    AppendError, Client, Entry, Error, MemoryLog, NewMember, Node, NodeBuilder, NodeId, Offset,
    PipelineOptions, block_on,
};
use loglog_integration_tests::layout::{Layout, Place};
use tokio::runtime::{Builder, Runtime};

use crate::daemon;

const DEADLINE: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn id(node: u32) -> NodeId {
    NodeId::new(node).unwrap()
}

fn builder(dir: &Path) -> NodeBuilder {
    Node::builder().data_dir(dir).set("data.free_min", "1 MiB")
}

/// Where three nodes can listen.
fn places() -> Vec<Place> {
    Layout::new("", 3).places.into_values().collect()
}

/// A new cluster of three in this program.
pub(crate) async fn three(dir: &Path, set: &[(&str, &str)]) -> Vec<Node> {
    let places = places();
    let started = (1..=3).map(|own: u32| {
        let builder = builder(&dir.join(own.to_string())).id(own).cluster("ab1e".parse().unwrap());
        let mut builder = builder.set("raft.tick", "50 ms");
        for (node, place) in (1..).zip(&places) {
            builder = builder.member(node, &place.peer, &place.client);
        }
        for (key, value) in set {
            builder = builder.set(key, value);
        }
        builder.start()
    });
    join_all(started).await.into_iter().map(|node| node.unwrap()).collect()
}

/// One that follows a leader.
pub(crate) async fn follower(nodes: &[Node]) -> &Node {
    let began = Instant::now();
    loop {
        for node in nodes {
            let status = node.log().status().await.unwrap();
            if status.role == "follower" && status.leader.is_some() {
                return node;
            }
        }
        assert!(began.elapsed() < DEADLINE, "nobody follows");
        tokio::task::yield_now().await;
    }
}

async fn entries(log: &Client) -> Vec<Entry> {
    log.entries(..).try_collect().await.unwrap()
}

#[test]
fn a_directory_has_one_node_at_a_time_and_is_free_once_that_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let mut places = Vec::new();
        for round in 0..5 {
            let node = builder(dir.path()).start().await.unwrap();
            let error = builder(dir.path()).start().await.unwrap_err().to_string();
            assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
            let log = node.log();
            places.push(log.append(format!("round {round}")).await.unwrap().offset);
            let began = Instant::now();
            node.shutdown().await.unwrap();
            println!("stopped after {:?}", began.elapsed());
            // A client that is left over is told, and neither hangs nor panics.
            let error = log.append("too late");
            let error = tokio::time::timeout(DEADLINE, error).await.unwrap().unwrap_err();
            assert_eq!(error, AppendError::Closed { may_have_happened: false });
        }
        let node = builder(dir.path()).start().await.unwrap();
        let found: Vec<_> = entries(&node.log()).await.iter().map(|it| it.offset).collect();
        assert_eq!(found, places);
    });
}

#[test]
fn what_it_is_told_wrongly_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let start = |builder: NodeBuilder| block_on(builder.start()).unwrap_err().to_string();
    let error = start(builder(dir.path()).listen("nonsense"));
    assert!(error.contains("listen.client") && error.contains("nonsense"), "{error}");
    assert!(error.contains("builder") && !error.contains("--set"), "{error}");
    let error = start(builder(dir.path()).set("segment.byts_max", "1 MiB"));
    assert!(error.contains("segment.bytes_max"), "{error}");
    let error = start(builder(dir.path()).id(0));
    assert!(error.contains("node.id"), "{error}");
    let error = start(builder(dir.path()).join("ab1e".parse().unwrap()));
    assert!(error.contains("listen.peer"), "{error}");
    let error = start(builder(dir.path()).join("ab1e".parse().unwrap()).listen_peers("127.0.0.1:0"));
    assert!(error.contains("listen.client"), "{error}");
    assert!(!dir.path().join("meta").exists(), "nothing was made");
}

/// Whatever an append that the end of its node overtook is told, is so: acknowledged, it is there; certainly not done, it never will be.
#[test]
fn s30_what_is_said_of_appends_in_flight_at_a_shutdown_is_true() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (mut acknowledged, mut denied, mut unknown) = (BTreeMap::new(), BTreeSet::new(), 0);
        for round in 0..10 {
            let node = builder(dir.path()).start().await.unwrap();
            let pipeline = node.log().pipeline(PipelineOptions::default());
            let mut tickets = Vec::new();
            for number in 0..2000 {
                let payload = format!("{round} {number}");
                tickets.push((payload.clone(), pipeline.append(payload).await.unwrap()));
            }
            // In the midst of them, a little later each time.
            for (payload, ticket) in tickets.drain(..round * 100) {
                acknowledged.insert(ticket.await.unwrap().offset, payload);
            }
            node.shutdown().await.unwrap();
            for (payload, ticket) in tickets {
                match tokio::time::timeout(DEADLINE, ticket).await.unwrap() {
                    Ok(place) => assert_eq!(acknowledged.insert(place.offset, payload), None),
                    Err(error) if error.may_have_happened() => unknown += 1,
                    Err(_) => assert!(denied.insert(payload)),
                }
            }
        }
        let node = builder(dir.path()).start().await.unwrap();
        let found = entries(&node.log()).await.into_iter();
        let found: BTreeMap<_, _> =
            found.map(|it| (it.offset, String::from_utf8(it.payload.to_vec()).unwrap())).collect();
        println!("{} acknowledged, {} denied, {unknown} unknown", acknowledged.len(), denied.len());
        assert!(acknowledged.iter().all(|(offset, payload)| found.get(offset) == Some(payload)));
        assert!(found.values().all(|payload| !denied.contains(payload)));
        assert_eq!(found.values().collect::<BTreeSet<_>>().len(), found.len(), "none twice");
        assert!(!denied.is_empty() || unknown > 0, "the end overtook some");
        node.shutdown().await.unwrap();
    });
}

/// What a runtime that is gone took along is begun again in the next; and there need be none.
#[test]
fn its_log_outlives_the_runtimes_that_it_was_used_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = block_on(builder(dir.path()).start()).unwrap();
    let (log, memory) = (node.log(), MemoryLog::new());
    for log in [&log, memory.client()] {
        for round in 0..6 {
            let append = async {
                log.append(format!("round {round}")).await.unwrap();
                // A read that waits for ever, and goes with its runtime.
                let mut follow = log.follow(log.end(false).await.unwrap());
                tokio::spawn(async move { follow.next().await });
                tokio::task::yield_now().await;
            };
            match round % 3 {
                0 => Builder::new_current_thread().enable_all().build().unwrap().block_on(append),
                1 => runtime().block_on(append),
                _ => drop(block_on(log.append(format!("round {round}"))).unwrap()),
            }
            let found: Vec<Entry> = block_on(log.entries(..).try_collect()).unwrap();
            assert_eq!(found.len(), round + 1);
        }
    }
    // Nothing is left of their connections.
    let began = Instant::now();
    loop {
        let status = block_on(log.status()).unwrap();
        if status.connections == 1 && status.waiting_reads == 0 {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{status:?}");
    }
    block_on(node.shutdown()).unwrap();
}

/// A member that waits for the others gives up its ports when it is given up.
#[test]
fn a_start_that_is_given_up_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let places = places();
    runtime().block_on(async {
        for _ in 0..3 {
            let mut builder = builder(dir.path()).cluster("ab1e".parse().unwrap());
            for (node, place) in (1..).zip(&places) {
                builder = builder.member(node, &place.peer, &place.client);
            }
            let mut starting = Box::pin(builder.start());
            // It waits for the others, and is found where it listens.
            let began = Instant::now();
            while tokio::net::TcpStream::connect(&places[0].peer).await.is_err() {
                assert!(began.elapsed() < DEADLINE, "it does not listen");
                let looked = tokio::time::timeout(Duration::from_millis(1), &mut starting).await;
                assert!(looked.is_err(), "it waits");
            }
            drop(starting);
            let began = Instant::now();
            while let Err(error) = std::net::TcpListener::bind(&places[0].peer) {
                assert!(began.elapsed() < DEADLINE, "{error}");
                tokio::task::yield_now().await;
            }
            println!("its port was free {:?} after it was given up", began.elapsed());
        }
    });
}

/// Several nodes, each a log of its own, and a node that is dropped.
#[test]
fn several_live_side_by_side_and_one_that_is_dropped_stops() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let starting = (0..4).map(|it| builder(&dir.path().join(it.to_string())).start());
        let nodes: Vec<Node> = join_all(starting).await.into_iter().map(|it| it.unwrap()).collect();
        let clusters: BTreeSet<_> = nodes.iter().map(|it| it.cluster().to_string()).collect();
        assert_eq!(clusters.len(), 4);
        for (number, node) in nodes.iter().enumerate() {
            node.log().append(format!("of node {number}")).await.unwrap();
        }
        for (number, node) in nodes.iter().enumerate() {
            assert_eq!(entries(&node.log()).await[0].payload, format!("of node {number}"));
        }
        drop(nodes);
        let began = Instant::now();
        while let Err(error) = builder(&dir.path().join("0")).start().await {
            assert!(began.elapsed() < DEADLINE, "{error}");
        }
        println!("the directory of one that was dropped was free after {:?}", began.elapsed());
    });
}

/// Its actors fail and are restarted while appends go on: each entry is there once, where it was said to be.
#[test]
fn appends_survive_what_the_supervisor_restarts() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let node = builder(dir.path()).set("debug.faults", "true").start().await.unwrap();
        let log = node.log();
        let pipeline = log.pipeline(PipelineOptions::default());
        let mut said = BTreeMap::new();
        for round in 0..6 {
            let mut tickets = Vec::new();
            for number in 0..500 {
                let payload = format!("{round} {number}");
                tickets.push((payload.clone(), pipeline.append(payload).await.unwrap()));
                if number == 250 {
                    let actor = ["consensus", "segment-writer", "upload-buffer"][round % 3];
                    log.fault(actor, "handler").await.unwrap();
                }
            }
            for (payload, ticket) in tickets {
                said.insert(ticket.await.unwrap().offset, payload);
            }
        }
        let found: BTreeMap<_, _> = entries(&log)
            .await
            .into_iter()
            .map(|it| (it.offset, String::from_utf8(it.payload.to_vec()).unwrap()))
            .collect();
        assert_eq!(found, said);
        assert!(log.status().await.unwrap().restarts >= 6);
        node.shutdown().await.unwrap();
    });
}

/// One log, three lives: the library's directory is a daemon's, and the other way round.
#[test]
fn a_directory_moves_between_library_and_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut places = Vec::new();
    for round in 0..3 {
        runtime().block_on(async {
            let node = builder(&data).start().await.unwrap();
            places.push(node.log().append(format!("library {round}")).await.unwrap());
            node.shutdown().await.unwrap();
        });
        let node = daemon(&dir).start();
        runtime().block_on(async {
            let log = Client::connect(node.address()).await.unwrap();
            places.push(log.append(format!("daemon {round}")).await.unwrap());
            let found: Vec<_> = entries(&log).await.iter().map(|it| (it.offset, it.end)).collect();
            assert_eq!(found, places.iter().map(|it| (it.offset, it.end)).collect::<Vec<_>>());
        });
        assert_eq!(node.stop().0.code(), Some(0));
    }
}

/// A program that began with a node of its own has three, while it appends, and what it said stays true.
#[test]
fn a_program_grows_from_the_library_to_a_cluster_of_three() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        // At first nobody hears of it.
        let node = builder(&dir.path().join("1")).start().await.unwrap();
        let mut said = append_some(&node.log(), 0).await;
        let cluster = node.cluster();
        node.shutdown().await.unwrap();

        // Then it listens to others, and takes them in while it appends.
        let places = places();
        let own = builder(&dir.path().join("1"));
        let first = own.listen(&places[0].client).listen_peers(&places[0].peer).start().await.unwrap();
        assert_eq!(first.cluster(), cluster);
        let log = first.log();
        let mut nodes = vec![first];
        for number in [2_u32, 3] {
            let Place { client, peer, .. } = &places[number as usize - 1];
            let newcomer = builder(&dir.path().join(number.to_string())).id(number).join(cluster);
            let newcomer = newcomer.listen(client).listen_peers(peer);
            nodes.push(newcomer.start().await.unwrap());
            let member =
                NewMember { node: id(number), client: Some(client.clone()), peer: Some(peer.clone()) };
            let took = Instant::now();
            let (appended, ()) = tokio::join!(append_some(&log, number), take_in(&log, member, id(number)));
            println!("node {number} votes after {:?}", took.elapsed());
            said.extend(appended);
        }
        // Any node's log is the same, and any may go.
        let end = log.end(true).await.unwrap();
        for node in &nodes {
            check(&node.log(), &said, end).await;
        }
        nodes.remove(0).shutdown().await.unwrap();
        said.extend(append_some(&nodes[0].log(), 9).await);
        let end = nodes[0].log().end(true).await.unwrap();
        for node in &nodes {
            check(&node.log(), &said, end).await;
        }
        // What left comes back, as a daemon of its own this time, at the same addresses.
        let daemon =
            loglog_integration_tests::DaemonOptions::new(env!("CARGO_BIN_EXE_loglogd"), dir.path().join("1"));
        let daemon = daemon.set(&format!("listen.peer={}", places[0].peer)).set("data.free_min=1 MiB");
        let daemon = daemon.set(&format!("listen.client={}", places[0].client)).start();
        check(&Client::connect(daemon.address()).await.unwrap(), &said, end).await;
        for ended in join_all(nodes.into_iter().map(Node::shutdown)).await {
            ended.unwrap();
        }
    });
}

async fn append_some(log: &Client, who: u32) -> BTreeMap<Offset, String> {
    let pipeline = log.pipeline(PipelineOptions::default());
    let mut tickets = Vec::new();
    for number in 0..3000 {
        let payload = format!("{who} {number}");
        tickets.push((payload.clone(), pipeline.append(payload).await.unwrap()));
    }
    let mut said = BTreeMap::new();
    for (payload, ticket) in tickets {
        said.insert(ticket.await.unwrap().offset, payload);
    }
    said
}

async fn take_in(log: &Client, member: NewMember, node: NodeId) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < DEADLINE, "{node} is not taken in");
        match log.add_member(member.clone()).await {
            Ok(_) => {}
            Err(Error::Refused(refusal)) if refusal.code.is_retryable() => continue,
            Err(error) => panic!("{error}"),
        }
        let votes = |managed: &loglog::Managed| {
            managed.members.iter().any(|it| it.node == node.get() && it.role == "voter")
        };
        while began.elapsed() < DEADLINE {
            match log.promote(node).await {
                Ok(managed) if votes(&managed) => return,
                Ok(_) => {}
                Err(error) if error.is_retryable() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The node has all that was said, once, at its offset.
async fn check(log: &Client, said: &BTreeMap<Offset, String>, end: Offset) {
    let found: Vec<Entry> = log.entries(..end).try_collect().await.unwrap();
    let found: BTreeMap<_, _> =
        found.into_iter().map(|it| (it.offset, String::from_utf8(it.payload.to_vec()).unwrap())).collect();
    assert!(found == *said, "{} found, {} said", found.len(), said.len());
}

/// Where a node listens is what it was told, and nothing else.
#[test]
fn it_listens_only_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let node = block_on(builder(dir.path()).start()).unwrap();
    assert_eq!((node.client_address(), node.admin_address()), (None, None));
    block_on(node.shutdown()).unwrap();
    let node = block_on(builder(dir.path()).listen("127.0.0.1:0").start()).unwrap();
    let address: SocketAddr = node.client_address().unwrap();
    runtime().block_on(async {
        let (outside, inside) = (Client::connect(address).await.unwrap(), node.log());
        let place = outside.append("from outside").await.unwrap();
        assert_eq!(entries(&inside).await[0].offset, place.offset);
    });
    block_on(node.shutdown()).unwrap();
}
