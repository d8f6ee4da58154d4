//! Pack builder: makes one payload of several events.
//!
//! Owns:   the events so far, as they lie in a pack without compression.
//! Keeps:  what was pushed fits into an entry, compressed or not, so finishing cannot fail.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::form::{self, HEADER_2, Header, PACK_BYTES_MAX, SUM};
use super::{Compression, PackError, PackOptions, lz4};

/// Packs events into one payload.
#[derive(Clone, Debug)]
pub struct PackBuilder {
    options: PackOptions,
    /// Room for the longer header, then the body.
    bytes: BytesMut,
    events: u32,
    /// What goes behind the body; empty without checksums.
    sums: Vec<u8>,
}

impl PackBuilder {
    /// An empty pack, without compression and checksums.
    #[must_use]
    pub fn new() -> Self {
        Self::with(PackOptions::default())
    }

    /// An empty pack with these options.
    #[must_use]
    pub fn with(options: PackOptions) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        bytes.put_bytes(0, HEADER_2);
        Self { options, bytes, events: 0, sums: Vec::new() }
    }

    /// Adds an event. Returns its number in the pack.
    ///
    /// # Errors
    /// [`PackError::Full`]; the pack is unchanged. Compression makes no more room: what a pack takes does not depend on what is in it.
    pub fn push(&mut self, event: &[u8]) -> Result<u32, PackError> {
        let sum = if self.options.checksums { SUM } else { 0 };
        let length = self.byte_len().saturating_add(form::event_bytes(event.len())).saturating_add(sum);
        if length > PACK_BYTES_MAX {
            return Err(PackError::Full { length, max: PACK_BYTES_MAX });
        }
        let number = self.events;
        form::encode_event(event, &mut self.bytes);
        if self.options.checksums {
            self.sums.put_u32_le(form::sum(number, event));
        }
        self.events += 1;
        Ok(number)
    }

    /// Events pushed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events as usize
    }

    /// Whether none was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Bytes of the payload so far, without compression: what [`PackBuilder::finish`] returns has at most as many.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        Header::bytes(self.options) + self.body().len() + self.sums.len()
    }

    /// The payload. It is compressed here, if it is to be: on one core some milliseconds for each MiB of events, in which an async task holds up
    /// its thread.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let (options, events) = (self.options, self.events);
        let (length, plain) = (self.body().len(), PackOptions { compression: Compression::None, ..options });
        if options.compression == Compression::Lz4 {
            let block = lz4::compress(self.body());
            if HEADER_2 + block.len() < Header::bytes(plain) + length {
                // As large as it need be, since it may wait long for its acknowledgement.
                let mut payload = BytesMut::with_capacity(HEADER_2 + block.len() + self.sums.len());
                Header { events, options, length }.encode(&mut payload);
                payload.put_slice(&block);
                payload.put_slice(&self.sums);
                return payload.freeze();
            }
        }
        self.bytes.put_slice(&self.sums);
        self.bytes.advance(HEADER_2 - Header::bytes(plain));
        Header { events, options: plain, length }.encode(&mut self.bytes[..]);
        self.bytes.freeze()
    }

    fn body(&self) -> &[u8] {
        &self.bytes[HEADER_2..]
    }
}

impl Default for PackBuilder {
    fn default() -> Self {
        Self::new()
    }
}
