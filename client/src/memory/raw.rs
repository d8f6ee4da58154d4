//! Raw log bytes, as a node would have them.

use bytes::Bytes;
use loglog_proto::entry::{Kind, Prefix, encode_into};
use loglog_proto::{Length, Offset, Sequence, Term, WriterId};

/// A log's bytes from some offset on.
#[derive(Clone, Debug)]
pub(crate) struct RawLog {
    base: Offset,
    bytes: Vec<u8>,
}

impl RawLog {
    pub(crate) fn new(base: Offset) -> Self {
        Self { base, bytes: Vec::new() }
    }

    pub(crate) fn end(&self) -> Offset {
        self.base + Length::of(self.bytes.len())
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// At most `limit` bytes from `from` on, which lies within.
    pub(crate) fn read(&self, from: Offset, limit: usize) -> Bytes {
        self.slice((from - self.base).as_usize(), limit)
    }

    /// Flips a bit of the byte at `at`, if that is here.
    pub(crate) fn flip(&mut self, at: Offset) {
        let place = usize::try_from(at.get().wrapping_sub(self.base.get())).unwrap_or(usize::MAX);
        if let Some(byte) = self.bytes.get_mut(place) {
            *byte ^= 1;
        }
    }

    /// At most `limit` bytes from the `from`th on.
    pub(crate) fn slice(&self, from: usize, limit: usize) -> Bytes {
        let rest = &self.bytes[from..];
        Bytes::copy_from_slice(&rest[..limit.min(rest.len())])
    }

    #[cfg(test)]
    pub(crate) fn data(&mut self, payload: &[u8]) -> Offset {
        self.entry(Kind::Data, WriterId::new(1), Sequence::new(1), payload)
    }

    #[cfg(test)]
    pub(crate) fn noop(&mut self) -> Offset {
        self.entry(Kind::Noop, WriterId::NONE, Sequence::new(0), &[])
    }

    pub(crate) fn entry(
        &mut self,
        kind: Kind,
        writer: WriterId,
        sequence: Sequence,
        payload: &[u8],
    ) -> Offset {
        let at = self.end();
        let payload_len = u32::try_from(payload.len()).expect("a payload within the limit");
        let prefix = Prefix { kind, last_of_batch: true, payload_len, term: Term::new(1), writer, sequence };
        encode_into(&mut self.bytes, at, &prefix, payload, loglog_proto::crc32c(payload));
        at
    }
}
