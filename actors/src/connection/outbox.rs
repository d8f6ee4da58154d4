//! Outbox: replies on their way into a socket.
//!
//! Owns:   the send half and the bytes it has not taken yet.
//! Keeps:  many replies leave in one write; while more than [`CHOKE_BYTES`] wait, the connection reads no requests.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use loglog_proto::response::Response;
use tokio::sync::watch;

use crate::client_socket::SendHalf;

/// Beyond this many bytes waiting, a client is choked: it does not read its replies.
pub(crate) const CHOKE_BYTES: usize = 1 << 20;
/// A buffer that grew beyond this is not kept.
const KEEP_BYTES: usize = 4 << 20;

/// The sending side of a connection.
pub(crate) struct Outbox {
    socket: Rc<SendHalf>,
    buffer: BytesMut,
    is_choked: watch::Sender<bool>,
}

impl Outbox {
    pub(crate) fn new(socket: SendHalf, is_choked: watch::Sender<bool>) -> Self {
        Self { socket: Rc::new(socket), buffer: BytesMut::new(), is_choked }
    }

    /// Adds a reply; nothing is sent yet.
    pub(crate) fn push(&mut self, response: &Response) {
        response.encode(&mut self.buffer);
        if self.buffer.len() > CHOKE_BYTES {
            self.is_choked.send_if_modified(|choked| set(choked, true));
        }
    }

    /// Sends what the socket takes. False: the rest waits for [`Outbox::socket`] to be writable.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
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

    pub(crate) fn socket(&self) -> Rc<SendHalf> {
        Rc::clone(&self.socket)
    }

    pub(crate) fn is_choked(&self) -> bool {
        self.buffer.len() > CHOKE_BYTES
    }

    /// Bytes that wait for the socket.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

fn set(flag: &mut bool, to: bool) -> bool {
    std::mem::replace(flag, to) != to
}
