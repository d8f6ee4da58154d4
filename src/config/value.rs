//! One value: from what a layer says to what the key means.
//!
//! Owns:   the kinds of values (sizes, durations, numbers, switches, addresses, members) and what each accepts.
//! Keeps:  an error is the sentence that tells what to write.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::{File, FileFormat, Map, Source, Value, ValueKind};
use loglog_proto::{Length, NodeId};

use super::NodeAddress;
use crate::units::{self, Quantity};

/// What is wrong with a value, and what is expected.
pub(super) type Problem = String;

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `value` as it may stand in a file, for messages.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Table(table) => {
            let mut fields: Vec<_> =
                table.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect();
            fields.sort();
            format!("{{ {} }}", fields.join(", "))
        }
        _ => value.to_string(),
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Result<&str, Problem> {
    match &value.kind {
        ValueKind::String(text) => Ok(text),
        _ => Err(format!("expected a text: write it in quotes, {}", quoted(&shown(value)))),
    }
}

/// A whole number within `range`. A text of digits is one too, since environment and flags know only texts.
pub(super) fn whole(value: &Value, range: RangeInclusive<u32>) -> Result<u32, Problem> {
    let number = match &value.kind {
        ValueKind::I64(number) => u32::try_from(*number).ok(),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
}

/// Yes or no.
pub(super) fn switch(value: &Value) -> Result<bool, Problem> {
    match &value.kind {
        ValueKind::Boolean(on) => Ok(*on),
        ValueKind::String(text) if text == "true" => Ok(true),
        ValueKind::String(text) if text == "false" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// What `value` says with a unit, as a text.
fn with_unit(value: &Value, quantity: Quantity) -> Result<String, Problem> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        // A plain number gets the same answer as a text without a unit.
        ValueKind::I64(_) | ValueKind::Float(_) => Ok(value.to_string()),
        _ => Err(quantity.expected().to_owned()),
    }
}

/// A number of bytes within `range`.
pub(super) fn bytes(value: &Value, range: RangeInclusive<u64>) -> Result<Length, Problem> {
    let text = with_unit(value, Quantity::Bytes)?;
    let count = units::parse_bytes(&text).map_err(|error| error.to_string())?;
    if !range.contains(&count) {
        let (min, max) = (units::format_bytes(*range.start()), units::format_bytes(*range.end()));
        return Err(format!("expected from {min} to {max}"));
    }
    Ok(Length::new(count))
}

/// A span of time within `range`.
pub(super) fn duration(value: &Value, range: RangeInclusive<Duration>) -> Result<Duration, Problem> {
    let text = with_unit(value, Quantity::Duration)?;
    let span = units::parse_duration(&text).map_err(|error| error.to_string())?;
    if !range.contains(&span) {
        let (min, max) = (units::format_duration(*range.start()), units::format_duration(*range.end()));
        return Err(format!("expected from {min} to {max}"));
    }
    Ok(span)
}

/// Where to listen.
pub(super) fn listen_address(value: &Value) -> Result<SocketAddr, Problem> {
    text(value)?.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:19194, or 0.0.0.0:19194 for every interface"
            .to_owned()
    })
}

/// Where to listen; an empty text for nowhere.
pub(super) fn optional_listen_address(value: &Value) -> Result<Option<SocketAddr>, Problem> {
    if text(value)?.is_empty() {
        return Ok(None);
    }
    listen_address(value).map(Some).map_err(|problem| format!("{problem}; or \"\" for nowhere"))
}

/// A file's path; an empty text for none.
pub(super) fn optional_path(value: &Value) -> Result<Option<PathBuf>, Problem> {
    let path = text(value)?;
    Ok((!path.is_empty()).then(|| path.into()))
}

/// A file's permissions, in octal digits.
pub(super) fn permissions(value: &Value) -> Result<u32, Problem> {
    let expected = || "expected permissions as octal digits, such as \"660\"".to_owned();
    let mode = u32::from_str_radix(text(value).map_err(|_| expected())?, 8).map_err(|_| expected())?;
    if mode <= 0o777 { Ok(mode) } else { Err(expected()) }
}

/// Where to connect: a name will do.
fn dial_address(value: &Value) -> Result<String, Problem> {
    let address = text(value)?;
    let port =
        address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(address.to_owned()),
        _ => Err(format!("{} is no host:port", quoted(address))),
    }
}

/// Where others are told to connect; an empty text for where this node listens.
pub(super) fn advertised_address(value: &Value) -> Result<Option<String>, Problem> {
    if text(value)?.is_empty() {
        return Ok(None);
    }
    let address = dial_address(value)?;
    match address.parse::<SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => {
            Err(format!("nobody can connect to {}: name an address of this machine", parsed.ip()))
        }
        _ => Ok(Some(address)),
    }
}

/// The members a cluster begins with.
pub(super) fn nodes(value: &Value) -> Result<Vec<NodeAddress>, Problem> {
    let expected =
        "expected a list such as [{ id = 1, peer = \"host:19195\", client = \"host:19194\" }]".to_owned();
    let parsed;
    let items = match &value.kind {
        ValueKind::Array(items) => items,
        // From environment and flags, the list comes as a text.
        ValueKind::String(text) => match File::from_str(&format!("v = {text}"), FileFormat::Toml).collect() {
            Ok(table) => {
                parsed = table;
                match parsed.get("v").map(|v| &v.kind) {
                    Some(ValueKind::Array(items)) if parsed.len() == 1 => items,
                    _ => return Err(expected),
                }
            }
            Err(_) => return Err(expected),
        },
        _ => return Err(expected),
    };
    let mut nodes: Vec<NodeAddress> = Vec::with_capacity(items.len());
    for item in items {
        let ValueKind::Table(table) = &item.kind else { return Err(expected) };
        let node = node(table).map_err(|problem| format!("{problem}; {expected}"))?;
        if nodes.iter().any(|other| other.id == node.id) {
            return Err(format!("id {} is there twice", node.id));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn node(table: &Map<String, Value>) -> Result<NodeAddress, Problem> {
    if let Some(unknown) = table.keys().find(|name| !["id", "peer", "client"].contains(&name.as_str())) {
        return Err(format!("unknown field '{unknown}'"));
    }
    let field = |name: &str| table.get(name).ok_or_else(|| format!("a node lacks its '{name}'"));
    Ok(NodeAddress {
        id: node_id(field("id")?)?,
        peer: dial_address(field("peer")?)?,
        client: dial_address(field("client")?)?,
    })
}

/// A node's place in its cluster.
pub(super) fn node_id(value: &Value) -> Result<NodeId, Problem> {
    NodeId::new(whole(value, 1..=u32::MAX)?).ok_or_else(|| "expected an id from 1".to_owned())
}
