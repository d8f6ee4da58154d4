//! Configuration of a node: what can be set, where it is set, and what holds in the end.
//!
//! ```text
//!     defaults  ◄  file (--config)  ◄  environment (LOGLOGD_DATA__DIR)  ◄  flags (--set data.dir=…)
//! ```
//!
//! The right one wins. Every layer is checked on its own, so that a mistake is found even where a later layer covers it.
//!
//! Owns:   [`NodeConfig`], its keys and their defaults; reading of the layers; the words for mistakes in them.
//! Keeps:  a key or unit that nobody knows is an error; `configs/default.toml` says exactly what the defaults are.
//! Never:  opens anything but the configuration file.

#[cfg(feature = "cli")]
mod args;
mod error;
mod keys;
mod layers;
mod nearest;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use loglog_proto::{ClusterId, Length, NodeId};

use crate::logging::{LevelSpec, LogFormat};

#[cfg(feature = "cli")]
pub use args::DaemonArgs;
pub use error::{ConfigError, Layer};
pub use layers::{Effective, Sources};

/// Everything that can be set on a node. A field's key is its path: `data.dir` is [`DataConfig::dir`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeConfig {
    /// The log this node is part of.
    pub cluster: ClusterConfig,
    /// This node.
    pub node: IdentityConfig,
    /// Where data lies.
    pub data: DataConfig,
    /// Where the node listens.
    pub listen: ListenConfig,
    /// Where others reach the node.
    pub advertise: AdvertiseConfig,
    /// Files of the log.
    pub segment: SegmentConfig,
    /// Payloads on their way.
    pub upload: UploadConfig,
    /// Clients' connections.
    pub connection: ConnectionConfig,
    /// Other nodes.
    pub peers: PeersConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Consensus.
    pub raft: RaftConfig,
    /// What actors show of themselves.
    pub actors: ActorsConfig,
    /// For tests.
    pub debug: DebugConfig,
}

/// `cluster.*`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClusterConfig {
    /// Whose log it must be. `None`: whatever the directory says, a new one for a new directory.
    pub id: Option<ClusterId>,
    /// The members a new cluster begins with. Empty: this node alone.
    pub nodes: Vec<NodeAddress>,
    /// An empty directory waits to be taken in by a cluster that is there already; needs `id`.
    pub join: bool,
}

/// One element of `cluster.nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The member.
    pub id: NodeId,
    /// `host:port` where other nodes reach it.
    pub peer: String,
    /// `host:port` where clients reach it.
    pub client: String,
}

/// `node.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// This node's place in its cluster.
    pub id: NodeId,
}

/// `data.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// The directory of segments and meta; relative to where the daemon was started.
    pub dir: PathBuf,
    /// With less free disk space, appends get `DiskFull` while reads go on.
    pub free_min: Length,
    /// Whether a single node whose log is corrupt may cut the corrupt part and all behind it (S10).
    pub accept_loss: bool,
    /// Whether the log is written past the page cache, where the file system can do that.
    pub direct_io: bool,
    /// Memory for the log's end, from which readers are served.
    pub tail_bytes_max: Length,
}

/// `listen.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// For clients. `None`: they come through the Unix socket, or are part of this program.
    pub client: Option<SocketAddr>,
    /// For clients of this machine: a Unix socket's file. `None`: there is none.
    pub unix: Option<PathBuf>,
    /// Its permissions.
    pub unix_mode: u32,
    /// For other nodes. `None`: this node is alone, and stays so.
    pub peer: Option<SocketAddr>,
    /// For administrators. `None`: there is no admin endpoint.
    pub admin: Option<SocketAddr>,
}

/// `advertise.*`: what goes into the membership where a node makes it by itself. `None`: where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AdvertiseConfig {
    /// `host:port` where clients reach it.
    pub client: Option<String>,
    /// `host:port` where other nodes reach it.
    pub peer: Option<String>,
}

/// `segment.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentConfig {
    /// A segment closes after the batch that passes this size.
    pub bytes_max: Length,
}

/// `upload.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadConfig {
    /// Payload bytes that wait for their place, of all clients together.
    pub bytes_max: Length,
}

/// `connection.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Payload bytes in flight on one connection.
    pub bytes_max: Length,
    /// Connections at a time.
    pub max: u32,
    /// How long a connection looks for its client's next request without sleeping; zero: not at all.
    pub busy_poll: Duration,
}

/// `peers.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// How fast this node copies from others what it missed, each second; zero: as fast as it goes.
    pub bulk_bytes_per_second: Length,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged at the start; changeable at run time.
    pub level: LevelSpec,
    /// How it looks.
    pub format: LogFormat,
}

/// `raft.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Consensus's unit of time: a heartbeat is some of them, an election timeout more.
    pub tick: Duration,
}

/// `actors.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorsConfig {
    /// Whether they take times.
    pub measure: bool,
}

/// `debug.*`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DebugConfig {
    /// Whether clients may inject faults.
    pub faults: bool,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { id: NodeId::new(1).expect("one is not zero") }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dir: "./loglog-data".into(),
            free_min: Length::new(128 << 20),
            accept_loss: false,
            direct_io: true,
            tail_bytes_max: Length::new(32 << 20),
        }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            client: Some(loopback(19194)),
            unix: None,
            unix_mode: 0o600,
            peer: Some(loopback(19195)),
            admin: Some(loopback(19196)),
        }
    }
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { bytes_max: Length::new(64 << 20) }
    }
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self { bytes_max: Length::new(128 << 20) }
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self { bytes_max: Length::new(32 << 20), max: 10_000, busy_poll: Duration::ZERO }
    }
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { bulk_bytes_per_second: Length::new(64 << 20) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        // raft-rs and actix tell their whole start at info; what matters of it is said by the node. And actix tells of each request that is none.
        let level = "info,actix_http=off,actix_server=warning,raft=warning"
            .parse()
            .expect("a level that this program knows");
        Self { level, format: LogFormat::Auto }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self { tick: Duration::from_millis(100) }
    }
}

impl Default for ActorsConfig {
    fn default() -> Self {
        Self { measure: true }
    }
}

#[cfg(test)]
#[path = "config/config_test.rs"]
mod tests;
