//! Bulk source: raw log bytes from one peer, chunk by chunk, over a connection of their own (S34).
//!
//! ```text
//!     first, offset, last ─► Chunk { header, first, offset, bytes, next }      next, end() ─► the chunk behind it …
//! ```
//!
//! Owns:   that connection: opened when it is needed, dropped after a failure, opened again with the next question.
//! Keeps:  what comes out of it has been checked.
//! Never:  writes; decides whom to ask.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use loglog_core::chunk::Chunk;
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::peer::{Copy, Locate, Located, PeerMessage};
use loglog_proto::{Index, LogId, Offset, RequestId};
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
            PeerMessage::Copied(copied) => Chunk::check(&copy, copied).map_err(BulkError::Invalid),
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
