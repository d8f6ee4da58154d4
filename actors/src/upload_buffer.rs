//! Upload buffer actor: joins appends with their payloads and passes them on to consensus.
//!
//! Owns:   the payloads that wait for their append; outlives a restart of the storage group.
//! Never:  decides an append's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message};
use bytes::Bytes;
use loglog_core::append::check_crc;
use loglog_core::upload::{ClientId, UploadLimits};
use loglog_core::{Answer, Append, UploadBuffer as Buffer};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::response::{Response, ResponseBody};
use loglog_proto::{RequestId, crc32c, request};

use crate::connection::{Connection, Replies};
use crate::consensus::{Appends, ConsensusSlot};
use crate::faults::{Fault, Faults, panic_as_told};
use crate::guard::Ctx;
use crate::supervisor::Handle;
use crate::ticket::{Ticket, answer_all};

/// The name of the one upload buffer of a node.
pub const NAME: &str = "upload-buffer";

/// A payload below this is copied, lest a few bytes keep a whole receive buffer alive.
const COPY_BELOW: usize = 64 << 10;

/// How often expired uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The actor.
pub struct UploadBuffer {
    buffer: Buffer,
    consensus: ConsensusSlot,
    faults: Faults,
    bytes: Arc<AtomicUsize>,
    began: Instant,
}

/// Appends of one connection, in its order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Offer {
    /// Whose uploads they may name.
    pub client: ClientId,
    /// Each with its duty.
    pub appends: Vec<(Ticket, request::Append)>,
}

/// A payload ahead of its append.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Upload {
    /// Whose it is.
    pub client: ClientId,
    /// Where the answer goes.
    pub connection: Handle<Connection>,
    /// The request's id.
    pub id: RequestId,
    /// The payload.
    pub upload: request::Upload,
}

impl UploadBuffer {
    /// An empty buffer. `bytes` shows others what it holds.
    pub fn new(
        limits: UploadLimits,
        consensus: ConsensusSlot,
        faults: Faults,
        bytes: Arc<AtomicUsize>,
    ) -> Self {
        Self { buffer: Buffer::new(limits), consensus, faults, bytes, began: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hold(&mut self, client: ClientId, upload: request::Upload) -> Result<(), Refusal> {
        let payload_crc = crc32c(&upload.payload);
        check_crc(upload.crc, payload_crc)?;
        let payload = match upload.payload.len() {
            0..COPY_BELOW => Bytes::copy_from_slice(&upload.payload),
            _ => upload.payload,
        };
        let now = self.now_ms();
        self.buffer.upload(client, (upload.writer, upload.sequence), payload, payload_crc, now)
    }

    fn join(&self, request: &request::Append) -> Result<Append, Refusal> {
        let key = (request.writer, request.sequence);
        match &request.payload {
            Some(payload) => {
                let joined = Append::new(request, payload.clone(), crc32c(payload));
                // Damaged on its way here; an earlier upload may have arrived whole (S31).
                joined.or_else(|damaged| {
                    let (payload, crc) = self.buffer.get(key).ok_or_else(|| damaged.clone())?;
                    Append::new(request, payload, crc).map_err(|_| damaged)
                })
            }
            None => {
                let (payload, crc) = self.buffer.get(key).ok_or_else(|| {
                    let message = "no payload of this writer and sequence was uploaded here, or it has expired: upload it again";
                    Refusal::new(Code::NotUploaded, message)
                })?;
                Append::new(request, payload, crc)
            }
        }
    }

    fn show_bytes(&self) {
        self.bytes.store(self.buffer.bytes(), Ordering::Relaxed);
    }
}

impl Actor for UploadBuffer {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(NAME);
        ctx.run_interval(EXPIRY_INTERVAL, |buffer, _| {
            let now = buffer.now_ms();
            buffer.buffer.expire(now);
            buffer.show_bytes();
        });
    }
}

impl Handler<Offer> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, offer: Offer, _ctx: &mut Self::Context) {
        let (mut joined, mut refused) = (Vec::with_capacity(offer.appends.len()), Vec::new());
        for (ticket, request) in offer.appends {
            match self.join(&request) {
                Ok(append) => joined.push((ticket, append)),
                Err(refusal) => refused.push((ticket, Answer::Refused(refusal))),
            }
        }
        answer_all(refused);
        if joined.is_empty() {
            return;
        }
        match self.consensus.get() {
            // Appends lost in a dying actor's mailbox are answered by their tickets.
            Some(consensus) => {
                let _ = consensus.tell(Appends(joined));
            }
            None => {
                let refusal =
                    Refusal::new(Code::Unavailable, "the log is being recovered: try again shortly");
                answer_all(joined.into_iter().map(|(ticket, _)| (ticket, Answer::Refused(refusal.clone()))));
            }
        }
    }
}

impl Handler<Upload> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, message: Upload, _ctx: &mut Self::Context) {
        let body = match self.hold(message.client, message.upload) {
            Ok(()) => ResponseBody::Uploaded,
            Err(refusal) => ResponseBody::Refused(refusal),
        };
        self.show_bytes();
        // A connection that is gone needs no answer.
        let _ = message.connection.tell(Replies(vec![Response { id: message.id, body }]));
    }
}

impl Handler<Fault> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        panic_as_told(how, ctx);
    }
}
