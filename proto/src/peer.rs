//! Peer messages: what nodes say to each other, on a port of their own.
//!
//! ```text
//!   announce ─► announced        who is there: before a cluster is formed, and to find a peer's incarnation
//!   hello ─► accepted            opens a link; checked against cluster, node, incarnation, version (S22)
//!   raft …                       one way, in order
//!   copy ─► copied               raw log bytes up to a named batch, with their segment's header (S34)
//!   locate ─► located            which batch is held at an index, and what of the log before it is committed (S10)
//!   seek ─► sought               a payload that a client uploaded, before it has a place (S31)
//! ```
//!
//! Owns:   their kinds, fields and bytes. Raft's messages are mirrored here: no protobuf travels (S19).
//! Never:  judges a message.
//!
//! Source: docs/protocol.md, "Between nodes".

use bytes::{Bytes, BytesMut};

use crate::error::Refusal;
use crate::frame::{FrameError, Reader, Writer};
use crate::header::{HEADER, SegmentHeader};
use crate::ids::{ClusterId, Incarnation, NodeId, RaftId, RequestId, Sequence, WriterId};
use crate::position::{Index, Length, LogId, Offset, Term};
use crate::request::kind::REFUSED;
use crate::response::{read_refusal, write_refusal};

/// The version of the peer protocol.
pub const PEER_VERSION: u32 = 1;

/// The largest frame on a link, length prefix excluded, bytes: a message of several batches, or a copied range.
pub const PEER_FRAME_BYTES_MAX: usize = 40 << 20;

/// The largest frame before the hello is accepted, length prefix excluded, bytes: a stranger gets no memory of ours.
pub const PEER_HELLO_BYTES_MAX: usize = 4 << 10;

/// The most batches in one Raft message.
pub const RAFT_ENTRIES_MAX: usize = 32_768;

mod kind {
    pub(super) const ANNOUNCE: u8 = 32;
    pub(super) const ANNOUNCED: u8 = 33;
    pub(super) const HELLO: u8 = 34;
    pub(super) const ACCEPTED: u8 = 35;
    pub(super) const RAFT: u8 = 36;
    pub(super) const COPY: u8 = 37;
    pub(super) const COPIED: u8 = 38;
    pub(super) const SEEK: u8 = 39;
    pub(super) const SOUGHT: u8 = 40;
    pub(super) const STANDING: u8 = 43;
    pub(super) const LOCATE: u8 = 41;
    pub(super) const LOCATED: u8 = 42;
}

/// A peer message. The request id ties a [`PeerMessage::Copied`] to its [`PeerMessage::Copy`], and likewise a
/// [`PeerMessage::Located`]; elsewhere it is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Who I am; who are you?
    Announce(Announcement),
    /// Who I am.
    Announced(Announcement),
    /// Opens a link.
    Hello(PeerHello),
    /// The link is open.
    Accepted(PeerAccepted),
    /// Raft's.
    Raft(Box<RaftMessage>),
    /// Asks for raw log bytes.
    Copy(Copy),
    /// Raw log bytes.
    Copied(Copied),
    /// How the sender stands; one way.
    Standing(PeerStanding),
    /// Asks what is held at an index.
    Locate(Locate),
    /// What is held there.
    Located(Located),
    /// Asks for an uploaded payload.
    Seek(Seek),
    /// That payload.
    Sought(Bytes),
    /// Not done, and why.
    Refused(Refusal),
}

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// [`PEER_VERSION`].
    pub version: u32,
    /// Whose log it keeps.
    pub cluster: ClusterId,
    /// Which node it is.
    pub node: NodeId,
    /// This life of its directory.
    pub incarnation: Incarnation,
    /// Whether it is part of a formed cluster.
    pub is_formed: bool,
    /// Entry bytes of a segment, as it is configured: all nodes must agree (S35).
    pub segment_bytes_max: Length,
}

