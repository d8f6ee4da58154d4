//! Outbox: replies on their way to the client.
//!
//! Owns:   the send half and the bytes it has not taken yet, or the channel to a client in this program.
//! Keeps:  many replies leave in one write; while more than [`CHOKE_BYTES`] wait, the connection reads no requests.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use loglog_proto::response::Response;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::client_socket::SendHalf;

/// Beyond this many bytes waiting, a client is choked: it does not read its replies.
pub(crate) const CHOKE_BYTES: usize = 1 << 20;
/// A buffer that grew beyond this is not kept.
const KEEP_BYTES: usize = 4 << 20;

/// The sending side of a connection.
pub(crate) enum Outbox {
    Socket(SocketOutbox),
    /// The client takes what it is sent; how much that is it asked for itself.
    Local(UnboundedSender<Vec<Response>>, Vec<Response>),
}

/// The sending side of a socket.
pub(crate) struct SocketOutbox {
    socket: Rc<SendHalf>,
    buffer: BytesMut,
    is_choked: watch::Sender<bool>,
}

impl Outbox {
    pub(crate) fn new(socket: SendHalf, is_choked: watch::Sender<bool>) -> Self {
        Self::Socket(SocketOutbox { socket: Rc::new(socket), buffer: BytesMut::new(), is_choked })
    }

    /// Adds a reply; nothing is sent yet.
    pub(crate) fn push(&mut self, response: Response) {
        match self {
            Self::Socket(outbox) => outbox.push(&response),
            Self::Local(_, responses) => responses.push(response),
        }
    }

    /// Adds replies.
    pub(crate) fn extend(&mut self, mut more: Vec<Response>) {
        match self {
            Self::Socket(outbox) => more.iter().for_each(|response| outbox.push(response)),
            Self::Local(_, responses) if responses.is_empty() => *responses = more,
            Self::Local(_, responses) => responses.append(&mut more),
        }
    }

    /// Sends what the client takes. The socket, if the rest waits until that is writable.
    pub(crate) fn flush(&mut self) -> io::Result<Option<Rc<SendHalf>>> {
        match self {
            Self::Socket(outbox) => Ok((!outbox.flush()?).then(|| Rc::clone(&outbox.socket))),
            Self::Local(_, responses) if responses.is_empty() => Ok(None),
            Self::Local(to, responses) => match to.send(std::mem::take(responses)) {
                Ok(()) => Ok(None),
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    pub(crate) fn is_choked(&self) -> bool {
        matches!(self, Self::Socket(outbox) if outbox.buffer.len() > CHOKE_BYTES)
    }

    /// Bytes that wait for the socket.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Socket(outbox) => outbox.buffer.len(),
            Self::Local(..) => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Socket(outbox) => outbox.buffer.is_empty(),
            Self::Local(_, responses) => responses.is_empty(),
        }
    }
}

impl SocketOutbox {
    fn push(&mut self, response: &Response) {
        response.encode(&mut self.buffer);
        if self.buffer.len() > CHOKE_BYTES {
            self.is_choked.send_if_modified(|choked| set(choked, true));
        }
    }

    /// Sends what the socket takes. False: the rest waits.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.buffer.is_empty() {
            match self.socket.try_write(&self.buffer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.buffer.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_choked.send_if_modified(|choked| set(choked, self.buffer.len() > CHOKE_BYTES));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        self.is_choked.send_if_modified(|choked| set(choked, false));
        Ok(true)
    }
}

fn set(flag: &mut bool, to: bool) -> bool {
    std::mem::replace(flag, to) != to
}
