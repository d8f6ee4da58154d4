//! What the integration tests share.
//!
//! Owns:   real processes and how they are started, watched and stopped; raw sockets; waiting with a deadline.
//! Never:  sleeps for a fixed time in the hope that something has happened.

pub mod daemon;
pub mod raw;
pub mod wait;

pub use daemon::{Daemon, DaemonOptions};
pub use raw::RawClient;
pub use wait::{until, within};