/// The first message on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// [`PEER_VERSION`].
    pub version: u32,
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Who speaks.
    pub from: RaftId,
    /// Who is meant.
    pub to: RaftId,
    /// Index of the membership that the speaker goes by: a later one than the listener's may know members that he does not.
    pub membership: Index,
    /// This life of the speaker's storage: answers of an earlier one do not count (S23).
    pub life: u64,
    /// Where the speaker's own peer port is, so that he can be answered by one who does not know him yet.
    pub address: String,
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAccepted {
    /// This life of the answering node's storage.
    pub life: u64,
    /// The last batch that is durable there (S23).
    pub last: LogId,
}

/// How a node stands, told to every peer about once a second (S36, S37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStanding {
    /// Free bytes for new entries.
    pub free: u64,
    /// Where its log begins: offset, first index, term before it.
    pub start: (Offset, Index, Term),
    /// Whether it copies a snapshot: a leader that sent one and hears otherwise sends another.
    pub is_copying: bool,
}

/// Which of Raft's messages it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in the Raft paper and raft-rs")]
pub enum RaftKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TransferLeader,
    TimeoutNow,
    ReadIndex,
    ReadIndexResponse,
    Snapshot,
    SnapshotStatus,
}

impl RaftKind {
    const ALL: [Self; 14] = [
        Self::Append,
        Self::AppendResponse,
        Self::RequestVote,
        Self::RequestVoteResponse,
        Self::RequestPreVote,
        Self::RequestPreVoteResponse,
        Self::Heartbeat,
        Self::HeartbeatResponse,
        Self::TransferLeader,
        Self::TimeoutNow,
        Self::ReadIndex,
        Self::ReadIndexResponse,
        Self::Snapshot,
        Self::SnapshotStatus,
    ];

    fn number(self) -> u64 {
        Self::ALL.iter().position(|kind| *kind == self).map_or(0, |at| at as u64 + 1)
    }

    fn from_number(number: u64) -> Option<Self> {
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(at).copied()
    }
}

/// A message of Raft's. Fields that a kind does not use are zero or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// Which it is.
    pub kind: RaftKind,
    /// Who says it.
    pub from: RaftId,
    /// To whom.
    pub to: RaftId,
    /// The sender's term.
    pub term: Term,
    /// Term at `index`.
    pub log_term: Term,
    /// The batch before `entries`, the last one held, or what a ReadIndex gave.
    pub index: Index,
    /// How far the sender has committed.
    pub commit: Index,
    /// Term at `commit`.
    pub commit_term: Term,
    /// Whether it says no.
    pub reject: bool,
    /// What the receiver holds instead.
    pub reject_hint: Index,
    /// Opaque to the protocol: a ReadIndex context, the kind of a campaign, what a snapshot says of the log.
    pub context: Bytes,
    /// Batches to append, or the context of a ReadIndex.
    pub entries: Vec<RaftEntry>,
}

/// A batch as Raft orders it: references, not payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftEntry {
    /// Its place.
    pub log_id: LogId,
    /// What `core::batch` made of it.
    pub content: Bytes,
    /// Its payloads of up to [`INLINE_BYTES_MAX`](crate::limits::INLINE_BYTES_MAX), one behind the other, where they are at hand; empty:
    /// they come as larger ones do.
    pub inline: Bytes,
}

/// Asks for raw log bytes: those of the batches from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Ties the answer to it.
    pub id: RequestId,
    /// Index of the first batch wanted.
    pub first: Index,
    /// The last batch wanted. Whoever holds it holds the same bytes before it (Log Matching, Raft §5.3).
    pub last: LogId,
    /// Where the first batch begins.
    pub offset: Offset,
    /// The most bytes wanted; one batch is sent however large it is.
    pub limit: u64,
}

/// Raw log bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The request's.
    pub id: RequestId,
    /// Of the segment that they come from: so who copies knows where segments begin. None: one batch that is not written there yet,
    /// and so in no segment.
    pub header: Option<SegmentHeader>,
    /// Where they lie in the log.
    pub offset: Offset,
    /// Whole batches from there on, of one segment.
    pub bytes: Bytes,
}

