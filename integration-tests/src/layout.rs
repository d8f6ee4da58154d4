//! Layout: where the nodes of a cluster are to lie and how they reach each other.
//!
//! Owns:   the choice of addresses, of the network namespace of each node, and of what lies between them.
//! Never:  starts anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rand::Rng;

use crate::netns::Netns;
use crate::proxy::Proxies;

/// Below what the system gives to outgoing connections: a node that is down must find its port free when it comes back, and
/// whoever tries to reach it meanwhile must not be connected to himself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The `loglogd` to run.
    pub program: PathBuf,
    /// The configuration's `segment.bytes_max`.
    pub segment_bytes_max: String,
    /// Each node's place.
    pub places: BTreeMap<u32, Place>,
}

/// Where one node lies.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Where it listens for clients.
    pub client: String,
    /// Where it listens for peers.
    pub peer: String,
    /// Where it reaches another, if not where that one listens.
    pub ways: BTreeMap<u32, String>,
    /// The network namespace that it runs in.
    pub namespace: Option<String>,
    /// What its environment has and ours has not.
    pub environment: BTreeMap<String, String>,
}

impl Layout {
    /// `n` nodes on this machine's own network, with segments of 1 MiB.
    pub fn new(program: impl Into<PathBuf>, n: u32) -> Self {
        let places = (1..=n).map(|id| (id, Place::here())).collect();
        Self { program: program.into(), segment_bytes_max: "1 MiB".to_owned(), places }
    }

    /// Has segments of another size.
    #[must_use]
    pub fn segment_bytes_max(mut self, size: &str) -> Self {
        size.clone_into(&mut self.segment_bytes_max);
        self
    }

    /// Has the nodes reach each other through `proxies`.
    #[must_use]
    pub fn through(mut self, proxies: &Proxies) -> Self {
        for (from, place) in &mut self.places {
            place.ways = proxies.ways_of(*from);
        }
        self
    }

    /// Puts each node into a namespace of its own.
    #[must_use]
    pub fn within(mut self, netns: &Netns) -> Self {
        for (id, place) in &mut self.places {
            let address = netns.address(*id);
            place.client = format!("{address}:19194");
            place.peer = format!("{address}:19195");
            place.namespace = Some(netns.namespace(*id));
        }
        self
    }

    /// The content of `cluster.nodes` as node `id` is told it.
    pub(crate) fn members_for(&self, id: u32) -> String {
        let ways = &self.places[&id].ways;
        let member = |(other, place): (&u32, &Place)| {
            let peer = ways.get(other).unwrap_or(&place.peer);
            format!("    {{ id = {other}, peer = \"{peer}\", client = \"{}\" }},\n", place.client)
        };
        self.places.iter().map(member).collect()
    }
}

impl Place {
    /// On this machine's own network.
    pub(crate) fn here() -> Self {
        let [client, peer] = [0; 2].map(|_| format!("127.0.0.1:{}", reserve_port()));
        Self { client, peer, ..Self::default() }
    }

    /// What runs `program` here, started by `under` if that names another. Its process is the program's own.
    pub(crate) fn command(&self, program: &Path, under: &[&str]) -> Command {
        let within = self.namespace.iter().flat_map(|it| ["ip", "netns", "exec", it.as_str()]);
        let mut words = within.chain(under.iter().copied()).map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).envs(&self.environment);
        command
    }
}

/// A port that is free now and was given to nobody else here.
fn reserve_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::rng().random_range(PORTS);
        if GIVEN.lock().expect("nobody panics with it").insert(port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
}
