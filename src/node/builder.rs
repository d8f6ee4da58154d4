//! Node builder: what a node inside a program is told before it starts.
//!
//! Owns:   the defaults that differ from a daemon's: nobody listens unless told to.
//! Keeps:  every key of `configs/default.toml` can be set, and is checked as a daemon's is.

use std::path::PathBuf;

use loglog_client::ClusterId;
use slog::{Discard, Logger, o};

use super::{Node, StartError, spawn};
use crate::config::{Layer, Sources};
use crate::options::node_options;

/// What a [`Node`] is told before it starts.
#[derive(Clone, Debug)]
#[must_use]
pub struct NodeBuilder {
    data_dir: Option<PathBuf>,
    /// As they stand in a configuration file.
    members: Vec<String>,
    set: Vec<String>,
    logger: Option<Logger>,
}

impl NodeBuilder {
    pub(super) fn new() -> Self {
        let set = ["client", "peer", "admin"].map(|key| format!("listen.{key}="));
        Self { data_dir: None, members: Vec::new(), set: set.to_vec(), logger: None }
    }

    /// Where its log lies, whatever is set as `data.dir`; made if missing. Default `./loglog-data`. A daemon's directory will do, and the other way round.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Which node it is, from 1. Default 1. A directory keeps the id that it was made with.
    pub fn id(self, id: u32) -> Self {
        self.set("node.id", &id.to_string())
    }

    /// Listens for clients of other programs, at an IP address and port.
    pub fn listen(self, address: &str) -> Self {
        self.set("listen.client", address)
    }

    /// Listens for clients of other programs on this machine, at a Unix socket, which only this user may use unless `listen.unix_mode` is set.
    pub fn listen_unix(self, path: &str) -> Self {
        self.set("listen.unix", path)
    }

    /// Listens for other nodes: a member of a cluster must, and who is to take in others later.
    pub fn listen_peers(self, address: &str) -> Self {
        self.set("listen.peer", address)
    }

    /// Shows its actors over HTTP (docs/admin.md).
    pub fn listen_admin(self, address: &str) -> Self {
        self.set("listen.admin", address)
    }

    /// Whose log it must be. A new cluster's members must all say so; a node alone draws an id.
    pub fn cluster(self, cluster: ClusterId) -> Self {
        self.set("cluster.id", &cluster.to_string())
    }

    /// A member that a new cluster begins with, this node too, each where it listens: an address for the other nodes, one for clients. They start
    /// only together. Once the directory holds a log, its members stand there, and this says but where this node listens.
    ///
    /// A node listens at its own two addresses, unless told otherwise by [`NodeBuilder::listen_peers`] and [`NodeBuilder::listen`], as it must where
    /// they are names, or another machine's.
    pub fn member(mut self, id: u32, peer: &str, client: &str) -> Self {
        self.members.push(format!("{{ id = {id}, peer = {peer:?}, client = {client:?} }}"));
        self
    }

    /// With an empty directory, waits until the cluster that is there already takes it in: `Client::add_member`.
    pub fn join(self, cluster: ClusterId) -> Self {
        self.cluster(cluster).set("cluster.join", "true")
    }

    /// Any key of `configs/default.toml`, its value written as on the command line: `.set("segment.bytes_max", "16 MiB")`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }

    /// Where it logs. Default: nowhere. Actors' records come with the key `actor`.
    pub fn logger(mut self, logger: Logger) -> Self {
        self.logger = Some(logger);
        self
    }

    /// Starts it, on threads of its own; done when it serves. One of several members of a new cluster waits for the others. To be awaited in any
    /// runtime, or by [`block_on`](crate::block_on).
    ///
    /// # Errors
    /// [`StartError`] says what to change; another node that has the directory, say.
    pub async fn start(self) -> Result<Node, StartError> {
        let Self { data_dir, members, mut set, logger } = self;
        if !members.is_empty() {
            set.push(format!("cluster.nodes=[{}]", members.join(", ")));
        }
        let sources = Sources { file: None, environment: Some(Default::default()), set };
        let mut effective = sources.lay(&Layer::Builder)?;
        effective.config.data.dir = data_dir.unwrap_or(effective.config.data.dir);
        let config = &mut effective.config;
        if let Some(own) = config.cluster.nodes.iter().find(|member| member.id == config.node.id) {
            config.listen.peer = config.listen.peer.or(own.peer.parse().ok());
            config.listen.client = config.listen.client.or(own.client.parse().ok());
        }
        effective.check()?;
        let options = node_options(&effective, None);
        spawn(options, logger.unwrap_or_else(|| Logger::root(Discard, o!()))).await
    }
}