/// Asks what a peer's log holds at an index, and what it knows to be committed up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locate {
    /// Ties the answer to it.
    pub id: RequestId,
    /// The index.
    pub index: Index,
}

/// What a peer's log holds at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The request's.
    pub id: RequestId,
    /// The last batch of the segment that holds the batch at the index, which has the same term; none where the log does not reach so
    /// far.
    pub held: Option<LogId>,
    /// The last batch up to the index, that one included, that this peer knows to be committed.
    pub committed: Option<LogId>,
}

/// Asks for a payload that was uploaded there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seek {
    /// Whose it is.
    pub writer: WriterId,
    /// Under which number.
    pub sequence: Sequence,
    /// CRC-32C that it must have; `None`: whichever it has.
    pub crc: Option<u32>,
}

const NO_ID: RequestId = RequestId::new(0);
const RAFT_FIELDS: u32 = 11;
const ENTRY_FIELDS: u32 = 4;

impl PeerMessage {
    /// Appends the message's frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Announce(announcement) => write_announcement(out, kind::ANNOUNCE, announcement),
            Self::Announced(announcement) => write_announcement(out, kind::ANNOUNCED, announcement),
            Self::Hello(hello) => {
                let mut to = Writer::begin(out, kind::HELLO, NO_ID, 7);
                to.uint(u64::from(hello.version));
                to.uint(hello.cluster.get());
                to.uint(hello.from.get());
                to.uint(hello.to.get());
                to.uint(hello.membership.get());
                to.uint(hello.life);
                to.text(&hello.address);
                to.finish();
            }
            Self::Accepted(accepted) => {
                let mut to = Writer::begin(out, kind::ACCEPTED, NO_ID, 3);
                to.uint(accepted.life);
                to.uint(u64::from(accepted.last.term.get()));
                to.uint(accepted.last.index.get());
                to.finish();
            }
            Self::Standing(standing) => {
                let (offset, index, term) = standing.start;
                let mut to = Writer::begin(out, kind::STANDING, NO_ID, 5);
                to.uint(standing.free);
                to.uint(offset.get());
                to.uint(index.get());
                to.uint(u64::from(term.get()));
                to.bool(standing.is_copying);
                to.finish();
            }
            Self::Raft(message) => write_raft(out, message),
            Self::Copy(copy) => {
                let mut to = Writer::begin(out, kind::COPY, copy.id, 5);
                to.uint(copy.first.get());
                to.uint(u64::from(copy.last.term.get()));
                to.uint(copy.last.index.get());
                to.uint(copy.offset.get());
                to.uint(copy.limit);
                to.finish();
            }
            Self::Copied(copied) => {
                let mut to = Writer::begin(out, kind::COPIED, copied.id, 3);
                match &copied.header {
                    Some(header) => to.payload(&header.encode()),
                    None => to.payload(&[]),
                }
                to.uint(copied.offset.get());
                to.payload(&copied.bytes);
                to.finish();
            }
            Self::Locate(locate) => {
                let mut to = Writer::begin(out, kind::LOCATE, locate.id, 1);
                to.uint(locate.index.get());
                to.finish();
            }
            Self::Located(located) => {
                let mut to = Writer::begin(out, kind::LOCATED, located.id, 4);
                for batch in [located.held, located.committed] {
                    to.optional(batch.map(|batch| u64::from(batch.term.get())));
                    to.optional(batch.map(|batch| batch.index.get()));
                }
                to.finish();
            }
            Self::Seek(seek) => {
                let mut to = Writer::begin(out, kind::SEEK, NO_ID, 3);
                to.uint(seek.writer.get());
                to.uint(seek.sequence.get());
                to.optional(seek.crc.map(u64::from));
                to.finish();
            }
            Self::Sought(payload) => {
                let mut to = Writer::begin(out, kind::SOUGHT, NO_ID, 1);
                to.payload(payload);
                to.finish();
            }
            Self::Refused(refusal) => write_refusal(out, NO_ID, refusal),
        }
    }

    /// Reads a message from a frame without its length. Content and bytes stay slices of `frame`.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let (kind, id, mut from) = Reader::begin(frame)?;
        let message = match kind {
            kind::ANNOUNCE => Self::Announce(read_announcement(&mut from)?),
            kind::ANNOUNCED => Self::Announced(read_announcement(&mut from)?),
            kind::HELLO => {
                from.expect(7)?;
                Self::Hello(PeerHello {
                    version: from.u32("version")?,
                    cluster: cluster(&mut from)?,
                    from: raft_id(&mut from, "from")?,
                    to: raft_id(&mut from, "to")?,
                    membership: Index::new(from.uint("membership")?),
                    life: from.uint("life")?,
                    address: from.text("address")?.to_owned(),
                })
            }
            kind::ACCEPTED => {
                from.expect(3)?;
                let life = from.uint("life")?;
                let last = LogId {
                    term: term(&mut from, "last term")?,
                    index: Index::new(from.uint("last index")?),
                };
                Self::Accepted(PeerAccepted { life, last })
            }
            kind::STANDING => {
                from.expect(5)?;
                let free = from.uint("free")?;
                let (offset, index) = (from.uint("start")?, from.uint("first index")?);
                let start = (Offset::new(offset), Index::new(index), term(&mut from, "term before")?);
                Self::Standing(PeerStanding { free, start, is_copying: from.bool("copying")? })
            }
            kind::RAFT => Self::Raft(Box::new(read_raft(&mut from)?)),
            kind::COPY => {
                from.expect(5)?;
                Self::Copy(Copy {
                    id,
                    first: Index::new(from.uint("first")?),
                    last: LogId {
                        term: term(&mut from, "last term")?,
                        index: Index::new(from.uint("last index")?),
                    },
                    offset: Offset::new(from.uint("offset")?),
                    limit: from.uint("limit")?,
                })
            }
            kind::COPIED => {
                from.expect(3)?;
                let header = header(&mut from)?;
                let offset = Offset::new(from.uint("offset")?);
                Self::Copied(Copied { id, header, offset, bytes: from.payload("bytes")? })
            }
            kind::LOCATE => {
                from.expect(1)?;
                Self::Locate(Locate { id, index: Index::new(from.uint("index")?) })
            }
            kind::LOCATED => {
                from.expect(4)?;
                let (held, committed) = (optional_batch(&mut from)?, optional_batch(&mut from)?);
                Self::Located(Located { id, held, committed })
            }
            kind::SEEK => {
                from.expect(3)?;
                Self::Seek(Seek {
                    writer: WriterId::new(from.uint("writer")?),
                    sequence: Sequence::new(from.uint("sequence")?),
                    crc: from.optional_u32("crc")?,
                })
            }
            kind::SOUGHT => {
                from.expect(1)?;
                Self::Sought(from.payload("payload")?)
            }
            REFUSED => return Ok(Self::Refused(read_refusal(from)?)),
            _ => {
                return Err(
                    from.malformed(format!("unknown kind {kind}: this port is for nodes, not for clients"))
                );
            }
        };
        from.end()?;
        Ok(message)
    }
}

