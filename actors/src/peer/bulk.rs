//! Bulk source: raw log bytes from one peer, chunk by chunk, over a connection of their own (S34).
//!
//! ```text
//!     first, offset, last ─► Chunk { header, first, offset, bytes, next }      next, end() ─► the chunk behind it …
//! ```
//!
//! Owns:   that connection: opened when it is needed, dropped after a failure, opened again with the next question.
//! Keeps:  a chunk is whole batches of one segment, none behind the batch that was named, each entry checked by its CRC, its offset
//!         and its term.
//! Never:  writes; decides whom to ask.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::header::SegmentHeader;
use loglog_proto::peer::{Copied, Copy, Locate, Located, PeerMessage};
use loglog_proto::walk::whole_batches;
use loglog_proto::{Index, Length, LogId, Offset, RequestId};
use loglog_storage::Member;
use tokio::net::TcpStream;

use super::{SharedIdentity, socket};

/// Bytes asked for at a time.
pub const CHUNK_BYTES: u64 = 4 << 20;

/// How long one answer may take: that of a slow disk behind a slow line.
const PATIENCE: Duration = Duration::from_secs(10);

/// One peer, as a source of raw bytes.
#[derive(Debug)]
pub struct BulkSource {
    identity: SharedIdentity,
    peer: Member,
    connection: Option<TcpStream>,
}

/// Checked raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of the segment that they come from.
    pub header: SegmentHeader,
    /// Index of the first batch.
    pub first: Index,
    /// Where it begins.
    pub offset: Offset,
    /// Whole batches, one at least.
    pub bytes: Bytes,
    /// Index of the batch behind them.
    pub next: Index,
}

/// Why there is no chunk.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The peer no longer has them.
    #[error("trimmed there: its log starts at offset {start}")]
    Trimmed {
        /// First byte that the peer keeps.
        start: Offset,
    },
    /// The peer does not give them, and says why.
    #[error(transparent)]
    Refused(Refusal),
    /// What it gave is not what was asked for.
    #[error("the copy is thrown away: {0}")]
    Invalid(String),
    /// The peer is not to be reached, or not in time.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Chunk {
    /// Behind its last byte: where the batch `next` begins.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.offset + Length::of(self.bytes.len())
    }
}

impl BulkSource {
    /// The source that `peer` is; nothing is opened yet.
    #[must_use]
    pub const fn new(identity: SharedIdentity, peer: Member) -> Self {
        Self { identity, peer, connection: None }
    }

    /// Who it is.
    #[must_use]
    pub const fn peer(&self) -> &Member {
        &self.peer
    }

    /// Copies batches from `first` on, which begins at `offset`, none behind `last`: about [`CHUNK_BYTES`] at most, all of one segment.
    ///
    /// # Errors
    /// [`BulkError`]. Ask again for what may pass, another peer for the rest.
    pub async fn chunk(&mut self, first: Index, offset: Offset, last: LogId) -> Result<Chunk, BulkError> {
        let copy = Copy { id: RequestId::new(1), first, last, offset, limit: CHUNK_BYTES };
        match self.ask(&PeerMessage::Copy(copy)).await? {
            PeerMessage::Copied(copied) => check(&copy, copied).map_err(BulkError::Invalid),
            other => Err(socket::unexpected(other).into()),
        }
    }

    /// Asks what the peer holds at `index`, and what it knows to be committed up to there.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn locate(&mut self, index: Index) -> Result<Located, BulkError> {
        match self.ask(&PeerMessage::Locate(Locate { id: RequestId::new(1), index })).await? {
            PeerMessage::Located(located) => Ok(located),
            other => Err(socket::unexpected(other).into()),
        }
    }

    /// One question, one answer.
    async fn ask(&mut self, question: &PeerMessage) -> Result<PeerMessage, BulkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => socket::open(&self.peer.peer_address, &self.identity, self.peer.id).await?,
        };
        let asking = async { socket::ask(&mut connection, question, &mut BytesMut::new()).await };
        let answer = socket::within(PATIENCE, asking).await?;
        // An answer that came whole leaves the connection good for the next question.
        self.connection = Some(connection);
        match answer {
            PeerMessage::Refused(Refusal { code: Code::Trimmed, detail: Detail::Number(start), .. }) => {
                Err(BulkError::Trimmed { start: Offset::new(start) })
            }
            PeerMessage::Refused(refusal) => Err(BulkError::Refused(refusal)),
            answer => Ok(answer),
        }
    }
}

