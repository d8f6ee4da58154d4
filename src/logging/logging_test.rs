//! The whole chain, from a macro to bytes.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use slog::{FilterLevel, OwnedKVList, Record, debug, info};

use super::*;

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn json_is_one_object_a_line_and_the_end_flushes() {
    let bytes = Bytes::default();
    let logging = Logging::with_drain(format::json(bytes.clone()), &LevelSpec::info());
    let actor = logging.logger().new(o!("actor" => "listener"));
    info!(actor, "two\nlines"; "port" => 19194);
    debug!(actor, "unseen");
    logging.level().set(LevelSpec::all(FilterLevel::Debug));
    debug!(actor, "seen");
    drop(logging);
    let bytes = bytes.0.lock().unwrap().clone();
    assert!(bytes.starts_with(b"{\"ts\":\"2"), "the time comes first");
    let lines: Vec<serde_json::Value> =
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["msg"], "two\nlines");
    assert_eq!(lines[0]["level"], "info");
    assert_eq!(lines[0]["actor"], "listener");
    assert_eq!(lines[0]["port"], 19194);
    assert!(lines[0]["ts"].as_str().unwrap().ends_with('Z'), "{}", lines[0]["ts"]);
    assert_eq!(lines[1]["msg"], "seen");
}

/// A drain that tells when it begins with a record, and goes on only when told.
struct Slow {
    began: Sender<String>,
    go: Receiver<()>,
}

impl Drain for Slow {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let _ = self.began.send(record.msg().to_string());
        let _ = self.go.recv();
        Ok(())
    }
}

#[test]
fn a_full_queue_never_blocks_and_the_loss_is_counted_and_told() {
    let (began, records) = channel();
    let (go, wait) = channel();
    let logging = Logging::with_drain(Slow { began, go: wait }, &LevelSpec::info());
    info!(logging.logger(), "held");
    assert_eq!(records.recv().unwrap(), "held");
    // The thread holds one record, so the queue is empty: fill it, and three more.
    for _ in 0..QUEUE_RECORDS + 3 {
        info!(logging.logger(), "more");
    }
    assert_eq!(logging.dropped(), 3);
    drop(go);
    // From here nothing holds the thread; once all is written there is room for the report.
    for _ in 0..QUEUE_RECORDS {
        assert_eq!(records.recv().unwrap(), "more");
    }
    info!(logging.logger(), "after");
    assert!(records.recv().unwrap().contains("dropped"));
    assert_eq!(records.recv().unwrap(), "after");
    assert_eq!(logging.dropped(), 3);
}

#[test]
fn dependencies_are_captured_once() {
    let bytes = Bytes::default();
    let logging = Logging::with_drain(format::json(bytes.clone()), &LevelSpec::info());
    logging.capture_dependencies().unwrap();
    assert!(logging.capture_dependencies().is_err());
    log::warn!(target: "dependency", "hello");
    log::debug!(target: "dependency", "unheard");
    drop(logging);
    let text = String::from_utf8(bytes.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"target\":\"dependency\"")).count(), 1, "{text}");
}
