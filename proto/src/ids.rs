//! Who is who: cluster, node, writer, request.
//!
//! Owns:   the newtypes of identity and how they are printed and parsed.
//! Never:  draws random numbers: whoever makes a new identity passes them in.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

/// Names one log for ever, printed as 16 hex digits. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ClusterId(u64);

/// A node's place in its cluster, from 1: what people type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(u32);

/// One life of a node's directory: random, never zero, never used again (S22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Incarnation(u32);

/// Who appended: a random number that a client draws for each of its pipelines. Zero is Raft's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(u64);

/// A writer's own number of an append; grows with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

/// Ties a reply to its request on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(u64);

/// What Raft calls a node: its node id in the low half, its incarnation in the high half (S22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RaftId(u64);

/// What must not be zero is not read as zero either.
macro_rules! read_by {
    ($($name:ident from $number:ident by $new:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let raw = $number::deserialize(from)?;
                $new(raw).ok_or_else(|| {
                    D::Error::invalid_value(Unexpected::Unsigned(raw.into()), &"an id that is not zero")
                })
            }
        }
    )*};
}

read_by! {
    ClusterId from u64 by Self::new;
    NodeId from u32 by Self::new;
    Incarnation from u32 by Self::new;
    RaftId from u64 by Self::from_raw;
}

/// A text that is no such id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is no {what}")]
pub struct ParseIdError {
    what: &'static str,
    found: String,
}

impl ClusterId {
    /// `None` for zero.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let id = if text.len() <= 16 { u64::from_str_radix(text, 16).ok() } else { None };
        id.and_then(Self::new).ok_or_else(|| ParseIdError {
            what: "cluster id (1 to 16 hex digits, not zero)",
            found: text.to_owned(),
        })
    }
}

impl NodeId {
    /// `None` for zero.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Incarnation {
    /// `None` for zero.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl RaftId {
    /// Joins the two halves.
    #[must_use]
    pub const fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self((incarnation.0 as u64) << 32 | node.0 as u64)
    }

    /// `None` where either half is zero.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        if raw as u32 == 0 || (raw >> 32) as u32 == 0 { None } else { Some(Self(raw)) }
    }

    /// The plain number, as Raft wants it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The low half.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
    pub const fn node(self) -> NodeId {
        NodeId(self.0 as u32)
    }

    /// The high half.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 32) as u32)
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.incarnation())
    }
}

impl WriterId {
    /// What Raft's own entries carry: no writer.
    pub const NONE: Self = Self(0);

    /// Wraps a plain number.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Sequence {
    /// Wraps a plain number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RequestId {
    /// Wraps a plain number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raft_id_holds_both_halves() {
        let id = RaftId::new(NodeId(3), Incarnation(0xfeed_beef));
        assert_eq!((id.node(), id.incarnation()), (NodeId(3), Incarnation(0xfeed_beef)));
        assert_eq!(RaftId::from_raw(id.get()), Some(id));
        assert_eq!(RaftId::from_raw(3), None);
    }

    #[test]
    fn a_cluster_id_is_printed_as_it_is_parsed() {
        let id: ClusterId = "00000000000000ab".parse().unwrap();
        assert_eq!(id.to_string(), "00000000000000ab");
        for bad in ["", "0", "xyz", "10000000000000000", "-1"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
    }
}
