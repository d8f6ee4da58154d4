//! Replicas over a log in memory.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use loglog_proto::{Length, Offset};
use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::log::Log;
use crate::memory::MemoryLog;

/// All that it saw: offsets and payloads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen(Vec<(u64, Vec<u8>)>);

impl StateMachine for Seen {
    fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        match &entry.payload[..] {
            b"bad" => return Err("that is bad".into()),
            b"panic" => panic!("as asked"),
            payload => self.0.push((entry.offset.get(), payload.to_vec())),
        }
        Ok(())
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        for (offset, payload) in &self.0 {
            let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
            to.write_all(&offset.to_le_bytes())?;
            to.write_all(&length.to_le_bytes())?;
            to.write_all(payload)?;
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        while let Some((offset, after)) = rest.split_first_chunk() {
            let (length, after) = after.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            let (payload, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            self.0.push((u64::from_le_bytes(*offset), payload.to_vec()));
            rest = after;
        }
        Ok(())
    }
}

fn kept(dir: &TempDir) -> ReplicaOptions {
    ReplicaOptions { snapshot: Some(path(dir)), ..ReplicaOptions::default() }
}

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("seen")
}

async fn open(log: &MemoryLog, options: ReplicaOptions) -> Result<Replica<MemoryLog, Seen>, ReplicaError> {
    Replica::open(log.clone(), Seen::default(), options).await
}

async fn fresh(log: &MemoryLog) -> Replica<MemoryLog, Seen> {
    open(log, ReplicaOptions::default()).await.unwrap()
}

async fn append_all(log: &MemoryLog, count: usize) -> Vec<(u64, Vec<u8>)> {
    let mut appended = Vec::new();
    for number in 0..count {
        let payload = format!("entry {number}").into_bytes();
        let place = log.append(payload.clone()).await.unwrap();
        appended.push((place.offset.get(), payload));
    }
    appended
}

#[tokio::test]
async fn each_entry_is_applied_once_in_order_however_the_log_is_read() {
    let log = MemoryLog::new();
    let mut replica = fresh(&log).await;
    assert_eq!(replica.catch_up().await.unwrap(), log.end(true).await.unwrap());
    let mut all = append_all(&log, 3).await;
    replica.next().await.unwrap();
    replica.catch_up().await.unwrap();
    all.extend(append_all(&log, 2).await);
    let entry = replica.next().await.unwrap();
    assert_eq!(entry.offset.get(), all[3].0);
    // Given up while it waits, and again.
    replica.next().await.unwrap();
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(1), replica.next()).await.is_err());
    }
    all.extend(append_all(&log, 2).await);
    replica.next().await.unwrap();
    log.break_connections();
    replica.next().await.unwrap();
    assert_eq!(replica.state().0, all);
    assert_eq!(replica.at(), log.end(true).await.unwrap());
}

#[tokio::test]
async fn one_reads_ones_own_writes_and_no_more_than_asked() {
    let log = MemoryLog::new();
    let mut replica = fresh(&log).await;
    let first = log.append("first").await.unwrap();
    let second = log.append("second").await.unwrap();
    assert_eq!(replica.catch_up_to(first.end).await.unwrap(), first.end);
    assert_eq!(replica.state().0.len(), 1);
    replica.catch_up_to(second.end).await.unwrap();
    // Nobody is asked: not even a log that does not answer.
    log.pause();
    replica.catch_up_to(first.end).await.unwrap();
    log.resume();
    // Of an end within an entry the whole entry comes.
    let third = log.append("third").await.unwrap();
    assert_eq!(replica.catch_up_to(third.offset + Length::new(1)).await.unwrap(), third.end);
    let error = replica.catch_up_to(third.end + Length::new(1)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Log(Error::BeyondEnd { .. })), "{error}");
    assert_eq!(replica.state().0.len(), 3);
}

#[tokio::test]
async fn a_restart_goes_on_from_the_snapshot() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    let mut all = append_all(&log, 5).await;
    replica.catch_up().await.unwrap();
    let at = replica.snapshot().unwrap();
    assert_eq!(at, replica.at());
    all.extend(append_all(&log, 3).await);
    replica.catch_up().await.unwrap();
    drop(replica);

    let mut replica = open(&log, kept(&dir)).await.unwrap();
    assert_eq!((replica.at(), replica.state().0.len()), (at, 5));
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all);
}

