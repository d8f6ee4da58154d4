//! Control entries: what the log itself says about the log, and what a snapshot says about it.
//!
//! ```text
//!     trim        1, start
//!     members     2, members
//!     snapshot    start, end offset u64, segment limit u64, membership's index u64, members
//!
//!     start       offset u64, index u64, term before it u32
//!     members     voters u8, learners u8, then for each: Raft id u64, peer address, client address
//!     address     length u8, bytes
//! ```
//!
//! Owns:   these bytes, little-endian.
//! Keeps:  what decodes is small enough for `meta` and names nobody twice.
//! Never:  decides whether a change is a good one: `membership` does.
//!
//! Source: docs/format.md, "Control entries".

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use loglog_proto::{Index, Length, Offset, RaftId, Term};
use loglog_storage::{LogStart, Member, Membership};

/// The most members: enough for any quorum one would want, few enough for one slot of `meta`.
pub const MEMBERS_MAX: usize = 15;

const TRIM: u8 = 1;
const MEMBERS: u8 = 2;

/// What a control entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The log begins here from now on (S36).
    Trim(LogStart),
    /// These keep the log from now on. The index is that of the entry itself.
    Members {
        /// Those who count for the quorum.
        voters: Vec<Member>,
        /// Those who only follow.
        learners: Vec<Member>,
    },
}

/// What takes the place of a log that is no longer to be had from its beginning (S25): its bytes are copied from any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotContent {
    /// Where the sender's log begins.
    pub start: LogStart,
    /// Where the snapshot's last batch ends.
    pub end: Offset,
    /// Entry bytes of a segment (S35).
    pub segment_bytes_max: Length,
    /// Who kept the log at that batch.
    pub membership: Membership,
}

/// Bytes that are no control entry of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no control entry that this version knows")]
pub struct ControlError(usize);

impl Control {
    /// The entry's payload.
    ///
    /// # Panics
    /// If there are more members than [`MEMBERS_MAX`], or an address is longer than 255 bytes: `membership` lets none through.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Trim(start) => {
                out.put_u8(TRIM);
                put_start(&mut out, *start);
            }
            Self::Members { voters, learners } => {
                out.put_u8(MEMBERS);
                put_members(&mut out, voters, learners);
            }
        }
        out.freeze()
    }

    /// Reads an entry's payload.
    ///
    /// # Errors
    /// [`ControlError`] for anything that [`Control::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let error = ControlError(bytes.len());
        let mut from = Fields(bytes);
        let control = match from.u8() {
            Some(TRIM) => from.start().map(Self::Trim),
            Some(MEMBERS) => from.members().map(|(voters, learners)| Self::Members { voters, learners }),
            _ => None,
        };
        control.filter(|_| from.0.is_empty()).ok_or(error)
    }

    /// Whether a payload changes the members: raft-rs is to know such an entry from others.
    pub(crate) fn changes_members(payload: &[u8]) -> bool {
        payload.first() == Some(&MEMBERS)
    }
}

impl SnapshotContent {
    /// As it travels.
    ///
    /// # Panics
    /// As [`Control::encode`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_start(&mut out, self.start);
        out.put_u64_le(self.end.get());
        out.put_u64_le(self.segment_bytes_max.get());
        out.put_u64_le(self.membership.index.get());
        put_members(&mut out, &self.membership.voters, &self.membership.learners);
        out.freeze()
    }

    /// Reads what [`SnapshotContent::encode`] wrote.
    ///
    /// # Errors
    /// [`ControlError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let mut from = Fields(bytes);
        let content = from.snapshot().filter(|_| from.0.is_empty());
        content.ok_or(ControlError(bytes.len()))
    }
}

fn put_start(out: &mut BytesMut, start: LogStart) {
    out.put_u64_le(start.offset.get());
    out.put_u64_le(start.index.get());
    out.put_u32_le(start.previous_term.get());
}

