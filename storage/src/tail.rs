//! The end of the log in memory, as it was written: for those who read what has just come.
//!
//! ```text
//!     a synced group's buffer ─► newest ─► … ─► oldest ─► back to the writer, for another group
//!                                     └─► readers
//! ```
//!
//! Owns:   the buffers of the last groups.
//! Keeps:  only what is synced, up to the log's very end; pieces follow each other without a gap; no more memory than was said.
//! Never:  knows what is committed: who asks does.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::{Length, Offset};

use crate::blocks::BlockBuffer;
use crate::error::to_usize;

/// A buffer smaller than this is not worth keeping for another group.
const WORTH_KEEPING: usize = 128 << 10;

/// Readers share a buffer from this part of it on; less is copied.
const SHARED_FROM: usize = 2;

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
#[derive(Debug)]
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    capacity: usize,
    capacity_max: usize,
}

impl Piece {
    fn end(&self) -> Offset {
        self.offset + Length::of(self.len)
    }
}

impl Tail {
    /// Nothing yet; at most so many bytes.
    pub(crate) const fn new(capacity_max: usize) -> Self {
        Self { pieces: VecDeque::new(), capacity: 0, capacity_max }
    }

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
        if memory.capacity() > self.capacity_max {
            self.clear();
            return Some(memory);
        }
        self.capacity += memory.capacity();
        let mut free = None;
        while self.capacity > self.capacity_max
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

    /// Where the `len` bytes at `offset` lie, all of them; `None` where they are not here.
    pub(crate) fn find(&self, offset: Offset, len: usize) -> Option<Found> {
        let at = self.pieces.partition_point(|piece| piece.offset <= offset).checked_sub(1)?;
        self.pieces.back().filter(|last| offset + Length::of(len) <= last.end())?;
        let (mut skipped, mut left) = (to_usize((offset - self.pieces[at].offset).get()), len);
        let mut parts = Vec::new();
        for piece in self.pieces.range(at..) {
            let len = (piece.len - skipped).min(left);
            parts.push(Part { memory: Arc::clone(&piece.memory), from: piece.from + skipped, len });
            left -= len;
            if left == 0 {
                break;
            }
            skipped = 0;
        }
        Some(Found { parts, len })
    }
}

/// Bytes that a reader found.
pub(crate) struct Found {
    parts: Vec<Part>,
    len: usize,
}

