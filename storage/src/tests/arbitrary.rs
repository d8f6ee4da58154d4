//! Bytes from the disk never panic, whatever they are.

use std::path::Path;
use std::sync::Arc;

use loglog_proto::header::SegmentHeader;
use loglog_proto::{Index, Length, Offset, Term};
use proptest::prelude::*;

use super::kit::{Chain, framed, genesis, open};
use crate::vfs::SimVfs;
use crate::{DataDir, Mark, NewBatch, OpenError, OpenOptions, Vfs, inspect_on};

const D: &str = "/d";

fn segment(base: u64) -> std::path::PathBuf {
    Path::new(D).join(crate::names::segment(Offset::new(base)))
}

/// A log of three segments, the mark in the second.
fn log() -> SimVfs {
    let sim = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let (_dir, mut log) = open(&vfs, Path::new(D), 500);
    let mut chain = Chain::new();
    let mut batches: Vec<NewBatch> = (0..8).map(|_| chain.next(1, &[20, 30, 0])).collect();
    batches.push(chain.next(2, &[100]));
    log.writer.write(&batches).unwrap();
    let (index, offset) = (batches[5].log_id.index.previous(), batches[5].offset);
    log.meta.save_mark(Mark { index, offset }).unwrap();
    sim
}

/// Looks at the directory in every way there is. A loss that is accepted ends in a log that opens.
fn look(sim: &SimVfs) {
    let group = Length::new(2000);
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    let report = crate::verify::verify_with(sim, Path::new(D), group).unwrap();
    let mut items = 0;
    inspect_on(sim, Path::new(D), &mut |_| {
        items += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(items >= 3);
    let dir = DataDir::lock(vfs, Path::new(D)).unwrap();
    let refused = match dir.open_with(OpenOptions::default(), group) {
        Ok(_) => false,
        Err(OpenError::Corrupt { .. }) => true,
        Err(OpenError::Meta { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    assert!(!refused || !report.is_sound(), "verify finds what recovery refuses: {:?}", report.findings);
    let found = dir.open_with(OpenOptions { accept_loss: true, ..OpenOptions::default() }, group).unwrap();
    let (end, last) = (found.end, found.last);
    let mut entries = 0;
    found.reader.scan(found.reader.start(), end, &mut |_| entries += 1).unwrap_or_else(|error| {
        // Sealed segments below the mark are not read at start.
        assert!(!report.is_sound(), "{error}");
    });
    drop(found);
    let again = dir.open_with(OpenOptions::default(), group).unwrap();
    assert_eq!((again.end, again.last), (end, last));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_segment_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3000), header in any::<bool>()) {
        let sim = log();
        let mut whole = Vec::new();
        if header {
            whole.extend_from_slice(&SegmentHeader {
                cluster: genesis(1).cluster, base_offset: Offset::ZERO, base_index: Index::new(2),
                term: Term::new(1), previous_term: Term::new(1),
            }.encode());
        }
        whole.extend_from_slice(&bytes);
        sim.plant(&segment(0), &whole);
        look(&sim);
    }

    #[test]
    fn arbitrary_meta_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3000), at in 0usize..40_960) {
        let sim = log();
        let meta = Path::new(D).join("meta");
        let mut whole = sim.contents(&meta).unwrap();
        let end = (at + bytes.len()).min(whole.len());
        whole[at..end].copy_from_slice(&bytes[..end - at]);
        sim.plant(&meta, &whole);
        look(&sim);
        sim.plant(&meta, &bytes);
        look(&sim);
    }

    #[test]
    fn changed_bytes(file in 0usize..3, cut in proptest::option::of(0usize..900),
        flips in proptest::collection::vec((0u64..900, 1u8..), 0..4),
        zeros in proptest::option::of((0usize..900, 1usize..200)),
    ) {
        let sim = log();
        let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
        let names: Vec<_> = vfs.list(Path::new(D)).unwrap().into_iter()
            .filter(|name| name.to_str().unwrap().ends_with(".seg")).collect();
        prop_assert_eq!(names.len(), 3);
        let path = Path::new(D).join(&names[file]);
        let mut bytes = sim.contents(&path).unwrap();
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        if let Some((at, n)) = zeros {
            let end = (at + n).min(bytes.len());
            bytes[at.min(end)..end].fill(0);
        }
        sim.plant(&path, &bytes);
        for (at, mask) in flips {
            sim.corrupt(&path, at, mask).unwrap();
        }
        look(&sim);
    }

    #[test]
    fn a_reader_at_any_offset_gets_the_bytes_of_the_file(
        sizes in proptest::collection::vec((0usize..600, 1u32..3), 1..20), from in any::<u64>(), max in 0usize..2000,
        committed in any::<u64>(),
    ) {
        let vfs: Arc<dyn Vfs> = Arc::new(SimVfs::new());
        let (_dir, mut log) = open(&vfs, Path::new(D), 700);
        let mut chain = Chain::new();
        let mut term = 1;
        let batches: Vec<NewBatch> = sizes.iter().map(|(size, step)| {
            term += step / 2;
            chain.next(term, &[*size])
        }).collect();
        log.writer.write(&batches).unwrap();
        let bytes: Vec<u8> = batches.iter().flat_map(framed).collect();
        let committed = usize::try_from(committed % (bytes.len() as u64 + 1)).unwrap();
        let from = usize::try_from(from % (committed as u64 + 1)).unwrap();
        let found = log.reader.read(Offset::new(from as u64), max, Offset::new(committed as u64)).unwrap();
        prop_assert!(found.len() <= max && from + found.len() <= committed);
        prop_assert_eq!(&found[..], &bytes[from..from + found.len()]);
        prop_assert_eq!(found.is_empty(), from == committed || max == 0);
        let place = log.reader.locate(Offset::new(from as u64), max, Offset::new(committed as u64)).unwrap();
        prop_assert_eq!(place.map_or(0, |place| place.len), found.len());
    }
}
