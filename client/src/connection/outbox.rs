//! Outbox: bytes on their way to the socket.
//!
//! Owns:   what was encoded and not yet written.
//! Keeps:  large payloads as they are, between the frames around them; small ones in one buffer with many frames.
//! Never:  copies a payload of [`VECTORED_FROM`] bytes or more.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use loglog_proto::request::{Part, Request, RequestBody, Upload};
use loglog_proto::{RequestId, Sequence, WriterId};

/// From this size on a payload is written from where it lies (862 → 1,473 MB/s in the prototype, DESIGN.md section 5).
pub(crate) const VECTORED_FROM: usize = 4096;

/// Encoded requests. Reads as one run of bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    sealed: VecDeque<Bytes>,
    sealed_len: usize,
    open: BytesMut,
}

impl Outbox {
    /// Adds a request behind the others.
    pub(crate) fn push(&mut self, request: &Request) {
        let payload = match &request.body {
            RequestBody::Append(append) => append.payload.as_ref(),
            RequestBody::Upload(upload) => Some(&upload.payloads),
            _ => None,
        };
        match payload {
            Some(payload) => {
                request.encode_head(&mut self.open);
                self.push_payload(payload);
            }
            None => request.encode(&mut self.open),
        }
    }

    /// Adds an upload of payloads that lie apart.
    pub(crate) fn push_upload<'a>(
        &mut self,
        id: RequestId,
        first: (WriterId, Sequence),
        parts: &[Part],
        payloads: impl Iterator<Item = &'a Bytes> + Clone,
    ) {
        Upload::encode_head(&mut self.open, id, first, parts, payloads.clone().map(Bytes::len).sum());
        payloads.for_each(|payload| self.push_payload(payload));
    }

    fn push_payload(&mut self, payload: &Bytes) {
        if payload.len() < VECTORED_FROM {
            self.open.extend_from_slice(payload);
        } else {
            self.seal();
            self.sealed_len += payload.len();
            self.sealed.push_back(payload.clone());
        }
    }

    /// Nothing yet, and room for `bytes` of frames and small payloads.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { open: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Adds bytes that are encoded already.
    pub(crate) fn push_encoded(&mut self, piece: Bytes) {
        debug_assert!(self.open.is_empty(), "one way or the other");
        self.sealed_len += piece.len();
        self.sealed.push_back(piece);
    }

    /// All that was pushed, as the pieces that it is written in.
    pub(crate) fn into_pieces(mut self) -> VecDeque<Bytes> {
        self.seal();
        self.sealed
    }

    /// Makes everything pushed so far ready to be written.
    pub(crate) fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed_len += self.open.len();
            self.sealed.push_back(self.open.split().freeze());
        }
    }

    /// Bytes not yet written.
    pub(crate) fn len(&self) -> usize {
        self.sealed_len + self.open.len()
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.sealed_len
    }

    fn chunk(&self) -> &[u8] {
        self.sealed.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.sealed) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.sealed_len, "no more is written than there was");
        self.sealed_len -= count;
        while count > 0 {
            let Some(front) = self.sealed.front_mut() else { break };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.sealed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::request::Append;
    use loglog_proto::{RequestId, Sequence, WriterId};

    fn append(id: u64, payload: usize) -> Request {
        let append = Append {
            writer: WriterId::new(1),
            previous: None,
            sequence: Sequence::new(id),
            known_end: None,
            expect_end: None,
            crc: None,
            payload: Some(Bytes::from(vec![7; payload])),
        };
        Request { id: RequestId::new(id), body: RequestBody::Append(append) }
    }

    #[test]
    fn the_bytes_are_those_of_the_frames_in_order() {
        let requests: Vec<_> =
            [0, 10, 5000, 4096, 4095, 9].iter().zip(1..).map(|(len, id)| append(id, *len)).collect();
        let (mut expected, mut outbox) = (BytesMut::new(), Outbox::default());
        for request in &requests {
            request.encode(&mut expected);
            outbox.push(request);
        }
        outbox.seal();
        assert_eq!(outbox.len(), expected.len());
        let mut written = Vec::new();
        while outbox.has_remaining() {
            let count = outbox.chunk().len().min(1000);
            written.extend_from_slice(&outbox.chunk()[..count]);
            outbox.advance(count);
        }
        assert_eq!(written, expected);
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let request = append(1, 4096);
        let RequestBody::Append(Append { payload: Some(payload), .. }) = &request.body else { panic!() };
        let mut outbox = Outbox::default();
        outbox.push(&request);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(outbox.chunks_vectored(&mut slices), 2);
        assert_eq!(slices[1].as_ptr(), payload.as_ptr());
    }
}
