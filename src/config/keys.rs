//! Every key: how its value is read and how it is shown.
//!
//! Owns:   the one table that reading, printing, suggestions and `configs/default.toml`'s test all go by.
//! Keeps:  a bound on every number.

use std::ops::RangeInclusive;
use std::time::Duration;

use config::Value;
use loglog_proto::limits::PAYLOAD_BYTES_MAX;

use super::value::{self, Problem, quoted};
use super::{NodeAddress, NodeConfig};
use crate::logging::{FormatError, LevelError};
use crate::units::{format_bytes, format_duration};

/// One key of the configuration.
pub(super) struct Key {
    /// Section and name, dotted.
    pub(super) name: &'static str,
    /// Reads a value into its field.
    pub(super) set: fn(&mut NodeConfig, &Value) -> Result<(), Problem>,
    /// The field as a TOML value.
    pub(super) show: fn(&NodeConfig) -> String,
}

/// Below this a segment would hardly hold one batch; recovery and rolling would be all the work.
const SEGMENT_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 30;
/// Any buffer must hold the largest payload, or that payload could never be appended.
const BUFFER_BYTES: RangeInclusive<u64> = PAYLOAD_BYTES_MAX as u64 + 1..=1 << 40;
const FREE_BYTES: RangeInclusive<u64> = 0..=1 << 50;
const TAIL_BYTES: RangeInclusive<u64> = 0..=1 << 30;
const BULK_BYTES: RangeInclusive<u64> = 0..=1 << 40;
/// Longer than that it is not shorter to look than to be woken.
const BUSY_POLL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(10);
const TICK: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);

/// Keys whose values are shown to nobody: neither in the log nor on the admin endpoint. None yet.
const SECRETS: &[&str] = &[];

/// What stands in a secret's place.
const HIDDEN: &str = "\"(hidden)\"";

