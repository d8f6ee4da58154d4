//! Memory that can be written to a disk as it lies: whole blocks, at the address of a block.
//!
//! Owns:   how large a block is, and where in its memory a buffer's bytes begin.
//! Keeps:  the bytes stay where they are, at an address that is a multiple of [`BLOCK`], as long as no more are put in than was said.

/// What files are written in, bytes: what a disk takes without reading, and a page of memory.
pub(crate) const BLOCK: usize = 4096;

/// Of so many zeros there is a copy that can be written.
pub(crate) const ZEROS_MAX: usize = 1 << 20;

/// A buffer is not used again for less than a fourth of it, unless it is small.
const KEPT_FOR: usize = 4;
const KEPT_BELOW: usize = 128 << 10;

#[repr(align(4096))]
struct Zeros([u8; ZEROS_MAX]);

static ZEROS: Zeros = Zeros([0; ZEROS_MAX]);

/// So many zeros, at a block's address; at most [`ZEROS_MAX`].
pub(crate) fn zeros(count: usize) -> &'static [u8] {
    &ZEROS.0[..count]
}

/// The position of the block in which `position` lies.
pub(crate) const fn block_of(position: u64) -> u64 {
    position - position % BLOCK as u64
}

/// The end of the block in which the byte before `position` lies.
pub(crate) const fn blocks_to(position: u64) -> u64 {
    position.next_multiple_of(BLOCK as u64)
}

/// Bytes that are to be written in blocks.
#[derive(Debug, Default)]
pub(crate) struct BlockBuffer {
    memory: Vec<u8>,
    /// Where in it the bytes begin.
    begin: usize,
}

impl BlockBuffer {
    /// Forgets what it holds, and makes room for so many bytes and what is missing to a whole block.
    pub(crate) fn empty_for(&mut self, bytes: usize) {
        let wanted = bytes.next_multiple_of(BLOCK) + BLOCK;
        self.memory.clear();
        if self.memory.capacity() < wanted || self.memory.capacity() > KEPT_FOR * wanted.max(KEPT_BELOW) {
            // Not grown: what it held is not wanted any more. Nor kept, where little would lie in much.
            self.memory = Vec::with_capacity(wanted);
        }
        self.begin = self.memory.as_ptr().align_offset(BLOCK);
        self.memory.resize(self.begin, 0);
    }

    /// What bytes are added to.
    pub(crate) const fn memory(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..]
    }

    /// Fills the last block up with zeros.
    pub(crate) fn fill_block(&mut self) {
        let filled = self.bytes().len().next_multiple_of(BLOCK);
        self.memory.resize(self.begin + filled, 0);
    }

    /// Memory that it has.
    pub(crate) const fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_at_a_block_and_do_not_move() {
        let mut buffer = BlockBuffer::default();
        for bytes in [1, BLOCK - 1, BLOCK, BLOCK + 1, 100_000, 7] {
            buffer.empty_for(bytes);
            let at = buffer.bytes().as_ptr();
            assert!(at.addr().is_multiple_of(BLOCK));
            buffer.memory().extend(std::iter::repeat_n(1, bytes));
            buffer.fill_block();
            assert_eq!(buffer.bytes().as_ptr(), at);
            assert_eq!(buffer.bytes().len(), bytes.next_multiple_of(BLOCK));
            assert!(buffer.bytes()[bytes..].iter().all(|byte| *byte == 0));
        }
        assert!(zeros(BLOCK).as_ptr().addr().is_multiple_of(BLOCK));
    }

    #[test]
    fn positions_are_rounded_to_blocks() {
        assert_eq!([0, 1, 4095, 4096, 4097].map(block_of), [0, 0, 0, 4096, 4096]);
        assert_eq!([0, 1, 4095, 4096, 4097].map(blocks_to), [0, 4096, 4096, 4096, 8192]);
    }
}
