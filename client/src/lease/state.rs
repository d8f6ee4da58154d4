//! Grants: who holds a lease, as a function of the log.
//!
//! Owns:   the lease's entries, which are lines of text that can be read in the log.
//! Never:  knows what time it is.

use std::io::{self, Read, Write};
use std::time::Duration;

use loglog_proto::Offset;

use crate::read::Entry;
use crate::state_machine::{ApplyError, StateMachine};

/// An entry of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// From here on `holder` holds it; the entry's offset is the token.
    Take { holder: u64, time: Duration },
    /// The holder lives.
    Renew { token: Offset },
    /// Nobody holds it.
    Release { token: Offset },
}

/// Who holds one lease.
#[derive(Debug)]
pub(super) struct Grants {
    name: String,
    last: Last,
    /// The newest entry that meant anything.
    newest: Option<Offset>,
}

#[derive(Debug)]
enum Last {
    /// Before the beginning something may stand that was not read.
    Unknown,
    Nobody,
    Grant {
        token: Offset,
        holder: u64,
        time: Duration,
    },
}

impl Word {
    pub(super) fn encode(self, name: &str) -> String {
        match self {
            Self::Take { holder, time } => format!("lease take {holder:016x} {} {name}", time.as_millis()),
            Self::Renew { token } => format!("lease renew {token} {name}"),
            Self::Release { token } => format!("lease release {token} {name}"),
        }
    }

    /// `None` for an entry of anybody else's, or of another lease.
    fn decode(payload: &[u8], name: &str) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("lease ")?;
        let (verb, rest) = text.split_once(' ')?;
        let (number, rest) = rest.split_once(' ')?;
        let (word, rest) = match verb {
            "take" => {
                let (millis, rest) = rest.split_once(' ')?;
                let time = Duration::from_millis(millis.parse().ok()?);
                (Self::Take { holder: u64::from_str_radix(number, 16).ok()?, time }, rest)
            }
            "renew" => (Self::Renew { token: Offset::new(number.parse().ok()?) }, rest),
            "release" => (Self::Release { token: Offset::new(number.parse().ok()?) }, rest),
            _ => return None,
        };
        (rest == name).then_some(word)
    }
}

impl Grants {
    /// Nobody's, or nobody knows whose.
    pub(super) fn new(name: &str, is_known: bool) -> Self {
        let last = if is_known { Last::Nobody } else { Last::Unknown };
        Self { name: name.to_owned(), last, newest: None }
    }

    pub(super) const fn newest(&self) -> Option<Offset> {
        self.newest
    }

    pub(super) fn token_of(&self, me: u64) -> Option<Offset> {
        match self.last {
            Last::Grant { token, holder, .. } if holder == me => Some(token),
            _ => None,
        }
    }

    pub(super) fn is_held_by(&self, me: u64) -> bool {
        self.token_of(me).is_some()
    }

    /// How long it is held from when the newest entry was seen; `None` if it is free. `time` is what a grant lasts that was not read.
    pub(super) const fn lasts(&self, time: Duration) -> Option<Duration> {
        match self.last {
            Last::Nobody => None,
            Last::Unknown => Some(time),
            Last::Grant { time, .. } => Some(time),
        }
    }
}

impl StateMachine for Grants {
    fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let Some(word) = Word::decode(&entry.payload, &self.name) else { return Ok(()) };
        match (word, &self.last) {
            (Word::Take { holder, time }, _) => {
                self.last = Last::Grant { token: entry.offset, holder, time };
            }
            (Word::Renew { token }, Last::Grant { token: last, .. }) if token == *last => {}
            (Word::Release { token }, Last::Grant { token: last, .. }) if token == *last => {
                self.last = Last::Nobody;
            }
            // Of a grant that began before what was read. Both are appended only while it is the last one.
            (Word::Renew { .. }, Last::Unknown) => {}
            (Word::Release { .. }, Last::Unknown) => self.last = Last::Nobody,
            // Nobody writes these, unless by hand.
            _ => return Ok(()),
        }
        self.newest = Some(entry.offset);
        Ok(())
    }

    /// A contender begins at the log's end, so nothing is kept.
    fn snapshot(&self, _: &mut dyn Write) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_others_words_are_passed_over() {
        let words = [
            Word::Take { holder: 0xab, time: Duration::from_millis(1500) },
            Word::Renew { token: Offset::new(77) },
            Word::Release { token: Offset::new(77) },
        ];
        for word in words {
            for name in ["leader", "a b", ""] {
                assert_eq!(Word::decode(word.encode(name).as_bytes(), name), Some(word));
                assert_eq!(Word::decode(word.encode(name).as_bytes(), "another"), None);
            }
        }
        assert_eq!(words[0].encode("leader"), "lease take 00000000000000ab 1500 leader");
        for other in
            ["", "lease", "lease ", "lease take x 1 leader", "lease keep 7 leader", "lease renew -7 leader"]
        {
            assert_eq!(Word::decode(other.as_bytes(), "leader"), None, "{other}");
        }
        assert_eq!(Word::decode(b"lease \xff", "leader"), None);
    }
}
