//! LZ4 blocks, without the frame around them that its command line writes.
//!
//! Keeps:  what is decompressed has the length that was said, or is an error; memory is taken in proportion to the bytes that there are.
//! Never:  uses a buffer twice, from which a damaged block could copy what an earlier one left (RUSTSEC-2026-0041).
//!
//! Source: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

use lz4_flex::block;

use super::PackError;
use super::form::PACK_BYTES_MAX;

/// What a byte of a block adds to what it becomes, at most: it is one more of a match's length.
const GROWTH_MAX: usize = 255;

pub(super) fn compress(body: &[u8]) -> Vec<u8> {
    block::compress(body)
}

/// Takes bytes that are no more than [`PACK_BYTES_MAX`], and as many for `length`.
pub(super) fn decompress(block: &[u8], length: usize) -> Result<Vec<u8>, PackError> {
    debug_assert!(block.len().max(length) <= PACK_BYTES_MAX);
    let damaged = |reason: String| PackError::Compressed { reason };
    // Ahead of taking the memory: so that few bytes that say much cost little.
    if length > block.len() * GROWTH_MAX {
        return Err(damaged(format!("{} bytes cannot become {length}", block.len())));
    }
    let mut body = vec![0; length];
    match block::decompress_into(block, &mut body) {
        Ok(found) if found == length => Ok(body),
        Ok(found) => Err(damaged(format!("they become {found} bytes in place of {length}"))),
        Err(error) => Err(damaged(error.to_string())),
    }
}
