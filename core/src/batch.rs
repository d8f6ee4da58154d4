//! Batch content: what Raft orders, references instead of payloads.
//!
//! ```text
//!     data     1, then for each entry: writer u64, sequence u64, payload length u32, payload CRC-32C u32
//!     noop     2, then the payload itself
//!     control  3, then the payload itself
//! ```
//!
//! Owns:   the bytes that raft-rs carries as an entry's data, little-endian.
//! Never:  leaves memory as it is: peers get a message of the protocol's own.

use bytes::{BufMut, Bytes, BytesMut};
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::{Length, Sequence, WriterId};
use loglog_storage::{NewEntry, RecoveredBatch};

/// Batches of the log that go into one message: bounded in bytes alone they could be more than a peer hears, where each is small. What
/// raft-rs adds of those not synced yet stays, with these, within [`RAFT_ENTRIES_MAX`](loglog_proto::peer::RAFT_ENTRIES_MAX).
pub(crate) const MESSAGE_BATCHES_MAX: usize = 4096;

const REFERENCE: usize = 24;
const DATA: u8 = 1;
const NOOP: u8 = 2;
const CONTROL: u8 = 3;

/// An entry without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Who appended it.
    pub writer: WriterId,
    /// The writer's number for it.
    pub sequence: Sequence,
    /// Payload bytes.
    pub payload_len: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

impl Reference {
    /// The entry, with its payload.
    pub(crate) fn entry(&self, payload: Bytes) -> NewEntry {
        let Self { writer, sequence, payload_crc, .. } = *self;
        NewEntry { kind: Kind::Data, writer, sequence, payload, payload_crc }
    }
}

/// What a batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Clients' entries.
    Data(Vec<Reference>),
    /// Raft's own entry that opens a term.
    Noop(Bytes),
    /// A change of membership, a trim, a new segment limit.
    Control(Bytes),
}

/// Bytes that are no batch content: they never came from [`Content::encode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no batch content")]
pub struct ContentError(usize);

impl Content {
    /// As raft-rs carries it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Data(references) => {
                out.reserve(1 + references.len() * REFERENCE);
                out.put_u8(DATA);
                for reference in references {
                    out.put_u64_le(reference.writer.get());
                    out.put_u64_le(reference.sequence.get());
                    out.put_u32_le(reference.payload_len);
                    out.put_u32_le(reference.payload_crc);
                }
            }
            Self::Noop(payload) => {
                out.put_u8(NOOP);
                out.put_slice(payload);
            }
            Self::Control(payload) => {
                out.put_u8(CONTROL);
                out.put_slice(payload);
            }
        }
        out.freeze()
    }

    /// Reads what [`Content::encode`] wrote.
    ///
    /// # Errors
    /// [`ContentError`] for anything else.
    pub fn decode(bytes: &Bytes) -> Result<Self, ContentError> {
        let error = ContentError(bytes.len());
        match bytes.first() {
            Some(&NOOP) => Ok(Self::Noop(bytes.slice(1..))),
            Some(&CONTROL) => Ok(Self::Control(bytes.slice(1..))),
            Some(&DATA) => {
                let (references, rest) = bytes[1..].as_chunks::<REFERENCE>();
                if !rest.is_empty() || references.is_empty() {
                    return Err(error);
                }
                Ok(Self::Data(references.iter().map(decode_reference).collect()))
            }
            _ => Err(error),
        }
    }

    /// Log bytes of the batch.
    #[must_use]
    pub fn log_len(&self) -> Length {
        match self {
            Self::Data(references) => {
                Length::of(references.iter().map(|it| it.payload_len as usize + OVERHEAD).sum())
            }
            Self::Noop(payload) | Self::Control(payload) => Length::of(payload.len() + OVERHEAD),
        }
    }
}

/// The payload of a control entry, if encoded content is one.
pub(crate) fn control_payload(content: &Bytes) -> Option<Bytes> {
    (content.first() == Some(&CONTROL)).then(|| content.slice(1..))
}

/// Whether bytes are content of ours, and not what raft-rs itself puts into an entry: nothing, or a protobuf.
pub(crate) fn is_content(bytes: &Bytes) -> bool {
    matches!(bytes.first(), Some(&(DATA | NOOP | CONTROL)))
}

/// The content of a batch that recovery read from disk.
///
/// # Panics
/// If the batch mixes kinds: recovery lets no such batch through.
#[must_use]
pub fn recovered_content(batch: &RecoveredBatch) -> Content {
    let first = batch.entries.first().expect("a batch holds an entry");
    match first.kind {
        Kind::Noop => Content::Noop(first.payload.clone()),
        Kind::Control => Content::Control(first.payload.clone()),
        Kind::Data => Content::Data(
            batch
                .entries
                .iter()
                .map(|entry| {
                    assert_eq!(entry.kind, Kind::Data, "a batch is of one kind");
                    Reference {
                        writer: entry.writer,
                        sequence: entry.sequence,
                        payload_len: entry.payload_len,
                        payload_crc: entry.payload_crc,
                    }
                })
                .collect(),
        ),
    }
}

fn decode_reference(bytes: &[u8; REFERENCE]) -> Reference {
    let u64_at = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(field)
    };
    let u32_at = |at: usize| {
        let mut field = [0; 4];
        field.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(field)
    };
    Reference {
        writer: WriterId::new(u64_at(0)),
        sequence: Sequence::new(u64_at(8)),
        payload_len: u32_at(16),
        payload_crc: u32_at(20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference() -> impl Strategy<Value = Reference> {
        (any::<u64>(), any::<u64>(), 0u32..1000, any::<u32>()).prop_map(
            |(writer, sequence, payload_len, payload_crc)| Reference {
                writer: WriterId::new(writer),
                sequence: Sequence::new(sequence),
                payload_len,
                payload_crc,
            },
        )
    }

    proptest! {
        #[test]
        fn content_comes_back(references in proptest::collection::vec(reference(), 1..20), text in any::<Vec<u8>>()) {
            for content in [
                Content::Data(references.clone()),
                Content::Noop(Bytes::from(text.clone())),
                Content::Control(Bytes::from(text.clone())),
            ] {
                prop_assert_eq!(Content::decode(&content.encode()), Ok(content));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = Content::decode(&Bytes::from(bytes));
        }
    }
}