fn write_announcement(out: &mut BytesMut, kind: u8, it: &Announcement) {
    let mut to = Writer::begin(out, kind, NO_ID, 6);
    to.uint(u64::from(it.version));
    to.uint(it.cluster.get());
    to.uint(u64::from(it.node.get()));
    to.uint(u64::from(it.incarnation.get()));
    to.bool(it.is_formed);
    to.uint(it.segment_bytes_max.get());
    to.finish();
}

fn read_announcement(from: &mut Reader<'_>) -> Result<Announcement, FrameError> {
    from.expect(6)?;
    let version = from.u32("version")?;
    let cluster = cluster(from)?;
    let node = NodeId::new(from.u32("node")?).ok_or_else(|| from.malformed("node id is zero"))?;
    let incarnation = Incarnation::new(from.u32("incarnation")?);
    let incarnation = incarnation.ok_or_else(|| from.malformed("incarnation is zero"))?;
    let is_formed = from.bool("formed")?;
    let segment_bytes_max = Length::new(from.uint("segment limit")?);
    Ok(Announcement { version, cluster, node, incarnation, is_formed, segment_bytes_max })
}

fn write_raft(out: &mut BytesMut, it: &RaftMessage) {
    debug_assert!(it.entries.len() <= RAFT_ENTRIES_MAX, "nobody would hear {} batches", it.entries.len());
    let entries = u32::try_from(it.entries.len()).expect("messages hold a bounded number of batches");
    let mut to = Writer::begin(out, kind::RAFT, NO_ID, RAFT_FIELDS + entries * ENTRY_FIELDS);
    to.uint(it.kind.number());
    to.uint(it.from.get());
    to.uint(it.to.get());
    to.uint(u64::from(it.term.get()));
    to.uint(u64::from(it.log_term.get()));
    to.uint(it.index.get());
    to.uint(it.commit.get());
    to.uint(u64::from(it.commit_term.get()));
    to.bool(it.reject);
    to.uint(it.reject_hint.get());
    to.payload(&it.context);
    for entry in &it.entries {
        to.uint(u64::from(entry.log_id.term.get()));
        to.uint(entry.log_id.index.get());
        to.payload(&entry.content);
        to.payload(&entry.inline);
    }
    to.finish();
}

