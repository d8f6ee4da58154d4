//! Plan: which systems are put under which loads.
//!
//! Owns:   their names, the presets, and what an acknowledgement means with each system.
//! Never:  runs anything.

use std::fmt;

use serde::Serialize;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    LogLog,
    Redis,
    Nats,
    Etcd,
}

/// That, on so many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct System {
    pub(crate) kind: Kind,
    pub(crate) nodes: usize,
}

/// A closed loop: so many appends of so many bytes, each waiting for its own acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    /// Bytes of payload.
    #[serde(rename = "payload_bytes")]
    pub(crate) payload: usize,
    pub(crate) in_flight: usize,
}

/// Every system under every load, the first system being ours.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) systems: Vec<System>,
    pub(crate) loads: Vec<Load>,
}

impl Kind {
    const ALL: [Self; 4] = [Self::LogLog, Self::Redis, Self::Nats, Self::Etcd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LogLog => "loglog",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Etcd => "etcd",
        }
    }
}

impl System {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected =
            || format!("'{text}' is none of loglog-1, loglog-3, redis-1, nats-1, nats-3, etcd-1, etcd-3");
        let (name, nodes) = text.split_once('-').ok_or_else(expected)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(expected)?;
        let nodes = match nodes {
            "1" => 1,
            "3" if kind != Kind::Redis => 3,
            _ => return Err(expected()),
        };
        Ok(Self { kind, nodes })
    }

    /// What it is that is appended, and what an acknowledgement of it means.
    pub(crate) fn acknowledgement(self) -> &'static str {
        match (self.kind, self.nodes) {
            (Kind::LogLog, 1) => "append: fdatasync on the node; one for all appends that wait",
            (Kind::LogLog, _) => "append: fdatasync on a majority; one on each for all appends that wait",
            (Kind::Redis, _) => {
                "XADD, appendfsync always: fdatasync of the append-only file on the node; one for all commands of a turn of its event loop"
            }
            (Kind::Nats, 1) => "JetStream publish, file storage, sync_interval always: fsync on the node",
            (Kind::Nats, _) => {
                "JetStream publish, R3, file storage, sync_interval always: fsync on a majority, of Raft's log and of the stream's store"
            }
            (Kind::Etcd, 1) => {
                "put of a new key: fdatasync of Raft's log on the node; one for all puts that wait"
            }
            (Kind::Etcd, _) => {
                "put of a new key: fdatasync of Raft's log on a majority; one on each for all puts that wait"
            }
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), self.nodes)
    }
}

impl Serialize for System {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Plan {
    pub(crate) fn single() -> Self {
        let systems = vec![System { kind: Kind::LogLog, nodes: 1 }, System { kind: Kind::Redis, nodes: 1 }];
        Self { systems, loads: loads(&[(100, 1), (100, 64), (100, 1024), (1024, 1024), (65536, 64)]) }
    }

    pub(crate) fn three() -> Self {
        let systems = [Kind::LogLog, Kind::Nats, Kind::Etcd].map(|kind| System { kind, nodes: 3 }).to_vec();
        Self { systems, loads: loads(&[(100, 1), (100, 1024), (1024, 1024), (65536, 64)]) }
    }
}

fn loads(pairs: &[(usize, usize)]) -> Vec<Load> {
    pairs.iter().map(|&(payload, in_flight)| Load { payload, in_flight }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["loglog-1", "loglog-3", "redis-1", "nats-1", "nats-3", "etcd-1", "etcd-3"] {
            assert_eq!(System::parse(name).map(|system| system.to_string()), Ok(name.to_owned()));
        }
        for name in ["redis-3", "loglog", "loglog-2", "kafka-3", ""] {
            assert!(System::parse(name).is_err(), "{name}");
        }
    }
}
