//! Ports: where the bench's own nodes listen, and what of it each is told.
//!
//! Owns:   the choice. Only this machine reaches them.

use std::net::{SocketAddr, TcpListener};

use rand::Rng as _;

use crate::exit::{Outcome, Stop};

/// Below what systems give to outgoing connections, so that a port that was free a moment ago still is.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// For each node, its clients' and its peers'.
#[derive(Debug)]
pub(super) struct Ports(Vec<[u16; 2]>);

impl Ports {
    /// So many nodes' ports, free just now.
    pub(super) fn choose(nodes: u16) -> Outcome<Self> {
        if nodes == 1 {
            // Alone, a node takes whatever the system gives it, and says what that is.
            return Ok(Self(vec![[0, 0]]));
        }
        let mut held = Vec::new();
        for _ in 0..nodes {
            held.push([free_port()?, free_port()?]);
        }
        // All are held until all are known.
        let port = |(_, port): &(TcpListener, u16)| *port;
        Ok(Self(held.iter().map(|[client, peer]| [port(client), port(peer)]).collect()))
    }

    /// What node `number`, from 1, is told.
    pub(super) fn settings(&self, number: u16) -> Vec<String> {
        let [client, peer] = self.0[usize::from(number) - 1];
        let mut settings = vec![
            format!("listen.client=127.0.0.1:{client}"),
            "listen.admin=127.0.0.1:0".to_owned(),
            "log.format=json".to_owned(),
            format!("node.id={number}"),
        ];
        if self.0.len() == 1 {
            settings.push("listen.peer=".to_owned());
            return settings;
        }
        let members: Vec<String> = (1..)
            .zip(&self.0)
            .map(|(id, [client, peer])| {
                format!("{{ id = {id}, peer = \"127.0.0.1:{peer}\", client = \"127.0.0.1:{client}\" }}")
            })
            .collect();
        settings.push(format!("listen.peer=127.0.0.1:{peer}"));
        // Nobody but these nodes knows their addresses, and whoever finds one by chance means another cluster.
        settings.push(format!("cluster.id={:016x}", u64::from(std::process::id()) << 20 | 0xbe));
        settings.push(format!("cluster.nodes=[{}]", members.join(", ")));
        settings
    }
}

fn free_port() -> Outcome<(TcpListener, u16)> {
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        if let Ok(listener) = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))) {
            return Ok((listener, port));
        }
    }
    Err(Stop::failed("no port is free on 127.0.0.1 for a node of the bench's own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_a_cluster_is_told_of_all() {
        let ports = Ports::choose(3).unwrap_or_else(|stop| panic!("{stop:?}"));
        for number in 1..=3 {
            let settings = ports.settings(number);
            let members = settings.iter().find(|it| it.starts_with("cluster.nodes=")).unwrap();
            assert_eq!(members.matches("peer = ").count(), 3, "{members}");
            let [client, _] = ports.0[usize::from(number) - 1];
            assert!(settings.contains(&format!("listen.client=127.0.0.1:{client}")), "{settings:?}");
        }
        let mut all: Vec<u16> = ports.0.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
