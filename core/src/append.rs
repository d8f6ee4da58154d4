//! An append on its way through a node: what was asked, with a payload whose CRC is known.
//!
//! Never:  knows how the answer travels: that is the token beside it.

use bytes::Bytes;
use loglog_proto::entry::OVERHEAD;
use loglog_proto::error::{Code, Refusal};
use loglog_proto::{Length, Offset, Sequence, WriterId, request};

/// A checked append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Who appends.
    pub writer: WriterId,
    /// The writer's append before this one.
    pub previous: Option<Sequence>,
    /// This one's number.
    pub sequence: Sequence,
    /// An end of the log learnt before this append was first sent.
    pub known_end: Option<Offset>,
    /// Append only if the entry will lie here.
    pub expect_end: Option<Offset>,
    /// The bytes.
    pub payload: Bytes,
    /// Their CRC-32C.
    pub payload_crc: u32,
}

impl Append {
    /// Joins a request with its payload, whose CRC-32C is `payload_crc`.
    ///
    /// # Errors
    /// [`Code::Damaged`] if the client says another CRC (S31).
    pub fn new(request: &request::Append, payload: Bytes, payload_crc: u32) -> Result<Self, Refusal> {
        check_crc(request.crc, payload_crc)?;
        Ok(Self {
            writer: request.writer,
            previous: request.previous,
            sequence: request.sequence,
            known_end: request.known_end,
            expect_end: request.expect_end,
            payload,
            payload_crc,
        })
    }

    /// Bytes of the entry it becomes.
    #[must_use]
    pub fn entry_len(&self) -> Length {
        Length::of(self.payload.len() + OVERHEAD)
    }
}

/// Compares the CRC a client says with the one its bytes have here.
///
/// # Errors
/// [`Code::Damaged`] if they differ.
pub fn check_crc(said: Option<u32>, found: u32) -> Result<(), Refusal> {
    match said {
        Some(said) if said != found => Err(Refusal::new(
            Code::Damaged,
            format!("the payload has CRC-32C {found:08x}, the request says {said:08x}: send it again"),
        )),
        _ => Ok(()),
    }
}
