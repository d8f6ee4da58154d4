//! Requests: what a client asks a node, one MessagePack array each.
//!
//! Owns:   their kinds, fields and bytes.
//! Never:  answers one.
//!
//! Source: docs/protocol.md.

use bytes::{Bytes, BytesMut};

use crate::crc32c;
use crate::frame::{FrameError, Reader, Writer};
use crate::ids::{ClusterId, RequestId, Sequence, WriterId};
use crate::limits::{PAYLOAD_BYTES_MAX, WRITER_SEQUENCES_MAX};
use crate::manage::Manage;
use crate::position::Offset;

/// The protocol version this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Kinds of requests on the wire; a reply's kind is its request's and 64.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const UPLOAD: u8 = 2;
    pub(crate) const APPEND: u8 = 3;
    pub(crate) const READ: u8 = 4;
    pub(crate) const END: u8 = 5;
    pub(crate) const STATUS: u8 = 6;
    pub(crate) const FAULT: u8 = 7;
    pub(crate) const MANAGE: u8 = 8;
    pub(crate) const CHECK: u8 = 9;
    pub(crate) const REPLY: u8 = 64;
    pub(crate) const REFUSED: u8 = 127;
}

/// A request with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the reply.
    pub id: RequestId,
    /// What is asked.
    pub body: RequestBody,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Opens a connection; must be first.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// The cluster the client means, or any.
        cluster: Option<ClusterId>,
        /// Reserved; nil for now.
        credentials: Option<String>,
    },
    /// Brings payloads to this node; gives them no place.
    Upload(Upload),
    /// Asks for a place in the log.
    Append(Append),
    /// Asks for raw committed bytes.
    Read(Read),
    /// Asks where the log starts and ends.
    End {
        /// Whether the end must be no older than the request.
        linearizable: bool,
    },
    /// Asks how the node is.
    Status,
    /// Injects a fault, where `debug.faults` allows.
    Fault {
        /// The actor's name.
        actor: String,
        /// `handler`, `async` or `started`.
        how: String,
    },
    /// Manages the log: trims it, changes its members, moves the lead.
    Manage(Box<Manage>),
    /// Says that the node's bytes at this offset do not hold: it is to look for itself.
    Check {
        /// Any byte of the entry.
        offset: Offset,
    },
}

/// Payloads ahead of their appends: of one writer, under numbers that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Who will append them.
    pub writer: WriterId,
    /// Under which number the first of them.
    pub sequence: Sequence,
    /// One for each payload; 1 to [`WRITER_SEQUENCES_MAX`].
    pub parts: Vec<Part>,
    /// The bytes, one payload behind the other.
    pub payloads: Bytes,
}

/// One payload of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub length: u32,
    /// CRC-32C of the payload as the client made it.
    pub crc: u32,
}

/// A wish for a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Who appends.
    pub writer: WriterId,
    /// The writer's append before this one; `None` for its first.
    pub previous: Option<Sequence>,
    /// This one's number, greater than `previous`.
    pub sequence: Sequence,
    /// An end of the log learnt before this append was first sent; needed until the writer's first acknowledgement (S29).
    pub known_end: Option<Offset>,
    /// Append only if the entry will lie here.
    pub expect_end: Option<Offset>,
    /// CRC-32C of the payload as the client made it.
    pub crc: Option<u32>,
    /// The bytes; `None` if they were uploaded before.
    pub payload: Option<Bytes>,
}

/// A wish for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The first byte wanted; need not be where an entry begins.
    pub offset: Offset,
    /// The most bytes wanted.
    pub limit: u64,
    /// How long to wait at the end of the log, milliseconds.
    pub wait_ms: u64,
    /// Answer only once the node has committed this far (a session token).
    pub min_end: Option<Offset>,
}

/// Why nobody can do what a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// No writer has this id.
    #[error("writer is zero")]
    Writer,
    /// A writer's numbers grow.
    #[error("sequence does not follow the previous one")]
    Order,
    /// It is larger than an entry can be.
    #[error("a payload of {length} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    Payload {
        /// Its bytes.
        length: usize,
    },
    /// They do not share out the bytes, there are none or too many of them, or their numbers pass the last there is.
    #[error(
        "an upload has 1 to {WRITER_SEQUENCES_MAX} parts, which share out its payloads' bytes, and ends with sequence 2^64 - 1 at the latest"
    )]
    Parts,
}

impl Upload {
    /// A single payload.
    ///
    /// # Panics
    /// If that has 4 GiB, which none has.
    #[must_use]
    pub fn one(writer: WriterId, sequence: Sequence, payload: Bytes) -> Self {
        Self { writer, sequence, parts: vec![Part::of(&payload)], payloads: payload }
    }

