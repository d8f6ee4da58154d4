//! kill -9 at random moments: every acknowledged entry is there once, at its offset, in each writer's order, after retries.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::cluster::final_log;
use loglog_integration_tests::{Load, LoadOptions, RawClient};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::daemon;

const KILLS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn s08_kill_9_loses_doubles_and_reorders_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // One port for all lives of the node, so that clients find it again; nobody else is given it meanwhile.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = daemon(&dir)
        .set("segment.bytes_max=1 MiB")
        .set(&format!("listen.client=127.0.0.1:{port}"))
        .set("log.level=warning,loglogd=info");
    let mut node = options.start();
    let address = format!("127.0.0.1:{port}");
    let load = Load::start(vec![address.clone()], LoadOptions { writers: 4, in_flight: 100, readers: 1 });

    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut slowest = Duration::ZERO;
    for kill in 0..KILLS {
        load.progress(rng.random_range(1..4000), DEADLINE);
        node.kill();
        node = options.start();
        slowest = slowest.max(load.resumed(Instant::now(), DEADLINE).first);
        if kill % 5 == 4 {
            println!("{} kills, {} acknowledged", kill + 1, load.acknowledged());
        }
    }
    let mut finished = load.finish();
    println!("appends went on at most {slowest:?} after the node served again");
    let ResponseBody::End { end, .. } =
        RawClient::connect(&address).ask(RequestBody::End { linearizable: true })
    else {
        panic!("a node that is alone knows the end")
    };
    let facts = finished.check(vec![final_log(1, &address, end)], &Enough::acks(5000));
    assert_eq!(finished.seen, [usize::try_from(facts.entries).unwrap()], "the reader saw every entry");
    let segments = std::fs::read_dir(dir.path().join("data")).unwrap();
    let segments =
        segments.filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|it| it == "seg")).count();
    println!("{facts} over {KILLS} kills, {segments} segments");
    assert!(segments > KILLS, "{segments} segments");
    assert_eq!(node.stop().0.code(), Some(0));
}
