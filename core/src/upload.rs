//! Upload buffer: payloads that wait for their place in the log.
//!
//! Owns:   the bytes, bounded in all and for each client; they expire (S33).
//! Keeps:  `bytes() <= bytes_max`; one client holds at most `client_bytes_max`.
//! Never:  blocks a batch that the log needs: uploads are hints.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use foldhash::quality::RandomState;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::{Sequence, WriterId};

/// What a held payload costs beyond its bytes.
const OVERHEAD: usize = 128;

/// Which client a payload came from.
pub type ClientId = u64;

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
    held: HashMap<(WriterId, Sequence), Held, RandomState>,
    /// Oldest first; may name what is gone or was uploaded again since (its `arrival` then differs).
    order: VecDeque<((WriterId, Sequence), u64)>,
    /// Those that an append has named, oldest first: kept for its repeats as long as nobody needs the room.
    used: VecDeque<((WriterId, Sequence), u64)>,
    clients: HashMap<ClientId, usize, RandomState>,
    bytes: usize,
    arrivals: u64,
    /// When expired ones were looked for.
    expired_ms: u64,
}

#[derive(Debug)]
struct Held {
    payload: Bytes,
    payload_crc: u32,
    client: ClientId,
    at_ms: u64,
    arrival: u64,
    is_used: bool,
}

