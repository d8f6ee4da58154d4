//! Data directories that are whole: what the fuzzer changes.
//!
//! Owns:   a few shapes of small logs, written by the real writer once a process.
//! Keeps:  G is small, so that an entry beyond a write group is not far away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use loglog_core::control::Control;
use loglog_proto::entry::Kind;
use loglog_proto::{
    ClusterId, Incarnation, Index, Length, LogId, NodeId, Offset, RaftId, Sequence, Term, WriterId,
};
use loglog_storage::vfs::SimVfs;
use loglog_storage::{
    DataDir, LogStart, Mark, Member, Membership, MetaState, NewBatch, NewEntry, OpenOptions, Vfs,
};

/// Where the directory lies.
pub const DIR: &str = "/d";
/// G of all these directories.
pub const GROUP: Length = Length::new(1000);

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A log to be made.
struct Shape {
    limit: u64,
    /// For each batch its term and the sizes of its payloads; none for a control entry.
    batches: &'static [(u32, &'static [usize])],
    marked: usize,
    /// Whether the first segment is trimmed.
    trimmed: bool,
}

/// One payload that makes an entry of 100 bytes.
const SINGLE: &[usize] = &[68];

const SHAPES: [Shape; 6] = [
    Shape { limit: 10_000, batches: &[], marked: 0, trimmed: false },
    Shape { limit: 10_000, batches: &[(1, &[8])], marked: 0, trimmed: false },
    Shape {
        limit: 200,
        batches: &[(1, &[20, 30, 0]), (1, &[20]), (1, &[]), (2, &[10, 1]), (2, &[100])],
        marked: 3,
        trimmed: false,
    },
    Shape { limit: 100_000, batches: &[(1, SINGLE); 14], marked: 2, trimmed: false },
    Shape {
        limit: 150,
        batches: &[(1, &[68]), (1, &[68]), (3, &[68]), (3, &[]), (3, &[4, 4]), (5, &[68])],
        marked: 4,
        trimmed: true,
    },
    Shape {
        limit: 300,
        batches: &[(1, &[68]), (1, &[5]), (2, &[68]), (2, &[68]), (2, &[68])],
        marked: 5,
        trimmed: false,
    },
];

/// A new cluster of one, whose segments close at `limit` bytes.
#[must_use]
pub fn genesis(limit: u64) -> MetaState {
    let id = RaftId::new(NodeId::new(1).expect("not zero"), Incarnation::new(77).expect("not zero"));
    let member = Member { id, peer_address: "h:2".to_owned(), client_address: "h:1".to_owned() };
    MetaState {
        cluster: ClusterId::new(0xabcd).expect("not zero"),
        node: id.node(),
        incarnation: id.incarnation(),
        term: Term::new(5),
        vote: None,
        membership: Membership { index: Index::new(1), voters: vec![member], learners: vec![] },
        start: LogStart::GENESIS,
        segment_bytes_max: Length::new(limit),
    }
}

/// A batch of data with payloads of these sizes; of none, a control entry.
#[must_use]
pub fn batch(log_id: LogId, offset: Offset, sizes: &[usize]) -> NewBatch {
    let entry = |kind, sequence, payload: Bytes| {
        let payload_crc = crc32c::crc32c(&payload);
        let writer = if kind == Kind::Data { WriterId::new(5) } else { WriterId::NONE };
        NewEntry { kind, writer, sequence: Sequence::new(sequence), payload, payload_crc }
    };
    let data = |(at, size): (usize, &usize)| {
        let byte = log_id.index.get().wrapping_mul(31).wrapping_add(at as u64 * 7) as u8 | 1;
        entry(
            Kind::Data,
            log_id.index.get().wrapping_mul(100).wrapping_add(at as u64),
            vec![byte; *size].into(),
        )
    };
    let mut entries: Vec<NewEntry> = sizes.iter().enumerate().map(data).collect();
    if entries.is_empty() {
        entries.push(entry(Kind::Control, 0, Control::Trim(LogStart::GENESIS).encode()));
    }
    NewBatch { log_id, offset, entries }
}

/// Bytes of a batch in the log.
#[must_use]
pub fn batch_len(batch: &NewBatch) -> Length {
    Length::of(batch.entries.iter().map(|entry| entry.payload.len() + 32).sum())
}

/// One of the directories.
#[must_use]
pub fn files(which: u8) -> Files {
    static MADE: OnceLock<Vec<Files>> = OnceLock::new();
    let made = MADE.get_or_init(|| SHAPES.iter().map(make).collect());
    made[usize::from(which) % SHAPES.len()].clone()
}

fn make(shape: &Shape) -> Files {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let dir = DataDir::lock(vfs, Path::new(DIR)).expect("a new directory");
    dir.form(&genesis(shape.limit)).expect("formed");
    let mut log = dir.open_with(OpenOptions::default(), GROUP).expect("opened");
    let mut ends = Vec::new();
    for (term, sizes) in shape.batches {
        let log_id = LogId { term: Term::new(*term), index: log.writer.last().index.next() };
        let done = log.writer.write(&[batch(log_id, log.writer.end(), sizes)]).expect("written");
        ends.push(Mark { index: done.last.index, offset: done.end });
    }
    if let Some(mark) = shape.marked.checked_sub(1).map(|at| ends[at]) {
        log.meta.save_mark(mark).and_then(|()| log.meta.sync()).expect("saved");
    }
    if shape.trimmed {
        let segment = log.reader.segments()[1].header;
        let start = LogStart {
            offset: segment.base_offset,
            index: segment.base_index,
            previous_term: segment.previous_term,
        };
        let state = MetaState { start, ..log.meta.state().clone() };
        log.meta.save(state).expect("saved");
    }
    drop(log);
    read_back(&sim)
}

/// Every file of the directory.
#[must_use]
pub fn read_back(sim: &SimVfs) -> Files {
    let names = sim.list(Path::new(DIR)).expect("there").into_iter();
    let names = names.filter_map(|name| name.into_string().ok());
    names
        .map(|name| {
            let bytes = sim.contents(&Path::new(DIR).join(&name)).expect("there");
            (name, bytes)
        })
        .collect()
}

/// A disk that holds these files, durably.
#[must_use]
pub fn plant(files: &Files) -> SimVfs {
    let sim = SimVfs::new();
    sim.create_dir_all(Path::new(DIR)).expect("made");
    for (name, bytes) in files {
        sim.plant(&Path::new(DIR).join(name), bytes);
    }
    sim
}
