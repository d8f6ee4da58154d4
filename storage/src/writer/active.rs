//! The last segment's file, to be written.
//!
//! Owns:   how far it is reserved, how far it was ever written, and what lies in its last block.
//! Keeps:  every write of entries covers whole blocks; what shares one with them is written again as it was.
//! Never:  knows batches.

use std::path::PathBuf;
use std::sync::Arc;

use loglog_proto::Offset;
use loglog_proto::header::SegmentHeader;

use crate::blocks::{BLOCK, BlockBuffer, ZEROS_MAX, block_of, blocks_to, zeros};
use crate::error::{IoFailure, Meant, to_usize};
use crate::scan::position;
use crate::spare;
use crate::vfs::{OpenMode, Vfs, VfsFile, read_exact_at};

/// The last segment, open.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// Bytes from the front of the file that have their place on the disk; at least those in use.
    pub(crate) reserved: u64,
    /// Blocks up to here were written before, be it with zeros.
    pub(crate) written: u64,
    /// What the file holds from the last block's begin to its end.
    pub(crate) head: Vec<u8>,
}

impl Active {
    /// Opens the file of a segment that ends at `end`.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        path: PathBuf,
        header: SegmentHeader,
        end: Offset,
    ) -> Result<Self, IoFailure> {
        let file = vfs.open(&path, OpenMode::ReadWrite).meant("open", &path)?;
        let reserved = file.len().meant("ask the length of", &path)?;
        let at = position(header.base_offset, end);
        let mut active = Self { file, path, header, reserved, written: blocks_to(at), head: Vec::new() };
        active.read_head(at)?;
        Ok(active)
    }

    /// Reads what lies in the block before `at`, where the file ends.
    pub(crate) fn read_head(&mut self, at: u64) -> Result<(), IoFailure> {
        let from = block_of(at);
        self.head.resize(to_usize(at - from), 0);
        read_exact_at(&*self.file, &mut self.head, from).meant("read", &self.path)
    }

    /// Reserves the first `wanted` bytes, or at least `needed` of them.
    pub(crate) fn reserve(&mut self, needed: u64, wanted: u64) -> Result<(), IoFailure> {
        let reserved = spare::reserve(&*self.file, self.reserved, needed, wanted);
        self.reserved = reserved.meant("reserve space in", &self.path)?;
        Ok(())
    }

    /// Writes zeros behind `needed` where blocks up to there were never written, as far as space is reserved and at most `count`. The next
    /// sync takes them along.
    pub(crate) fn write_zeros(&mut self, needed: u64, count: u64) -> Result<(), IoFailure> {
        if needed <= self.written {
            return Ok(());
        }
        let until = block_of((needed + count.min(ZEROS_MAX as u64)).min(self.reserved));
        if until > needed {
            let zeros = zeros(to_usize(until - needed));
            self.file.write_blocks_at(zeros, needed).meant("write zeros to", &self.path)?;
            self.written = until;
        }
        Ok(())
    }

    /// Writes and syncs the bytes of `buffer`, which begin with the head and end the file. They lie at `at` but for the head.
    pub(crate) fn write(&mut self, buffer: &mut BlockBuffer, at: u64) -> Result<(), IoFailure> {
        let (from, len) = (block_of(at), buffer.bytes().len());
        buffer.fill_block();
        self.file.write_blocks_synced(buffer.bytes(), from).meant("write to, or sync,", &self.path)?;
        self.head.clear();
        self.head.extend_from_slice(&buffer.bytes()[len - len % BLOCK..len]);
        self.written = self.written.max(from + buffer.bytes().len() as u64);
        Ok(())
    }
}
