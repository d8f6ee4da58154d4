//! Request reader: turns a socket into batches of requests, each with the credit it holds.
//!
//! Owns:   the receive half and its buffer.
//! Keeps:  nothing is read on while the connection's replies pile up or its credit is spent.
//! Never:  answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::frame::{FrameError, LENGTH, split};
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{Request, RequestBody};
use loglog_proto::{RequestId, request};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::awake::Awake;
use crate::client_socket::ReceiveHalf;
use crate::credits::{Credit, Credits, REQUEST_COST};

/// Read from the socket at a time, bytes, by a client that sends much at once.
const READ_BYTES: usize = 256 << 10;
/// The same by one that has not yet: there may be thousands that only wait.
const FEW_BYTES: usize = 4 << 10;
/// The largest frame before the hello, bytes.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// How long a large frame may take to arrive, once there is credit for it: others may want that credit.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// A batch is closed at this many payload bytes or requests.
pub(super) const BATCH_BYTES: usize = 1 << 20;
pub(super) const BATCH_REQUESTS: usize = 4096;

/// Requests that arrived together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
    /// What could not be read as a request, with its id where that could be.
    pub(crate) malformed: Vec<(RequestId, Refusal)>,
    /// What they may hold in memory until they are answered.
    pub(crate) credits: Vec<Credit>,
    /// Nothing that follows can be understood: answer this, then close.
    pub(crate) last: Option<Refusal>,
}

/// The receiving side of a connection.
pub(crate) struct RequestReader {
    socket: ReceiveHalf,
    buffer: BytesMut,
    /// Room that is made for a read.
    read_bytes: usize,
    credits: Credits,
    /// True while replies pile up.
    is_choked: watch::Receiver<bool>,
    awake: Arc<Awake>,
    /// Until the first hello only small frames are taken: nobody is known yet.
    is_greeted: bool,
    /// Credit for a large frame that is on its way, how much, and until when it must have come.
    reserved: Option<(Credit, usize, Instant)>,
    is_done: bool,
}

impl RequestReader {
    pub(crate) fn new(
        socket: ReceiveHalf,
        credits: Credits,
        is_choked: watch::Receiver<bool>,
        awake: Arc<Awake>,
    ) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            read_bytes: FEW_BYTES,
            credits,
            is_choked,
            awake,
            is_greeted: false,
            reserved: None,
            is_done: false,
        }
    }

    /// The next requests; `None` when the client has closed its side.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Batch>> {
        if self.is_done {
            return None;
        }
        loop {
            // The connection ends with its actor, and then nobody polls this.
            let _ = self.is_choked.wait_for(|choked| !choked).await;
            let (requests, malformed, last) = self.take_requests();
            if !requests.is_empty() || !malformed.is_empty() || last.is_some() {
                self.is_done = last.is_some();
                let cost: usize = requests.iter().map(cost).sum();
                let (reserved, bytes) = match self.reserved.take() {
                    Some((credit, bytes, _)) => (Some(credit), bytes),
                    None => (None, 0),
                };
                let credit = self.credits.take(cost.saturating_sub(bytes)).await;
                let credits = reserved.into_iter().chain([credit]).collect();
                return Some(Ok(Batch { requests, malformed, credits, last }));
            }
            self.reserve().await;
            if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 4 {
                self.buffer.reserve(self.read_bytes);
            }
            let room = self.buffer.capacity() - self.buffer.len();
            let deadline = self.reserved.as_ref().map(|(_, _, deadline)| *deadline);
            let read = self.socket.read_buf(&mut self.buffer);
            let read = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, read).await,
                None => Ok(self.awake.wait_for(read).await),
            };
            match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(0) => return None,
                Ok(read) if read >= room => self.read_bytes = READ_BYTES,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Takes credit for a large frame before its bytes are received.
    async fn reserve(&mut self) {
        let Some(head) = self.buffer.first_chunk::<LENGTH>() else { return };
        let length = u32::from_be_bytes(*head) as usize;
        if length > READ_BYTES && self.reserved.is_none() {
            // All that its request will cost: what is short then would be waited for while this is held.
            let cost = length + REQUEST_COST;
            let credit = self.credits.take_ahead(cost).await;
            self.reserved = Some((credit, cost, Instant::now() + FRAME_TIMEOUT));
        }
    }

    fn take_requests(&mut self) -> (Vec<Request>, Vec<(RequestId, Refusal)>, Option<Refusal>) {
        let (mut requests, mut malformed, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES && requests.len() + malformed.len() < BATCH_REQUESTS {
            let max = if self.is_greeted { FRAME_BYTES_MAX } else { HELLO_BYTES_MAX };
            let frame = match split(&mut self.buffer, max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    let message =
                        format!("{error}; the connection is closed, since what follows cannot be told apart");
                    return (requests, malformed, Some(Refusal::new(Code::TooLarge, message)));
                }
            };
            bytes += frame.len();
            match Request::decode(&frame) {
                Ok(request) => {
                    self.is_greeted |= matches!(request.body, RequestBody::Hello { .. });
                    requests.push(request);
                }
                Err(FrameError::Malformed { id, what }) => {
                    malformed.push((id.unwrap_or(RequestId::new(0)), Refusal::new(Code::BadRequest, what)));
                }
                Err(error @ FrameError::Payload { id, .. }) => {
                    malformed.push((id, Refusal::new(Code::TooLarge, error.to_string())));
                }
                Err(error @ FrameError::TooLarge { .. }) => {
                    malformed.push((RequestId::new(0), Refusal::new(Code::TooLarge, error.to_string())));
                }
            }
        }
        (requests, malformed, None)
    }
}

pub(super) fn cost(request: &Request) -> usize {
    let payload = match &request.body {
        RequestBody::Append(request::Append { payload: Some(payload), .. }) => payload.len(),
        RequestBody::Upload(upload) => upload.payloads.len() + size_of_val(&*upload.parts),
        _ => 0,
    };
    payload + REQUEST_COST
}