/// Whether these are whole batches of the segment that they are said to come from, and no more than was asked for.
fn check(copy: &Copy, copied: Copied) -> Result<Chunk, String> {
    let Copied { header, offset, bytes, .. } = copied;
    let is_first = copy.first == header.base_index;
    if offset != copy.offset || offset < header.base_offset || is_first != (offset == header.base_offset) {
        return Err(format!("bytes at {offset}, of the segment at {}", header.base_offset));
    }
    let wanted = (copy.last.index.get() + 1).saturating_sub(copy.first.get());
    let whole = whole_batches(offset, &bytes, header.term, wanted);
    if let Some(stop) = whole.stop {
        return Err(stop.to_string());
    }
    if whole.count == 0 || whole.end != offset + Length::of(bytes.len()) {
        return Err("not whole batches, or more of them than were asked for".to_owned());
    }
    let next = Index::new(copy.first.get() + whole.count);
    if next > copy.last.index && header.term != copy.last.term {
        return Err(format!("its last batch has term {}, not that of {}", header.term, copy.last));
    }
    Ok(Chunk { header, first: copy.first, offset, bytes, next })
}

#[cfg(test)]
mod tests {
    use loglog_proto::entry::{Kind, Prefix, encode_into};
    use loglog_proto::{ClusterId, Sequence, Term, WriterId, crc32c};

    use super::*;

    /// `count` batches of one entry of 40 bytes, from offset 100 on.
    fn batches(term: u32, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for sequence in 0..count {
            let payload = sequence.to_le_bytes();
            let prefix = Prefix {
                kind: Kind::Data,
                last_of_batch: true,
                payload_len: 8,
                term: Term::new(term),
                writer: WriterId::new(7),
                sequence: Sequence::new(sequence),
            };
            let offset = Offset::new(100 + out.len() as u64);
            encode_into(&mut out, offset, &prefix, &payload, crc32c(&payload));
        }
        out
    }

    #[test]
    fn s34_a_chunk_is_checked_by_header_crc_term_and_batch_count() {
        let header = SegmentHeader {
            cluster: ClusterId::new(5).unwrap(),
            base_offset: Offset::new(60),
            base_index: Index::new(8),
            term: Term::new(3),
            previous_term: Term::new(2),
        };
        let last = LogId { term: Term::new(3), index: Index::new(11) };
        let copy =
            Copy { id: RequestId::new(1), first: Index::new(9), last, offset: Offset::new(100), limit: 1 };
        let checked = |copy: Copy, header, offset, bytes: Vec<u8>| {
            let copied =
                Copied { id: copy.id, header, offset: Offset::new(offset), bytes: Bytes::from(bytes) };
            check(&copy, copied)
        };
        let chunk = checked(copy, header, 100, batches(3, 2)).unwrap();
        assert_eq!((chunk.next, chunk.end()), (Index::new(11), Offset::new(180)));
        assert_eq!(
            checked(copy, header, 100, batches(3, 3)).unwrap().next,
            Index::new(12),
            "the last one too"
        );
        let mut damaged = batches(3, 2);
        damaged[30] ^= 1;
        let first = SegmentHeader { base_index: Index::new(9), base_offset: Offset::new(100), ..header };
        assert!(checked(copy, first, 100, batches(3, 2)).is_ok());
        let other_last = Copy { last: LogId { term: Term::new(4), index: Index::new(11) }, ..copy };
        assert!(checked(other_last, header, 100, batches(3, 2)).is_ok(), "it does not reach that one");
        for (copy, header, offset, bytes) in [
            (copy, header, 140, batches(3, 2)),
            (copy, header, 100, batches(2, 2)),
            (copy, header, 100, batches(3, 4)),
            (copy, header, 100, batches(3, 2)[..79].to_vec()),
            (copy, header, 100, Vec::new()),
            (copy, header, 100, damaged),
            (other_last, header, 100, batches(3, 3)),
            (copy, SegmentHeader { base_offset: Offset::new(100), ..header }, 100, batches(3, 2)),
            (copy, SegmentHeader { base_offset: Offset::new(140), ..header }, 100, batches(3, 2)),
        ] {
            assert!(checked(copy, header, offset, bytes).is_err());
        }
    }
}
