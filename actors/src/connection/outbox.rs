//! Outbox: replies on their way to the client.
//!
//! ```text
//!     small replies ─► one buffer ─┐
//!     bytes from memory ───────────┼─► one write of many pieces
//!     a part of a file ────────────┴─► sendfile, off this thread: the disk may be slow
//! ```
//!
//! Owns:   the send half and what it has not taken yet, or the channel to a client in this program.
//! Keeps:  replies leave in their order, many in one write; bytes of the log are not copied on their way. While more than [`CHOKE_BYTES`]
//!         wait, the connection reads no requests; while a part of a file does, it reads no more of the log.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use loglog_proto::response::{Response, ResponseBody, data_head};
use loglog_proto::{Offset, RequestId};
use loglog_storage::Located;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::client_socket::SendHalf;

/// Beyond this many bytes waiting, a client is choked: it does not read its replies.
pub(crate) const CHOKE_BYTES: usize = 1 << 20;
/// A buffer that grew beyond this is not kept.
const KEEP_BYTES: usize = 4 << 20;
/// Bytes of the log from this many on are sent from where they lie.
const APART: usize = 4 << 10;
/// Pieces written at once.
const PIECES: usize = 64;
/// So long a thread that sends a file waits for a client that takes nothing just now.
const PATIENCE: Duration = Duration::from_millis(5);

/// The sending side of a connection.
pub(crate) enum Outbox {
    Socket(SocketOutbox),
    /// The client takes what it is sent; how much that is it asked for itself.
    Local(UnboundedSender<Vec<Response>>, Vec<Response>),
}

/// The sending side of a socket.
pub(crate) struct SocketOutbox {
    socket: Arc<SendHalf>,
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces that lie in memory.
    waiting: usize,
    /// Behind the pieces.
    open: BytesMut,
    is_choked: watch::Sender<bool>,
}

enum Piece {
    Bytes(Bytes),
    File(Located),
}

/// What a flush came to.
pub(crate) enum Flushed {
    /// Everything is sent.
    All,
    /// The rest waits until the socket is writable.
    Waits(Arc<SendHalf>),
    /// What is next lies in a file: to be sent off this thread.
    File(FileSend),
}

/// A part of a file to be sent by a thread that may wait for the disk.
pub(crate) struct FileSend {
    socket: Arc<SendHalf>,
    part: Located,
}

impl Outbox {
    pub(crate) fn new(socket: SendHalf, is_choked: watch::Sender<bool>) -> Self {
        let (pieces, open) = (VecDeque::new(), BytesMut::new());
        Self::Socket(SocketOutbox { socket: Arc::new(socket), pieces, waiting: 0, open, is_choked })
    }

    /// Adds a reply; nothing is sent yet.
    pub(crate) fn push(&mut self, response: Response) {
        match self {
            Self::Socket(outbox) => outbox.push(response),
            Self::Local(_, responses) => responses.push(response),
        }
    }

    /// Adds replies.
    pub(crate) fn extend(&mut self, mut more: Vec<Response>) {
        match self {
            Self::Socket(outbox) => more.into_iter().for_each(|response| outbox.push(response)),
            Self::Local(_, responses) if responses.is_empty() => *responses = more,
            Self::Local(_, responses) => responses.append(&mut more),
        }
    }

    /// Whether the log's bytes can be sent from their file.
    pub(crate) const fn takes_files(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    /// Adds the reply to a read: the bytes from `offset` on, of which `end` are committed, lie in `part` of a file.
    pub(crate) fn push_file(&mut self, id: RequestId, (offset, end): (Offset, Offset), part: Located) {
        if let Self::Socket(outbox) = self {
            data_head(&mut outbox.open, id, (offset, end), part.len);
            outbox.seal();
            outbox.pieces.push_back(Piece::File(part));
        }
    }

    /// So much of the file that is next was sent by another thread.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Self::Socket(outbox) = self
            && let Some(Piece::File(part)) = outbox.pieces.front_mut()
        {
            part.position += bytes as u64;
            part.len -= bytes;
            if part.len == 0 {
                outbox.pieces.pop_front();
            }
        }
    }

