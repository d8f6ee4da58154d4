//! The payload of an operation: its id, then filler of a length and content that follow from the id.
//!
//! ```text
//!     at   0          8
//!          ┌──────────┬───────────────────────────────┐
//!          │ id, u64  │ filler, 0 to 255 bytes; of    │
//!          │          │ half 512 more, of one in 64   │
//!          │          │ 12,000                        │
//!          └──────────┴───────────────────────────────┘
//! ```
//!
//! Keeps:  a payload with one other byte, or one byte more or less, is nobody's.

use bytes::Bytes;
use loglog_proto::limits::INLINE_BYTES_MAX;

use super::OpId;

const ID: usize = 8;

/// Length of the payload of `op`.
#[must_use]
pub fn payload_len(op: OpId) -> usize {
    let mixed = mix(op.0);
    let small = usize::from(mixed.to_le_bytes()[0]);
    // Half of them come in the leader's messages, the others from uploads or fetches.
    let more = if (mixed >> 8).is_multiple_of(64) {
        12_000
    } else if (mixed >> 16).is_multiple_of(2) {
        INLINE_BYTES_MAX
    } else {
        0
    };
    ID + more + small
}

/// What `op` appends.
#[must_use]
pub fn payload(op: OpId) -> Bytes {
    let length = payload_len(op);
    let mut payload = Vec::with_capacity(length + ID);
    payload.extend_from_slice(&op.0.to_le_bytes());
    let mut word = 0;
    while payload.len() < length {
        payload.extend_from_slice(&filler(op, word));
        word += 1;
    }
    payload.truncate(length);
    Bytes::from(payload)
}

/// Whose payload this is, every byte of it; [`None`]: nobody's.
#[must_use]
pub fn op_of(payload: &[u8]) -> Option<OpId> {
    let (id, rest) = payload.split_first_chunk::<ID>()?;
    let op = OpId(u64::from_le_bytes(*id));
    if payload.len() != payload_len(op) {
        return None;
    }
    let is_his = (0..).zip(rest.chunks(ID)).all(|(word, found)| *found == filler(op, word)[..found.len()]);
    is_his.then_some(op)
}

fn filler(op: OpId, word: u64) -> [u8; ID] {
    mix(op.0 ^ (word + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)).to_le_bytes()
}

/// Spreads a number over all bits (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_leads_back_to_its_operation_and_no_other_bytes_do() {
        for id in (0..300).chain([1 << 32, u64::MAX]) {
            let op = OpId::new(id);
            let bytes = payload(op);
            assert_eq!(op_of(&bytes), Some(op));
            assert_eq!(op_of(&bytes[..bytes.len() - 1]), None);
            assert_eq!(op_of(&[&bytes[..], b"."].concat()), None);
            let mut other = bytes.to_vec();
            for at in [8, bytes.len() / 2, bytes.len() - 1] {
                if let Some(byte) = other.get_mut(at).filter(|_| at >= ID) {
                    *byte ^= 0x10;
                    assert_eq!(op_of(&other), None);
                    other[at] ^= 0x10;
                }
            }
        }
        assert_eq!(op_of(b""), None);
    }

    #[test]
    fn most_are_small_and_some_are_large() {
        let lengths: Vec<usize> = (0..10_000).map(|id| payload_len(OpId::new(id))).collect();
        let large = lengths.iter().filter(|it| **it > 12_000).count();
        assert!((100..200).contains(&large), "{large} large ones");
        assert!(lengths.contains(&ID), "some are an id and nothing else");
    }
}
