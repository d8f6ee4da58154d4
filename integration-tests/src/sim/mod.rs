//! The simulator: a cluster made of the production `core` and `storage`, with clients, in one thread, from one seed.
//!
//! ```text
//!     seed ─► dials ─► ┌ events in order of simulated time ──────────────────────────┐
//!                      │ ticks, turns, disk writes, messages, requests, operators    │ ─► history ─► checker
//!                      │ and the nemesis: crashes, cuts, damage, full disks, clocks  │
//!                      └ rounds of faults, each followed by healing and convergence ─┘
//! ```
//!
//! A node here is what it is in production but for the shells: `actors` is replaced by `effects`, `lives` and `copies`, which
//! carry out what `core` decides in the same order, over a file system in memory that is as bad as POSIX allows.
//!
//! Owns:   simulated time, network, disks, clients and operators.
//! Keeps:  one seed and one set of dials give one transcript, byte for byte.
//! Never:  reads a clock, starts a thread, touches a real file.

mod clients;
mod copies;
pub mod dials;
mod effects;
mod judge;
mod lives;
mod nemesis;
mod network;
mod node;
mod operator;
pub mod queue;
mod world;

pub use dials::{Counts, Dials, Fault};
pub use world::{HOUR, Options, Report, run};