#[tokio::test]
async fn without_a_file_there_is_no_snapshot() {
    let error = fresh(&MemoryLog::new()).await.snapshot().unwrap_err();
    assert!(matches!(error, ReplicaError::NoFile), "{error}");
}

#[tokio::test]
async fn it_takes_snapshots_by_itself_every_so_many_bytes() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let options = ReplicaOptions { snapshot_every: Some(Length::new(200)), ..kept(&dir) };
    let mut replica = open(&log, options).await.unwrap();
    let all = append_all(&log, 10).await; // 39 bytes each, behind 40 of Raft's own
    replica.catch_up().await.unwrap();
    drop(replica);
    let replica = open(&log, kept(&dir)).await.unwrap();
    let due = all.iter().filter(|(offset, _)| offset + 39 >= 200).map(|(offset, _)| offset + 39);
    // The first is due at 200, the next 200 behind it.
    let first = due.clone().next().unwrap();
    let second = due.clone().find(|end| *end >= first + 200);
    assert_eq!(replica.at().get(), second.unwrap_or(first));
}

#[tokio::test]
async fn a_state_kept_elsewhere_goes_on_where_it_stands() {
    let log = MemoryLog::new();
    let all = append_all(&log, 4).await;
    let options = ReplicaOptions { from: Offset::new(all[2].0), ..ReplicaOptions::default() };
    let mut replica = open(&log, options).await.unwrap();
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all[2..]);
}

#[tokio::test]
async fn snapshot_then_trim_loses_nothing_and_the_other_order_is_told() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    let mut all = append_all(&log, 5).await;
    replica.catch_up().await.unwrap();
    log.trim(replica.snapshot().unwrap()).await.unwrap();
    all.extend(append_all(&log, 2).await);
    drop(replica);
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all);

    // Without a snapshot the beginning is missing.
    let error = open(&log, ReplicaOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Trimmed { at: Offset::ZERO, .. }), "{error}");
    // With one that is too old, too; and while it runs.
    let start = log.trim(log.end(true).await.unwrap()).await.unwrap();
    let mut behind = replica;
    append_all(&log, 1).await;
    log.trim(log.end(true).await.unwrap()).await.unwrap();
    for error in [behind.catch_up().await.unwrap_err(), behind.next().await.unwrap_err()] {
        assert!(matches!(error, ReplicaError::Trimmed { at, .. } if at == start), "{error}");
    }
    drop(behind);
    let error = open(&log, kept(&dir)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Trimmed { .. }) && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn the_snapshot_of_another_log_is_refused() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    append_all(&log, 1).await;
    replica.catch_up().await.unwrap();
    replica.snapshot().unwrap();
    drop(replica);
    let other = MemoryLog::new();
    append_all(&other, 1).await;
    let error = open(&other, kept(&dir)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::OtherLog { .. }), "{error}");
    assert!(error.to_string().contains(path(&dir).to_str().unwrap()), "{error}");
}

/// Puts a snapshot of a state there that knows of `last` and stands at `at`.
async fn plant(log: &MemoryLog, dir: &TempDir, at: Offset, last: (Offset, u32)) {
    let last = header::Applied { offset: last.0, term: loglog_proto::Term::new(last.1) };
    let file = file::SnapshotFile::lock(path(dir)).unwrap();
    let place = header::Place { at, last: Some(last) };
    file.write(log.cluster().await.unwrap(), place, |_| Ok(())).unwrap();
}

#[tokio::test]
async fn a_log_that_has_lost_data_is_told() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let place = log.append("one").await.unwrap();
    let term = place.term.get();

    plant(&log, &dir, place.end + Length::new(1), (place.offset, term)).await;
    let error = open(&log, kept(&dir)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::BeyondEnd { end, .. } if end == place.end), "{error}");

    // Lost, and grown since: another entry lies where the newest was, or none begins there.
    for last in [(place.offset, term + 1), (place.offset + Length::new(1), term)] {
        plant(&log, &dir, place.end, last).await;
        let error = open(&log, kept(&dir)).await.unwrap_err();
        assert!(matches!(error, ReplicaError::OtherHistory { .. }), "{error}");
    }
    plant(&log, &dir, place.end, (place.offset, term)).await;
    open(&log, kept(&dir)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_an_error_and_its_removal_cures_it() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let all = append_all(&log, 3).await;
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    replica.catch_up().await.unwrap();
    replica.snapshot().unwrap();
    drop(replica);
    let mut bytes = std::fs::read(path(&dir)).unwrap();
    bytes[60] ^= 4;
    std::fs::write(path(&dir), bytes).unwrap();
    let error = open(&log, kept(&dir)).await.unwrap_err();
    assert!(matches!(error, ReplicaError::Snapshot(SnapshotError::Damaged { .. })), "{error}");
    std::fs::remove_file(path(&dir)).unwrap();
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all);
}

