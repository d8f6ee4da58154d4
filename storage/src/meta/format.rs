//! The bytes of `meta`.
//!
//! ```text
//!     page   0 ────── slot 0 ─────── 4 ────── slot 1 ─────── 8  mark 0  9  mark 1  10
//!            ┌───────────────────────┬───────────────────────┬─────────┬─────────┐
//!            │ synced, the one last  │ written is chosen     │ lazy, pages of their own
//!            └───────────────────────┴───────────────────────┴─────────┴─────────┘
//!
//!     slot   0       4         8        16            20    24
//!            ┌───────┬─────────┬────────┬─────────────┬─────┬────────┬─────────
//!            │ magic │ version │ number │ body length │ CRC │ body … │ zeros …
//!            └───────┴─────────┴────────┴─────────────┴─────┴────────┴─────────
//!
//!     mark   0       4         8        16      24       32    36
//!            ┌───────┬─────────┬────────┬───────┬────────┬─────┬─────────
//!            │ magic │ version │ number │ index │ offset │ CRC │ zeros …
//!            └───────┴─────────┴────────┴───────┴────────┴─────┴─────────
//! ```
//!
//! All integers are little-endian. The slot's CRC-32C runs over its first 20 bytes and its body; the mark's over
//! its first 32 bytes. Of two valid ones the newer counts.
//!
//! Owns:   encoding, decoding and checking of slots and marks.
//! Keeps:  whole pages are written; a slot never shares a page with a mark (S6).
//!
//! Source: docs/format.md, "Meta".

use std::cmp::Ordering;

use loglog_proto::limits::POSITION_MAX;
use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId, Offset, RaftId, Term};

use super::{LogStart, Mark, Member, Membership, MetaState};

/// What a disk is assumed to write apart from its neighbours, bytes.
pub(super) const PAGE: usize = 4096;
/// Bytes reserved for one slot.
pub(super) const SLOT: usize = 4 * PAGE;
/// Where the mark pages begin.
pub(super) const MARKS_AT: usize = 2 * SLOT;
/// Bytes of the whole file.
pub(super) const META_BYTES: usize = MARKS_AT + 2 * PAGE;

const SLOT_MAGIC: [u8; 4] = *b"LgMt";
const MARK_MAGIC: [u8; 4] = *b"LgMk";
const VERSION: u32 = 1;
const SLOT_HEAD: usize = 24;
const SLOT_CRC_AT: usize = 20;
const MARK_CRC_AT: usize = 32;

const _: () = assert!(MARKS_AT.is_multiple_of(PAGE) && MARKS_AT >= 2 * SLOT);

/// What one slot holds: the state, and whether a snapshot is past its point of no return (S25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u64,
    pub(super) state: MetaState,
    pub(super) install: Option<Mark>,
}

impl Slot {
    /// Whole pages. `None` where the members' addresses do not fit.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![0; SLOT_HEAD];
        let state = &self.state;
        let install = self.install.unwrap_or_default();
        put_u64(&mut out, state.cluster.get());
        put_u32(&mut out, state.node.get());
        put_u32(&mut out, state.incarnation.get());
        put_u32(&mut out, state.term.get());
        put_u32(&mut out, u32::from(self.install.is_some()));
        put_u64(&mut out, state.vote.map_or(0, RaftId::get));
        put_u64(&mut out, state.start.offset.get());
        put_u64(&mut out, state.start.index.get());
        put_u32(&mut out, state.start.previous_term.get());
        put_u64(&mut out, state.segment_bytes_max.get());
        put_u64(&mut out, install.index.get());
        put_u64(&mut out, install.offset.get());
        put_u64(&mut out, state.membership.index.get());
        put_members(&mut out, &state.membership.voters)?;
        put_members(&mut out, &state.membership.learners)?;
        if out.len() > SLOT {
            return None;
        }
        let body = u32::try_from(out.len() - SLOT_HEAD).ok()?;
        out[0..4].copy_from_slice(&SLOT_MAGIC);
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..20].copy_from_slice(&body.to_le_bytes());
        let crc = slot_crc(&out);
        out[SLOT_CRC_AT..SLOT_HEAD].copy_from_slice(&crc.to_le_bytes());
        out.resize(out.len().next_multiple_of(PAGE), 0);
        Some(out)
    }

    /// What lies in a slot's bytes, or why nothing does.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut head = Fields(bytes.get(..SLOT_HEAD).ok_or("cut short")?);
        let magic = head.take(4).ok_or("cut short")?;
        if magic.iter().all(|b| *b == 0) {
            return Err("never written");
        }
        if magic != SLOT_MAGIC {
            return Err("no slot of meta");
        }
        let version = head.u32().ok_or("cut short")?;
        let number = head.u64().ok_or("cut short")?;
        let body = head.u32().ok_or("cut short")? as usize;
        let crc = head.u32().ok_or("cut short")?;
        let whole = bytes.get(..SLOT_HEAD + body.min(SLOT)).ok_or("cut short")?;
        if slot_crc(whole) != crc {
            return Err("its CRC does not match");
        }
        if version != VERSION {
            return Err("another version of the format");
        }
        decode_body(number, Fields(&whole[SLOT_HEAD..])).ok_or("fields that make no sense")
    }
}

