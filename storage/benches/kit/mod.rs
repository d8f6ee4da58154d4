//! What the benches share: a log that grows batch by batch.
//!
//! Owns:   a directory's log, and where its next batch lies.
//! Never:  checks what it reads back: tests do.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use loglog_proto::entry::{Kind, OVERHEAD};
use loglog_proto::limits::{BATCH_BYTES, BATCH_ENTRIES_MAX};
use loglog_proto::{
    ClusterId, Incarnation, Index, Length, LogId, NodeId, Offset, RaftId, Sequence, Term, WriterId,
};
use loglog_storage::keeper::Prepared;
use loglog_storage::{
    DataDir, LogStart, Mark, Member, Membership, MetaState, NewBatch, NewEntry, OpenOptions, Recovered, Vfs,
};

/// As a node has it unless it is told otherwise.
const SEGMENT: Length = Length::new(64 << 20);

/// A log, open.
pub struct Log {
    pub dir: DataDir,
    pub open: Recovered,
    next: LogId,
    offset: Offset,
    sequence: u64,
}

impl Log {
    /// A new one.
    pub fn form(vfs: Arc<dyn Vfs>, path: &Path) -> Self {
        let dir = DataDir::lock(vfs, path).expect("a directory of our own");
        let (node, incarnation) =
            (NodeId::new(1).expect("an id"), Incarnation::new(7).expect("an incarnation"));
        let member = Member {
            id: RaftId::new(node, incarnation),
            peer_address: "127.0.0.1:1".to_owned(),
            client_address: "127.0.0.1:2".to_owned(),
        };
        let state = MetaState {
            cluster: ClusterId::new(1).expect("an id"),
            node,
            incarnation,
            term: Term::new(1),
            vote: None,
            membership: Membership { index: Index::new(1), voters: vec![member], learners: Vec::new() },
            start: LogStart::GENESIS,
            segment_bytes_max: SEGMENT,
        };
        dir.form(&state).expect("formed");
        let open = dir.open(OpenOptions::default()).expect("opened");
        let next = LogId { term: Term::new(1), index: open.last.index.next() };
        let offset = open.end;
        Self { dir, open, next, offset, sequence: 0 }
    }

    /// So many entries for the next places in the log, in batches as consensus closes them.
    pub fn batches(&mut self, payload: &Bytes, crc: u32, entries: u64) -> Vec<NewBatch> {
        let most = (BATCH_BYTES / (payload.len() + OVERHEAD)).clamp(1, BATCH_ENTRIES_MAX) as u64;
        let (mut batches, mut left) = (Vec::new(), entries);
        while left > 0 {
            let some = left.min(most);
            batches.push(self.batch(payload, crc, some));
            left -= some;
        }
        batches
    }

    fn batch(&mut self, payload: &Bytes, crc: u32, entries: u64) -> NewBatch {
        let entry = |number| NewEntry {
            kind: Kind::Data,
            writer: WriterId::new(5),
            sequence: Sequence::new(number),
            payload: payload.clone(),
            payload_crc: crc,
        };
        let batch = NewBatch {
            log_id: self.next,
            offset: self.offset,
            entries: (self.sequence..self.sequence + entries).map(entry).collect(),
        };
        self.sequence += entries;
        self.next.index = self.next.index.next();
        self.offset += Length::new(entries * (payload.len() + OVERHEAD) as u64);
        batch
    }

    /// Prepares the next segment, as the node does beside its writer.
    pub fn prepare(&mut self) {
        while self.open.keeper.prepare_step().expect("prepared") == Prepared::More {}
    }

    /// All of it is committed: where the next recovery begins.
    pub fn mark(&mut self) {
        let mark = Mark { index: self.open.writer.last().index, offset: self.open.writer.end() };
        self.open.meta.save_mark(mark).expect("saved");
        self.open.meta.sync().expect("synced");
    }
}

/// Bytes that nothing on the way gains from.
pub fn random(length: usize) -> (Bytes, u32) {
    let mut bytes = vec![0; length];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    let crc = loglog_proto::crc32c(&bytes);
    (Bytes::from(bytes), crc)
}

/// A folder on the disk below the target directory: the temporary one may be in memory.
pub fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk")
}
