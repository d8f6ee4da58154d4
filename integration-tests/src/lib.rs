//! What the integration tests share.
//!
//! Owns:   real processes and how they are started, watched and stopped; networks that fail; load; raw sockets; waiting with a deadline; the history of
//!         a run and what judges it.
//! Never:  sleeps for a fixed time in the hope that something has happened.

pub mod appender;
pub mod browser;
pub mod checker;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod history;
pub mod http;
pub mod layout;
pub mod load;
pub mod loop_fs;
pub mod netns;
pub mod network;
pub mod openmetrics;
pub mod power;
pub mod proxy;
pub mod raw;
pub mod sim;
pub mod strace;
pub mod tmpfs;
pub mod wait;
pub mod watch;

pub use appender::Appender;
pub use cluster::Cluster;
pub use daemon::{Daemon, DaemonOptions};
pub use history::History;
pub use layout::Layout;
pub use load::{Load, LoadOptions};
pub use loop_fs::LoopFs;
pub use netns::Netns;
pub use network::Network;
pub use proxy::Proxies;
pub use raw::RawClient;
pub use strace::Strace;
pub use tmpfs::Tmpfs;
pub use wait::{until, within};
pub use watch::Watch;