fn read_raft(from: &mut Reader<'_>) -> Result<RaftMessage, FrameError> {
    let entries = from.left().checked_sub(RAFT_FIELDS).filter(|left| left % ENTRY_FIELDS == 0);
    let entries = entries.ok_or_else(|| from.malformed("not the fields of a Raft message"))? / ENTRY_FIELDS;
    if entries as usize > RAFT_ENTRIES_MAX {
        return Err(
            from.malformed(format!("{entries} batches in a message, at most {RAFT_ENTRIES_MAX} may be"))
        );
    }
    let kind = from.uint("Raft kind")?;
    let kind =
        RaftKind::from_number(kind).ok_or_else(|| from.malformed(format!("unknown Raft kind {kind}")))?;
    let mut message = RaftMessage {
        kind,
        from: raft_id(from, "from")?,
        to: raft_id(from, "to")?,
        term: term(from, "term")?,
        log_term: term(from, "log term")?,
        index: Index::new(from.uint("index")?),
        commit: Index::new(from.uint("commit")?),
        commit_term: term(from, "commit term")?,
        reject: from.bool("reject")?,
        reject_hint: Index::new(from.uint("reject hint")?),
        context: from.payload("context")?,
        entries: Vec::new(),
    };
    for _ in 0..entries {
        let log_id =
            LogId { term: term(from, "entry's term")?, index: Index::new(from.uint("entry's index")?) };
        let content = from.payload("entry's content")?;
        message.entries.push(RaftEntry { log_id, content, inline: from.payload("entry's inline payloads")? });
    }
    Ok(message)
}

fn cluster(from: &mut Reader<'_>) -> Result<ClusterId, FrameError> {
    let raw = from.uint("cluster id")?;
    ClusterId::new(raw).ok_or_else(|| from.malformed("cluster id is zero"))
}

fn optional_batch(from: &mut Reader<'_>) -> Result<Option<LogId>, FrameError> {
    match (from.optional_u32("term")?, from.optional("index")?) {
        (Some(term), Some(index)) => Ok(Some(LogId { term: Term::new(term), index: Index::new(index) })),
        (None, None) => Ok(None),
        _ => Err(from.malformed("a batch has a term and an index")),
    }
}