impl UploadBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(limits: UploadLimits) -> Self {
        Self {
            limits,
            held: HashMap::default(),
            order: VecDeque::new(),
            used: VecDeque::new(),
            clients: HashMap::default(),
            bytes: 0,
            arrivals: 0,
            expired_ms: 0,
        }
    }

    /// Holds a payload until it is taken or expires. The same upload again replaces the first.
    ///
    /// # Errors
    /// [`Code::Busy`] if it finds no room: nothing is held, nothing else was dropped.
    pub fn upload(
        &mut self,
        client: ClientId,
        key: (WriterId, Sequence),
        payload: Bytes,
        payload_crc: u32,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if now_ms != self.expired_ms {
            self.expire(now_ms);
        }
        let cost = payload.len() + OVERHEAD;
        // The same upload again takes the place of the first, but only if it finds room.
        let (freed, freed_of_client) = match self.held.get(&key) {
            Some(held) => {
                let freed = held.payload.len() + OVERHEAD;
                (freed, if held.client == client && !held.is_used { freed } else { 0 })
            }
            None => (0, 0),
        };
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
        while self.bytes - freed + cost > self.limits.bytes_max
            && let Some((used, arrival)) = self.used.pop_front()
        {
            if used != key && self.held.get(&used).is_some_and(|held| held.arrival == arrival) {
                self.remove(used);
            }
        }
        if self.bytes - freed + cost > self.limits.bytes_max {
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "the upload buffer is full ({} of {} bytes): wait",
                    self.bytes, self.limits.bytes_max
                ),
            ));
        }
        if freed > 0 {
            self.remove(key);
        }
        self.compact();
        self.bytes += cost;
        *self.clients.entry(client).or_default() += cost;
        self.arrivals += 1;
        self.order.push_back((key, self.arrivals));
        self.held.insert(
            key,
            Held { payload, payload_crc, client, at_ms: now_ms, arrival: self.arrivals, is_used: false },
        );
        Ok(())
    }

    /// The payload uploaded under `key` and its CRC-32C. It stays until it expires, so that an append that is sent again finds it.
    #[must_use]
    pub fn get(&self, key: (WriterId, Sequence)) -> Option<(Bytes, u32)> {
        self.held.get(&key).map(|held| (held.payload.clone(), held.payload_crc))
    }

    /// The CRC-32C of the payload uploaded under `key`.
    #[must_use]
    pub fn crc(&self, key: (WriterId, Sequence)) -> Option<u32> {
        self.held.get(&key).map(|held| held.payload_crc)
    }

    /// Lets go of `key`: its entry is durable here.
    pub fn remove(&mut self, key: (WriterId, Sequence)) {
        if let Some(held) = self.held.remove(&key) {
            let cost = held.payload.len() + OVERHEAD;
            self.bytes -= cost;
            if !held.is_used {
                self.release_share(held.client, cost);
            }
        }
    }

    /// An append has named `key`: it no longer counts as its client's, and yields to others that need the room.
    pub fn mark_used(&mut self, key: (WriterId, Sequence)) {
        if let Some(held) = self.held.get_mut(&key).filter(|held| !held.is_used) {
            held.is_used = true;
            let (client, cost, arrival) = (held.client, held.payload.len() + OVERHEAD, held.arrival);
            self.used.push_back((key, arrival));
            self.release_share(client, cost);
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
                    self.remove(key);
                }
                _ => {}
            }
            self.order.pop_front();
        }
    }

    /// Drops what `order` names in vain, before that outgrows what is held.
    fn compact(&mut self) {
        if self.order.len() > 2 * self.held.len() + 64 {
            let held = &self.held;
            self.order.retain(|(key, arrival)| held.get(key).is_some_and(|it| it.arrival == *arrival));
            self.used.retain(|(key, arrival)| held.get(key).is_some_and(|it| it.arrival == *arrival));
        }
    }

    /// How many payloads it holds.
    #[must_use]
    pub fn payloads(&self) -> usize {
        self.held.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sequence: u64) -> (WriterId, Sequence) {
        (WriterId::new(1), Sequence::new(sequence))
    }

    fn buffer() -> UploadBuffer {
        UploadBuffer::new(UploadLimits { bytes_max: 2000, client_bytes_max: 1000, expiry_ms: 100 })
    }

    fn put(
        buffer: &mut UploadBuffer,
        client: ClientId,
        sequence: u64,
        length: usize,
        now: u64,
    ) -> Option<Code> {
        buffer
            .upload(client, key(sequence), Bytes::from(vec![0; length]), 0, now)
            .err()
            .map(|refusal| refusal.code)
    }

    #[test]
    fn s33_one_client_cannot_fill_the_buffer_for_others() {
        let mut buffer = buffer();
        assert_eq!(put(&mut buffer, 1, 1, 800, 0), None);
        assert_eq!(put(&mut buffer, 1, 2, 800, 0), Some(Code::Busy));
        assert_eq!(put(&mut buffer, 2, 3, 800, 0), None);
        assert_eq!(put(&mut buffer, 3, 4, 800, 0), Some(Code::Busy));
        assert!(buffer.get(key(1)).is_some());
    }

    #[test]
    fn a_refused_upload_leaves_the_earlier_one_and_repeats_cost_nothing() {
        let mut buffer = buffer();
        assert_eq!(put(&mut buffer, 1, 1, 500, 0), None);
        assert_eq!(put(&mut buffer, 1, 1, 5000, 0), Some(Code::Busy));
        assert_eq!(buffer.get(key(1)).map(|(payload, _)| payload.len()), Some(500));
        for _ in 0..1000 {
            assert_eq!(put(&mut buffer, 1, 1, 700, 0), None);
        }
        assert!(buffer.order.len() < 100, "{}", buffer.order.len());
    }

    #[test]
    fn what_an_append_has_named_yields_to_others() {
        let mut buffer = buffer();
        for sequence in 1..=10 {
            assert_eq!(
                put(&mut buffer, 1, sequence, 800, 0),
                None,
                "upload and append, one at a time, for ever"
            );
            buffer.mark_used(key(sequence));
            assert!(buffer.get(key(sequence)).is_some(), "an append sent again finds it");
        }
        assert!(buffer.bytes() <= 2000);
        assert!(buffer.clients.is_empty());
    }

    #[test]
    fn s33_uploads_expire() {
        let mut buffer = buffer();
        assert_eq!(put(&mut buffer, 1, 1, 800, 0), None);
        assert_eq!(put(&mut buffer, 1, 2, 800, 100), None);
        assert!(buffer.get(key(1)).is_none());
        buffer.expire(200);
        assert_eq!(buffer.bytes(), 0);
    }

    #[test]
    fn an_upload_again_replaces_the_first_and_its_time() {
        let mut buffer = buffer();
        for now in [0, 60] {
            assert_eq!(put(&mut buffer, 1, 1, 800, now), None);
        }
        buffer.expire(110);
        assert!(buffer.get(key(1)).is_some());
        buffer.remove(key(1));
        assert_eq!(buffer.bytes(), 0);
        assert!(buffer.clients.is_empty());
    }
}
