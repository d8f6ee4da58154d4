//! Appender: a small blocking client that appends, and notes what it was answered.
//!
//! Owns:   one writer: its sequences, their history, the search for the leader.
//! Keeps:  what is not acknowledged is sent again under its sequence.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::request::{Append, RequestBody};
use loglog_proto::response::{Appended, ResponseBody};
use loglog_proto::{Offset, Sequence, WriterId};

use crate::checker::{Enough, check};
use crate::clock::now;
use crate::history::{self, Answer, Author, FinalLog, History, OpId};
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
    /// All that was sent and answered. Its payloads are those of [`payload`].
    history: History,
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
            history: History::part(u32::try_from(writer).expect("a small number")),
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
        let first = self.begun;
        for _ in payloads {
            self.begun += 1;
            let (writer, sequence) = (self.writer, Sequence::new(self.begun));
            let op = self.history.invoke(Author::Wire { writer, sequence }, None, now());
            assert_eq!(op, operation(writer.get(), self.begun));
        }
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
            let previous = (sequence > 1).then(|| Sequence::new(sequence - 1));
            let op = operation(self.writer.get(), sequence);
            let attempt = self.history.sent(op, Some(previous), now());
            let append = Append {
                writer: self.writer,
                previous,
                sequence: Sequence::new(sequence),
                known_end: self.known_end.filter(|_| self.acknowledged.is_empty()),
                expect_end: None,
                crc: Some(loglog_proto::crc32c(payload)),
                payload: (!self.without_payload).then(|| payload.clone()),
            };
            sent.insert(connection.send(RequestBody::Append(append))?, (sequence, op, attempt));
        }
        let (mut answers, mut refusal) = (HashMap::new(), None);
        while !sent.is_empty() {
            let response = connection.try_receive()?;
            let Some((sequence, op, attempt)) = sent.remove(&response.id) else { continue };
            let answer = match response.body {
                ResponseBody::Appended(appended) => {
                    answers.insert(sequence, appended);
                    Answer::Acknowledged(appended)
                }
                ResponseBody::Refused(why) => {
                    let answer = Answer::from(&why);
                    // The others were refused because one before them was, or for the same reason: the first one tells.
                    refusal = refusal.or(Some(why).filter(|_| sequence == first));
                    answer
                }
                other => panic!("no answer to an append: {other:?}"),
            };
            self.history.answered(op, attempt, answer, now());
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
                | Code::NotUploaded
                | Code::DiskFull,
                _,
            ) => self.move_on(None),
            _ => panic!("writer {}: {} was refused: {refusal}", self.writer, self.acknowledged.len() + 1),
        }
    }
}

const fn operation(writer: u64, sequence: u64) -> OpId {
    OpId::new(writer << 32 | (sequence - 1))
}

/// What writer `writer` appends under `sequence`, from 1: most are small, a few large.
#[must_use]
pub fn payload(writer: u64, sequence: u64) -> Bytes {
    history::payload(operation(writer, sequence))
}

/// Judges what the appenders were told by what the nodes hold: [`check`]; and all must have been acknowledged. Returns how many entries
/// there are.
///
/// # Panics
/// If a promise was broken.
pub fn check_log(finals: Vec<FinalLog>, appenders: &[Appender]) -> usize {
    let mut history = History::new();
    history.finals = finals;
    for appender in appenders {
        history.join(appender.history.clone());
    }
    let facts = check(&history, &Enough::acks(appenders.iter().map(|it| it.begun).sum())).passed();
    usize::try_from(facts.entries).expect("they are in memory")
}
