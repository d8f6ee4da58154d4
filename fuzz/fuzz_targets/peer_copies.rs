//! Log bytes that another node sends, into a damaged log (repair) and in place of it (snapshot): any bytes at all.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use loglog_core::copies;
use loglog_fuzz::base::{self, DIR, Files, GROUP};
use loglog_fuzz::input::Input;
use loglog_fuzz::{alter, look};
use loglog_proto::header::SegmentHeader;
use loglog_proto::peer::{Copy, Locate};
use loglog_proto::{Index, LogId, Offset, RequestId, Term};
use loglog_storage::vfs::SimVfs;
use loglog_storage::{DataDir, Installer, LogStart, MetaState, OpenError, OpenOptions, Recovered, Vfs};

fn lock(sim: &SimVfs) -> DataDir {
    let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
    DataDir::lock(vfs, Path::new(DIR)).expect("nobody else has it")
}

/// The peer's segments: header and bytes, whatever they are.
fn segments(files: &Files) -> impl Iterator<Item = (SegmentHeader, &[u8])> {
    let named = files.iter().filter(|(name, _)| name.ends_with(".seg"));
    named.filter_map(|(_, bytes)| Some((SegmentHeader::decode(bytes).ok()?, bytes.get(64..)?)))
}

/// Repairs as long as the peer has something that fits.
fn repair(sim: &SimVfs, peer: &Files) {
    let dir = lock(sim);
    for _ in 0..4 {
        let Err(OpenError::Corrupt { gap, .. }) = dir.open_with(OpenOptions::default(), GROUP) else {
            return;
        };
        let fits = |header: &SegmentHeader| header.base_offset <= gap.offset;
        let Some((header, bytes)) = segments(peer).filter(|(header, _)| fits(header)).last() else { return };
        let Ok(mut repair) = dir.repair(header, gap.offset) else { return };
        let skipped = (gap.offset - header.base_offset).as_usize().min(bytes.len());
        if repair.append(&bytes[skipped..]).is_err() || repair.end() == gap.offset {
            return;
        }
        repair.finish().expect("a disk without faults");
    }
}

/// Installs what the peer sends as a snapshot; says whether it was taken.
fn install(sim: &SimVfs, peer: &Files, input: &mut Input<'_>) -> Option<bool> {
    let dir = lock(sim);
    let Ok(found) = dir.open_with(OpenOptions::default(), GROUP) else { return None };
    let ours = found.meta.state().clone();
    let first = segments(peer).next().map(|(header, _)| header)?;
    let start = LogStart {
        offset: Offset::new(input.number(first.base_offset.get())?),
        index: Index::new(input.number(first.base_index.get())?),
        previous_term: Term::new(input.number_u32(first.previous_term.get())?),
    };
    let mut installer = dir.install(MetaState { start, ..ours }).expect("a disk without faults");
    send(&mut installer, peer)?;
    let end = Offset::new(input.number(installer.end().get())?);
    let last = LogId {
        term: Term::new(input.number_u32(first.term.get())?),
        index: Index::new(input.number(first.base_index.get())?),
    };
    let Recovered { reader, .. } = found;
    Some(dir.finish_install(installer, last, end, &reader).is_ok())
}

fn send(installer: &mut Installer, peer: &Files) -> Option<()> {
    for (header, bytes) in segments(peer) {
        installer.segment(header).ok()?;
        installer.append(bytes).ok()?;
    }
    Some(())
}

/// Answers a peer that asks for anything.
fn serve(sim: &SimVfs, input: &mut Input<'_>) -> Option<()> {
    let Ok(found) = lock(sim).open_with(OpenOptions::default(), GROUP) else { return None };
    let id = RequestId::new(1);
    let (index, offset) = (found.last.index.get(), found.end.get());
    let copy = Copy {
        id,
        first: Index::new(input.number(index)?),
        last: LogId {
            term: Term::new(input.number_u32(found.last.term.get())?),
            index: Index::new(input.number(index)?),
        },
        offset: Offset::new(input.number(offset)?),
        limit: input.number(100)?,
    };
    if let Ok(copied) = copies::copy(&found.reader, copy) {
        assert!(found.reader.holds(copy.last) && copied.offset == copy.offset && !copied.bytes.is_empty());
        loglog_core::chunk::Chunk::check(&copy, copied).expect("what one node sends another takes");
    }
    let locate = Locate { id, index: Index::new(input.number(index)?) };
    let _ = copies::locate(&found.reader, Index::new(input.number(index)?), locate);
    Some(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (Some(ours), Some(theirs), Some(split)) = (input.u8(), input.u8(), input.u8()) else { return };
    let (ours, mut peer) = (base::files(ours), base::files(theirs));
    let mut damaged = ours;
    let Some(damage) = input.take(usize::from(split).min(input.0.len())) else { return };
    alter::alter(&mut damaged, &mut Input(damage));
    let sim = base::plant(&damaged);
    let requests = input.take(input.0.len() / 2).unwrap_or_default();
    alter::alter(&mut peer, &mut input);
    let mut requests = Input(requests);
    serve(&sim, &mut requests);
    repair(&sim, &peer);
    install(&sim, &peer, &mut requests);
    look::look(&sim);
});
