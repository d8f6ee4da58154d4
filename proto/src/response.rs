//! Responses: what a node answers, one MessagePack array each.
//!
//! Owns:   their kinds, fields and bytes. Rare answers carry a map of names, so that they can grow; frequent ones are arrays.
//! Never:  decides an answer.
//!
//! Source: docs/protocol.md.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::check::Checked;
use crate::error::{Code, Detail, Refusal};
use crate::frame::{FrameError, Reader, Writer};
use crate::ids::{ClusterId, NodeId, RequestId};
use crate::manage::Managed;
use crate::position::{Offset, Term};
use crate::request::kind;

/// A response with the id of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's. 0 where the request was too broken to have one.
    pub id: RequestId,
    /// The answer.
    pub body: ResponseBody,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// To a hello.
    Welcome(Box<Welcome>),
    /// The payload is here.
    Uploaded,
    /// The entry is committed.
    Appended(Appended),
    /// Committed bytes; empty if none came within the wait.
    Data(Data),
    /// Where the log starts and ends.
    End {
        /// First byte kept.
        start: Offset,
        /// Next byte to be committed.
        end: Offset,
    },
    /// How the node is.
    Status(Box<Status>),
    /// The fault is on its way.
    Injected,
    /// What a [`Manage`](crate::manage::Manage) came to.
    Managed(Box<Managed>),
    /// What the node found when it looked at its own copy.
    Checked(Box<Checked>),
    /// Not done, and why.
    Refused(Refusal),
}

/// What a client learns first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Protocol version.
    pub version: u32,
    /// Whose log it is.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The leader's id, where known.
    pub leader: Option<NodeId>,
    /// Every member.
    pub members: Vec<MemberAddress>,
    /// What requests may ask.
    pub limits: WireLimits,
    /// First byte kept.
    pub start: Offset,
    /// Next byte to be committed.
    pub end: Offset,
}

/// A member and where clients reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    /// The member.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// The limits of a node, as it tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLimits {
    /// Payload of one entry.
    pub payload_bytes_max: u64,
    /// One frame.
    pub frame_bytes_max: u64,
    /// What one read returns.
    pub read_bytes_max: u64,
    /// How long one read waits.
    pub read_wait_ms_max: u64,
    /// Appends of one writer in flight.
    pub writer_appends_max: u64,
    /// Bytes of one connection's requests in flight: payloads, and 256 for each request.
    pub connection_bytes_max: u64,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its first byte.
    pub offset: Offset,
    /// The byte behind it: a session token for [`crate::request::Read::min_end`].
    pub end: Offset,
    /// Its term.
    pub term: Term,
}

/// Committed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Offset of the first byte.
    pub offset: Offset,
    /// The committed end, as it was when the bytes were read.
    pub end: Offset,
    /// The bytes.
    pub bytes: Bytes,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Whose log it is.
    pub cluster: String,
    /// This node.
    pub node: u32,
    /// This life of its directory.
    pub incarnation: String,
    /// `leader`, `follower`, `candidate`, `learner`; `joining` before the node was taken in, `removed` after it was let go; `starting`
    /// while the storage group is not up.
    pub role: String,
    /// Raft's epoch.
    pub term: u32,
    /// Who leads, where known.
    pub leader: Option<u32>,
    /// First byte kept.
    pub start: u64,
    /// Next byte to be committed.
    pub committed: u64,
    /// Synced on this node up to here.
    pub durable: u64,
    /// Segment files.
    pub segments: u64,
    /// Payload bytes waiting for their place.
    pub upload_bytes: u64,
    /// Client connections.
    pub connections: u64,
    /// Reads that wait for more.
    pub waiting_reads: u64,
    /// Log or payload bytes sent to peers that asked for them; near zero while clients upload to every node.
    pub peer_payload_bytes: u64,
    /// Log or payload bytes that this node asked peers for.
    pub fetched_bytes: u64,
    /// How often that was.
    pub fetches: u64,
    /// Free bytes for new entries.
    pub disk_free: u64,
    /// Whether appends are refused for want of space.
    pub disk_full: bool,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Where data lies.
    pub data_dir: String,
    /// How often the storage group went through recovery since the process started, the first time included.
    pub generation: u64,
    /// Torn bytes cut by recoveries of this process.
    pub torn_bytes: u64,
    /// Restarts of actors, all in all.
    pub restarts: u64,
    /// Every actor.
    pub actors: Vec<ActorStatus>,
}

/// How an actor is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActorStatus {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Who restarts it.
    pub parent: String,
    /// `starting`, `running`, `backoff`, `failed` or `stopped`.
    pub state: String,
    /// Messages waiting.
    pub mailbox: u64,
    /// Messages handled.
    pub handled: u64,
    /// Restarts.
    pub restarts: u64,
    /// Text of its last panic.
    pub last_panic: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            version: String::new(),
            cluster: String::new(),
            node: 0,
            incarnation: String::new(),
            role: "starting".to_owned(),
            term: 0,
            leader: None,
            start: 0,
            committed: 0,
            durable: 0,
            segments: 0,
            upload_bytes: 0,
            connections: 0,
            waiting_reads: 0,
            peer_payload_bytes: 0,
            fetched_bytes: 0,
            fetches: 0,
            disk_free: 0,
            disk_full: false,
            uptime_s: 0,
            data_dir: String::new(),
            generation: 0,
            torn_bytes: 0,
            restarts: 0,
            actors: Vec::new(),
        }
    }
}