impl Found {
    /// The bytes; `None` where they are more than `copied_max` and would have to be copied. To be called without a lock on the tail.
    pub(crate) fn bytes(mut self, copied_max: usize) -> Option<Bytes> {
        // A small part would keep all of the buffer for as long as a slow client takes.
        let is_one = self.parts.len() == 1;
        let is_shared = |part: &mut Part| is_one && part.len >= part.memory.capacity() / SHARED_FROM;
        if let Some(part) = self.parts.pop_if(is_shared) {
            return Some(Bytes::from_owner(part));
        }
        if self.len > copied_max {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.len);
        self.parts.iter().for_each(|part| bytes.extend_from_slice(part.as_ref()));
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    /// A group at `offset` of bytes that say where they lie.
    fn group(tail: &mut Tail, offset: u64, len: usize, head: usize) -> Option<BlockBuffer> {
        let mut buffer = BlockBuffer::default();
        buffer.empty_for(head + len);
        buffer.memory().extend(std::iter::repeat_n(0xff, head));
        buffer.memory().extend((offset..).take(len).map(|at| at.to_le_bytes()[0]));
        tail.push(Offset::new(offset), buffer, head, len)
    }

    fn read(tail: &Tail, offset: u64, len: usize, copied_max: usize) -> Option<Bytes> {
        tail.find(Offset::new(offset), len)?.bytes(copied_max)
    }

    fn is_here(tail: &Tail, offset: u64, len: usize) -> bool {
        let Some(bytes) = read(tail, offset, len, 1000) else { return false };
        assert_eq!(bytes.len(), len);
        assert!(bytes.iter().zip(offset..).all(|(byte, at)| *byte == at.to_le_bytes()[0]));
        true
    }

    #[test]
    fn what_is_here_is_read_whole_and_nothing_else() {
        let mut tail = Tail::new(MAX);
        assert!(!is_here(&tail, 0, 1));
        for (offset, len) in [(1000, 10), (1010, 100), (1110, 100_000), (101_110, 5)] {
            group(&mut tail, offset, len, 7);
        }
        for (offset, len) in
            [(1000, 10), (1005, 50), (1000, 1000), (1110, 100_000), (101_109, 6), (101_114, 1)]
        {
            assert!(is_here(&tail, offset, len), "{len} at {offset}");
        }
        for (offset, len) in [(999, 2), (101_110, 6), (101_115, 1), (1005, 2000), (101_109, 7)] {
            assert!(!is_here(&tail, offset, len), "{len} at {offset}");
        }
    }

    #[test]
    fn a_small_part_does_not_keep_its_buffer() {
        let mut tail = Tail::new(MAX);
        group(&mut tail, 0, 1 << 20, 0);
        let held = [read(&tail, 5, 1000, 1000), read(&tail, 5, 3 << 18, 1000)];
        assert_eq!(held.map(|it| it.map(|bytes| bytes.len())), [Some(1000), Some(3 << 18)]);
        let _small = read(&tail, 5, 1000, 1000);
        assert_eq!(Arc::strong_count(&tail.pieces[0].memory), 1);
        let _large = read(&tail, 5, 3 << 18, 1000);
        assert_eq!(Arc::strong_count(&tail.pieces[0].memory), 2);
        assert!(read(&tail, 5, 1001, 1000).is_none(), "too much to copy here");
    }

    #[test]
    fn small_groups_behind_large_ones_do_not_take_their_buffers() {
        let (mut tail, mut buffer, mut at) = (Tail::new(MAX), BlockBuffer::default(), 0);
        for len in std::iter::repeat_n(4 << 20, 20).chain(std::iter::repeat_n(200, 10_000)) {
            buffer.empty_for(len);
            buffer.memory().extend(std::iter::repeat_n(1, len));
            buffer = tail.push(Offset::new(at), buffer, 0, len).unwrap_or_default();
            at += len as u64;
        }
        let held: usize = tail.pieces.iter().map(|piece| piece.len).sum();
        assert!(tail.pieces.len() > 1000 && held > 200 * 1000, "{} pieces, {held} bytes", tail.pieces.len());
    }

    #[test]
    fn a_gap_forgets_what_was_before() {
        let mut tail = Tail::new(MAX);
        group(&mut tail, 0, 10, 0);
        group(&mut tail, 11, 10, 0);
        assert!(!is_here(&tail, 5, 5));
        assert!(is_here(&tail, 11, 10));
    }

    #[test]
    fn memory_is_bounded_and_goes_back() {
        let (mut tail, len) = (Tail::new(MAX), 1 << 20);
        let mut back = 0;
        for number in 0..100 {
            back += usize::from(group(&mut tail, number * len as u64, len, 0).is_some());
            assert!(tail.capacity <= MAX);
        }
        assert!(back > 60, "{back}");
        assert!(!is_here(&tail, 0, 1));
        assert!(is_here(&tail, 99 * len as u64, len));
        // What somebody still reads stays his.
        let held = read(&tail, 80 * len as u64, len, 0).unwrap();
        for number in 100..200 {
            group(&mut tail, number * len as u64, len, 0);
        }
        assert!(held.iter().zip(80 * len as u64..).all(|(byte, at)| *byte == at.to_le_bytes()[0]));
        // What is larger than all of it is not kept, and what was before it no longer ends where the log does.
        assert!(group(&mut tail, 200 * len as u64, MAX, 0).is_some());
        assert!(!is_here(&tail, 199 * len as u64, 1));
    }
}
