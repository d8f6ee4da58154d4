//! LogLog's shapes: what lies on disk and what travels.
//!
//! Owns:   ids, positions, the entry frame, the segment header, messages, limits, error codes.
//! Never:  does I/O, reads a clock, decides anything.

pub mod check;
pub mod entry;
pub mod error;
pub mod frame;
pub mod header;
pub mod ids;
pub mod limits;
pub mod manage;
pub mod peer;
pub mod position;
pub mod request;
pub mod response;
pub mod walk;

pub use ids::{ClusterId, Incarnation, NodeId, RaftId, RequestId, Sequence, WriterId};
pub use position::{Index, Length, LogId, Offset, Term};

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `bytes`: the one checksum of format and protocol.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC-32C of bytes that have `crc`, with `bytes` behind them.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod messages_test;