#[tokio::test]
async fn a_whole_snapshot_that_the_program_cannot_read_is_told() {
    #[derive(Default)]
    struct Other;
    impl StateMachine for Other {
        fn apply(&mut self, _: &Entry) -> Result<(), ApplyError> {
            Ok(())
        }
        fn snapshot(&self, _: &mut dyn Write) -> io::Result<()> {
            Ok(())
        }
        fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
            Err(io::Error::other("version 7 of the state"))
        }
    }
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    replica.snapshot().unwrap();
    drop(replica);
    let error = Replica::open(log, Other, kept(&dir)).await.err().unwrap();
    assert!(error.to_string().contains("version 7 of the state"), "{error}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_applied_stops_it_with_its_position() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let mut replica = open(&log, kept(&dir)).await.unwrap();
    let all = append_all(&log, 2).await;
    let bad = log.append("bad").await.unwrap();
    append_all(&log, 1).await;
    let error = replica.catch_up().await.unwrap_err();
    assert!(matches!(error, ReplicaError::Apply { at, .. } if at == bad.offset), "{error}");
    assert!(error.to_string().contains("that is bad"), "{error}");
    assert_eq!((replica.at(), &replica.state().0), (bad.offset, &all));
    // For good: half of it may be in the state.
    let errors = [
        replica.catch_up().await.unwrap_err(),
        replica.catch_up_to(Offset::ZERO).await.unwrap_err(),
        replica.next().await.unwrap_err(),
        replica.snapshot().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ReplicaError::Stopped { at } if at == bad.offset), "{error}");
    }
    assert!(!path(&dir).exists());
}

#[tokio::test]
async fn a_panic_in_apply_is_never_snapshotted() {
    let log = MemoryLog::new();
    let mut replica = fresh(&log).await;
    log.append("panic").await.unwrap();
    let caught = {
        let catching = std::panic::AssertUnwindSafe(replica.catch_up());
        futures_util::FutureExt::catch_unwind(catching).await
    };
    assert!(caught.is_err());
    assert!(matches!(replica.catch_up().await, Err(ReplicaError::Stopped { .. })));
}

#[tokio::test]
async fn a_full_disk_does_not_stop_it() {
    let (log, dir) = (MemoryLog::new(), tempfile::tempdir().unwrap());
    let options = ReplicaOptions { snapshot_every: Some(Length::new(1)), ..kept(&dir) };
    let mut replica = open(&log, options).await.unwrap();
    std::fs::create_dir(dir.path().join("seen.tmp")).unwrap();
    let all = append_all(&log, 2).await;
    for _ in 0..2 {
        let error = replica.catch_up().await.unwrap_err();
        assert!(matches!(error, ReplicaError::Snapshot(_)) && error.is_retryable(), "{error}");
    }
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all);
    std::fs::remove_dir(dir.path().join("seen.tmp")).unwrap();
    replica.snapshot().unwrap();
}

#[tokio::test]
async fn damage_in_the_log_stops_the_reading_not_the_state() {
    let log = MemoryLog::new();
    let mut replica = fresh(&log).await;
    let all = append_all(&log, 3).await;
    log.damage(Offset::new(all[2].0 + 30));
    let error = replica.catch_up().await.unwrap_err();
    assert!(matches!(error, ReplicaError::Log(Error::Damaged { .. })), "{error}");
    // Perhaps not all that is good before it: reading goes by chunks.
    assert!(all[..2].starts_with(&replica.state().0));
    // Mended.
    log.damage(Offset::new(all[2].0 + 30));
    replica.catch_up().await.unwrap();
    assert_eq!(replica.state().0, all);
}
