//! LogLog's decisions, as plain state machines.
//!
//! Owns:   every decision of a node: consensus, group commit, the writers' table, the upload buffer, waiters.
//! Never:  imports a runtime, opens a socket or a file, reads a clock or draws a random number of its own: time, randomness
//!         and completed effects are passed in, so that a simulator drives what production runs.

pub mod append;
pub mod batch;
mod certain;
pub mod chunk;
pub mod consensus;
pub mod control;
pub mod copies;
pub mod effects;
pub mod gate;
mod inline;
pub mod membership;
pub mod old_batches;
pub mod repair;
pub mod seek;
pub mod start;
pub mod upload;
pub mod waiters;
mod write_queue;
pub mod writers;

pub use append::Append;
pub use consensus::{Consensus, ConsensusStatus, PeerProgress, Recovery, Role, Settings};
pub use effects::{Answer, Committed, Effects};
pub use upload::UploadBuffer;
pub use waiters::Waiters;
pub use write_queue::{Truncation, WriteGroup};
pub use writers::Writers;

#[cfg(test)]
mod cluster_test;
