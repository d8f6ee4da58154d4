//! Raw: log bytes as fast as they come over blocking sockets, read and thrown away.
//!
//! Owns:   the connections of one round of reads, a thread each; how they share a range.
//! Keeps:  every byte of the range was sent by the node, once.
//! Never:  looks at the bytes.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use loglog_proto::Offset;

use super::wire::{self, Head};

/// What is received at once: as large as [`super::sendfile`]'s.
pub(super) const BUFFER: usize = 256 << 10;
/// A node that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a range is read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Where the node listens.
    pub(super) address: String,
    /// Which bytes of the log.
    pub(super) range: Range<u64>,
    /// Bytes asked for at once.
    pub(super) limit: u64,
    pub(super) connections: u16,
    /// Reads in flight on each of them.
    pub(super) depth: usize,
}

/// Reads all of it. Returns how many bytes came.
pub(super) fn read_all(plan: &Plan) -> io::Result<u64> {
    let next = AtomicU64::new(plan.range.start);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..plan.connections)
            .map(|_| scope.spawn(|| Connection::open(plan)?.share(plan, &next)))
            .collect();
        let all = readers.into_iter().map(|reader| {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("a thread that reads has panicked")))
        });
        all.sum()
    })
}

struct Connection {
    socket: TcpStream,
    buffer: Box<[u8]>,
    /// What of the buffer was received and not looked at.
    have: Range<usize>,
}

impl Connection {
    fn open(plan: &Plan) -> io::Result<Self> {
        let socket = TcpStream::connect(&plan.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Self { socket, buffer: vec![0; BUFFER].into(), have: 0..0 };
        connection.socket.write_all(&wire::hello())?;
        match connection.next()? {
            Head::Welcome(_) => Ok(connection),
            Head::Data { .. } => Err(io::Error::other("a read's answer to a hello")),
        }
    }

    /// Reads whichever parts nobody has taken yet.
    fn share(mut self, plan: &Plan, next: &AtomicU64) -> io::Result<u64> {
        // What each open read is for.
        let (mut open, mut id, mut received) = (BTreeMap::new(), 1, 0);
        let part = || {
            let begin = next.fetch_add(plan.limit, Relaxed);
            (begin < plan.range.end).then(|| begin..(begin + plan.limit).min(plan.range.end))
        };
        loop {
            while open.len() < plan.depth
                && let Some(part) = part()
            {
                self.ask(&mut open, &mut id, part)?;
            }
            if open.is_empty() {
                return Ok(received);
            }
            let Head::Data { id: answered, body, .. } = self.next()? else {
                return Err(io::Error::other("a second welcome"));
            };
            let part = open.remove(&answered).ok_or_else(|| io::Error::other("an answer to no read"))?;
            if body == 0 {
                return Err(io::Error::other("the log ends before its end"));
            }
            received += body as u64;
            // A read ends where a segment does: the rest is asked for again.
            let rest = part.start + body as u64..part.end;
            if !rest.is_empty() {
                self.ask(&mut open, &mut id, rest)?;
            }
        }
    }

    fn ask(
        &mut self,
        open: &mut BTreeMap<u64, Range<u64>>,
        id: &mut u64,
        part: Range<u64>,
    ) -> io::Result<()> {
        let frame = wire::read(*id, Offset::new(part.start), part.end - part.start, 0);
        open.insert(*id, part);
        *id += 1;
        self.socket.write_all(&frame)
    }

    /// The head of the next frame, whose body is received and forgotten.
    fn next(&mut self) -> io::Result<Head> {
        let head = loop {
            let known = wire::head(&self.buffer[self.have.clone()]).map_err(io::Error::other)?;
            if let Some(head) = known {
                break head;
            }
            // A head may lie across the buffer's end.
            self.buffer.copy_within(self.have.clone(), 0);
            self.have = 0..self.have.len();
            let received = self.socket.read(&mut self.buffer[self.have.end..])?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.have.end += received;
        };
        let mut left = match head {
            Head::Welcome(whole) => whole,
            Head::Data { head, body, .. } => head + body,
        };
        while left > self.have.len() {
            left -= self.have.len();
            let received = self.socket.read(&mut self.buffer)?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.have = 0..received;
        }
        self.have.start += left;
        Ok(head)
    }
}
