//! Appender: a small blocking client that appends, and knows afterwards what must be in the log.
//!
//! Owns:   one writer: its sequences, where each was acknowledged, the search for the leader.
//! Keeps:  what is not acknowledged is sent again under its sequence.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_proto::entry::Kind;
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::walk::Entries;
use loglog_proto::{Offset, Sequence, WriterId};

use crate::raw::RawClient;

/// How long a node may be silent before another is tried.
const PATIENCE: Duration = Duration::from_secs(1);

/// One writer.
#[derive(Debug)]
pub struct Appender {
    writer: WriterId,
    nodes: Vec<String>,
    /// Which of them is tried next, unless a node named the leader.
    next: usize,
    leader: Option<String>,
    connection: Option<RawClient>,
    known_end: Option<Offset>,
    begun: u64,
    /// By reference to what was uploaded before.
    pub without_payload: bool,
    /// Where each sequence, from 1, was acknowledged.
    pub acknowledged: Vec<Appended>,
    /// Attempts that did not bring an acknowledgement.
    pub retries: u64,
}

impl Appender {
    /// Appends as `writer` through whichever of `nodes` leads.
    #[must_use]
    pub fn new(writer: u64, nodes: Vec<String>) -> Self {
        Self {
            writer: WriterId::new(writer),
            next: usize::try_from(writer).unwrap_or(0),
            nodes,
            leader: None,
            connection: None,
            known_end: None,
            begun: 0,
            without_payload: false,
            acknowledged: Vec::new(),
            retries: 0,
        }
    }

    /// Begins with this node, which leads: one that lacks a payload says so before it says that it does not lead.
    #[must_use]
    pub fn starting_at(mut self, leader: &str) -> Self {
        self.leader = Some(leader.to_owned());
        self
    }

    /// The sequence that the next append gets.
    #[must_use]
    pub const fn upcoming(&self) -> Sequence {
        Sequence::new(self.begun + 1)
    }

    /// Appends these, all in flight at once, again and again until all are acknowledged.
    ///
    /// # Panics
    /// If they are not within `deadline`, or refused as they never should be.
    pub fn append(&mut self, payloads: &[Bytes], deadline: Duration) {
        let began = Instant::now();
        self.begun += payloads.len() as u64;
        let first = self.begun - payloads.len() as u64;
        while self.acknowledged.len() < usize::try_from(self.begun).expect("not that many") {
            assert!(
                began.elapsed() < deadline,
                "writer {}: {} was not acknowledged within {deadline:?}",
                self.writer,
                self.acknowledged.len() + 1
            );
            let done = self.acknowledged.len() - usize::try_from(first).expect("not that many");
            if self.attempt(&payloads[done..]).is_err() {
                self.move_on(None);
            }
        }
    }

    /// Tries another node.
    fn move_on(&mut self, leader: Option<String>) {
        (self.connection, self.leader) = (None, leader);
        self.next += 1;
        self.retries += 1;
        // A node that knows no leader knows one soon.
        std::thread::sleep(Duration::from_millis(2));
    }

