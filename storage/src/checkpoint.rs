//! The checkpoint of the writers' table, in a side file (S27).
//!
//! ```text
//!     at   0       4         8      12      16      24       32       36
//!          ┌───────┬─────────┬──────┬───────┬───────┬────────┬────────┬────────
//!          │ magic │ version │ term │ zeros │ index │ length │ CRC    │ body …
//!          └───────┴─────────┴──────┴───────┴───────┴────────┴────────┴────────
//! ```
//!
//! All integers are little-endian; the CRC-32C runs over the first 32 bytes and the body.
//!
//! Owns:   the file `writers`: whole, or not there.
//! Keeps:  the batch (term, index) that the body covers stands beside it; whether the log holds that batch, and so
//!         whether the checkpoint counts, is the caller's to check.
//! Never:  matters: without it the table is rebuilt from the log.
//!
//! Source: docs/format.md, "Checkpoint".

use loglog_proto::{Index, LogId, Term};

use crate::dir::DataDir;
use crate::error::{IoFailure, Meant, to_usize};
use crate::names;
use crate::vfs::{OpenMode, read_full_at};

/// The largest body, bytes.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 4] = *b"LgWr";
const VERSION: u32 = 1;
const HEAD: usize = 36;
const CRC_AT: usize = 32;

/// A checkpoint as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last batch that the body covers.
    pub covers: LogId,
    /// Whatever was saved.
    pub body: Vec<u8>,
}

fn head(covers: LogId, body: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&VERSION.to_le_bytes());
    head[8..12].copy_from_slice(&covers.term.get().to_le_bytes());
    head[16..24].copy_from_slice(&covers.index.get().to_le_bytes());
    head[24..32].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..CRC_AT]), body);
    head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What a file's bytes hold; none where they are not exactly one checkpoint.
fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let (found, body) = bytes.split_first_chunk::<HEAD>()?;
    let term = u32::from_le_bytes(*found[8..].first_chunk()?);
    let index = u64::from_le_bytes(*found[16..].first_chunk()?);
    let covers = LogId { term: Term::new(term), index: Index::new(index) };
    (*found == head(covers, body)).then(|| Checkpoint { covers, body: body.to_vec() })
}

impl DataDir {
    /// Replaces the checkpoint by one that covers the log up to the committed batch `covers`. On return it is durable.
    ///
    /// # Errors
    /// Those of writing. The one before is still there; a failed sync or rename is final for the process all the
    /// same (S2), a full disk is not.
    ///
    /// # Panics
    /// If the body is larger than [`CHECKPOINT_BYTES_MAX`].
    pub fn save_checkpoint(&self, covers: LogId, body: &[u8]) -> Result<(), IoFailure> {
        assert!(body.len() as u64 <= CHECKPOINT_BYTES_MAX, "a checkpoint within its limit");
        let vfs = self.vfs();
        let temporary = self.path().join(names::CHECKPOINT_TEMPORARY);
        let path = self.path().join(names::CHECKPOINT);
        if vfs.exists(&temporary).meant("look for", &temporary)? {
            vfs.remove(&temporary).meant("remove", &temporary)?;
        }
        let file = vfs.open(&temporary, OpenMode::CreateNew).meant("create", &temporary)?;
        file.write_all_at(&head(covers, body), 0).meant("write", &temporary)?;
        file.write_all_at(body, HEAD as u64).meant("write", &temporary)?;
        file.sync_all().meant("sync", &temporary)?;
        vfs.rename(&temporary, &path).meant("rename to", &path)?;
        vfs.sync_dir(self.path()).meant("sync", self.path())
    }

    /// The checkpoint; none where there is none, or it is damaged.
    ///
    /// # Errors
    /// Those of reading.
    pub fn load_checkpoint(&self) -> Result<Option<Checkpoint>, IoFailure> {
        let path = self.path().join(names::CHECKPOINT);
        if !self.vfs().exists(&path).meant("look for", &path)? {
            return Ok(None);
        }
        let file = self.vfs().open(&path, OpenMode::Read).meant("open", &path)?;
        let len = file.len().meant("ask the length of", &path)?;
        if len > CHECKPOINT_BYTES_MAX + HEAD as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; to_usize(len)];
        let found = read_full_at(&*file, &mut bytes, 0).meant("read", &path)?;
        Ok(decode(&bytes[..found]))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::vfs::SimVfs;

    fn covers(index: u64) -> LogId {
        LogId { term: Term::new(3), index: Index::new(index) }
    }

    #[test]
    fn s27_a_checkpoint_comes_back_and_a_damaged_one_does_not() {
        let sim = SimVfs::new();
        let dir = DataDir::lock(Arc::new(sim.clone()), Path::new("/d")).unwrap();
        assert_eq!(dir.load_checkpoint().unwrap(), None);
        for index in [7, 8] {
            dir.save_checkpoint(covers(index), b"table").unwrap();
            let found = dir.load_checkpoint().unwrap().unwrap();
            assert_eq!(found, Checkpoint { covers: covers(index), body: b"table".to_vec() });
        }
        for at in 0..HEAD as u64 + 5 {
            sim.corrupt(Path::new("/d/writers"), at, 4).unwrap();
            assert_eq!(dir.load_checkpoint().unwrap(), None, "byte {at}");
            sim.corrupt(Path::new("/d/writers"), at, 4).unwrap();
        }
        assert!(dir.load_checkpoint().unwrap().is_some());
    }
}
