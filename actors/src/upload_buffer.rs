//! Upload buffer actor: joins appends with their payloads and passes them on to consensus.
//!
//! Owns:   the payloads that wait for their append; outlives a restart of the storage group.
//! Never:  decides an append's place.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message};
use bytes::Bytes;
use loglog_core::append::check_crc;
use loglog_core::gate::Want;
use loglog_core::upload::{ClientId, UploadLimits};
use loglog_core::{Answer, Append, UploadBuffer as Buffer};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::{LogId, Sequence, WriterId, crc32c, request};

use crate::consensus::{Appends, ConsensusSlot, Payloads, Refusals};
use crate::faults::{Fault, Faults, panic_as_told};
use crate::guard::Ctx;
use crate::ticket::{Ticket, answer_all};

/// The name of the one upload buffer of a node.
pub const NAME: &str = "upload-buffer";

/// A payload below this is copied, lest a few bytes keep a whole receive buffer alive.
const COPY_BELOW: usize = 64 << 10;

/// Writers of whom the last delivered sequence is known.
const WRITERS_MAX: usize = 10_000;

/// Batches that may wait for payloads here.
const WANTED_MAX: usize = 4096;

/// How often expired uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The actor.
pub struct UploadBuffer {
    buffer: Buffer,
    consensus: ConsensusSlot,
    faults: Faults,
    bytes: Arc<AtomicUsize>,
    began: Instant,
    /// Batches that wait for payloads, and by payload the batch that waits.
    wanted: HashMap<LogId, Want>,
    /// The last sequence of each writer that went to consensus: what comes after its batch is of no use.
    delivered: HashMap<WriterId, Sequence>,
    wanted_by: HashMap<(WriterId, Sequence), LogId>,
}

/// The gate misses these payloads; those that clients bring go to consensus batch by batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wanted(pub Vec<Want>);

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
    /// The duty to answer, and the credit of its bytes.
    pub ticket: Ticket,
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
        Self {
            buffer: Buffer::new(limits),
            consensus,
            faults,
            bytes,
            began: Instant::now(),
            wanted: HashMap::new(),
            delivered: HashMap::new(),
            wanted_by: HashMap::new(),
        }
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

    /// Passes a wanted batch on, if all its payloads are here; they are not needed here then.
    fn deliver(&mut self, want: Want) -> Option<Want> {
        let keys = want.references.iter().map(|it| (it.writer, it.sequence));
        let held = keys.clone().zip(&want.references).map(|(key, it)| {
            // Other bytes than the leader's are none: they are fetched (S31).
            self.buffer
                .get(key)
                .filter(|(_, crc)| *crc == it.payload_crc)
                .map(|(payload, _)| payload)
                .ok_or(key)
        });
        match held.collect::<Result<Vec<Bytes>, _>>() {
            Ok(payloads) => {
                for key in keys {
                    self.buffer.remove(key);
                    let last = self.delivered.entry(key.0).or_insert(key.1);
                    *last = key.1.max(*last);
                }
                if self.delivered.len() > WRITERS_MAX {
                    self.delivered.clear();
                }
                if let Some(consensus) = self.consensus.get() {
                    // A consensus that is down wants them again when it is up.
                    let _ = consensus.tell(Payloads { want, payloads });
                }
                None
            }
            Err(missing) => {
                self.wanted_by.insert(missing, want.log_id);
                Some(want)
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
                Ok(append) => {
                    if request.payload.is_none() {
                        self.buffer.mark_used((request.writer, request.sequence));
                    }
                    joined.push((ticket, append));
                }
                Err(refusal) => refused.push((ticket, refusal)),
            }
        }
        match self.consensus.get() {
            // What is lost in a dying actor's mailbox is answered by its tickets.
            Some(consensus) => {
                if !refused.is_empty() {
                    let _ = consensus.tell(Refusals(refused));
                }
                if !joined.is_empty() {
                    let _ = consensus.tell(Appends(joined));
                }
            }
            None => {
                let refusal =
                    Refusal::new(Code::Unavailable, "the log is being recovered: try again shortly");
                let tickets = joined.into_iter().map(|(ticket, _)| ticket);
                let tickets = tickets.chain(refused.into_iter().map(|(ticket, _)| ticket));
                answer_all(tickets.map(|ticket| (ticket, Answer::Refused(refusal.clone()))));
            }
        }
    }
}

impl Handler<Upload> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, message: Upload, _ctx: &mut Self::Context) {
        let key = (message.upload.writer, message.upload.sequence);
        if self.delivered.get(&key.0).is_some_and(|last| *last >= key.1) {
            return message.ticket.answer(Answer::Uploaded);
        }
        let answer = match self.hold(message.client, message.upload) {
            Ok(()) => Answer::Uploaded,
            Err(refusal) => Answer::Refused(refusal),
        };
        message.ticket.answer(answer);
        if let Some(want) = self.wanted_by.remove(&key).and_then(|log_id| self.wanted.remove(&log_id))
            && let Some(want) = self.deliver(want)
        {
            self.wanted.insert(want.log_id, want);
        }
        self.show_bytes();
    }
}

impl Handler<Wanted> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Wanted(wants): Wanted, _ctx: &mut Self::Context) {
        if self.wanted.len() > WANTED_MAX {
            // What was given up, fetched or belongs to a leader of old; the gate has it fetched if it still wants it.
            self.wanted.clear();
            self.wanted_by.clear();
        }
        for want in wants {
            if let Some(want) = self.deliver(want) {
                self.wanted.insert(want.log_id, want);
            }
        }
        self.show_bytes();
    }
}

impl Handler<Fault> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        panic_as_told(how, ctx);
    }
}
