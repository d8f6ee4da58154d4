//! Upload buffer: payloads that wait for their place in the log.
//!
//! Owns:   the bytes, bounded in all and for each client; they expire (S33).
//! Keeps:  `bytes() <= bytes_max`; one client holds at most `client_bytes_max`.
//! Never:  blocks a batch that the log needs: uploads are hints.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
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
    held: HashMap<(WriterId, Sequence), Held>,
    /// Oldest first; may name what is gone or was uploaded again since (its `arrival` then differs).
    order: VecDeque<((WriterId, Sequence), u64)>,
    clients: HashMap<ClientId, usize>,
    bytes: usize,
    arrivals: u64,
}

#[derive(Debug)]
struct Held {
    payload: Bytes,
    payload_crc: u32,
    client: ClientId,
    at_ms: u64,
    arrival: u64,
}

impl UploadBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(limits: UploadLimits) -> Self {
        Self {
            limits,
            held: HashMap::new(),
            order: VecDeque::new(),
            clients: HashMap::new(),
            bytes: 0,
            arrivals: 0,
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
        self.expire(now_ms);
        self.remove(key);
        let cost = payload.len() + OVERHEAD;
        let of_client = self.clients.get(&client).copied().unwrap_or(0);
        if of_client + cost > self.limits.client_bytes_max {
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "{of_client} uploaded bytes of this client wait for their appends, at most {} may: append them or wait",
                    self.limits.client_bytes_max
                ),
            ));
        }
        if self.bytes + cost > self.limits.bytes_max {
            return Err(Refusal::new(
                Code::Busy,
                format!(
                    "the upload buffer is full ({} of {} bytes): wait",
                    self.bytes, self.limits.bytes_max
                ),
            ));
        }
        self.bytes += cost;
        *self.clients.entry(client).or_default() += cost;
        self.arrivals += 1;
        self.order.push_back((key, self.arrivals));
        self.held.insert(key, Held { payload, payload_crc, client, at_ms: now_ms, arrival: self.arrivals });
        Ok(())
    }

    /// The payload uploaded under `key` and its CRC-32C. It stays until it expires, so that an append that is sent again finds it.
    #[must_use]
    pub fn get(&self, key: (WriterId, Sequence)) -> Option<(Bytes, u32)> {
        self.held.get(&key).map(|held| (held.payload.clone(), held.payload_crc))
    }

    /// Lets go of `key`: its entry is durable here.
    pub fn remove(&mut self, key: (WriterId, Sequence)) {
        if let Some(held) = self.held.remove(&key) {
            let cost = held.payload.len() + OVERHEAD;
            self.bytes -= cost;
            if let Some(of_client) = self.clients.get_mut(&held.client) {
                *of_client -= cost;
                if *of_client == 0 {
                    self.clients.remove(&held.client);
                }
            }
        }
    }

    /// Lets go of what has waited too long.
    pub fn expire(&mut self, now_ms: u64) {
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