    /// Sends what the client takes.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        match self {
            Self::Socket(outbox) => outbox.flush(),
            Self::Local(_, responses) if responses.is_empty() => Ok(Flushed::All),
            Self::Local(to, responses) => match to.send(std::mem::take(responses)) {
                Ok(()) => Ok(Flushed::All),
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    /// Whether the client is to take what it was sent before more of the log is read for it.
    pub(crate) fn is_choked(&self) -> bool {
        match self {
            Self::Socket(outbox) => {
                outbox.len() > CHOKE_BYTES || outbox.pieces.iter().any(|it| matches!(it, Piece::File(_)))
            }
            Self::Local(..) => false,
        }
    }

    /// Bytes in memory that wait for the socket.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Socket(outbox) => outbox.len(),
            Self::Local(..) => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Socket(outbox) => outbox.open.is_empty() && outbox.pieces.is_empty(),
            Self::Local(_, responses) => responses.is_empty(),
        }
    }
}

impl SocketOutbox {
    fn push(&mut self, response: Response) {
        match response.body {
            ResponseBody::Data(data) if data.bytes.len() >= APART => {
                data_head(&mut self.open, response.id, (data.offset, data.end), data.bytes.len());
                self.seal();
                self.waiting += data.bytes.len();
                self.pieces.push_back(Piece::Bytes(data.bytes));
            }
            _ => response.encode(&mut self.open),
        }
        if self.len() > CHOKE_BYTES {
            self.is_choked.send_if_modified(|choked| set(choked, true));
        }
    }

    fn len(&self) -> usize {
        self.waiting + self.open.len()
    }

    /// Makes a piece of what was encoded.
    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.waiting += self.open.len();
            self.pieces.push_back(Piece::Bytes(self.open.split().freeze()));
        }
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let result = self.send();
        match result {
            Ok(Flushed::All) => {
                if self.open.capacity() > KEEP_BYTES {
                    self.open = BytesMut::new();
                }
            }
            Err(_) => return result,
            Ok(_) => {}
        }
        let is_choked = self.len() > CHOKE_BYTES;
        self.is_choked.send_if_modified(|choked| set(choked, is_choked));
        result
    }

    fn send(&mut self) -> io::Result<Flushed> {
        loop {
            let result = match self.pieces.front() {
                None if self.open.is_empty() => return Ok(Flushed::All),
                // As nearly always: one buffer, which stays where it is.
                None => {
                    let sent = self.socket.try_write(&self.open);
                    self.open.advance(*sent.as_ref().unwrap_or(&0));
                    sent
                }
                Some(Piece::Bytes(_)) => self.send_pieces(),
                Some(Piece::File(part)) => {
                    let (socket, part) = (Arc::clone(&self.socket), part.clone());
                    // Asked again: the thread that sent the file's bytes so far may have filled the socket unseen.
                    return Ok(if self.socket.is_writable()? {
                        Flushed::File(FileSend { socket, part })
                    } else {
                        Flushed::Waits(socket)
                    });
                }
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Waits(Arc::clone(&self.socket)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends some of the pieces that lie in memory, up to a file's.
    fn send_pieces(&mut self) -> io::Result<usize> {
        if !self.pieces.iter().any(|it| matches!(it, Piece::File(_))) {
            self.seal();
        }
        let in_memory = self.pieces.iter().map_while(|piece| match piece {
            Piece::Bytes(bytes) => Some(IoSlice::new(bytes)),
            Piece::File(_) => None,
        });
        let slices: Vec<IoSlice<'_>> = in_memory.take(PIECES).collect();
        let sent = self.socket.try_write_vectored(&slices)?;
        self.waiting -= sent;
        let mut left = sent;
        while let Some(Piece::Bytes(front)) = self.pieces.front_mut() {
            if left < front.len() {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.pieces.pop_front();
        }
        Ok(sent)
    }
}

impl FileSend {
    /// Sends bytes of the file until all are sent or the client takes no more; says how many.
    ///
    /// # Errors
    /// Of the socket or the disk, or the file ends: what was to follow the answer's head is lost, and the connection with it.
    pub(crate) fn run(&self) -> io::Result<usize> {
        let file = self.part.file.os_file().ok_or(io::ErrorKind::Unsupported)?;
        let (mut position, mut sent) = (self.part.position, 0);
        while sent < self.part.len {
            match rustix::fs::sendfile(&*self.socket, file, Some(&mut position), self.part.len - sent) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => sent += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if is_ready(&*self.socket, PATIENCE)? => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}

/// Whether a socket takes more, now or within `patience`.
pub(crate) fn is_ready(socket: impl AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn set(flag: &mut bool, to: bool) -> bool {
    std::mem::replace(flag, to) != to
}
