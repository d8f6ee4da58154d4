//! Upload buffer actor: joins appends with their payloads and passes them on to consensus.
//!
//! Owns:   the payloads that wait for their append; outlives a restart of the storage group.
//! Keeps:  a writer's appends go on in their order, also when one of them must be sought at other nodes.
//! Never:  decides an append's place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message};
use bytes::Bytes;
use foldhash::quality::RandomState;
use loglog_core::batch::Reference;
use loglog_core::gate::Want;
use loglog_core::seek::Seek;
use loglog_core::upload::{ClientId, UploadLimits};
use loglog_core::{Answer, Append, Role, UploadBuffer as Buffer};
use loglog_proto::error::{Code, Refusal};
use loglog_proto::limits::INLINE_BYTES_MAX;
use loglog_proto::{Length, LogId, Sequence, WriterId, crc32c, peer, request};
use serde_json::json;
use tokio::sync::oneshot;

use crate::consensus::{Appends, ConsensusSlot, Payloads, Refusals};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::peer::fetcher::{FetchPayloads, FetcherSlot, SeekUpload};
use crate::ticket::{Ticket, answer_all};
use crate::view::LogView;

/// The name of the one upload buffer of a node.
pub const NAME: &str = "upload-buffer";

/// Writers of whom the last delivered sequence is known.
const WRITERS_MAX: usize = 10_000;

/// Batches that may wait for payloads here.
const WANTED_MAX: usize = 4096;

/// A writer of whom nothing was uploaded here for so long does not upload: its payloads are fetched at once.
const UPLOADER_MS: u64 = 1000;
/// Larger batches are not fetched at once: an upload that is still on its way would be carried twice.
const FETCHED_AT_ONCE: Length = Length::new(64 << 10);

/// How often expired uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The actor.
pub struct UploadBuffer {
    buffer: Buffer,
    consensus: ConsensusSlot,
    view: Arc<LogView>,
    fetcher: FetcherSlot,
    faults: Faults,
    bytes: Arc<AtomicUsize>,
    began: Instant,
    /// Appends whose payloads are sought at other nodes, and what came behind them.
    seek: Seek<Waiting>,
    /// Batches that wait for payloads, and by payload the batch that waits.
    wanted: HashMap<LogId, (Want, usize), RandomState>,
    /// The last sequence of each writer that went to consensus: what comes after its batch is of no use.
    delivered: HashMap<WriterId, Sequence, RandomState>,
    wanted_by: BTreeMap<(WriterId, Sequence), LogId>,
    /// When something of a writer was uploaded here last.
    uploaders: HashMap<WriterId, u64, RandomState>,
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

/// Payloads ahead of their appends: all of one socket read.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Uploads {
    /// Whose they are.
    pub client: ClientId,
    /// Each with the duty to answer, and the credit of its bytes.
    pub uploads: Vec<(Ticket, request::Upload)>,
}

/// Entries that came to this node with their payloads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Unneeded(pub Vec<Reference>);

/// The payload that is asked for, if it was uploaded here; else nothing is answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Lend {
    /// Which.
    pub seek: peer::Seek,
    /// Where it goes.
    pub answer: oneshot::Sender<Bytes>,
}

/// An append on its way.
#[derive(Debug)]
struct Waiting {
    client: ClientId,
    ticket: Ticket,
    request: request::Append,
}

/// What goes on to consensus.
#[derive(Default)]
struct Joined {
    appends: Vec<(Ticket, Append)>,
    refused: Vec<(Ticket, Refusal)>,
}

