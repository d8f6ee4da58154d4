//! Wire: as much of the protocol as it takes to read raw bytes, for benches in which a whole client would cost more than the node.
//!
//! Owns:   the frames that are sent, and the heads of those that come.
//! Never:  looks at log bytes, or keeps them.
//!
//! Source: docs/protocol.md, "Hello" and "Read".

use bytes::{Bytes, BytesMut};
use loglog_proto::frame::LENGTH;
use loglog_proto::request::{PROTOCOL_VERSION, Read, Request, RequestBody};
use loglog_proto::response::{Response, ResponseBody};
use loglog_proto::{Offset, RequestId};

/// Kinds of answers.
const WELCOME: u64 = 65;
const DATA: u64 = 68;
/// No head of [`DATA`] is longer: length, array, kind, three numbers of nine bytes at most, the head of the bytes.
const HEAD_MAX: usize = 64;

/// The frame of a hello.
pub(super) fn hello() -> BytesMut {
    let body = RequestBody::Hello { version: PROTOCOL_VERSION, cluster: None, credentials: None };
    encoded(0, body)
}

/// The frame of a read.
pub(super) fn read(id: u64, offset: Offset, limit: u64, wait_ms: u64) -> BytesMut {
    encoded(id, RequestBody::Read(Read { offset, limit, wait_ms, min_end: None }))
}

fn encoded(id: u64, body: RequestBody) -> BytesMut {
    let mut out = BytesMut::new();
    Request { id: RequestId::new(id), body }.encode(&mut out);
    out
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The node takes requests now; so many bytes in all.
    Welcome(usize),
    /// Log bytes: the read's id, bytes of the head, and bytes that follow it.
    Data { id: u64, head: usize, body: usize },
}

/// The head of the frame that begins with `bytes`; `None`: more of them are needed.
///
/// # Errors
/// It is no answer to a hello or a read; says what it is.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let whole = LENGTH + u32::from_be_bytes(*length) as usize;
    let mut rest = &bytes[LENGTH..];
    let Some(fields) = fields(&mut rest) else {
        return if bytes.len() < HEAD_MAX.min(whole) {
            Ok(None)
        } else {
            Err("no answer of a node".to_owned())
        };
    };
    match fields {
        [WELCOME, ..] => Ok(Some(Head::Welcome(whole))),
        [DATA, id] => {
            // Offset and end, then how many bytes there are.
            let skipped = uint(&mut rest).and_then(|_| uint(&mut rest));
            match skipped.and_then(|_| bin(&mut rest)) {
                Some(body) => Ok(Some(Head::Data { id, head: whole - body, body })),
                None if bytes.len() < HEAD_MAX.min(whole) => Ok(None),
                None => Err("an answer to a read that is none".to_owned()),
            }
        }
        _ if bytes.len() < whole => Ok(None),
        _ => Err(refusal(&bytes[LENGTH..whole])),
    }
}

/// Kind and id.
fn fields(rest: &mut &[u8]) -> Option<[u64; 2]> {
    let first = take(rest, 1)?[0];
    match first {
        0x90..=0x9f => {}
        0xdc => drop(take(rest, 2)?),
        _ => return None,
    }
    Some([uint(rest)?, uint(rest)?])
}

/// An unsigned integer of MessagePack.
fn uint(rest: &mut &[u8]) -> Option<u64> {
    let width = match take(rest, 1)?[0] {
        small @ 0..=0x7f => return Some(u64::from(small)),
        0xcc => 1,
        0xcd => 2,
        0xce => 4,
        0xcf => 8,
        _ => return None,
    };
    big_endian(rest, width)
}

/// The length of binary data.
fn bin(rest: &mut &[u8]) -> Option<usize> {
    let width = match take(rest, 1)?[0] {
        0xc4 => 1,
        0xc5 => 2,
        0xc6 => 4,
        _ => return None,
    };
    usize::try_from(big_endian(rest, width)?).ok()
}

fn big_endian(rest: &mut &[u8], width: usize) -> Option<u64> {
    Some(take(rest, width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn refusal(frame: &[u8]) -> String {
    match Response::decode(&Bytes::copy_from_slice(frame)) {
        Ok(Response { body: ResponseBody::Refused(refusal), .. }) => refusal.to_string(),
        Ok(_) => "an answer to something else".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use loglog_proto::error::{Code, Refusal};
    use loglog_proto::response::Data;

    use super::*;

    fn frame(id: u64, body: ResponseBody) -> BytesMut {
        let mut out = BytesMut::new();
        Response { id: RequestId::new(id), body }.encode(&mut out);
        out
    }

    fn data(offset: u64, bytes: usize) -> ResponseBody {
        let (offset, end) = (Offset::new(offset), Offset::new(offset + 7));
        ResponseBody::Data(Data { offset, end, bytes: vec![0xcf; bytes].into() })
    }

    #[test]
    fn heads_of_all_widths_are_read_and_half_of_one_is_none() {
        for (id, offset, bytes) in
            [(1, 0, 0), (200, 300, 5), (70_000, 1 << 20, 300), (1 << 40, 1 << 50, 70_000)]
        {
            let frame = frame(id, data(offset, bytes));
            let whole = Head::Data { id, head: frame.len() - bytes, body: bytes };
            for cut in 0..frame.len().min(100) {
                let found = head(&frame[..cut]).unwrap();
                assert_eq!(found, (cut >= frame.len() - bytes).then_some(whole), "{cut} of {}", frame.len());
            }
            assert_eq!(head(&frame), Ok(Some(whole)));
        }
    }

    #[test]
    fn what_is_refused_is_told_and_rubbish_is_rubbish() {
        let refused = frame(1, ResponseBody::Refused(Refusal::new(Code::Busy, "too many")));
        assert_eq!(head(&refused[..9]), Ok(None));
        assert!(head(&refused).unwrap_err().contains("too many"));
        assert!(head(&[b'x'; 100]).is_err());
        assert_eq!(head(&hello()[..3]), Ok(None));
    }
}
