//! Netns: a network of a test's own, each node in a namespace, where packets can be dropped.
//!
//! ```text
//!   node 1 ─ veth ─┐
//!   node 2 ─ veth ─┼─ bridge ─ the tests' own namespace (clients)
//!   node 3 ─ veth ─┘     └ nft: what is dropped is dropped here, in silence
//! ```
//!
//! Owns:   the namespaces, the bridge and the table of rules; all of them go when this is dropped, after a panic too.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::network::Network;

/// Where rules are asked: between nodes, towards clients, from clients.
const HOOKS: [&str; 3] = ["forward", "output", "input"];

/// A network.
#[derive(Debug)]
pub struct Netns {
    /// What all its names begin with; short, since an interface's name is.
    name: String,
    /// The first three numbers of its addresses.
    subnet: String,
    nodes: u32,
}

impl Netns {
    /// A network for so many nodes. `None`, with a word why, unless tests may use root's powers here and the tools are there.
    ///
    /// # Panics
    /// If they may and are, but it does not work.
    #[must_use]
    pub fn new(nodes: u32) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if std::env::var("LOGLOG_ROOT_TESTS").as_deref() != Ok("1") {
            println!("skipped: makes network namespaces; run as root with LOGLOG_ROOT_TESTS=1");
            return None;
        }
        for (tool, version) in [("ip", "-V"), ("nft", "-v")] {
            let found = Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !found.is_ok_and(|status| status.success()) {
                println!("skipped: needs `{tool}`, which is not installed");
                return None;
            }
        }
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mixed = (process * 8 + count) % (56 * 256);
        let subnet = format!("10.{}.{}", 200 + mixed / 256, mixed % 256);
        // Dropped, and so undone, if anything below fails.
        let netns = Self { name: format!("ll{process}x{count}"), subnet, nodes };
        let bridge = netns.bridge();
        run(&format!("ip link add {bridge} type bridge"));
        run(&format!("ip addr add {}.254/24 dev {bridge}", netns.subnet));
        run(&format!("ip link set {bridge} up"));
        for id in 1..=nodes {
            let (space, cable, address) = (netns.namespace(id), netns.cable(id), netns.address(id));
            run(&format!("ip netns add {space}"));
            run(&format!("ip link add {cable} type veth peer name eth0 netns {space}"));
            run(&format!("ip link set {cable} master {bridge} up"));
            run(&format!("ip -n {space} addr add {address}/24 dev eth0"));
            run(&format!("ip -n {space} link set eth0 up"));
            run(&format!("ip -n {space} link set lo up"));
        }
        run(&format!("nft add table bridge {}", netns.name));
        for hook in HOOKS {
            let chain = format!("{hook} {{ type filter hook {hook} priority 0 ; }}");
            run(&format!("nft add chain bridge {} {chain}", netns.name));
        }
        Some(netns)
    }

    /// A node's namespace.
    #[must_use]
    pub fn namespace(&self, id: u32) -> String {
        format!("{}n{id}", self.name)
    }

    /// A node's IP address.
    #[must_use]
    pub fn address(&self, id: u32) -> String {
        format!("{}.{id}", self.subnet)
    }

    /// Drops so many of a hundred packets, whoever sends them and whoever should get them, clients included.
    pub fn lose(&self, percent: u32) {
        for hook in HOOKS {
            run(&format!("nft add rule bridge {} {hook} {}", self.name, self.of_ours(percent)));
        }
    }

    /// Clients' packets pass hooks that other networks' do too.
    fn of_ours(&self, percent: u32) -> String {
        format!("ip saddr {0}.0/24 ip daddr {0}.0/24 numgen random mod 100 < {percent} drop", self.subnet)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn cable(&self, id: u32) -> String {
        format!("{}v{id}", self.name)
    }
}

impl Network for Netns {
    fn cut(&self, from: u32, to: u32) {
        let rule = format!("forward ip saddr {} ip daddr {} drop", self.address(from), self.address(to));
        run(&format!("nft add rule bridge {} {rule}", self.name));
    }

    fn heal(&self) {
        run(&format!("nft flush table bridge {}", self.name));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // What was not made yet cannot be removed: that is no matter.
        let _ = command(&format!("nft delete table bridge {}", self.name)).stderr(Stdio::null()).status();
        for id in 1..=self.nodes {
            // Its end of the cable goes at once, the namespace once the last process in it has ended.
            let _ = command(&format!("ip link del {}", self.cable(id))).stderr(Stdio::null()).status();
            let _ = command(&format!("ip netns del {}", self.namespace(id))).stderr(Stdio::null()).status();
        }
        let _ = command(&format!("ip link del {}", self.bridge())).stderr(Stdio::null()).status();
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

fn run(line: &str) {
    let output = command(line).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "LOGLOG_ROOT_TESTS=1 promises that this works: {line}: {said}");
}
