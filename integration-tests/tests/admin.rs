//! The admin endpoint of real nodes: what it answers, to whom, and when.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use loglog::config::{Effective, Sources};
use loglog::logging::{LogFormat, Logging};
use loglog::options::node_options;
use loglog_actors::{Node, NodeError};
use loglog_integration_tests::http::{Reply, get, get_json, request, send};
use loglog_integration_tests::{Cluster, RawClient, until, within};
use loglog_proto::request::RequestBody;
use serde_json::{Value, json};

use crate::daemon;

/// Ten times what is wanted, or more.
const DEADLINE: Duration = Duration::from_secs(30);

fn cluster() -> Cluster {
    Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3)
}

fn ready(admin: &str) -> (u16, Value) {
    let reply = get(admin, "/health/ready");
    (reply.status, reply.json())
}

#[test]
fn a_page_of_another_site_can_change_nothing_and_a_rebound_name_sees_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let (admin, body) = (node.admin(), r#"{"level":"trace"}"#);
    let put = |headers: &[(&str, &str)]| request(admin, "PUT", "/api/log-level", headers, body);
    let json = ("Content-Type", "application/json");
    let refused = |reply: Reply, status: u16, words: &str| {
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(reply.json()["error"].as_str().unwrap().contains(words), "{}", reply.body);
        assert!(
            reply.headers.iter().all(|(name, _)| !name.starts_with("access-control-")),
            "{:?}",
            reply.headers
        );
    };
    let before = get_json(admin, "/api/log-level");
    let evil = ("Host", "evil.example:19196");
    refused(put(&[("Host", admin), ("Content-Type", "text/plain")]), 415, "application/json");
    refused(put(&[("Host", admin)]), 415, "application/json");
    refused(put(&[evil, json]), 403, "Host");
    assert_eq!(put(&[json]).status, 400, "HTTP/1.1 does not do without a Host");
    refused(request(admin, "GET", "/api/actors", &[evil], ""), 403, "Host");
    let fault = r#"{"actor":"listener","how":"handler"}"#;
    refused(request(admin, "POST", "/api/faults", &[evil, json], fault), 403, "Host");
    // What a browser asks before it sends a foreign page's PUT, or its JSON: it gets no leave.
    let origin = ("Origin", "http://evil.example");
    let wants = ("Access-Control-Request-Method", "PUT");
    let preflight = request(admin, "OPTIONS", "/api/log-level", &[("Host", admin), origin, wants], "");
    refused(preflight, 415, "application/json");
    assert_eq!(get_json(admin, "/api/log-level"), before, "nothing has changed");

    let good = put(&[("Host", "localhost"), json]);
    assert_eq!((good.status, good.json()), (200, json!({"level": "trace"})));
    for (name, value) in [("content-security-policy", "default-src 'self'"), ("cache-control", "no-store")] {
        assert_eq!(get(admin, "/").header(name), value);
        assert_eq!(get(admin, "/nowhere").header(name), value);
    }
}

