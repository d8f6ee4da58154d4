//! How the command ends: exit codes that scripts may rely on, and the one line that goes with each.
//!
//! Owns:   the codes (stable: a number is never given another meaning) and the road from the client's errors to them.
//! Keeps:  a conflict is not an unknown outcome, and "nothing happened" is only said where it is known.

use std::io;

/// For `loglog --help`, README and scripts.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; beyond what was printed, nothing happened
  2  the command line is wrong
  3  conflict: the log does not end where --expect-end says; nothing was appended
  4  unknown: entries beyond those whose offsets were printed may or may not be in the log
  5  no node could be reached, or none can serve just now: try again later
  6  not found: the offset is trimmed, beyond the end, or no entry begins there
  7  damaged: bytes are not what was written";

/// One of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Failed; beyond what was printed, nothing happened.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The log does not end where it was expected to.
    Conflict = 3,
    /// Entries beyond those whose offsets were printed may or may not be in the log.
    Unknown = 4,
    /// No node could be reached, or none can serve just now.
    Unavailable = 5,
    /// The offset is trimmed, beyond the end, or no entry begins there.
    NotFound = 6,
    /// Bytes are not what was written.
    Damaged = 7,
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody reads our output any more: that is no failure.
    Unread,
    /// What to tell, and how to exit.
    Failure(Exit, String),
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

impl Stop {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Failure(exit, message.into())
    }

    /// Nothing happened, and trying again as it is will not help.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Writing to standard output failed.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unread
        } else {
            Self::failed(format!("cannot write to standard output: {error}"))
        }
    }

    /// The same end, with `words` in front of its message.
    pub(crate) fn after(self, words: &str) -> Self {
        match self {
            Self::Unread => Self::Unread,
            Self::Failure(exit, message) => Self::Failure(exit, format!("{words}{message}")),
        }
    }
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help() {
        let all = [
            Exit::Failed,
            Exit::Usage,
            Exit::Conflict,
            Exit::Unknown,
            Exit::Unavailable,
            Exit::NotFound,
            Exit::Damaged,
        ];
        for (at, exit) in all.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), at + 1);
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", exit.code())));
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert!(matches!(Stop::output(&io::ErrorKind::BrokenPipe.into()), Stop::Unread));
        assert!(matches!(Stop::output(&io::ErrorKind::StorageFull.into()), Stop::Failure(Exit::Failed, _)));
    }
}