/// All of them, in the order in which they are printed.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cluster.id",
        set: |to, from| {
            let text = value::text(from)?.trim();
            to.cluster.id = if text.is_empty() {
                None
            } else {
                Some(text.parse().map_err(|_| "expected 1 to 16 hex digits, or \"\" for any".to_owned())?)
            };
            Ok(())
        },
        show: |of| quoted(&of.cluster.id.map(|id| id.to_string()).unwrap_or_default()),
    },
    Key {
        name: "cluster.nodes",
        set: |to, from| value::nodes(from).map(|value| to.cluster.nodes = value),
        show: |of| format!("[{}]", of.cluster.nodes.iter().map(show_node).collect::<Vec<_>>().join(", ")),
    },
    Key {
        name: "cluster.join",
        set: |to, from| value::switch(from).map(|value| to.cluster.join = value),
        show: |of| of.cluster.join.to_string(),
    },
    Key {
        name: "node.id",
        set: |to, from| value::node_id(from).map(|value| to.node.id = value),
        show: |of| of.node.id.to_string(),
    },
    Key {
        name: "data.dir",
        set: |to, from| {
            let dir = value::text(from)?;
            if dir.is_empty() {
                return Err("expected the path of a directory".to_owned());
            }
            to.data.dir = dir.into();
            Ok(())
        },
        show: |of| quoted(&of.data.dir.to_string_lossy()),
    },
    Key {
        name: "data.free_min",
        set: |to, from| value::bytes(from, FREE_BYTES).map(|value| to.data.free_min = value),
        show: |of| quoted(&format_bytes(of.data.free_min.get())),
    },
    Key {
        name: "data.accept_loss",
        set: |to, from| value::switch(from).map(|value| to.data.accept_loss = value),
        show: |of| of.data.accept_loss.to_string(),
    },
    Key {
        name: "data.direct_io",
        set: |to, from| value::switch(from).map(|value| to.data.direct_io = value),
        show: |of| of.data.direct_io.to_string(),
    },
    Key {
        name: "data.tail_bytes_max",
        set: |to, from| value::bytes(from, TAIL_BYTES).map(|value| to.data.tail_bytes_max = value),
        show: |of| quoted(&format_bytes(of.data.tail_bytes_max.get())),
    },
    Key {
        name: "listen.client",
        set: |to, from| value::optional_listen_address(from).map(|value| to.listen.client = value),
        show: |of| quoted(&of.listen.client.map(|address| address.to_string()).unwrap_or_default()),
    },
    Key {
        name: "listen.unix",
        set: |to, from| value::optional_path(from).map(|value| to.listen.unix = value),
        show: |of| quoted(&of.listen.unix.as_ref().map(|it| it.display().to_string()).unwrap_or_default()),
    },
    Key {
        name: "listen.unix_mode",
        set: |to, from| value::permissions(from).map(|value| to.listen.unix_mode = value),
        show: |of| quoted(&format!("{:o}", of.listen.unix_mode)),
    },
    Key {
        name: "listen.peer",
        set: |to, from| value::optional_listen_address(from).map(|value| to.listen.peer = value),
        show: |of| quoted(&of.listen.peer.map(|address| address.to_string()).unwrap_or_default()),
    },
    Key {
        name: "listen.admin",
        set: |to, from| value::optional_listen_address(from).map(|value| to.listen.admin = value),
        show: |of| quoted(&of.listen.admin.map(|address| address.to_string()).unwrap_or_default()),
    },
    Key {
        name: "advertise.client",
        set: |to, from| value::advertised_address(from).map(|value| to.advertise.client = value),
        show: |of| quoted(of.advertise.client.as_deref().unwrap_or_default()),
    },
    Key {
        name: "advertise.peer",
        set: |to, from| value::advertised_address(from).map(|value| to.advertise.peer = value),
        show: |of| quoted(of.advertise.peer.as_deref().unwrap_or_default()),
    },
    Key {
        name: "segment.bytes_max",
        set: |to, from| value::bytes(from, SEGMENT_BYTES).map(|value| to.segment.bytes_max = value),
        show: |of| quoted(&format_bytes(of.segment.bytes_max.get())),
    },
    Key {
        name: "upload.bytes_max",
        set: |to, from| value::bytes(from, BUFFER_BYTES).map(|value| to.upload.bytes_max = value),
        show: |of| quoted(&format_bytes(of.upload.bytes_max.get())),
    },
    Key {
        name: "connection.bytes_max",
        set: |to, from| value::bytes(from, BUFFER_BYTES).map(|value| to.connection.bytes_max = value),
        show: |of| quoted(&format_bytes(of.connection.bytes_max.get())),
    },
    Key {
        name: "connection.max",
        set: |to, from| value::whole(from, 1..=1_000_000).map(|value| to.connection.max = value),
        show: |of| of.connection.max.to_string(),
    },
    Key {
        name: "connection.busy_poll",
        set: |to, from| value::duration(from, BUSY_POLL).map(|value| to.connection.busy_poll = value),
        show: |of| quoted(&format_duration(of.connection.busy_poll)),
    },
    Key {
        name: "peers.bulk_bytes_per_second",
        set: |to, from| value::bytes(from, BULK_BYTES).map(|value| to.peers.bulk_bytes_per_second = value),
        show: |of| quoted(&format_bytes(of.peers.bulk_bytes_per_second.get())),
    },
    Key {
        name: "log.level",
        set: |to, from| {
            value::text(from)?
                .parse()
                .map_err(|error: LevelError| error.to_string())
                .map(|value| to.log.level = value)
        },
        show: |of| quoted(&of.log.level.to_string()),
    },
    Key {
        name: "log.format",
        set: |to, from| {
            value::text(from)?
                .parse()
                .map_err(|error: FormatError| error.to_string())
                .map(|value| to.log.format = value)
        },
        show: |of| quoted(of.log.format.name()),
    },
    Key {
        name: "raft.tick",
        set: |to, from| value::duration(from, TICK).map(|value| to.raft.tick = value),
        show: |of| quoted(&format_duration(of.raft.tick)),
    },
    Key {
        name: "actors.measure",
        set: |to, from| value::switch(from).map(|value| to.actors.measure = value),
        show: |of| of.actors.measure.to_string(),
    },
    Key {
        name: "debug.faults",
        set: |to, from| value::switch(from).map(|value| to.debug.faults = value),
        show: |of| of.debug.faults.to_string(),
    },
];

/// `value` of the key called `name`, where strangers may see it.
pub(super) fn for_strangers(name: &str, value: String) -> String {
    hide(name, value, SECRETS)
}

fn hide(name: &str, value: String, secrets: &[&str]) -> String {
    if secrets.contains(&name) { HIDDEN.to_owned() } else { value }
}

fn show_node(node: &NodeAddress) -> String {
    format!("{{ id = {}, peer = {}, client = {} }}", node.id, quoted(&node.peer), quoted(&node.client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_and_every_secret_is_a_key() {
        assert_eq!(hide("a.b", "1".into(), &["a.b"]), HIDDEN);
        assert_eq!(hide("a.c", "1".into(), &["a.b"]), "1");
        assert!(SECRETS.iter().all(|secret| KEYS.iter().any(|key| key.name == *secret)));
    }
}