#[test]
fn the_log_level_changes_at_once_and_sighup_brings_the_configured_one_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let admin = node.admin();
    let debugs = || node.records().iter().filter(|record| record["level"] == "debug").count();
    let level = || get_json(admin, "/api/log-level")["level"].as_str().unwrap().to_owned();
    let configured = level();
    assert_eq!(debugs(), 0);
    let reply = send(admin, "PUT", "/api/log-level", r#"{"level":"debug"}"#);
    assert_eq!((reply.status, reply.json()), (200, json!({"level": "debug"})));
    // A connection is worth a debug record.
    until("debug records are written", DEADLINE, || {
        drop(RawClient::connect(node.address()));
        debugs() > 0
    });
    for (body, words) in [
        (r#"{"level":"loud"}"#, "expected off, critical"),
        (r#"{"level":5}"#, "the body"),
        (r#"{"level":"info","x":1}"#, "unknown field"),
        ("", "the body"),
    ] {
        let reply = send(admin, "PUT", "/api/log-level", body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(reply.json()["error"].as_str().unwrap().contains(words), "{}", reply.body);
    }
    assert_eq!(level(), "debug", "a mistake changes nothing");
    loglog_integration_tests::daemon::signal(node.id(), "HUP");
    until("the configured level is back", DEADLINE, || level() == configured);
}

#[test]
fn faults_need_leave_and_name_the_actors_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let fault = r#"{"actor":"read-waiters","how":"handler"}"#;
    let reply = send(node.admin(), "POST", "/api/faults", fault);
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("debug.faults"), "{}", reply.body);
    assert_eq!(node.stop().0.code(), Some(0));

    let node = daemon(&dir).set("debug.faults=true").start();
    let post = |body: &str| send(node.admin(), "POST", "/api/faults", body);
    assert_eq!(post(r#"{"actor":"x","how":"sideways"}"#).status, 400);
    let reply = post(r#"{"actor":"nobody","how":"handler"}"#);
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("read-waiters"), "{}", reply.body);
    let reply = post(fault);
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    let (actor, took) = within("the restart is shown", DEADLINE, || {
        let actor = get_json(node.admin(), "/api/actors/read-waiters");
        (actor["restarts"] == 1 && actor["state"] == "running").then_some(actor)
    });
    println!("a restart was shown after {took:?}");
    assert_eq!(actor["last_panic"]["text"], "injected fault in a handler", "{actor}");
}

#[test]
fn it_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let admin = node.admin();
    let large = format!(r#"{{"level":"{}"}}"#, "x".repeat(1 << 20));
    let reply = send(admin, "PUT", "/api/log-level", &large);
    assert_eq!(reply.status, 413, "{}", reply.body);
    // A body that never comes.
    let head = format!(
        "PUT /api/log-level HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    );
    let mut slow = TcpStream::connect(admin).unwrap();
    std::io::Write::write_all(&mut slow, head.as_bytes()).unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut said = [0; 12];
    std::io::Read::read_exact(&mut slow, &mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 408");
    // Clients that connect and say nothing hold others up only until they are given up.
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(admin).unwrap()).collect();
    let began = Instant::now();
    assert_eq!(get(admin, "/health/live").status, 200);
    println!("answered {:?} after {} connections that say nothing", began.elapsed(), silent.len());
    assert!(began.elapsed() < DEADLINE);
    drop(silent);
    // Nor do those that ask once, and then begin another request.
    let whole = format!("GET /health/live HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    let halves: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = TcpStream::connect(admin).unwrap();
            std::io::Write::write_all(&mut socket, format!("{whole}G").as_bytes()).unwrap();
            socket
        })
        .collect();
    let began = Instant::now();
    assert_eq!(get(admin, "/health/live").status, 200);
    println!("answered {:?} after {} that begin a second request", began.elapsed(), halves.len());
    assert!(began.elapsed() < DEADLINE);
    drop(halves);
    // Nor those that ask and ask and never read.
    let many = format!("GET /api/openapi.json HTTP/1.1\r\nHost: {admin}\r\n\r\n").repeat(1000);
    let deaf: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut socket = TcpStream::connect(admin).unwrap();
            socket.set_nonblocking(true).unwrap();
            // As much as it takes.
            let _ = std::io::Write::write(&mut socket, many.as_bytes());
            socket
        })
        .collect();
    let began = Instant::now();
    assert_eq!(get(admin, "/health/live").status, 200);
    println!("answered {:?} after {} that never read", began.elapsed(), deaf.len());
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn a_taken_port_stops_the_start_and_an_empty_address_turns_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (status, said) = daemon(&dir).set(&format!("listen.admin={address}")).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&address.to_string()) && said.contains("listen.admin"), "{said}");

    let node = daemon(&dir).set("listen.admin=").start();
    assert_eq!(node.admin(), "off");
    // It serves all the same, on its other ports only.
    assert!(matches!(
        RawClient::connect(node.address()).ask(RequestBody::End { linearizable: true }),
        loglog_proto::response::ResponseBody::End { .. }
    ));
    assert_eq!(node.stop().0.code(), Some(0));
}

#[test]
fn a_node_without_a_majority_is_alive_and_not_ready_and_says_why() {
    let mut cluster = cluster();
    let ids: Vec<u32> = cluster.ids().collect();
    for id in &ids {
        until("every node is ready", DEADLINE, || ready(&cluster.admin(*id)).0 == 200);
    }
    let (last, others) = ids.split_last().unwrap();
    let admin = cluster.admin(*last);
    for id in others {
        cluster.kill(*id);
    }
    let (why, took) = within("it is not ready", DEADLINE, || {
        let (status, answer) = ready(&admin);
        (status == 503).then(|| answer["why"].as_str().unwrap().to_owned())
    });
    println!("not ready after {took:?}: {why}");
    assert!(why.contains("no leader is known"), "{why}");
    assert_eq!(get_json(&admin, "/health/live"), json!({"status": "live"}));
    cluster.restart(others[0]);
    let took = until("it is ready again", DEADLINE, || ready(&admin).0 == 200);
    println!("ready again after {took:?}");
}