impl UploadBuffer {
    /// An empty buffer. `bytes` shows others what it holds.
    pub fn new(
        limits: UploadLimits,
        consensus: ConsensusSlot,
        view: Arc<LogView>,
        fetcher: FetcherSlot,
        faults: Faults,
        bytes: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            buffer: Buffer::new(limits),
            consensus,
            view,
            fetcher,
            faults,
            bytes,
            began: Instant::now(),
            seek: Seek::default(),
            wanted: HashMap::default(),
            delivered: HashMap::default(),
            wanted_by: BTreeMap::new(),
            uploaders: HashMap::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hold(&mut self, client: ClientId, upload: request::Upload, now: u64) -> Answer {
        let (writer, Some(last)) = (upload.writer, upload.last()) else {
            return Answer::Refused(Refusal::new(Code::BadRequest, request::BadRequest::Parts.to_string()));
        };
        if self.delivered.get(&writer).is_some_and(|delivered| *delivered >= last) {
            return Answer::Uploaded;
        }
        let first = upload.sequence;
        if let Err(refusal) = self.buffer.upload(client, upload, now) {
            return Answer::Refused(refusal);
        }
        if let Some(delivered) = self.delivered.get(&writer).filter(|delivered| **delivered >= first) {
            self.buffer.remove_until((writer, *delivered));
        }
        let wanted = self.wanted_by.range((writer, first)..=(writer, last));
        let wanted: Vec<_> = wanted.map(|(key, log_id)| (*key, *log_id)).collect();
        for (key, log_id) in wanted {
            // One delivered before it in this loop may wait for the same by now.
            if self.wanted_by.get(&key) == Some(&log_id) {
                self.wanted_by.remove(&key);
            }
            if let Some((want, found)) = self.wanted.remove(&log_id) {
                self.deliver(want, found);
            }
        }
        Answer::Uploaded
    }

    /// The append with its payload, which the request loses: whole, or of no use.
    fn join(&self, request: &mut request::Append) -> Result<Append, Refusal> {
        let key = (request.writer, request.sequence);
        match request.payload.take() {
            Some(payload) => {
                let crc = crc32c(&payload);
                let joined = Append::new(request, payload, crc);
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

    /// Joins an append with its payload, or has that sought; true if it is.
    fn take(&mut self, waiting: Waiting, joined: &mut Joined, may_seek: bool, ctx: &mut Ctx<Self>) -> bool {
        let Waiting { client, ticket, mut request } = waiting;
        let is_uploaded = request.payload.is_none();
        match self.join(&mut request) {
            Ok(append) => {
                if is_uploaded {
                    self.buffer.mark_used((request.writer, request.sequence));
                }
                joined.appends.push((ticket, append));
                false
            }
            Err(refusal) if may_seek && is_elsewhere(&refusal) => {
                match self.seek_payload(Waiting { client, ticket, request }, refusal, ctx) {
                    None => true,
                    Some((waiting, refusal)) => {
                        joined.refused.push((waiting.ticket, refusal));
                        false
                    }
                }
            }
            Err(refusal) => {
                joined.refused.push((ticket, refusal));
                false
            }
        }
    }

    /// Asks the other nodes for a payload that is not here, or not whole (S31). Gives the append back if nobody is to be asked.
    fn seek_payload(
        &mut self,
        waiting: Waiting,
        refusal: Refusal,
        ctx: &mut Ctx<Self>,
    ) -> Option<(Waiting, Refusal)> {
        // Who does not lead has nothing to do with the append but to say so.
        let leads = self.view.consensus().is_some_and(|it| it.role == Role::Leader);
        let Some(fetcher) = self.fetcher.get().filter(|_| leads && self.seek.has_room()) else {
            return Some((waiting, refusal));
        };
        let request = &waiting.request;
        let (writer, sequence) = (request.writer, request.sequence);
        let (found, finding) = oneshot::channel();
        // A fetcher that is down finds nothing.
        let _ = fetcher.tell(SeekUpload { seek: peer::Seek { writer, sequence, crc: request.crc }, found });
        self.seek.begin(writer, waiting);
        let ended = wrap_future::<_, Self>(finding);
        ctx.spawn(ended.map(move |found, buffer, ctx| buffer.sought(writer, refusal, found.ok(), ctx)));
        None
    }

    /// The search for a payload of this writer's has ended.
    fn sought(
        &mut self,
        writer: WriterId,
        refusal: Refusal,
        found: Option<(Bytes, u32)>,
        ctx: &mut Ctx<Self>,
    ) {
        let (mut behind, mut joined, now) = (self.seek.end(writer), Joined::default(), self.now_ms());
        let Some(Waiting { client, ticket, request }) = behind.pop_front() else { return };
        let is_found = found.is_some();
        match found.map(|(payload, crc)| (Append::new(&request, payload.clone(), crc), payload)) {
            Some((Ok(append), payload)) => {
                let key = (writer, request.sequence);
                // Kept for repeats, if there is room.
                let is_to_be_kept = request.payload.is_none() && !self.buffer.is_among_others(key);
                let is_kept = is_to_be_kept && {
                    let upload = request::Upload::one(writer, request.sequence, payload);
                    self.buffer.upload(client, upload, now).is_ok()
                };
                if is_kept {
                    self.buffer.mark_used(key);
                }
                joined.appends.push((ticket, append));
            }
            _ => joined.refused.push((ticket, refusal)),
        }
        while let Some(next) = behind.pop_front() {
            // Behind one that was refused nothing is sought: it would be out of order.
            if self.take(next, &mut joined, is_found, ctx) {
                for waiting in behind.drain(..) {
                    let _ = self.seek.behind(writer, waiting);
                }
            }
        }
        self.pass_on(joined);
        self.show_bytes();
    }

    /// Whether waiting for clients to upload what a batch misses would be in vain.
    fn is_unlikely(&self, want: &Want) -> bool {
        let now = self.now_ms();
        let uploads =
            |writer: &WriterId| self.uploaders.get(writer).is_some_and(|at| now < *at + UPLOADER_MS);
        let is_missing = |it: &Reference| !self.buffer.holds((it.writer, it.sequence));
        let is_small_batch = want.log_len <= FETCHED_AT_ONCE;
        // A small payload did not come inline, as it should have: clients upload larger ones only.
        let is_unlikely = |it: &Reference| {
            it.payload_len as usize <= INLINE_BYTES_MAX || (is_small_batch && !uploads(&it.writer))
        };
        want.references.iter().any(|it| is_unlikely(it) && is_missing(it))
    }

    fn pass_on(&self, Joined { appends, refused }: Joined) {
        match self.consensus.get() {
            // What is lost in a dying actor's mailbox is answered by its tickets.
            Some(consensus) => {
                if !refused.is_empty() {
                    let _ = consensus.tell(Refusals(refused));
                }
                if !appends.is_empty() {
                    let _ = consensus.tell(Appends(appends));
                }
            }
            None => {
                let refusal =
                    Refusal::new(Code::Unavailable, "the log is being recovered: try again shortly");
                let tickets = appends.into_iter().map(|(ticket, _)| ticket);
                let tickets = tickets.chain(refused.into_iter().map(|(ticket, _)| ticket));
                answer_all(tickets.map(|ticket| (ticket, Answer::Refused(refusal.clone()))));
            }
        }
    }

    /// Passes a wanted batch on, if all its payloads are here; they are not needed here then. Else it waits on: its first `found`
    /// were seen before.
    fn deliver(&mut self, want: Want, found: usize) {
        // From where the last look ended: uploads come one by one, and a batch has thousands.
        let mut found = found + self.buffer.held_of(want.references.get(found..).unwrap_or_default());
        if found == want.references.len() {
            match self.buffer.take(&want.references) {
                Ok(payloads) => return self.hand_over(want, payloads),
                // It made room for another meanwhile.
                Err(held) => found = held,
            }
        }
        // Other bytes than the leader's are none: they are fetched (S31).
        if let Some(missing) = want.references.get(found) {
            self.wanted_by.insert((missing.writer, missing.sequence), want.log_id);
        }
        self.wanted.insert(want.log_id, (want, found));
    }

    fn hand_over(&mut self, want: Want, payloads: Vec<Bytes>) {
        // Nearly always many of one writer, one behind the other.
        for run in want.references.chunk_by(|one, next| one.writer == next.writer) {
            if let Some(last) = run.iter().map(|it| it.sequence).max() {
                let delivered = self.delivered.entry(run[0].writer).or_insert(last);
                *delivered = last.max(*delivered);
            }
        }
        if self.delivered.len() > WRITERS_MAX {
            self.delivered.clear();
        }
        if let Some(consensus) = self.consensus.get() {
            // A consensus that is down wants them again when it is up.
            let _ = consensus.tell(Payloads { want, payloads });
        }
    }

    fn show_bytes(&self) {
        self.bytes.store(self.buffer.bytes(), Ordering::Relaxed);
    }
}

/// Whether another node may have the payload that is missing here.
const fn is_elsewhere(refusal: &Refusal) -> bool {
    matches!(refusal.code, Code::Damaged | Code::NotUploaded)
}

impl Actor for UploadBuffer {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(NAME);
        ctx.show(|it| {
            json!({
                "bytes": it.buffer.bytes(),
                "bytes_max": it.buffer.bytes_max(),
                "payloads": it.buffer.payloads(),
                "wanted": it.wanted.len(),
            })
        });
        ctx.run_interval(EXPIRY_INTERVAL, |buffer, _| {
            let now = buffer.now_ms();
            buffer.buffer.expire(now);
            buffer.uploaders.retain(|_, at| now < *at + UPLOADER_MS);
            buffer.show_bytes();
        });
    }
}

impl Handler<Offer> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, offer: Offer, ctx: &mut Self::Context) {
        let (client, mut joined) = (offer.client, Joined::default());
        joined.appends.reserve(offer.appends.len());
        for (ticket, request) in offer.appends {
            let writer = request.writer;
            if let Some(waiting) = self.seek.behind(writer, Waiting { client, ticket, request }) {
                self.take(waiting, &mut joined, true, ctx);
            }
        }
        self.pass_on(joined);
    }
}

impl Handler<Lend> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Lend { seek, answer }: Lend, _ctx: &mut Self::Context) {
        let held = self.buffer.get((seek.writer, seek.sequence));
        if let Some((payload, _)) = held.filter(|(_, crc)| seek.crc.is_none_or(|wanted| wanted == *crc)) {
            let _ = answer.send(payload);
        }
    }
}

