//! Request reader: turns a socket into batches of requests, each with the credit it holds.
//!
//! Owns:   the receive half and its buffer.
//! Keeps:  nothing is read on while the connection's replies pile up or its credit is spent.
//! Never:  answers.

use std::io;

use bytes::BytesMut;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::frame::{FrameError, split};
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{Request, RequestBody};
use loglog_proto::{RequestId, request};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;

use crate::credits::{Credit, Credits, REQUEST_COST};

/// Read from the socket at a time, bytes.
const READ_BYTES: usize = 256 << 10;
/// A batch is closed at this many payload bytes or requests.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_REQUESTS: usize = 4096;

/// Requests that arrived together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
    /// What could not be read as a request, with its id where that could be.
    pub(crate) malformed: Vec<(RequestId, Refusal)>,
    pub(crate) credit: Credit,
    /// Nothing that follows can be understood: answer this, then close.
    pub(crate) last: Option<Refusal>,
}

/// The receiving side of a connection.
pub(crate) struct RequestReader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    credits: Credits,
    /// True while replies pile up.
    is_choked: watch::Receiver<bool>,
    is_done: bool,
}

impl RequestReader {
    pub(crate) fn new(socket: OwnedReadHalf, credits: Credits, is_choked: watch::Receiver<bool>) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(READ_BYTES), credits, is_choked, is_done: false }
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
                let cost = requests.iter().map(cost).sum();
                let credit = self.credits.take(cost).await;
                return Some(Ok(Batch { requests, malformed, credit, last }));
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
                self.buffer.reserve(READ_BYTES);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take_requests(&mut self) -> (Vec<Request>, Vec<(RequestId, Refusal)>, Option<Refusal>) {
        let (mut requests, mut malformed, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES && requests.len() + malformed.len() < BATCH_REQUESTS {
            let frame = match split(&mut self.buffer, FRAME_BYTES_MAX) {
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
                Ok(request) => requests.push(request),
                Err(FrameError::Malformed { id, what }) => {
                    malformed.push((id.unwrap_or(RequestId::new(0)), Refusal::new(Code::BadRequest, what)));
                }
                Err(error @ FrameError::TooLarge { .. }) => {
                    malformed.push((RequestId::new(0), Refusal::new(Code::TooLarge, error.to_string())));
                }
            }
        }
        (requests, malformed, None)
    }
}

fn cost(request: &Request) -> usize {
    let payload = match &request.body {
        RequestBody::Append(request::Append { payload: Some(payload), .. }) => payload.len(),
        RequestBody::Upload(upload) => upload.payload.len(),
        _ => 0,
    };
    payload + REQUEST_COST
}
