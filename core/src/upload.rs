//! Upload buffer: payloads that wait for their place in the log.
//!
//! Owns:   the bytes, bounded in all and for each client; they expire (S33).
//! Keeps:  `bytes() <= bytes_max`; one client holds at most `client_bytes_max`. What came in one upload stays together, is paid for
//!         until the last of it is let go of, and overlaps no other.
//! Never:  blocks a batch that the log needs: uploads are hints.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use foldhash::quality::RandomState;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::request::Upload;
use loglog_proto::{Sequence, WriterId, crc32c};

use crate::append::check_crc;
use crate::batch::Reference;

/// What a held upload costs beyond its bytes, and each payload in it.
const OVERHEAD: usize = 256;
const PART_OVERHEAD: usize = 16;

/// An upload below this is copied, lest a few bytes keep a whole receive buffer alive.
const COPY_BELOW: usize = 64 << 10;

/// Which client a payload came from.
pub type ClientId = u64;

/// Who appends a payload, and under which number.
type Key = (WriterId, Sequence);

/// Bounds of the buffer.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Bytes held in all.
    pub bytes_max: usize,
    /// Bytes held for one client.
    pub client_bytes_max: usize,
    /// How long an upload waits for its append, milliseconds.
    pub expiry_ms: u64,
}

/// The payloads.
#[derive(Debug)]
pub struct UploadBuffer {
    limits: UploadLimits,
    /// By their first payload.
    held: BTreeMap<Key, Held>,
    /// Oldest first; may name what is gone or was uploaded again since (its `arrival` then differs).
    order: VecDeque<(Key, u64)>,
    /// Those all of which appends have named, oldest first: kept for their repeats as long as nobody needs the room.
    used: VecDeque<(Key, u64)>,
    clients: HashMap<ClientId, usize, RandomState>,
    bytes: usize,
    payloads: usize,
    arrivals: u64,
    /// When expired ones were looked for.
    expired_ms: u64,
}

/// What came in one upload.
#[derive(Debug)]
struct Held {
    parts: Vec<HeldPart>,
    payloads: Bytes,
    client: ClientId,
    at_ms: u64,
    arrival: u64,
    /// Payloads not let go of.
    left: usize,
    /// Those of them that no append has named: while there are any, all of it counts as its client's.
    unnamed: usize,
}

#[derive(Clone, Copy, Debug)]
struct HeldPart {
    /// Where its payload ends.
    end: u32,
    crc: u32,
    state: PartState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Unnamed,
    Named,
    Gone,
}

impl Held {
    fn cost(&self) -> usize {
        cost(self.parts.len(), self.payloads.len())
    }

    fn is_used(&self) -> bool {
        self.unnamed == 0
    }

    /// The part at `at`, if it is still held.
    fn part(&self, at: usize) -> Option<&HeldPart> {
        self.parts.get(at).filter(|part| part.state != PartState::Gone)
    }

    fn bounds(&self, at: usize) -> Range<usize> {
        let begin = at.checked_sub(1).map_or(0, |before| self.parts[before].end);
        begin as usize..self.parts[at].end as usize
    }

    /// A small payload keeps no more than [`COPY_BELOW`] alive, whatever it came with.
    fn payload(&self, at: usize) -> Bytes {
        let bounds = self.bounds(at);
        if bounds.len() < COPY_BELOW && self.payloads.len() >= COPY_BELOW {
            return Bytes::copy_from_slice(&self.payloads[bounds]);
        }
        self.payloads.slice(bounds)
    }

    /// Whether the part at `at` is still held, and is what the reference names.
    fn is(&self, at: usize, reference: &Reference) -> bool {
        let length = reference.payload_len as usize;
        self.part(at).is_some_and(|part| part.crc == reference.payload_crc) && self.bounds(at).len() == length
    }

    /// Which of its parts has `key`; it begins with `first`.
    fn place(&self, (writer, first): Key, key: Key) -> Option<usize> {
        let at = key.1.get().checked_sub(first.get()).filter(|_| writer == key.0)?;
        usize::try_from(at).ok().filter(|at| *at < self.parts.len())
    }

    /// Changes the state of the part at `at`, if it is still held. True if that was the last that no append had named.
    fn set(&mut self, at: usize, state: PartState) -> bool {
        let Some(part) = self.parts.get_mut(at).filter(|part| part.state != PartState::Gone) else {
            return false;
        };
        let was_unnamed = part.state == PartState::Unnamed;
        part.state = state;
        self.left -= usize::from(state == PartState::Gone);
        self.unnamed -= usize::from(was_unnamed);
        was_unnamed && self.unnamed == 0
    }
}

fn cost(parts: usize, payload_bytes: usize) -> usize {
    payload_bytes + parts * PART_OVERHEAD + OVERHEAD
}