    /// Sends all that is not acknowledged once, and takes what is answered.
    fn attempt(&mut self, payloads: &[Bytes]) -> io::Result<()> {
        let address = self.leader.clone().unwrap_or_else(|| self.nodes[self.next % self.nodes.len()].clone());
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => RawClient::open(&address, PATIENCE)?,
        };
        if self.known_end.is_none() {
            // S29: learnt before the first try.
            let ResponseBody::End { end, .. } =
                connection.try_ask(RequestBody::End { linearizable: false })?
            else {
                return Err(io::Error::other("no end"));
            };
            self.known_end = Some(end);
        }
        let first = self.acknowledged.len() as u64 + 1;
        let mut sent = HashMap::new();
        for (sequence, payload) in (first..).zip(payloads) {
            let append = Append {
                writer: self.writer,
                previous: (sequence > 1).then(|| Sequence::new(sequence - 1)),
                sequence: Sequence::new(sequence),
                known_end: self.known_end.filter(|_| self.acknowledged.is_empty()),
                expect_end: None,
                crc: Some(loglog_proto::crc32c(payload)),
                payload: (!self.without_payload).then(|| payload.clone()),
            };
            sent.insert(connection.send(RequestBody::Append(append))?, sequence);
        }
        let (mut answers, mut refusal) = (HashMap::new(), None);
        while !sent.is_empty() {
            let response = connection.try_receive()?;
            let Some(sequence) = sent.remove(&response.id) else { continue };
            match response.body {
                ResponseBody::Appended(appended) => {
                    answers.insert(sequence, appended);
                }
                ResponseBody::Refused(why) if sequence == first => refusal = Some(why),
                // Refused because one before it was, or for the same reason: the first one tells.
                ResponseBody::Refused(_) => {}
                other => panic!("no answer to an append: {other:?}"),
            }
        }
        self.connection = Some(connection);
        while let Some(appended) = answers.remove(&(self.acknowledged.len() as u64 + 1)) {
            self.acknowledged.push(appended);
        }
        if let Some(refusal) = refusal {
            self.heed(&refusal);
        }
        Ok(())
    }

    fn heed(&mut self, refusal: &Refusal) {
        match (refusal.code, &refusal.detail) {
            (Code::NotLeader, Detail::Text(leader)) => self.move_on(Some(leader.clone())),
            (
                Code::NotLeader
                | Code::Unavailable
                | Code::Interrupted
                | Code::TimedOut
                | Code::Busy
                | Code::NotUploaded,
                _,
            ) => self.move_on(None),
            _ => panic!("writer {}: {} was refused: {refusal}", self.writer, self.acknowledged.len() + 1),
        }
    }
}

/// What writer `writer` appends under `sequence`: some are empty, most small, a few large.
#[must_use]
pub fn payload(writer: u64, sequence: u64) -> Bytes {
    let mixed = (writer << 32 | sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let length = if mixed.is_multiple_of(50) { 20_000 } else { usize::try_from(mixed % 300).unwrap_or(0) };
    let mut payload = format!("{writer}:{sequence}:").into_bytes();
    payload.resize(payload.len() + length, b'.');
    Bytes::from(payload)
}

/// Checks a whole log: each writer's entries once, in its order, none left out, with their bytes, and where they were acknowledged.
/// Returns how many there are.
///
/// # Panics
/// If something is missing, doubled, changed or elsewhere.
pub fn check_log(log: &[u8], appenders: &[Appender]) -> usize {
    let mut places: HashMap<WriterId, Vec<Offset>> = HashMap::new();
    let mut walk = Entries::new(Offset::ZERO, log);
    while let Some(entry) = walk.next_entry().expect("entries with right CRCs") {
        if entry.prefix.kind == Kind::Data {
            let places = places.entry(entry.prefix.writer).or_default();
            let (writer, sequence) = (entry.prefix.writer.get(), entry.prefix.sequence.get());
            assert_eq!(sequence, places.len() as u64 + 1, "writer {writer}: once, in order, none left out");
            assert_eq!(entry.payload, payload(writer, sequence), "writer {writer}, {sequence}: its bytes");
            places.push(entry.offset);
        }
    }
    assert!(walk.rest().is_empty(), "whole entries up to the end");
    let mut count = 0;
    for appender in appenders {
        let places = places.remove(&appender.writer).unwrap_or_default();
        let acknowledged: Vec<Offset> = appender.acknowledged.iter().map(|it| it.offset).collect();
        assert_eq!(
            acknowledged.len(),
            places.len(),
            "writer {}: retried until acknowledged",
            appender.writer
        );
        assert_eq!(acknowledged, places, "writer {}: where it was acknowledged", appender.writer);
        count += places.len();
    }
    assert!(places.is_empty(), "entries of nobody: {:?}", places.keys());
    count
}