fn put_members(out: &mut BytesMut, voters: &[Member], learners: &[Member]) {
    assert!(voters.len() + learners.len() <= MEMBERS_MAX, "a bounded number of members");
    for count in [voters.len(), learners.len()] {
        out.put_u8(u8::try_from(count).expect("few members"));
    }
    for member in voters.iter().chain(learners) {
        out.put_u64_le(member.id.get());
        for address in [&member.peer_address, &member.client_address] {
            out.put_u8(u8::try_from(address.len()).expect("addresses are short"));
            out.put_slice(address.as_bytes());
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn start(&mut self) -> Option<LogStart> {
        let (offset, index, term) = (self.u64()?, self.u64()?, self.u32()?);
        Some(LogStart {
            offset: Offset::new(offset),
            index: Index::new(index),
            previous_term: Term::new(term),
        })
    }

    fn snapshot(&mut self) -> Option<SnapshotContent> {
        let (start, end) = (self.start()?, Offset::new(self.u64()?));
        let (segment_bytes_max, index) = (Length::new(self.u64()?), self.u64()?);
        let (voters, learners) = self.members()?;
        let membership = Membership { index: Index::new(index), voters, learners };
        Some(SnapshotContent { start, end, segment_bytes_max, membership })
    }

    fn members(&mut self) -> Option<(Vec<Member>, Vec<Member>)> {
        let (voters, learners) = (usize::from(self.u8()?), usize::from(self.u8()?));
        if voters == 0 || voters + learners > MEMBERS_MAX {
            return None;
        }
        let mut members = Vec::with_capacity(voters + learners);
        let mut ids = BTreeSet::new();
        for _ in 0..voters + learners {
            let id = RaftId::from_raw(self.u64()?)?;
            let (peer_address, client_address) = (self.address()?, self.address()?);
            if !ids.insert(id.node()) {
                return None;
            }
            members.push(Member { id, peer_address, client_address });
        }
        let learners = members.split_off(voters);
        Some((members, learners))
    }

    fn address(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        std::str::from_utf8(self.take(length)?).ok().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use loglog_proto::{Incarnation, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn member(node: u32) -> Member {
        let id = RaftId::new(NodeId::new(node).unwrap(), Incarnation::new(7).unwrap());
        Member { id, peer_address: format!("peer:{node}"), client_address: format!("client:{node}") }
    }

    fn controls() -> [Control; 3] {
        let start = LogStart { offset: Offset::new(77), index: Index::new(9), previous_term: Term::new(3) };
        [
            Control::Trim(start),
            Control::Members { voters: vec![member(1), member(2)], learners: vec![member(3)] },
            Control::Members { voters: (1..=15).map(member).collect(), learners: Vec::new() },
        ]
    }

    #[test]
    fn s19_control_entries_come_back_from_bytes_of_our_own() {
        for control in controls() {
            let bytes = control.encode();
            assert_eq!(Control::changes_members(&bytes), matches!(control, Control::Members { .. }));
            assert_eq!(Control::decode(&bytes), Ok(control));
            assert!(Control::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(Control::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        let Control::Trim(start) = controls()[0].clone() else { panic!() };
        let membership =
            Membership { index: Index::new(5), voters: vec![member(1)], learners: vec![member(4)] };
        let content = SnapshotContent {
            start,
            end: Offset::new(1000),
            segment_bytes_max: Length::new(1 << 20),
            membership,
        };
        assert_eq!(SnapshotContent::decode(&content.encode()), Ok(content));
    }

    #[test]
    fn nobody_is_a_member_twice_and_somebody_votes() {
        for (voters, learners) in [
            (vec![member(1), member(1)], Vec::new()),
            (vec![member(1)], vec![member(1)]),
            (Vec::new(), vec![member(1)]),
        ] {
            assert!(Control::decode(&Control::Members { voters, learners }.encode()).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::decode(&bytes);
            let _ = SnapshotContent::decode(&bytes);
            let _ = Control::decode(&[&[MEMBERS], &bytes[..]].concat());
        }
    }
}
