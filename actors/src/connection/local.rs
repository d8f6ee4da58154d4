//! Local reader: batches of requests from a client in this program, each with the credit it holds.
//!
//! Owns:   the channel that requests come through, and those that came with more than fit into a batch.
//! Keeps:  no batch is larger than one from a socket, and nothing is taken on while the connection's credit is spent; what comes is
//!         held to the rules that decoding holds a frame to.
//! Never:  answers.

use std::collections::VecDeque;

use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::{BadRequest, Request};
use tokio::sync::mpsc::UnboundedReceiver;

use super::reader::{BATCH_BYTES, BATCH_REQUESTS, Batch, cost};
use crate::credits::Credits;

/// The receiving side of a connection.
pub(super) struct LocalReader {
    requests: UnboundedReceiver<Vec<Request>>,
    waiting: VecDeque<Request>,
    credits: Credits,
}

impl LocalReader {
    pub(super) fn new(requests: UnboundedReceiver<Vec<Request>>, credits: Credits) -> Self {
        Self { requests, waiting: VecDeque::new(), credits }
    }

    /// The next requests; `None` when the client is gone.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        if self.waiting.is_empty() {
            self.waiting = self.requests.recv().await?.into();
        }
        // What came meanwhile goes along.
        while self.waiting.len() < BATCH_REQUESTS
            && let Ok(more) = self.requests.try_recv()
        {
            self.waiting.extend(more);
        }
        let mut bytes = 0;
        let (mut requests, mut malformed) = (Vec::with_capacity(self.waiting.len()), Vec::new());
        while bytes < BATCH_BYTES
            && requests.len() < BATCH_REQUESTS
            && let Some(request) = self.waiting.pop_front()
        {
            bytes += cost(&request);
            match request.body.check() {
                Ok(()) => requests.push(request),
                Err(wrong @ BadRequest::Payload { .. }) => {
                    malformed.push((request.id, Refusal::new(Code::TooLarge, wrong.to_string())));
                }
                Err(wrong) => malformed.push((request.id, Refusal::new(Code::BadRequest, wrong.to_string()))),
            }
        }
        let credit = self.credits.take(bytes).await;
        Some(Batch { requests, malformed, credits: vec![credit], last: None })
    }
}
