use super::super::sample::{Actors, History, Panic, Ready, Segment};
use super::*;

fn actor(name: &str, kind: &str, handled: u64) -> Actor {
    Actor {
        name: name.to_owned(),
        kind: kind.to_owned(),
        state: "running".to_owned(),
        handled,
        ..Actor::default()
    }
}

/// A node of which every actor has handled so much.
fn sample(node: u32, unix_ms: u64, handled: u64) -> Sample {
    let mut stuck = actor("read-waiters", "ReadWaiters", 0);
    stuck.stalled_ms = Some(6_200);
    stuck.oldest_wait_ms = 6_300;
    let mut panicked = actor("consensus", "Consensus", handled * 2);
    panicked.restarts = 1;
    panicked.last_panic = Some(Panic { text: "broken\n\x1b[2Jpromise".to_owned(), unix_ms: 1_000 });
    let actors = vec![
        actor("node", "Node", 0),
        actor("storage-group", "Group", 0),
        panicked,
        actor("upload-buffer", "UploadBuffer", handled),
        actor("connection-1", "Connection", handled / 4),
        actor("connection-2", "Connection", handled / 4),
        stuck,
    ];
    let member = |id: u32, lag: u64| Member {
        node: id,
        client_address: format!("10.0.0.{id}:19194"),
        voter: true,
        leads: id == 1,
        connected: (id != 1).then_some(id != 3),
        durable: Some(5_000_000 - lag),
        lag_bytes: Some(lag),
    };
    let cluster = Cluster {
        cluster: "00000000000000ab".to_owned(),
        role: if node == 1 { "leader" } else { "follower" }.to_owned(),
        term: 7,
        uptime_s: 3700,
        committed: 5_000_000,
        durable: 5_000_000,
        members: vec![member(1, 0), member(2, 2048), member(3, 3 << 20)],
    };
    let log = Log {
        start: 1 << 20,
        committed: 5_000_000,
        durable: 5_000_100,
        disk_free: 3 << 30,
        disk_full: false,
        segments: (0..5).map(|at| Segment { base: at << 20, end: (at + 1) << 20 }).collect(),
    };
    let second = |appends: u64| Second {
        appends,
        append_bytes: appends * 100,
        sync_p99_us: Some(appends),
        sync_count: 9,
    };
    let history = History { interval_ms: 1000, samples: [400, 800, 1600].map(second).to_vec() };
    Sample {
        actors: Actors { node, unix_ms, actors },
        cluster: Some(cluster),
        log: Some(log),
        history,
        ready: Ready { ready: node == 1, why: (node != 1).then(|| "no leader is known".to_owned()) },
        ..Sample::default()
    }
}

fn view() -> View {
    let mut view = View::new(&["a:1".to_owned(), "b:2".to_owned()]);
    view.take(0, Ok(sample(1, 1_000, 1_000)));
    view.take(0, Ok(sample(1, 2_000, 5_000)));
    view.take(1, Ok(sample(2, 2_000, 0)));
    view
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain().trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_picture_has_cluster_log_and_actors() {
    let text = text(&draw(&view(), None));
    for part in [
        "LogLog  cluster 00000000000000ab\n",
        "›1    leader          7           5,000,000           5,000,000         0 B     1 h 1 min  10.0.0.1:19194\n",
        " 2    follower        7",
        "2.00 KiB",
        " 3    voter           –                   –           1,854,272    3.00 MiB             –  10.0.0.3:19194  no connection\n",
        "appends         1,600/s",
        "▃▅█  most 1,600/s",
        "1.60 ms",
        "1,048,576 to 5,000,000, 3.77 MiB in 5 segments, 100 B synced ahead, 3.00 GiB free\n",
        "░▊█",
        "actors of node 1",
        "connections ×2",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains("storage-group") && !text.contains("not ready"), "{text}");
    let mut view = view();
    view.next();
    assert!(self::text(&draw(&view, None)).contains("node 2 is not ready: no leader is known\n"));
}

#[test]
fn what_is_stuck_comes_first_then_who_has_most_to_do() {
    let view = view();
    let lines = actors(view.chosen(), view.chosen().sample.as_ref().unwrap(), usize::MAX);
    let names: Vec<String> =
        lines[1..].iter().map(|line| line.plain().split("  ").next().unwrap().to_owned()).collect();
    assert_eq!(names, ["read-waiters", "consensus", "upload-buffer", "connections ×2"]);
    assert!(lines[1].plain().contains("stuck for 6 s") && lines[1].plain().contains("6.3 s"));
    assert!(lines[2].plain().contains("8,000") && lines[2].plain().ends_with("1 s ago: broken"));
    assert!(lines[4].plain().contains("2,000"), "two of 1,000 a second");
}

#[test]
fn a_small_screen_says_what_it_hides_and_no_line_is_too_long() {
    let view = view();
    let sample = view.chosen().sample.as_ref().unwrap();
    let lines = actors(view.chosen(), sample, 3);
    assert_eq!((lines.len(), lines[2].plain()), (3, "and 3 more".to_owned()));
    for line in draw(&view, Some(Size { columns: 40, rows: 20 })) {
        assert!(line.ansi(40, false).chars().count() <= 40);
    }
}

#[test]
fn nothing_that_a_node_says_moves_the_cursor() {
    let line = Line::of(Look::Plain, "a\x1b[2Jb\r\n\tc");
    assert_eq!(line.ansi(80, false), "a[2Jbc");
    assert_eq!(Line::of(Look::Bad, "abc").ansi(2, true), "\x1b[1;31mab\x1b[0m");
}

#[test]
fn a_node_that_does_not_answer_is_named_and_its_old_news_are_soft() {
    let mut view = view();
    view.take(0, Err("connection refused".to_owned()));
    let lines = draw(&view, None);
    let text = text(&lines);
    assert!(text.contains("node 1 does not answer: connection refused\n"), "{text}");
    let log = lines.iter().find(|line| line.plain().starts_with("log")).unwrap();
    assert!(log.0.iter().all(|(look, _)| *look == Look::Soft));
    // Of one that never did there is nothing else to say.
    let mut never = View::new(&["a:1".to_owned()]);
    never.take(0, Err("connection refused".to_owned()));
    assert_eq!(draw(&never, None).last().unwrap().plain(), "connection refused");
    let text = self::text(&draw(&never, None));
    assert!(text.contains("a:1 does not answer") && !text.contains("appends"), "{text}");
}
