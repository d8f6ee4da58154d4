//! Positions: where something is in the log, in bytes and in Raft's entries.
//!
//! Owns:   the newtypes that keep bytes, byte counts, terms and indexes apart.
//! Keeps:  `Offset + Length` gives an `Offset`; `Offset - Offset` a checked `Length`; nothing else adds up.
//! Never:  converts silently: `new` and `get` keep the crossings visible.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// Wraps a plain number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A byte position in the log, counted from 0. Ranges of offsets are half-open.
    Offset(u64)
}

number! {
    /// A count of bytes.
    Length(u64)
}

number! {
    /// Raft's election epoch. 0 is "before any term".
    Term(u32)
}

number! {
    /// Raft's number of a batch. Never a client's position: Raft adds batches that no client sent.
    Index(u64)
}

impl Offset {
    /// The position `length` bytes before this one, or `None` before the start of the log.
    #[must_use]
    pub fn checked_back(self, length: Length) -> Option<Self> {
        self.0.checked_sub(length.0).map(Self)
    }

    /// The position `length` bytes before this one, or zero.
    #[must_use]
    pub fn saturating_back(self, length: Length) -> Self {
        Self(self.0.saturating_sub(length.0))
    }
}

impl Length {
    /// The length of something that lies in memory.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self(bytes as u64)
    }

    /// As an index into memory.
    ///
    /// # Panics
    /// Where memory is smaller than the length: then it cannot be the length of something in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).expect("a length in memory fits the address space")
    }
}

impl Add<Length> for Offset {
    type Output = Self;
    fn add(self, length: Length) -> Self {
        Self(self.0 + length.0)
    }
}

impl AddAssign<Length> for Offset {
    fn add_assign(&mut self, length: Length) {
        self.0 += length.0;
    }
}

impl Sub for Offset {
    type Output = Length;

    /// # Panics
    /// If `other` lies behind `self`: a negative length is a broken promise of ours, never bad input.
    fn sub(self, other: Self) -> Length {
        Length(self.0.checked_sub(other.0).expect("offsets subtracted in order"))
    }
}

impl Add for Length {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Length {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one, or zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Term and index of a batch: together they name its content (Raft §5.3, Log Matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The term in which the batch was proposed.
    pub term: Term,
    /// The batch's number.
    pub index: Index,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_lengths_add_up() {
        let at = Offset::new(10);
        assert_eq!(at + Length::new(5), Offset::new(15));
        assert_eq!(Offset::new(15) - at, Length::new(5));
        assert_eq!(at.checked_back(Length::new(11)), None);
        assert_eq!(at.saturating_back(Length::new(11)), Offset::ZERO);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn a_negative_length_is_a_broken_promise() {
        let _ = Offset::new(1) - Offset::new(2);
    }
}