impl UploadBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(limits: UploadLimits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            order: VecDeque::new(),
            used: VecDeque::new(),
            clients: HashMap::default(),
            bytes: 0,
            payloads: 0,
            arrivals: 0,
            expired_ms: 0,
        }
    }

    /// Holds payloads until they are taken or expire. Takes the place of earlier uploads that it shares a sequence with, of all that
    /// came in them.
    ///
    /// # Errors
    /// [`Code::Busy`] if it finds no room, [`Code::Damaged`] if a payload does not match its CRC: nothing is held, nothing was dropped
    /// but what appends had named. [`Code::BadRequest`] for what [`check`](loglog_proto::request::RequestBody::check) does not let pass.
    pub fn upload(&mut self, client: ClientId, upload: Upload, now_ms: u64) -> Result<(), Refusal> {
        if now_ms != self.expired_ms {
            self.expire(now_ms);
        }
        let (parts, last) = checked(&upload)?;
        let Upload { writer, sequence, payloads, .. } = upload;
        let (key, cost) = ((writer, sequence), cost(parts.len(), payloads.len()));
        // In their order.
        let replaced: Vec<Key> = self.overlapping(key, last).collect();
        let (mut freed, mut freed_of_client) = (0, 0);
        for held in replaced.iter().filter_map(|key| self.held.get(key)) {
            freed += held.cost();
            freed_of_client += if held.client == client && !held.is_used() { held.cost() } else { 0 };
        }
        let of_client = self.clients.get(&client).copied().unwrap_or(0) - freed_of_client;
        if of_client + cost > self.limits.client_bytes_max {
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "{of_client} uploaded bytes of this client wait for their appends, at most {} may: append them or wait",
                    self.limits.client_bytes_max
                ),
            ));
        }
        let mut passed_over = Vec::new();
        while self.bytes - freed + cost > self.limits.bytes_max
            && let Some((used, arrival)) = self.used.pop_front()
        {
            if replaced.binary_search(&used).is_ok() {
                passed_over.push((used, arrival));
            } else if self.held.get(&used).is_some_and(|held| held.arrival == arrival) {
                self.drop_upload(used);
            }
        }
        if self.bytes - freed + cost > self.limits.bytes_max {
            passed_over.into_iter().rev().for_each(|used| self.used.push_front(used));
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "the upload buffer is full ({} of {} bytes): wait",
                    self.bytes, self.limits.bytes_max
                ),
            ));
        }
        replaced.into_iter().for_each(|key| self.drop_upload(key));
        self.compact();
        self.bytes += cost;
        self.payloads += parts.len();
        *self.clients.entry(client).or_default() += cost;
        self.arrivals += 1;
        self.order.push_back((key, self.arrivals));
        let payloads = match payloads.len() {
            0..COPY_BELOW => Bytes::copy_from_slice(&payloads),
            _ => payloads,
        };
        let (left, unnamed) = (parts.len(), parts.len());
        let held = Held { parts, payloads, client, at_ms: now_ms, arrival: self.arrivals, left, unnamed };
        self.held.insert(key, held);
        Ok(())
    }

    /// Uploads that hold a sequence of `key` to `last`, or held one.
    fn overlapping(&self, key: Key, last: Sequence) -> impl Iterator<Item = Key> {
        let before = self.place(key).map(|(first, ..)| first).filter(|first| *first < key);
        let within = self.held.range(key..=(key.0, last)).map(|(first, _)| *first);
        before.into_iter().chain(within)
    }

    /// The upload that may hold `key`, and as which part.
    fn find(&self, key: Key) -> Option<(&Held, usize)> {
        let (_, held, at) = self.place(key)?;
        held.part(at).map(|_| (held, at))
    }

    /// Whether `key` came here in an upload with others, of which any is still held: another upload of it would take the place of all.
    #[must_use]
    pub fn is_among_others(&self, key: Key) -> bool {
        self.place(key).is_some_and(|(_, held, _)| held.parts.len() > 1)
    }

    /// The payload uploaded under `key` and its CRC-32C. It stays until it expires, so that an append that is sent again finds it.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<(Bytes, u32)> {
        self.find(key).map(|(held, at)| (held.payload(at), held.parts[at].crc))
    }

    /// Whether a payload is held under `key`.
    #[must_use]
    pub fn holds(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    /// How many of `references` in a row, from the first on, are held as they name them.
    #[must_use]
    pub fn held_of(&self, references: &[Reference]) -> usize {
        let mut held = 0;
        while let Some((_, ats)) = self.run(&references[held..]) {
            held += ats.len();
        }
        held
    }

    /// Lets go of the payloads of `references`, which are not needed here any more, and returns them.
    ///
    /// # Errors
    /// How many in a row there are, if not all of them: nothing is let go of.
    pub fn take(&mut self, references: &[Reference]) -> Result<Vec<Bytes>, usize> {
        let (mut payloads, mut runs) = (Vec::with_capacity(references.len()), Vec::new());
        while let Some((first, ats)) = self.run(&references[payloads.len()..]) {
            if let Some(held) = self.held.get(&first) {
                payloads.extend(ats.clone().map(|at| held.payload(at)));
            }
            runs.push((first, ats));
        }
        if payloads.len() < references.len() {
            return Err(payloads.len());
        }
        runs.into_iter().for_each(|(first, ats)| self.set(first, ats, PartState::Gone));
        Ok(payloads)
    }

    /// The upload that holds the first of `references`, and as which parts it holds them, as far as they follow each other in it.
    fn run(&self, references: &[Reference]) -> Option<(Key, Range<usize>)> {
        let key = |reference: &Reference| (reference.writer, reference.sequence);
        let front = key(references.first()?);
        let (first, held, begin) = self.place(front)?;
        let ats = (begin..held.parts.len()).zip(references);
        let ats = ats.take_while(|(at, it)| held.place(first, key(it)) == Some(*at) && held.is(*at, it));
        let count = ats.count();
        (count > 0).then_some((first, begin..begin + count))
    }

    /// Lets go of what is held of `references`: their entries came with their payloads.
    pub fn release(&mut self, references: &[Reference]) {
        let mut rest = references;
        while self.payloads > 0 && !rest.is_empty() {
            let Some((first, ats)) = self.run(rest) else {
                rest = &rest[1..];
                continue;
            };
            rest = &rest[ats.len()..];
            self.set(first, ats, PartState::Gone);
        }
    }

    /// Lets go of `key`, and of what came before it in its upload: their entries are on their way to the disk.
    pub fn remove_until(&mut self, key: Key) {
        if let Some((first, _, at)) = self.place(key) {
            self.set(first, 0..at + 1, PartState::Gone);
        }
    }

    /// An append has named `key`. An upload all of which was named no longer counts as its client's, and yields to others that need the
    /// room.
    pub fn mark_used(&mut self, key: Key) {
        if let Some((first, _, at)) = self.place(key) {
            self.set(first, at..at + 1, PartState::Named);
        }
    }

    /// The upload that has, or had, `key`, and as which part.
    fn place(&self, key: Key) -> Option<(Key, &Held, usize)> {
        let (first, held) = self.held.range(..=key).next_back()?;
        held.place(*first, key).map(|at| (*first, held, at))
    }

    fn set(&mut self, first: Key, ats: Range<usize>, state: PartState) {
        let Some(held) = self.held.get_mut(&first) else { return };
        let before = held.left;
        let mut is_used = false;
        for at in ats {
            is_used |= held.set(at, state);
        }
        let (client, cost, left, arrival) = (held.client, held.cost(), held.left, held.arrival);
        self.payloads -= before - left;
        if is_used {
            self.release_share(client, cost);
            if left > 0 {
                self.used.push_back((first, arrival));
            }
        }
        if left == 0 {
            self.held.remove(&first);
            self.bytes -= cost;
        }
    }

    /// Lets go of all that came in one upload.
    fn drop_upload(&mut self, first: Key) {
        if let Some(held) = self.held.remove(&first) {
            self.bytes -= held.cost();
            self.payloads -= held.left;
            if !held.is_used() {
                self.release_share(held.client, held.cost());
            }
        }
    }

    fn release_share(&mut self, client: ClientId, cost: usize) {
        if let Some(of_client) = self.clients.get_mut(&client) {
            *of_client -= cost;
            if *of_client == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Lets go of what has waited too long.
    pub fn expire(&mut self, now_ms: u64) {
        self.expired_ms = now_ms;
        while let Some(&(key, arrival)) = self.order.front() {
            match self.held.get(&key) {
                Some(held) if held.arrival == arrival => {
                    if now_ms.saturating_sub(held.at_ms) < self.limits.expiry_ms {
                        break;
                    }
                    self.drop_upload(key);
                }
                _ => {}
            }
            self.order.pop_front();
        }
    }

    /// Drops what `order` names in vain, before that outgrows what is held.
    fn compact(&mut self) {
        if self.order.len().max(self.used.len()) > 2 * self.held.len() + 64 {
            let held = &self.held;
            self.order.retain(|(key, arrival)| held.get(key).is_some_and(|it| it.arrival == *arrival));
            self.used.retain(|(key, arrival)| held.get(key).is_some_and(|it| it.arrival == *arrival));
        }
    }

    /// How many payloads it holds.
    #[must_use]
    pub const fn payloads(&self) -> usize {
        self.payloads
    }

    /// Bytes that it may hold.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Bytes held, their cost included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The parts of an upload, if its payloads match them, and the number of the last.
fn checked(upload: &Upload) -> Result<(Vec<HeldPart>, Sequence), Refusal> {
    let bad = || Refusal::new(Code::BadRequest, loglog_proto::request::BadRequest::Parts.to_string());
    let last = upload.last().ok_or_else(bad)?;
    let (mut parts, mut end) = (Vec::with_capacity(upload.parts.len()), 0_u32);
    for part in &upload.parts {
        let begin = end as usize;
        end = end.checked_add(part.length).ok_or_else(bad)?;
        let payload = upload.payloads.get(begin..end as usize).ok_or_else(bad)?;
        check_crc(Some(part.crc), crc32c(payload))?;
        parts.push(HeldPart { end, crc: part.crc, state: PartState::Unnamed });
    }
    Ok((parts, last))
}

#[cfg(test)]
#[path = "upload_test.rs"]
mod tests;