fn header(from: &mut Reader<'_>) -> Result<Option<SegmentHeader>, FrameError> {
    let bytes = from.payload("header")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() != HEADER {
        return Err(from.malformed(format!("a segment header has {HEADER} bytes, not {}", bytes.len())));
    }
    SegmentHeader::decode(&bytes).map(Some).map_err(|error| from.malformed(error.to_string()))
}

fn raft_id(from: &mut Reader<'_>, name: &str) -> Result<RaftId, FrameError> {
    let raw = from.uint(name)?;
    RaftId::from_raw(raw).ok_or_else(|| from.malformed(format!("{name} is no node's Raft id")))
}

fn term(from: &mut Reader<'_>, name: &str) -> Result<Term, FrameError> {
    from.u32(name).map(Term::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::frame::split;
    use proptest::prelude::*;

    fn id(node: u32) -> RaftId {
        RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(7).unwrap())
    }

    fn raft(kind: RaftKind, entries: Vec<RaftEntry>) -> PeerMessage {
        PeerMessage::Raft(Box::new(RaftMessage {
            kind,
            from: id(1),
            to: id(2),
            term: Term::new(3),
            log_term: Term::new(2),
            index: Index::new(9),
            commit: Index::new(8),
            commit_term: Term::new(2),
            reject: false,
            reject_hint: Index::ZERO,
            context: Bytes::new(),
            entries,
        }))
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId::new(0xab).unwrap(),
            base_offset: Offset::new(64),
            base_index: Index::new(4),
            term: Term::new(3),
            previous_term: Term::new(1),
        }
    }

    fn messages() -> Vec<(PeerMessage, &'static str)> {
        let announcement = Announcement {
            version: 1,
            cluster: ClusterId::new(0xab).unwrap(),
            node: NodeId::new(2).unwrap(),
            incarnation: Incarnation::new(7).unwrap(),
            is_formed: false,
            segment_bytes_max: Length::new(100),
        };
        let hello = PeerHello {
            version: 1,
            cluster: ClusterId::new(0xab).unwrap(),
            from: id(1),
            to: id(2),
            membership: Index::new(1),
            life: 6,
            address: "a:1".to_owned(),
        };
        let last = LogId { term: Term::new(3), index: Index::new(9) };
        let (content, inline) = (Bytes::from_static(b"xy"), Bytes::from_static(b"z"));
        let entry = RaftEntry { log_id: last, content, inline };
        let copy =
            Copy { id: RequestId::new(5), first: Index::new(4), last, offset: Offset::new(64), limit: 100 };
        let copied = Copied {
            id: RequestId::new(5),
            header: Some(header()),
            offset: Offset::new(64),
            bytes: Bytes::from_static(b"xy"),
        };
        let unwritten = Copied { header: None, ..copied.clone() };
        let locate = Locate { id: RequestId::new(5), index: Index::new(4) };
        let held = LogId { term: Term::new(3), index: Index::new(9) };
        let located = Located { id: RequestId::new(5), held: Some(held), committed: None };
        let behind =
            Located { held: None, committed: Some(LogId { index: Index::new(3), ..held }), ..located };
        let seek = Seek { writer: WriterId::new(7), sequence: Sequence::new(1), crc: Some(0x9a71_bb4c) };
        vec![
            (PeerMessage::Locate(locate), "00000004 93 29 05 04"),
            (PeerMessage::Located(located), "00000007 96 2a 05 03 09 c0 c0"),
            (PeerMessage::Located(behind), "00000007 96 2a 05 c0 c0 03 03"),
            (PeerMessage::Announce(announcement), "0000000a 98 20 00 01 ccab 02 07 c2 64"),
            (PeerMessage::Announced(announcement), "0000000a 98 21 00 01 ccab 02 07 c2 64"),
            (
                PeerMessage::Hello(hello),
                "0000001e 99 22 00 01 ccab cf0000000700000001 cf0000000700000002 01 06 a3613a31",
            ),
            (PeerMessage::Accepted(PeerAccepted { life: 6, last }), "00000006 95 23 00 06 03 09"),
            (
                PeerMessage::Standing(PeerStanding {
                    free: 100,
                    start: (Offset::new(64), Index::new(4), Term::new(2)),
                    is_copying: true,
                }),
                "00000008 97 2b 00 64 40 04 02 c3",
            ),
            (
                raft(RaftKind::Append, vec![entry]),
                "0000002a dc0011 24 00 01 cf0000000700000001 cf0000000700000002 03 02 09 08 02 c2 00 c400 \
                 03 09 c402 7879 c401 7a",
            ),
            (
                raft(RaftKind::Heartbeat, Vec::new()),
                "0000001f 9d 24 00 07 cf0000000700000001 cf0000000700000002 03 02 09 08 02 c2 00 c400",
            ),
            (PeerMessage::Copy(copy), "00000008 97 25 05 04 03 09 40 64"),
            (
                PeerMessage::Copied(copied),
                "0000004a 95 26 05 c440 4c674c67 01000000 ab00000000000000 4000000000000000 0400000000000000 \
                 03000000 01000000 0000000000000000000000000000000000000000 eca0229a 40 c402 7879",
            ),
            (PeerMessage::Copied(unwritten), "0000000a 95 26 05 c400 40 c402 7879"),
            (PeerMessage::Seek(seek), "0000000a 95 27 00 07 01 ce9a71bb4c"),
            (PeerMessage::Seek(Seek { crc: None, ..seek }), "00000006 95 27 00 07 01 c0"),
            (PeerMessage::Sought(Bytes::from_static(b"hello")), "0000000a 93 28 00 c405 68656c6c6f"),
            (
                PeerMessage::Refused(Refusal::new(Code::WrongCluster, "m")),
                "00000009 97 7f 00 03 c2 c2 a16d c0",
            ),
        ]
    }

    fn frame(message: &PeerMessage) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn messages_have_golden_bytes_and_come_back() {
        for (message, golden) in messages() {
            let mut out = frame(&message);
            let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden.split_whitespace().collect::<String>(), "{message:?}");
            let content = split(&mut out, PEER_FRAME_BYTES_MAX).unwrap().unwrap();
            assert_eq!(PeerMessage::decode(&content), Ok(message));
        }
    }

    #[test]
    fn a_copy_without_a_sound_header_is_malformed() {
        for (header, says) in [
            (header().encode()[..63].to_vec(), "64 bytes, not 63"),
            ([&header().encode()[..], &[0]].concat(), "64 bytes, not 65"),
            ([&header().encode()[..63], &[0]].concat(), "CRC"),
            (vec![0; 64], "no segment file"),
        ] {
            let mut out = BytesMut::new();
            let mut to = Writer::begin(&mut out, kind::COPIED, RequestId::new(5), 3);
            to.payload(&header);
            to.uint(64);
            to.payload(b"xy");
            to.finish();
            let content = split(&mut out, PEER_FRAME_BYTES_MAX).unwrap().unwrap();
            let error = PeerMessage::decode(&content).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_client_at_the_wrong_port_is_told_so() {
        let error = PeerMessage::decode(&Bytes::from_static(b"\x95\x01\x09\x01\xc0\xc0")).unwrap_err();
        assert!(error.to_string().contains("for nodes, not for clients"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = PeerMessage::decode(&Bytes::from(bytes));
        }

        #[test]
        fn nearly_right_frames_never_panic(at in 0usize..64, to in any::<u8>(), which in 0usize..16) {
            let (message, _) = messages().remove(which);
            let mut out = frame(&message);
            let at = at % out.len();
            out[at] = to;
            if let Ok(Some(frame)) = split(&mut out, PEER_FRAME_BYTES_MAX) {
                let _ = PeerMessage::decode(&frame);
            }
        }
    }
}