fn decode_body(number: u64, mut body: Fields<'_>) -> Option<Slot> {
    let cluster = ClusterId::new(body.u64()?)?;
    let node = NodeId::new(body.u32()?)?;
    let incarnation = Incarnation::new(body.u32()?)?;
    let term = Term::new(body.u32()?);
    let installing = body.u32()? & 1 != 0;
    let vote = match body.u64()? {
        0 => None,
        raw => Some(RaftId::from_raw(raw)?),
    };
    let start = LogStart {
        offset: Offset::new(body.u64()?),
        index: Index::new(body.u64()?),
        previous_term: Term::new(body.u32()?),
    };
    let segment_bytes_max = Length::new(body.u64()?);
    let install = Mark { index: Index::new(body.u64()?), offset: Offset::new(body.u64()?) };
    let index = Index::new(body.u64()?);
    let voters = body.members()?;
    let learners = body.members()?;
    let membership = Membership { index, voters, learners };
    let positions = [
        start.offset.get(),
        start.index.get(),
        segment_bytes_max.get(),
        install.index.get(),
        install.offset.get(),
    ];
    if positions.into_iter().chain([index.get()]).any(|position| position > POSITION_MAX) {
        return None;
    }
    // Index 0 is before everything: no log starts there.
    if start.index == Index::ZERO || (installing && !start.admits(install)) {
        return None;
    }
    let state = MetaState { cluster, node, incarnation, term, vote, membership, start, segment_bytes_max };
    Some(Slot { number, state, install: installing.then_some(install) })
}

/// What one mark page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MarkPage {
    pub(super) number: u64,
    pub(super) mark: Mark,
}

impl MarkPage {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE);
        out.extend_from_slice(&MARK_MAGIC);
        put_u32(&mut out, VERSION);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.mark.index.get());
        put_u64(&mut out, self.mark.offset.get());
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out.resize(PAGE, 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.take(4)?;
        let version = fields.u32()?;
        let number = fields.u64()?;
        let mark = Mark { index: Index::new(fields.u64()?), offset: Offset::new(fields.u64()?) };
        let crc = fields.u32()?;
        let positions = [mark.index.get(), mark.offset.get()];
        let whole = magic == MARK_MAGIC
            && version == VERSION
            && crc == crc32c::crc32c(&bytes[..MARK_CRC_AT])
            && positions.into_iter().all(|position| position <= POSITION_MAX);
        whole.then_some(Self { number, mark })
    }
}

/// Orders two numbers of slots, or of marks: each is one more than that of the one before it, whatever that was, and goes on at 0 behind
/// the last of all.
pub(super) fn newer(one: u64, other: u64) -> Ordering {
    one.wrapping_sub(other).cast_signed().cmp(&0)
}

fn slot_crc(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..SLOT_CRC_AT]), &slot[SLOT_HEAD..])
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_members(out: &mut Vec<u8>, members: &[Member]) -> Option<()> {
    out.extend_from_slice(&u16::try_from(members.len()).ok()?.to_le_bytes());
    for member in members {
        put_u64(out, member.id.get());
        for address in [&member.peer_address, &member.client_address] {
            out.extend_from_slice(&u16::try_from(address.len()).ok()?.to_le_bytes());
            out.extend_from_slice(address.as_bytes());
        }
    }
    Some(())
}

