//! Error codes: what a node answers when it does not do what was asked.
//!
//! Owns:   the codes (stable numbers), and for each whether to retry and whether it may have happened.
//! Never:  reuses a number.
//!
//! Source: docs/protocol.md, "Errors".

use std::fmt;

use crate::ids::Sequence;
use crate::position::Offset;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What went wrong, as a stable number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// `None` for a number of a later version.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The name in documents and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    /// The request is not what the protocol describes.
    BadRequest = 1,
    /// The protocol version is none the node speaks.
    Version = 2,
    /// The cluster id is another's.
    WrongCluster = 3,
    /// The frame or the payload is over its limit.
    TooLarge = 4,
    /// The payload does not match its CRC, and nobody has bytes that do.
    Damaged = 5,
    /// The offset lies beyond the committed end. Detail: the end.
    BeyondEnd = 6,
    /// The offset lies before the start. Detail: the start.
    Trimmed = 7,
    /// Another node leads. Detail: its client address, or nil.
    NotLeader = 8,
    /// The log's end is not the one expected. Detail: the end.
    Conflict = 9,
    /// The writer's previous sequence is not the last in the log. Detail: the last, or nil for none.
    OutOfOrder = 10,
    /// The node cannot tell whether this writer's append is in the log.
    UnknownWriter = 11,
    /// The disk is nearly full: appends are refused, reads go on.
    DiskFull = 12,
    /// The node cannot serve just now; nothing was done.
    Unavailable = 13,
    /// The node gave the request up half-way (restart, stop): it may have happened.
    Interrupted = 14,
    /// The append named an upload that is not here.
    NotUploaded = 15,
    /// The request is not allowed here, as fault injection without `debug.faults`.
    Forbidden = 16,
    /// The node is at fault; its log says more.
    Internal = 17,
    /// The deadline passed before the answer was known.
    TimedOut = 18,
    /// Too much is waiting for its place: try again later.
    Busy = 19,
    /// A peer's message is for another node, or for another life of this one.
    WrongNode = 20,
    /// The peer is no member, or not under this incarnation.
    NotMember = 21,
}

impl Code {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotLeader
                | Self::DiskFull
                | Self::Unavailable
                | Self::Interrupted
                | Self::NotUploaded
                | Self::TimedOut
                | Self::Busy
        )
    }

    /// Whether an append that got this answer may be in the log all the same.
    #[must_use]
    pub const fn may_have_happened(self) -> bool {
        matches!(self, Self::UnknownWriter | Self::Interrupted | Self::Internal | Self::TimedOut)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fact that goes with a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// None.
    Nil,
    /// An offset or a sequence.
    Number(u64),
    /// An address.
    Text(String),
}

/// A refusal, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// What went wrong.
    pub code: Code,
    /// For people.
    pub message: String,
    /// The fact that goes with the code.
    pub detail: Detail,
}

impl Refusal {
    /// A refusal without a detail.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: Detail::Nil }
    }

    /// The offset lies beyond the committed end.
    #[must_use]
    pub fn beyond_end(offset: Offset, end: Offset) -> Self {
        let message = format!("offset {offset} lies beyond the end {end}");
        Self { code: Code::BeyondEnd, message, detail: Detail::Number(end.get()) }
    }

    /// The offset lies before the start.
    #[must_use]
    pub fn trimmed(offset: Offset, start: Offset) -> Self {
        let message = format!("offset {offset} was trimmed: the log starts at {start}");
        Self { code: Code::Trimmed, message, detail: Detail::Number(start.get()) }
    }

    /// The log's end is not the one expected.
    #[must_use]
    pub fn conflict(expected: Offset, end: Offset) -> Self {
        let message = format!("the log ends at {end}, not at the expected {expected}");
        Self { code: Code::Conflict, message, detail: Detail::Number(end.get()) }
    }

    /// The writer's previous sequence is not the last in the log.
    #[must_use]
    pub fn out_of_order(last: Option<Sequence>) -> Self {
        match last {
            Some(last) => Self {
                code: Code::OutOfOrder,
                message: format!("the writer's last sequence in the log is {last}: append what follows it"),
                detail: Detail::Number(last.get()),
            },
            None => Self::new(
                Code::OutOfOrder,
                "nothing of this writer is in the log: its first append names no previous one",
            ),
        }
    }

    /// Another node leads.
    #[must_use]
    pub fn not_leader(leader: Option<String>) -> Self {
        match leader {
            Some(address) => Self {
                code: Code::NotLeader,
                message: format!("the leader is at {address}"),
                detail: Detail::Text(address),
            },
            None => Self::new(Code::NotLeader, "no leader is known just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_lead_back() {
        let listed: Vec<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(listed, (1..=21).collect::<Vec<u16>>());
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
        }
        assert_eq!(Code::from_number(0), None);
    }
}
