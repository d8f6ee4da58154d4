//! Follower: one that waits at the log's end over a connection of its own, as cheaply as can be.
//!
//! A whole client each would cost this process far more than it costs the node, and hide that: so a follower is a socket and two numbers. It
//! asks as any client does, with reads that wait at the end.
//!
//! Owns:   its connection, and where it reads on.
//! Never:  keeps or checks the bytes; the buffer that they go through is everybody's.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use loglog_proto::limits::READ_WAIT_MS_MAX;
use loglog_proto::{Length, Offset};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::latency::Latencies;
use super::wire::{self, Head};

/// More than one small entry and its head.
const BUFFER: usize = 64 << 10;

/// What all followers share.
#[derive(Debug)]
pub(super) struct Crowd {
    buffer: RefCell<Box<[u8]>>,
    round: RefCell<Round>,
    /// When the last of them has what it waits for, or one has failed.
    pub(super) done: Notify,
}

/// An append, and who still waits for it.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began: Instant,
    /// Up to where the log is to be read.
    pub(super) end: Offset,
    pub(super) left: usize,
    pub(super) times: Latencies,
    /// How long the last one took, each round.
    pub(super) last: Latencies,
    pub(super) failed: Option<String>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Follower {
    socket: TcpStream,
    at: Offset,
    /// Bytes of an answer that has not come whole.
    partial: Vec<u8>,
}

impl Crowd {
    pub(super) fn new() -> Rc<Self> {
        let round = Round {
            began: Instant::now(),
            end: Offset::ZERO,
            left: 0,
            times: Latencies::new(),
            last: Latencies::new(),
            failed: None,
        };
        let (buffer, round) = (RefCell::new(vec![0; BUFFER].into()), RefCell::new(round));
        Rc::new(Self { buffer, round, done: Notify::new() })
    }

    /// What is going on.
    pub(super) fn round(&self) -> std::cell::RefMut<'_, Round> {
        self.round.borrow_mut()
    }

    /// A follower has read up to `at`, and had not `before`.
    fn has(&self, before: Offset, at: Offset) {
        let mut round = self.round();
        if before < round.end && at >= round.end {
            let took = round.began.elapsed();
            round.times.record(took);
            round.left = round.left.saturating_sub(1);
            if round.left == 0 {
                round.last.record(took);
                self.done.notify_one();
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        self.round().failed.get_or_insert(format!("a follower lost its connection: {error}"));
        self.done.notify_one();
    }
}

impl Follower {
    /// Connects to the node and waits at `at`.
    pub(super) async fn open(address: &str, at: Offset, crowd: &Crowd) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut follower = Self { socket, at, partial: Vec::new() };
        follower.socket.write_all(&wire::hello()).await?;
        match follower.next(crowd).await? {
            Head::Welcome(_) => {}
            Head::Data { .. } => return Err(io::Error::other("a read's answer to a hello")),
        }
        follower.ask().await?;
        Ok(follower)
    }

    /// Follows for ever, or until the connection is gone, which the crowd is told.
    pub(super) async fn follow(mut self, crowd: Rc<Crowd>) {
        loop {
            if let Err(error) = self.step(&crowd).await {
                return crowd.fail(&error);
            }
        }
    }

    async fn step(&mut self, crowd: &Crowd) -> io::Result<()> {
        let Head::Data { body, .. } = self.next(crowd).await? else {
            return Err(io::Error::other("a second welcome"));
        };
        let before = self.at;
        self.at += Length::of(body);
        crowd.has(before, self.at);
        self.ask().await
    }

    async fn ask(&mut self) -> io::Result<()> {
        let frame = wire::read(1, self.at, 1 << 20, READ_WAIT_MS_MAX);
        self.socket.write_all(&frame).await
    }

    /// Receives one whole answer, and forgets all of it but its head.
    async fn next(&mut self, crowd: &Crowd) -> io::Result<Head> {
        loop {
            self.socket.readable().await?;
            let mut buffer = crowd.buffer.borrow_mut();
            let received = match self.socket.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => &buffer[..received],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let bytes = if self.partial.is_empty() {
                received
            } else {
                self.partial.extend_from_slice(received);
                &self.partial
            };
            let whole = match wire::head(bytes).map_err(io::Error::other)? {
                Some(head @ Head::Welcome(length)) => Some((head, length)),
                Some(head @ Head::Data { head: front, body, .. }) => Some((head, front + body)),
                None => None,
            };
            match whole.filter(|(_, length)| bytes.len() >= *length) {
                // One request is open at a time, so nothing follows its answer.
                Some((head, _)) => {
                    self.partial = Vec::new();
                    return Ok(head);
                }
                None if self.partial.is_empty() => self.partial = received.to_vec(),
                None => {}
            }
        }
    }
}