    /// The number of its last payload; `None` if there is none, or no such number.
    #[must_use]
    pub fn last(&self) -> Option<Sequence> {
        let behind = (self.parts.len() as u64).checked_sub(1)?;
        self.sequence.get().checked_add(behind).map(Sequence::new)
    }

    /// Bytes of its longest payload; `None` if it is none that can be.
    fn longest(&self) -> Option<usize> {
        let bytes: u64 = self.parts.iter().map(|part| u64::from(part.length)).sum();
        let is_whole = bytes == self.payloads.len() as u64 && self.parts.len() <= WRITER_SEQUENCES_MAX;
        self.last().filter(|_| is_whole)?;
        self.parts.iter().map(|part| part.length as usize).max()
    }

    /// Appends all of an upload's frame but its payloads, which must follow at once, one behind the other: from where each of them lies.
    pub fn encode_head(
        out: &mut BytesMut,
        id: RequestId,
        (writer, sequence): (WriterId, Sequence),
        parts: &[Part],
        payload_bytes: usize,
    ) {
        let mut to = Writer::begin(out, kind::UPLOAD, id, 4);
        to.uint(writer.get());
        to.uint(sequence.get());
        to.payload_head(parts.len() * Part::BYTES);
        parts.iter().for_each(|part| to.raw(&part.encode()));
        to.payload_head(payload_bytes);
        to.finish_with_payload(payload_bytes);
    }
}

impl Part {
    /// Bytes of it on the wire.
    const BYTES: usize = 8;

    /// That of a payload.
    ///
    /// # Panics
    /// If that has 4 GiB, which none has.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self::summed(payload, crc32c(payload))
    }

    /// That of a payload whose CRC-32C is `crc`.
    ///
    /// # Panics
    /// If it has 4 GiB, which none has.
    #[must_use]
    pub fn summed(payload: &[u8], crc: u32) -> Self {
        Self { length: u32::try_from(payload.len()).expect("payloads are under 16 MiB"), crc }
    }

    fn encode(&self) -> [u8; Self::BYTES] {
        (u64::from(self.length) << 32 | u64::from(self.crc)).to_be_bytes()
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        Self { length: u32::from_be_bytes([l0, l1, l2, l3]), crc: u32::from_be_bytes([c0, c1, c2, c3]) }
    }
}