impl Handler<Uploads> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Uploads { client, uploads }: Uploads, _ctx: &mut Self::Context) {
        let now = self.now_ms();
        let mut answers = Vec::with_capacity(uploads.len());
        for (ticket, upload) in uploads {
            self.uploaders.insert(upload.writer, now);
            answers.push((ticket, self.hold(client, upload, now)));
        }
        answer_all(answers);
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
        let mut unlikely = Vec::new();
        for want in wants {
            let log_id = want.log_id;
            // Asked for once more.
            self.wanted.remove(&log_id);
            self.deliver(want, 0);
            if let Some((want, _)) = self.wanted.get(&log_id).filter(|(want, _)| self.is_unlikely(want)) {
                unlikely.push(want.clone());
            }
        }
        if !unlikely.is_empty()
            && let Some(fetcher) = self.fetcher.get()
        {
            let leader = self.view.consensus().and_then(|it| it.leader);
            // A fetcher that is down is asked again by consensus.
            let _ = fetcher.tell(FetchPayloads { wants: unlikely, leader });
        }
        self.show_bytes();
    }
}

impl Handler<Unneeded> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Unneeded(references): Unneeded, _ctx: &mut Self::Context) {
        // Not all that came before them is here: nothing is to be concluded for later uploads.
        self.buffer.release(&references);
        self.show_bytes();
    }
}

impl Handler<Fault> for UploadBuffer {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
