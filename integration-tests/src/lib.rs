//! What the integration tests share.
//!
//! Owns:   real processes and how they are started, watched and stopped; raw sockets; waiting with a deadline.
//! Never:  sleeps for a fixed time in the hope that something has happened.

pub mod appender;
pub mod cluster;
pub mod daemon;
pub mod raw;
pub mod tmpfs;
pub mod wait;

pub use appender::Appender;
pub use cluster::Cluster;
pub use daemon::{Daemon, DaemonOptions};
pub use raw::RawClient;
pub use tmpfs::Tmpfs;
pub use wait::{until, within};
