//! The end of the log in memory, as it was written: for those who read what has just come.
//!
//! ```text
//!     a synced group's buffer ─► newest ─► … ─► oldest ─► back to the writer, for another group
//!                                     └─► readers
//! ```
//!
//! Owns:   the buffers of the last groups.
//! Keeps:  only what is synced; pieces follow each other without a gap; bounded memory.
//! Never:  knows what is committed: who asks does.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::{Length, Offset};

use crate::blocks::BlockBuffer;
use crate::error::to_usize;

/// Memory held at most, bytes, but for the newest piece.
const TAIL_BYTES: usize = 32 << 20;
/// A buffer smaller than this is not worth keeping for another group.
const WORTH_KEEPING: usize = 128 << 10;
/// Pieces smaller than this are read together.
const SMALL: usize = 64 << 10;

/// A written group.
#[derive(Debug)]
struct Piece {
    offset: Offset,
    /// What of the buffer is the group.
    from: usize,
    len: usize,
    memory: Arc<BlockBuffer>,
}

/// A part of a piece that somebody reads.
struct Part {
    memory: Arc<BlockBuffer>,
    from: usize,
    len: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.memory.bytes()[self.from..self.from + self.len]
    }
}

/// The last groups.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    capacity: usize,
}

impl Piece {
    fn end(&self) -> Offset {
        self.offset + Length::of(self.len)
    }
}

impl Tail {
    /// Takes a group that is synced: the `len` bytes of `memory` behind its first `from`, which lie at `offset`. Gives back a buffer that
    /// nobody needs any more.
    pub(crate) fn push(
        &mut self,
        offset: Offset,
        memory: BlockBuffer,
        from: usize,
        len: usize,
    ) -> Option<BlockBuffer> {
        if self.pieces.back().is_some_and(|piece| piece.end() != offset) {
            self.clear();
        }
        self.capacity += memory.capacity();
        let mut free = None;
        while self.capacity > TAIL_BYTES
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.capacity -= oldest.memory.capacity();
            let unused = Arc::into_inner(oldest.memory).filter(|it| it.capacity() >= WORTH_KEEPING);
            free = unused.or(free);
        }
        self.pieces.push_back(Piece { offset, from, len, memory: Arc::new(memory) });
        free
    }

    /// The log was cut.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.capacity = 0;
    }

    /// Bytes from `offset` on, at most `max`; `None` where they are not here.
    pub(crate) fn read(&self, offset: Offset, max: usize) -> Option<Bytes> {
        let after = self.pieces.partition_point(|piece| piece.offset <= offset);
        let at = after.checked_sub(1)?;
        let piece = self.pieces.get(at).filter(|piece| offset < piece.end())?;
        let skipped = to_usize((offset - piece.offset).get());
        let len = (piece.len - skipped).min(max);
        if len == max || len >= SMALL || after == self.pieces.len() {
            let part = Part { memory: Arc::clone(&piece.memory), from: piece.from + skipped, len };
            return Some(Bytes::from_owner(part));
        }
        let (mut skipped, wanted) = (skipped, max.min(SMALL));
        let mut bytes = Vec::with_capacity(wanted);
        for piece in self.pieces.range(at..) {
            let whole = &piece.memory.bytes()[piece.from..piece.from + piece.len];
            let len = (piece.len - skipped).min(wanted - bytes.len());
            bytes.extend_from_slice(&whole[skipped..skipped + len]);
            if bytes.len() == wanted {
                break;
            }
            skipped = 0;
        }
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group at `offset` of bytes that say where they lie.
    fn group(tail: &mut Tail, offset: u64, len: usize, head: usize) -> Option<BlockBuffer> {
        let mut buffer = BlockBuffer::default();
        buffer.empty_for(head + len);
        buffer.memory().extend(std::iter::repeat_n(0xff, head));
        buffer.memory().extend((offset..).take(len).map(|at| at.to_le_bytes()[0]));
        tail.push(Offset::new(offset), buffer, head, len)
    }

    fn check(tail: &Tail, offset: u64, max: usize) -> Option<usize> {
        let bytes = tail.read(Offset::new(offset), max)?;
        assert!(bytes.len() <= max && !bytes.is_empty());
        assert!(bytes.iter().zip(offset..).all(|(byte, at)| *byte == at.to_le_bytes()[0]));
        Some(bytes.len())
    }

    #[test]
    fn what_is_here_is_read_and_nothing_else() {
        let mut tail = Tail::default();
        assert_eq!(check(&tail, 0, 1), None);
        for (offset, len) in [(1000, 10), (1010, 100), (1110, 100_000), (101_110, 5)] {
            group(&mut tail, offset, len, 7);
        }
        assert_eq!(check(&tail, 999, 1), None);
        assert_eq!(check(&tail, 101_115, 1), None);
        assert_eq!(check(&tail, 1000, 10), Some(10));
        assert_eq!(check(&tail, 1005, 50), Some(50));
        assert_eq!(check(&tail, 1005, 1 << 20), Some(64 << 10), "small ones together");
        assert_eq!(check(&tail, 1110, 1 << 20), Some(100_000), "as it lies");
        assert_eq!(check(&tail, 101_109, 1 << 20), Some(6));
        assert_eq!(check(&tail, 101_110, 1 << 20), Some(5));
    }

    #[test]
    fn a_gap_forgets_what_was_before() {
        let mut tail = Tail::default();
        group(&mut tail, 0, 10, 0);
        group(&mut tail, 11, 10, 0);
        assert_eq!(check(&tail, 5, 9), None);
        assert_eq!(check(&tail, 11, 90), Some(10));
    }

    #[test]
    fn memory_is_bounded_and_goes_back() {
        let (mut tail, len) = (Tail::default(), 1 << 20);
        let mut back = 0;
        for number in 0..100 {
            back += usize::from(group(&mut tail, number * len as u64, len, 0).is_some());
            assert!(tail.capacity <= TAIL_BYTES + (len + 2 * crate::blocks::BLOCK));
        }
        assert!(back > 60, "{back}");
        assert_eq!(check(&tail, 0, 1), None);
        assert_eq!(check(&tail, 99 * len as u64, len), Some(len));
        // What somebody still reads stays his.
        let held = tail.read(Offset::new(80 * len as u64), len).unwrap();
        for number in 100..200 {
            group(&mut tail, number * len as u64, len, 0);
        }
        assert_eq!(held.len(), len);
        assert!(held.iter().zip(80 * len as u64..).all(|(byte, at)| *byte == at.to_le_bytes()[0]));
    }
}