/// Takes fields off the front; `None` when the bytes run out.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|b| u16::from_le_bytes(*b))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|b| u32::from_le_bytes(*b))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|b| u64::from_le_bytes(*b))
    }

    fn text(&mut self) -> Option<String> {
        let len = self.u16()?;
        String::from_utf8(self.take(usize::from(len))?.to_vec()).ok()
    }

    fn members(&mut self) -> Option<Vec<Member>> {
        let count = self.u16()?;
        let mut members = Vec::new();
        for _ in 0..count {
            let id = RaftId::from_raw(self.u64()?)?;
            members.push(Member { id, peer_address: self.text()?, client_address: self.text()? });
        }
        Some(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: u32) -> Member {
        let id = RaftId::new(NodeId::new(id).unwrap(), Incarnation::new(id + 7).unwrap());
        Member { id, peer_address: format!("10.0.0.{id}:19195"), client_address: "host:19194".to_owned() }
    }

    pub(in super::super) fn example() -> MetaState {
        MetaState {
            cluster: ClusterId::new(0xabcd).unwrap(),
            node: NodeId::new(3).unwrap(),
            incarnation: Incarnation::new(9).unwrap(),
            term: Term::new(4),
            vote: RaftId::from_raw(0x0000_0009_0000_0003),
            membership: Membership {
                index: Index::new(1),
                voters: (1..=3).map(member).collect(),
                learners: vec![member(4)],
            },
            start: LogStart { offset: Offset::ZERO, index: Index::new(2), previous_term: Term::new(1) },
            segment_bytes_max: Length::new(64 << 20),
        }
    }

    #[test]
    fn s06_a_slot_comes_back() {
        for install in [None, Some(Mark { index: Index::new(7), offset: Offset::new(70) })] {
            let slot = Slot { number: 5, state: example(), install };
            let bytes = slot.encode().unwrap();
            assert_eq!(bytes.len() % PAGE, 0);
            assert_eq!(Slot::decode(&bytes), Ok(slot));
        }
    }

    #[test]
    fn s06_addresses_without_end_are_refused() {
        let mut state = example();
        state.membership.voters[0].peer_address = "x".repeat(SLOT);
        assert_eq!(Slot { number: 1, state, install: None }.encode(), None);
    }

    #[test]
    fn s06_zeros_are_neither_slot_nor_mark() {
        assert_eq!(Slot::decode(&[0; SLOT]), Err("never written"));
        assert_eq!(MarkPage::decode(&[0; PAGE]), None);
    }

    #[test]
    fn golden_mark() {
        let page = MarkPage { number: 1, mark: Mark { index: Index::new(2), offset: Offset::new(3) } };
        let hex: String = page.encode()[..36].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "4c674d6b",
                "01000000",
                "0100000000000000",
                "0200000000000000",
                "0300000000000000",
                "9fe50477"
            )
        );
    }

    #[test]
    fn numbers_that_no_log_reaches_make_no_sense() {
        let far = u64::MAX - 3;
        let mut state = example();
        state.start.offset = Offset::new(far);
        let mut nowhere = example();
        nowhere.start.index = Index::ZERO;
        let sound = Slot { number: 5, state: example(), install: None };
        let slots = [
            Slot { state, ..sound.clone() },
            Slot { state: nowhere, ..sound.clone() },
            Slot { install: Some(Mark { index: Index::new(far), offset: Offset::new(3) }), ..sound.clone() },
        ];
        for slot in slots {
            assert_eq!(Slot::decode(&slot.encode().unwrap()), Err("fields that make no sense"));
        }
        for (index, offset) in [(far, 3), (2, far)] {
            let mark = Mark { index: Index::new(index), offset: Offset::new(offset) };
            assert_eq!(MarkPage::decode(&MarkPage { number: 1, mark }.encode()), None);
        }
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_noticed(bit in 0usize..(SLOT_HEAD + 150) * 8) {
            let mut bytes = Slot { number: 5, state: example(), install: None }.encode().unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Slot::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bodies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_body(1, Fields(&bytes));
            let _ = Slot::decode(&bytes);
            let _ = MarkPage::decode(&bytes);
        }
    }
}
