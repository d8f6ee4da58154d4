//! Frames: a u32 big-endian length, then one MessagePack array `[kind, request id, fields…]`, any payload last as `bin`.
//!
//! Owns:   cutting a stream of bytes into frames, and the small reader and writer of MessagePack below the messages.
//! Keeps:  a length is checked against its limit before a byte is reserved for it; nothing here recurses, save into maps, to a bound.
//! Never:  copies a payload: it stays a slice of the received bytes.
//!
//! Source: docs/protocol.md, "Frames".

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::Detail;
use crate::ids::RequestId;

/// Bytes of the length in front of a frame.
pub const LENGTH: usize = 4;
/// How deep a field that is a map may nest: ours are three deep, and later versions may add to them.
const MAP_DEPTH: usize = 16;

/// Why bytes are no message. The connection can go on unless it is [`FrameError::TooLarge`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit; what follows cannot be told apart from a frame any more.
    #[error("a frame of {length} bytes is over the limit of {max}")]
    TooLarge {
        /// What the length says.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The payload in a frame is over its own limit.
    #[error("a payload of {length} bytes is over the limit of {max}: split it")]
    Payload {
        /// The request.
        id: RequestId,
        /// Its payload's length.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The frame is no message.
    #[error("{what}")]
    Malformed {
        /// The request, where its id could be read.
        id: Option<RequestId>,
        /// What was wrong.
        what: String,
    },
}

/// Cuts the first whole frame off `buffer`, without its length. `None`: more bytes are needed, and room for them is reserved.
///
/// # Errors
/// [`FrameError::TooLarge`]: the stream is of no use any more.
pub fn split(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(head) = buffer.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > max {
        return Err(FrameError::TooLarge { length, max });
    }
    if buffer.len() < LENGTH + length {
        buffer.reserve(LENGTH + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Writes one message. The length in front is filled in by [`Writer::finish`] or [`Writer::finish_with_payload`].
pub(crate) struct Writer<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a message of `fields` fields behind kind and request id.
    pub(crate) fn begin(out: &'a mut BytesMut, kind: u8, id: RequestId, fields: u32) -> Self {
        let start = out.len();
        out.put_u32(0);
        let mut writer = Self { out, start };
        writer.put(|out| rmp::encode::write_array_len(out, fields + 2).map(drop));
        writer.uint(u64::from(kind));
        writer.uint(id.get());
        writer
    }

    fn put<E: std::fmt::Debug>(
        &mut self,
        write: impl FnOnce(&mut bytes::buf::Writer<&mut BytesMut>) -> Result<(), E>,
    ) {
        let mut out = (&mut *self.out).writer();
        write(&mut out).expect("memory takes every byte");
    }

    /// As few bytes as it takes, in one piece: there are up to eight of them in a message, and a million messages a second.
    pub(crate) fn uint(&mut self, value: u64) {
        let [_, _, _, _, w, x, y, z] = value.to_be_bytes();
        match value {
            0..=0x7f => self.out.put_u8(z),
            0x80..=0xff => self.raw(&[0xcc, z]),
            0x100..=0xffff => self.raw(&[0xcd, y, z]),
            0x1_0000..=0xffff_ffff => self.raw(&[0xce, w, x, y, z]),
            _ => {
                let mut bytes = [0xcf; 9];
                bytes[1..].copy_from_slice(&value.to_be_bytes());
                self.raw(&bytes);
            }
        }
    }

    pub(crate) fn optional(&mut self, value: Option<u64>) {
        match value {
            Some(value) => self.uint(value),
            None => self.nil(),
        }
    }

    pub(crate) fn nil(&mut self) {
        self.put(|out| rmp::encode::write_nil(out));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.put(|out| rmp::encode::write_bool(out, value));
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.put(|out| rmp::encode::write_str(out, value));
    }

    /// A field that is a map of names to values.
    pub(crate) fn map<T: serde::Serialize>(&mut self, value: &T) {
        self.put(|out| rmp_serde::encode::write_named(out, value));
    }

    /// The `bin` header of a payload that the caller sends right behind.
    pub(crate) fn payload_head(&mut self, length: usize) {
        let length = u32::try_from(length).expect("payloads are under 16 MiB");
        self.put(|out| rmp::encode::write_bin_len(out, length).map(drop));
    }

    pub(crate) fn payload(&mut self, payload: &[u8]) {
        self.payload_head(payload.len());
        self.raw(payload);
    }

    /// Bytes of a `bin` whose header was written.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn finish(self) {
        self.finish_with_payload(0);
    }

    /// Ends the message, `behind` bytes of which the caller sends itself.
    pub(crate) fn finish_with_payload(self, behind: usize) {
        let length = self.out.len() - self.start - LENGTH + behind;
        let length = u32::try_from(length).expect("messages are under 4 GiB");
        self.out[self.start..self.start + LENGTH].copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads an unsigned integer of any width; what is none of those that nodes and clients write, slowly.
fn read_uint(rest: &mut &[u8]) -> Result<u64, ()> {
    let (value, behind) = match **rest {
        [value @ 0..=0x7f, ref behind @ ..] => (u64::from(value), behind),
        [0xcc, value, ref behind @ ..] => (u64::from(value), behind),
        [0xcd, y, z, ref behind @ ..] => (u64::from(u16::from_be_bytes([y, z])), behind),
        [0xce, w, x, y, z, ref behind @ ..] => (u64::from(u32::from_be_bytes([w, x, y, z])), behind),
        [0xcf, s, t, u, v, w, x, y, z, ref behind @ ..] => {
            (u64::from_be_bytes([s, t, u, v, w, x, y, z]), behind)
        }
        _ => return rmp::decode::read_int(rest).map_err(drop),
    };
    *rest = behind;
    Ok(value)
}

/// Reads one message.
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
    id: Option<RequestId>,
    left: u32,
}

impl<'a> Reader<'a> {
    /// Reads kind and request id.
    pub(crate) fn begin(frame: &'a Bytes) -> Result<(u8, RequestId, Self), FrameError> {
        let mut reader = Self { frame, rest: frame, id: None, left: 2 };
        let fields = rmp::decode::read_array_len(&mut reader.rest)
            .map_err(|_| reader.malformed("a message is a MessagePack array"))?;
        if fields < 2 {
            return Err(reader.malformed("a message begins with its kind and request id"));
        }
        reader.left = fields;
        let kind = reader.uint("kind")?;
        let id = RequestId::new(reader.uint("request id")?);
        reader.id = Some(id);
        let kind = u8::try_from(kind).map_err(|_| reader.malformed(format!("unknown kind {kind}")))?;
        Ok((kind, id, reader))
    }

    pub(crate) fn malformed(&self, what: impl Into<String>) -> FrameError {
        FrameError::Malformed { id: self.id, what: what.into() }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> RequestId {
        self.id.unwrap_or(RequestId::new(0))
    }

    /// How many fields follow.
    pub(crate) const fn left(&self) -> u32 {
        self.left
    }

    /// How many fields must follow.
    pub(crate) fn expect(&self, fields: u32) -> Result<(), FrameError> {
        if self.left == fields {
            Ok(())
        } else {
            Err(self.malformed(format!("{} fields behind the request id, {fields} wanted", self.left)))
        }
    }

    fn field<T, E>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(&mut &'a [u8]) -> Result<T, E>,
    ) -> Result<T, FrameError> {
        if self.left == 0 {
            return Err(self.malformed(format!("{name} is missing")));
        }
        let value = read(&mut self.rest).map_err(|_| self.malformed(format!("{name} is not {what}")))?;
        self.left -= 1;
        Ok(value)
    }

    pub(crate) fn uint(&mut self, name: &str) -> Result<u64, FrameError> {
        self.field(name, "an unsigned integer", read_uint)
    }

    pub(crate) fn u32(&mut self, name: &str) -> Result<u32, FrameError> {
        let read = |rest: &mut &'a [u8]| read_uint(rest).and_then(|value| u32::try_from(value).map_err(drop));
        self.field(name, "an unsigned 32-bit integer", read)
    }

    /// Takes a nil, if one is next.
    fn nil(&mut self) -> bool {
        let nil = self.left > 0 && self.rest.first() == Some(&0xc0);
        if nil {
            self.rest = &self.rest[1..];
            self.left -= 1;
        }
        nil
    }

    pub(crate) fn optional(&mut self, name: &str) -> Result<Option<u64>, FrameError> {
        if self.nil() { Ok(None) } else { self.uint(name).map(Some) }
    }

    pub(crate) fn optional_u32(&mut self, name: &str) -> Result<Option<u32>, FrameError> {
        if self.nil() { Ok(None) } else { self.u32(name).map(Some) }
    }

    pub(crate) fn bool(&mut self, name: &str) -> Result<bool, FrameError> {
        self.field(name, "a boolean", rmp::decode::read_bool)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<&'a str, FrameError> {
        self.field(name, "a string", |rest| {
            let length = rmp::decode::read_str_len(rest).map_err(drop)? as usize;
            let (text, behind) = rest.split_at_checked(length).ok_or(())?;
            *rest = behind;
            std::str::from_utf8(text).map_err(drop)
        })
    }

    pub(crate) fn optional_text(&mut self, name: &str) -> Result<Option<&'a str>, FrameError> {
        if self.nil() { Ok(None) } else { self.text(name).map(Some) }
    }

    pub(crate) fn detail(&mut self) -> Result<Detail, FrameError> {
        if self.nil() {
            return Ok(Detail::Nil);
        }
        let is_text = matches!(self.rest.first(), Some(0xa0..=0xbf | 0xd9..=0xdb));
        if is_text {
            self.text("detail").map(|text| Detail::Text(text.to_owned()))
        } else {
            self.uint("detail").map(Detail::Number)
        }
    }

    pub(crate) fn bin(&mut self, name: &str) -> Result<&'a [u8], FrameError> {
        self.field(name, "binary", |rest| {
            let length = rmp::decode::read_bin_len(rest).map_err(drop)? as usize;
            let (bytes, behind) = rest.split_at_checked(length).ok_or(())?;
            *rest = behind;
            Ok::<_, ()>(bytes)
        })
    }

    pub(crate) fn payload(&mut self, name: &str) -> Result<Bytes, FrameError> {
        let frame = self.frame;
        self.bin(name).map(|payload| frame.slice_ref(payload))
    }

    pub(crate) fn optional_payload(&mut self, name: &str) -> Result<Option<Bytes>, FrameError> {
        if self.nil() { Ok(None) } else { self.payload(name).map(Some) }
    }

    /// An only field that is a map of names to values. Nothing may follow.
    pub(crate) fn map<T: serde::de::DeserializeOwned>(mut self, name: &str) -> Result<T, FrameError> {
        self.expect(1)?;
        let mut from = rmp_serde::Deserializer::new(&mut self.rest);
        from.set_max_depth(MAP_DEPTH);
        let value = T::deserialize(&mut from);
        let value = value.map_err(|error| self.malformed(format!("{name}: {error}")))?;
        self.left = 0;
        self.end()?;
        Ok(value)
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), FrameError> {
        self.expect(0)?;
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes follow the message in its frame"))
        }
    }
}
