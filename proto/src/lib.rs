//! LogLog's shapes: what lies on disk and what travels.
//!
//! Owns:   ids, positions, the entry frame, the segment header, messages, limits, error codes.
//! Never:  does I/O, reads a clock, decides anything.

pub mod entry;
pub mod error;
pub mod frame;
pub mod header;
pub mod ids;
pub mod limits;
pub mod position;
pub mod request;
pub mod response;
pub mod walk;

pub use ids::{ClusterId, Incarnation, NodeId, RaftId, RequestId, Sequence, WriterId};
pub use position::{Index, Length, LogId, Offset, Term};

#[cfg(test)]
mod messages_test;
