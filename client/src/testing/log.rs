//! Raw log bytes, made by hand.

use bytes::Bytes;
use loglog_proto::entry::{Kind, Prefix, encode_into};
use loglog_proto::{Length, Offset, Sequence, Term, WriterId};

/// A log's bytes from some offset on.
#[derive(Clone, Debug)]
pub(crate) struct TestLog {
    base: Offset,
    bytes: Vec<u8>,
}

impl TestLog {
    pub(crate) fn new(base: Offset) -> Self {
        Self { base, bytes: Vec::new() }
    }

    pub(crate) fn end(&self) -> Offset {
        self.base + Length::of(self.bytes.len())
    }

    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// At most `limit` bytes from the `from`th on.
    pub(crate) fn slice(&self, from: usize, limit: usize) -> Bytes {
        let rest = &self.bytes[from..];
        Bytes::copy_from_slice(&rest[..limit.min(rest.len())])
    }

    pub(crate) fn data(&mut self, payload: &[u8]) -> Offset {
        self.entry(Kind::Data, WriterId::new(1), Sequence::new(1), payload)
    }

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
        let payload_len = u32::try_from(payload.len()).unwrap();
        let prefix = Prefix { kind, last_of_batch: true, payload_len, term: Term::new(1), writer, sequence };
        encode_into(&mut self.bytes, at, &prefix, payload, loglog_proto::crc32c(payload));
        at
    }
}
