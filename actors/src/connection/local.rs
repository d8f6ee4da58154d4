//! Local reader: batches of requests from a client in this program, each with the credit it holds.
//!
//! Owns:   the channel that requests come through, and those that came with more than fit into a batch.
//! Keeps:  no batch is larger than one from a socket, and nothing is taken on while the connection's credit is spent; what comes is
//!         held to the rules that decoding holds a frame to.
//! Never:  answers.

use loglog_proto::RequestId;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::{BadRequest, Request};
use loglog_proto::response::Response;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::reader::{BATCH_BYTES, BATCH_REQUESTS, Batch, cost};
use crate::credits::Credits;

/// The receiving side of a connection.
pub(super) struct LocalReader {
    requests: UnboundedReceiver<Vec<Request>>,
    /// Closed by the client's end, which may keep the other channel open: the runtime that its task ran in is gone.
    responses: UnboundedSender<Vec<Response>>,
    waiting: Option<Vec<Request>>,
    credits: Credits,
}

impl LocalReader {
    pub(super) fn new(
        requests: UnboundedReceiver<Vec<Request>>,
        responses: UnboundedSender<Vec<Response>>,
        credits: Credits,
    ) -> Self {
        Self { requests, responses, waiting: None, credits }
    }

    /// The next requests; `None` when the client is gone.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        let mut requests = match self.waiting.take() {
            Some(waiting) => waiting,
            None => tokio::select! {
                biased;
                requests = self.requests.recv() => requests?,
                () = self.responses.closed() => return None,
            },
        };
        // What came meanwhile goes along.
        while requests.len() < BATCH_REQUESTS
            && let Ok(more) = self.requests.try_recv()
        {
            requests.extend(more);
        }
        let (mut bytes, mut count) = (0, 0);
        for request in requests.iter().take(BATCH_REQUESTS) {
            bytes += cost(request);
            count += 1;
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        if count < requests.len() {
            self.waiting = Some(requests.split_off(count));
        }
        let bad = |request: &mut Request| request.body.check().is_err();
        let malformed = requests.extract_if(.., bad).map(refused).collect();
        let credit = self.credits.take(bytes).await;
        Some(Batch { requests, malformed, credits: vec![credit], last: None })
    }
}

fn refused(request: Request) -> (RequestId, Refusal) {
    let refusal = match request.body.check() {
        Err(wrong @ BadRequest::Payload { .. }) => Refusal::new(Code::TooLarge, wrong.to_string()),
        Err(wrong) => Refusal::new(Code::BadRequest, wrong.to_string()),
        Ok(()) => unreachable!("it was just found bad"),
    };
    (request.id, refusal)
}