#[test]
fn a_node_that_waits_for_its_cluster_answers_already() {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_loglogd"), 3);
    cluster.launch(1);
    let admin = cluster.admin(1);
    let (status, answer) = ready(&admin);
    assert_eq!(status, 503);
    assert!(answer["why"].as_str().unwrap().contains("starting"), "{answer}");
    assert_eq!(get(&admin, "/health/live").status, 200);
    assert!(!get_json(&admin, "/api/actors")["actors"].as_array().unwrap().is_empty());
    assert_eq!(get(&admin, "/api/log").status, 503);
    assert_eq!(get(&admin, "/metrics").status, 200);
    for id in [2, 3] {
        cluster.launch(id);
    }
    cluster.all_serve();
    until("it is ready", DEADLINE, || ready(&admin).0 == 200);
    assert_eq!(get(&admin, "/api/cluster").status, 200);
}

#[test]
fn it_answers_within_a_second_while_consensus_is_stuck_and_reports_the_stall() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let admin = node.admin();
    until("it is ready", DEADLINE, || ready(admin).0 == 200);
    let reply = send(admin, "POST", "/api/faults", r#"{"actor":"consensus","how":"stall","ms":8000}"#);
    assert_eq!(reply.status, 204, "{}", reply.body);
    let began = Instant::now();
    // The fault took effect: whoever asks consensus gets no answer meanwhile.
    let address = node.address().to_owned();
    let asked = std::thread::spawn(move || {
        let mut client = RawClient::silent(&address);
        client.ask(RequestBody::Hello {
            version: loglog_proto::request::PROTOCOL_VERSION,
            cluster: None,
            credentials: None,
        });
        client.ask(RequestBody::End { linearizable: true });
        began.elapsed()
    });
    let paths = [
        "/api/actors",
        "/api/actors/consensus",
        "/api/cluster",
        "/api/log",
        "/api/config",
        "/api/history",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/",
    ];
    let (mut slowest, mut answers, mut reported) = (Duration::ZERO, 0, None);
    while began.elapsed() < Duration::from_millis(7500) {
        for path in paths {
            let asked = Instant::now();
            let reply = get(admin, path);
            slowest = slowest.max(asked.elapsed());
            answers += 1;
            assert!(reply.status == 200 || path == "/health/ready", "{path}: {}", reply.body);
            if path == "/api/actors/consensus" && reported.is_none() {
                let stalled = reply.json()["stalled_ms"].as_u64();
                reported = stalled.map(|ms| (began.elapsed(), ms));
            }
        }
    }
    println!(
        "{answers} answers while consensus was stuck, the slowest after {slowest:?}; the stall: {reported:?}"
    );
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let (at, ms) = reported.expect("the stall is reported while it lasts");
    assert!(at >= Duration::from_secs(4) && ms >= 4_000, "{at:?}, {ms} ms");
    let answered = asked.join().unwrap();
    assert!(answered >= Duration::from_millis(7900), "consensus was stuck: it answered after {answered:?}");
    until("it goes on", DEADLINE, || get_json(admin, "/api/actors/consensus")["stalled_ms"].is_null());
    assert_eq!(get_json(admin, "/api/actors/consensus")["stalls"], 1);
    until("it is ready again", DEADLINE, || ready(admin).0 == 200);
}

#[test]
fn a_stall_makes_the_node_not_ready_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).set("debug.faults=true").start();
    let admin = node.admin();
    until("it is ready", DEADLINE, || ready(admin).0 == 200);
    let reply = send(admin, "POST", "/api/faults", r#"{"actor":"segment-writer","how":"stall","ms":8000}"#);
    assert_eq!(reply.status, 204, "{}", reply.body);
    let (why, took) = within("the stall is a reason", DEADLINE, || {
        let (status, answer) = ready(admin);
        (status == 503).then(|| answer["why"].as_str().unwrap().to_owned())
    });
    println!("not ready after {took:?}: {why}");
    assert!(why.starts_with("segment-writer"), "{why}");
    assert!(took >= Duration::from_secs(4), "{took:?}");
    until("it is ready again", DEADLINE, || ready(admin).0 == 200);
}

