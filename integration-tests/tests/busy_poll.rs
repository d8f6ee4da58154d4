//! Busy polling: a node and a client that look for each other's bytes without sleeping answer as ever, and sleep when nobody asks.

use std::time::{Duration, Instant};

use loglog_client::Client;
use loglog_integration_tests::{Daemon, until};
use loglog_proto::{Length, Offset};

use crate::daemon;

/// Processor time of a process so far, in ticks of the kernel's (10 ms).
fn cpu_ticks(node: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.id())).expect("it lives");
    // Its name may hold blanks.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

#[test]
fn who_polls_answers_as_ever_and_sleeps_when_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("connection.busy_poll=10 ms").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = Client::builder().endpoints(node.address()).busy_poll(Duration::from_millis(10));
        let client = builder.connect().await.unwrap();
        let began = Instant::now();
        for number in 0..300 {
            client.append(format!("append {number}")).await.unwrap();
        }
        println!("300 appends, one after the other: {:?} each", began.elapsed() / 300);
        let end = client.end(true).await.unwrap();
        let read = client.read(Offset::ZERO, Length::new(1 << 20)).await.unwrap();
        assert_eq!(read.bytes.len() as u64, end.get());
    });
    let (mut ticks, mut since) = (cpu_ticks(&node), Instant::now());
    let took = until("a node that sleeps", Duration::from_secs(20), || {
        let now = cpu_ticks(&node);
        if now != ticks {
            (ticks, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(200)
    });
    println!("asleep for 200 ms after {took:?}");
    assert!(node.stop().0.success());
}