impl Request {
    /// Appends the request's frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let payload = self.encode_head(out);
        out.extend_from_slice(payload);
    }

    /// Appends all of the request's frame but its payload, which it returns and which must follow at once:
    /// so that a client can send a large payload without copying it.
    pub fn encode_head(&self, out: &mut BytesMut) -> &[u8] {
        let begin = |out, kind, fields| Writer::begin(out, kind, self.id, fields);
        match &self.body {
            RequestBody::Hello { version, cluster, credentials } => {
                let mut to = begin(out, kind::HELLO, 3);
                to.uint(u64::from(*version));
                to.optional(cluster.map(ClusterId::get));
                match credentials {
                    Some(text) => to.text(text),
                    None => to.nil(),
                }
                to.finish();
            }
            RequestBody::Upload(upload) => {
                let Upload { writer, sequence, parts, payloads } = upload;
                Upload::encode_head(out, self.id, (*writer, *sequence), parts, payloads.len());
                return payloads;
            }
            RequestBody::Append(append) => {
                let mut to = begin(out, kind::APPEND, 7);
                to.uint(append.writer.get());
                to.optional(append.previous.map(Sequence::get));
                to.uint(append.sequence.get());
                to.optional(append.known_end.map(Offset::get));
                to.optional(append.expect_end.map(Offset::get));
                to.optional(append.crc.map(u64::from));
                let Some(payload) = &append.payload else {
                    to.nil();
                    to.finish();
                    return &[];
                };
                to.payload_head(payload.len());
                to.finish_with_payload(payload.len());
                return payload;
            }
            RequestBody::Read(read) => {
                let mut to = begin(out, kind::READ, 4);
                to.uint(read.offset.get());
                to.uint(read.limit);
                to.uint(read.wait_ms);
                to.optional(read.min_end.map(Offset::get));
                to.finish();
            }
            RequestBody::End { linearizable } => {
                let mut to = begin(out, kind::END, 1);
                to.bool(*linearizable);
                to.finish();
            }
            RequestBody::Status => begin(out, kind::STATUS, 0).finish(),
            RequestBody::Fault { actor, how } => {
                let mut to = begin(out, kind::FAULT, 2);
                to.text(actor);
                to.text(how);
                to.finish();
            }
            RequestBody::Manage(manage) => {
                let mut to = begin(out, kind::MANAGE, 1);
                to.map(&**manage);
                to.finish();
            }
            RequestBody::Check { offset } => {
                let mut to = begin(out, kind::CHECK, 1);
                to.uint(offset.get());
                to.finish();
            }
        }
        &[]
    }

    /// Reads a request from a frame without its length. Payloads stay slices of `frame`.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] or [`FrameError::Payload`] with the request's id where it could be read: the connection can go on.
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let (kind, id, mut from) = Reader::begin(frame)?;
        let body = match kind {
            kind::HELLO => {
                from.expect(3)?;
                let version = from.u32("version")?;
                let cluster = match from.optional("cluster id")? {
                    Some(raw) => {
                        Some(ClusterId::new(raw).ok_or_else(|| from.malformed("cluster id is zero"))?)
                    }
                    None => None,
                };
                RequestBody::Hello {
                    version,
                    cluster,
                    credentials: from.optional_text("credentials")?.map(str::to_owned),
                }
            }
            kind::UPLOAD => {
                from.expect(4)?;
                let (writer, sequence) = (from.uint("writer")?, from.uint("sequence")?);
                let (parts, rest) = from.bin("parts")?.as_chunks::<{ Part::BYTES }>();
                if !rest.is_empty() || parts.len() > WRITER_SEQUENCES_MAX {
                    return Err(from.malformed(BadRequest::Parts.to_string()));
                }
                RequestBody::Upload(Upload {
                    writer: WriterId::new(writer),
                    sequence: Sequence::new(sequence),
                    parts: parts.iter().map(Part::decode).collect(),
                    payloads: from.payload("payloads")?,
                })
            }
            kind::APPEND => {
                from.expect(7)?;
                RequestBody::Append(Append {
                    writer: WriterId::new(from.uint("writer")?),
                    previous: from.optional("previous sequence")?.map(Sequence::new),
                    sequence: Sequence::new(from.uint("sequence")?),
                    known_end: from.optional("known end")?.map(Offset::new),
                    expect_end: from.optional("expected end")?.map(Offset::new),
                    crc: from.optional_u32("crc")?,
                    payload: from.optional_payload("payload")?,
                })
            }
            kind::READ => {
                from.expect(4)?;
                RequestBody::Read(Read {
                    offset: Offset::new(from.uint("offset")?),
                    limit: from.uint("limit")?,
                    wait_ms: from.uint("wait")?,
                    min_end: from.optional("minimal end")?.map(Offset::new),
                })
            }
            kind::END => {
                from.expect(1)?;
                RequestBody::End { linearizable: from.bool("linearizable")? }
            }
            kind::STATUS => RequestBody::Status,
            kind::FAULT => {
                from.expect(2)?;
                RequestBody::Fault {
                    actor: from.text("actor")?.to_owned(),
                    how: from.text("how")?.to_owned(),
                }
            }
            kind::MANAGE => {
                return Ok(Self { id, body: RequestBody::Manage(Box::new(from.map("manage")?)) });
            }
            kind::CHECK => {
                from.expect(1)?;
                RequestBody::Check { offset: Offset::new(from.uint("offset")?) }
            }
            _ => return Err(from.malformed(format!("unknown kind {kind}"))),
        };
        body.check().map_err(|wrong| match wrong {
            BadRequest::Payload { length } => {
                FrameError::Payload { id: from.id(), length, max: PAYLOAD_BYTES_MAX }
            }
            wrong => from.malformed(wrong.to_string()),
        })?;
        from.end()?;
        Ok(Self { id, body })
    }
}

impl RequestBody {
    /// Whether it asks for what can be. Whoever takes requests that were not decoded asks this.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self) -> Result<(), BadRequest> {
        let writer = match self {
            Self::Append(append) => append.writer,
            Self::Upload(upload) => upload.writer,
            _ => return Ok(()),
        };
        if writer == WriterId::NONE {
            return Err(BadRequest::Writer);
        }
        let length = match self {
            Self::Append(append) if append.previous.is_some_and(|previous| previous >= append.sequence) => {
                return Err(BadRequest::Order);
            }
            Self::Append(append) => append.payload.as_ref().map_or(0, Bytes::len),
            Self::Upload(upload) => upload.longest().ok_or(BadRequest::Parts)?,
            _ => 0,
        };
        match length {
            ..=PAYLOAD_BYTES_MAX => Ok(()),
            length => Err(BadRequest::Payload { length }),
        }
    }
}