#[test]
fn the_last_minutes_show_the_load() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let mut client = RawClient::connect(node.address());
    for sequence in 1..=50u64 {
        crate::admin_kit::append(&mut client, sequence);
    }
    let (samples, took) = within("the load is in a sample", DEADLINE, || {
        let samples = get_json(node.admin(), "/api/history")["samples"].as_array().unwrap().clone();
        let appends: u64 = samples.iter().map(|sample| sample["appends"].as_u64().unwrap()).sum();
        (appends >= 50).then_some(samples)
    });
    println!("{} samples, the load shown after {took:?}", samples.len());
    let busy: Vec<&Value> = samples.iter().filter(|sample| sample["appends"] != 0).collect();
    assert!(
        busy.iter().all(|it| it["sync_count"].as_u64() > Some(0) && it["sync_p99_us"].as_u64() > Some(0)),
        "{busy:?}"
    );
    let appended: u64 = samples.iter().map(|sample| sample["appends"].as_u64().unwrap()).sum();
    // One opened the term.
    assert!((50..=52).contains(&appended), "each is counted once: {appended}");
}

/// What a node inside this program is configured with.
fn inside(data: &Path, more: &[&str]) -> Effective {
    let set = [
        "listen.client=127.0.0.1:0",
        "listen.peer=127.0.0.1:0",
        "listen.admin=127.0.0.1:0",
        "data.free_min=1 MiB",
    ];
    let mut set: Vec<String> = set.iter().chain(more).map(|it| (*it).to_owned()).collect();
    set.push(format!("data.dir={}", data.display()));
    Sources { file: None, environment: Some(Default::default()), set }.load().unwrap()
}

#[test]
fn it_ends_with_a_node_that_lives_inside_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let effective = inside(dir.path(), &[]);
    let logging = Logging::start(LogFormat::Json, &"off".parse().unwrap());
    actix_rt::System::new().block_on(async {
        for _ in 0..2 {
            let options = node_options(&effective, None);
            // The directory's lock goes with the last actor of the life before.
            let began = Instant::now();
            let node = loop {
                match Node::start(options.clone(), logging.logger().clone()).await {
                    Ok(node) => break node,
                    Err(NodeError::Lock(_)) if began.elapsed() < DEADLINE => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            let admin = node.admin_address().unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel();
            let serving = actix_rt::spawn(node.serve(async {
                let _ = stopped.await;
            }));
            let ask = move |path: &'static str| {
                let address = admin.to_string();
                async move { tokio::task::spawn_blocking(move || get(&address, path)).await.unwrap() }
            };
            let began = Instant::now();
            while ask("/health/ready").await.status != 200 {
                assert!(began.elapsed() < DEADLINE, "it is not ready");
            }
            assert_eq!(ask("/api/log-level").await.status, 404);
            stop.send(()).unwrap();
            serving.await.unwrap().unwrap();
            TcpListener::bind(admin).expect("the port is free once the node has ended");
        }
    });
}

/// A member that hangs may write yet, long after its node has given it up: until its process is gone nobody else may recover that log.
#[test]
fn s13_a_member_that_is_left_behind_keeps_the_directory_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let effective = inside(dir.path(), &["debug.faults=true"]);
    let logging = Logging::start(LogFormat::Json, &"off".parse().unwrap());
    actix_rt::System::new().block_on(async {
        let options = node_options(&effective, Some(&logging));
        let node = Node::start(options.clone(), logging.logger().clone()).await.unwrap();
        let admin = node.admin_address().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = actix_rt::spawn(node.serve(async {
            let _ = stopped.await;
        }));
        let fault = r#"{"actor":"segment-writer","how":"stall","ms":60000}"#;
        let injected = tokio::task::spawn_blocking(move || send(&admin, "POST", "/api/faults", fault).status);
        assert_eq!(injected.await.unwrap(), 204);
        stop.send(()).unwrap();
        let began = Instant::now();
        serving.await.unwrap().unwrap();
        println!("left behind after {:?}", began.elapsed());
        // The other actors of that life let go of the directory within moments.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let again = Node::start(options.clone(), logging.logger().clone()).await;
            assert!(matches!(again, Err(NodeError::Lock(_))), "the directory is another's already");
            actix_rt::time::sleep(Duration::from_millis(100)).await;
        }
    });
}