/// Appends the frame of a [`ResponseBody::Data`] to `out`, all but its `length` bytes, which must follow at once: so that they need not be
/// copied on their way from memory or a file to the socket.
///
/// # Panics
/// If `length` is 4 GiB or more.
pub fn data_head(out: &mut BytesMut, id: RequestId, (offset, end): (Offset, Offset), length: usize) {
    let mut to = Writer::begin(out, kind::REPLY | kind::READ, id, 3);
    to.uint(offset.get());
    to.uint(end.get());
    to.payload_head(length);
    to.finish_with_payload(length);
}

impl Response {
    /// Appends the response's frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let begin = |out, kind, fields| Writer::begin(out, kind::REPLY | kind, self.id, fields);
        match &self.body {
            ResponseBody::Welcome(welcome) => {
                let mut to = begin(out, kind::HELLO, 1);
                to.map(welcome);
                to.finish();
            }
            ResponseBody::Uploaded => begin(out, kind::UPLOAD, 0).finish(),
            ResponseBody::Appended(appended) => {
                let mut to = begin(out, kind::APPEND, 3);
                to.uint(appended.offset.get());
                to.uint(appended.end.get());
                to.uint(u64::from(appended.term.get()));
                to.finish();
            }
            ResponseBody::Data(data) => {
                data_head(out, self.id, (data.offset, data.end), data.bytes.len());
                out.extend_from_slice(&data.bytes);
            }
            ResponseBody::End { start, end } => {
                let mut to = begin(out, kind::END, 2);
                to.uint(start.get());
                to.uint(end.get());
                to.finish();
            }
            ResponseBody::Status(status) => {
                let mut to = begin(out, kind::STATUS, 1);
                to.map(&**status);
                to.finish();
            }
            ResponseBody::Injected => begin(out, kind::FAULT, 0).finish(),
            ResponseBody::Managed(managed) => {
                let mut to = begin(out, kind::MANAGE, 1);
                to.map(&**managed);
                to.finish();
            }
            ResponseBody::Checked(checked) => {
                let mut to = begin(out, kind::CHECK, 1);
                to.map(&**checked);
                to.finish();
            }
            ResponseBody::Refused(refusal) => write_refusal(out, self.id, refusal),
        }
    }

    /// Reads a response from a frame without its length. Bytes of a read stay a slice of `frame`.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let (kind, id, mut from) = Reader::begin(frame)?;
        if kind == kind::REFUSED {
            let refusal = read_refusal(from)?;
            return Ok(Self { id, body: ResponseBody::Refused(refusal) });
        }
        let body = match kind ^ kind::REPLY {
            kind::HELLO => {
                return Ok(Self { id, body: ResponseBody::Welcome(Box::new(from.map("welcome")?)) });
            }
            kind::STATUS => {
                return Ok(Self { id, body: ResponseBody::Status(Box::new(from.map("status")?)) });
            }
            kind::MANAGE => {
                return Ok(Self { id, body: ResponseBody::Managed(Box::new(from.map("managed")?)) });
            }
            kind::CHECK => {
                return Ok(Self { id, body: ResponseBody::Checked(Box::new(from.map("checked")?)) });
            }
            kind::UPLOAD => ResponseBody::Uploaded,
            kind::APPEND => {
                from.expect(3)?;
                ResponseBody::Appended(Appended {
                    offset: Offset::new(from.uint("offset")?),
                    end: Offset::new(from.uint("end")?),
                    term: Term::new(from.u32("term")?),
                })
            }
            kind::READ => {
                from.expect(3)?;
                ResponseBody::Data(Data {
                    offset: Offset::new(from.uint("offset")?),
                    end: Offset::new(from.uint("end")?),
                    bytes: from.payload("bytes")?,
                })
            }
            kind::END => {
                from.expect(2)?;
                ResponseBody::End {
                    start: Offset::new(from.uint("start")?),
                    end: Offset::new(from.uint("end")?),
                }
            }
            kind::FAULT => ResponseBody::Injected,
            _ => return Err(from.malformed(format!("unknown kind {kind}"))),
        };
        from.end()?;
        Ok(Self { id, body })
    }
}

/// Refusals look the same on every port.
pub(crate) fn write_refusal(out: &mut BytesMut, id: RequestId, refusal: &Refusal) {
    let mut to = Writer::begin(out, kind::REFUSED, id, 5);
    to.uint(u64::from(refusal.code.number()));
    to.bool(refusal.code.is_retryable());
    to.bool(refusal.code.may_have_happened());
    to.text(&refusal.message);
    match &refusal.detail {
        Detail::Nil => to.nil(),
        Detail::Number(number) => to.uint(*number),
        Detail::Text(text) => to.text(text),
    }
    to.finish();
}

pub(crate) fn read_refusal(mut from: Reader<'_>) -> Result<Refusal, FrameError> {
    from.expect(5)?;
    let number = from.u32("code")?;
    let (_retryable, may_have_happened) = (from.bool("retryable")?, from.bool("may have happened")?);
    let message = from.text("message")?.to_owned();
    let detail = from.detail()?;
    from.end()?;
    // A later version's code: keep what it says about the outcome.
    let code = u16::try_from(number).ok().and_then(Code::from_number).unwrap_or(if may_have_happened {
        Code::Internal
    } else {
        Code::BadRequest
    });
    Ok(Refusal { code, message, detail })
}
