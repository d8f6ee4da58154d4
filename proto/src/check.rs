//! Checking a copy: what a node answers when somebody says that its bytes do not hold. Rare, so it travels as a map that can grow.
//!
//! Owns:   the shape of [`ResponseBody::Checked`](crate::response::ResponseBody::Checked).
//! Never:  decides whether a byte is damaged.
//!
//! Source: docs/protocol.md, "Check".

use serde::{Deserialize, Serialize};

/// What a node found when it looked at its own copy of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checked {
    /// In a word.
    pub verdict: Verdict,
    /// Where the segment begins.
    pub segment: u64,
    /// Where its first damaged batch begins.
    pub damaged_at: Option<u64>,
    /// One sentence for people: what does not hold, what is done about it, or what is to be done.
    pub message: String,
}

/// What it found, and does about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every batch of the segment is as it was written, as far as it is committed.
    Sound,
    /// It is damaged, and the node repairs it from the others now.
    Repairing,
    /// It is damaged and stays so for now: the message says why.
    Damaged,
    /// A word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}
