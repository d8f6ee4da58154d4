//! Changes to a directory, as a fuzzer's bytes say: some blind, some that keep checksums right and so get deep.
//!
//! Owns:   the changes. They know the format by heart (docs/format.md), since the product writes none of this.

use loglog_proto::entry::{Kind, Prefix, encode_into};
use loglog_proto::header::{HEADER, SegmentHeader};
use loglog_proto::{ClusterId, Index, Offset, Sequence, Term, WriterId};

use crate::base::Files;
use crate::input::Input;

/// The largest file that changes make, bytes: more of the same finds nothing more.
const FILE_MAX: usize = 48 << 10;
/// The most changes to one directory.
const CHANGES_MAX: usize = 12;

const SLOT: usize = 16 << 10;
const MARKS: usize = 2 * SLOT;

/// Changes the files until the bytes run out.
pub fn alter(files: &mut Files, input: &mut Input<'_>) {
    for _ in 0..CHANGES_MAX {
        if change(files, input).is_none() {
            break;
        }
    }
    for bytes in files.values_mut() {
        bytes.truncate(FILE_MAX);
    }
}

fn change(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    match input.u8()? % 16 {
        0 => {
            let (bytes, at) = place(files, input)?;
            let mask = input.u8()?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        1 => {
            let (bytes, at) = place(files, input)?;
            bytes.truncate(at);
        }
        2 => {
            let bytes = pick(files, input)?;
            let more = usize::from(input.u8()?) * 8;
            bytes.resize(bytes.len() + more, 0);
        }
        3 => {
            let (bytes, at) = place(files, input)?;
            let end = (at + usize::from(input.u8()?)).min(bytes.len());
            bytes[at.min(end)..end].fill(0);
        }
        4 => {
            let name = name(files, input)?;
            files.remove(&name);
        }
        5 | 6 => header(files, input)?,
        7..=9 => entry(files, input)?,
        10 => mark(files, input)?,
        11 | 12 => slot(files, input)?,
        13 => {
            let (bytes, at) = place(files, input)?;
            overwrite(bytes, at, input.short()?);
        }
        14 => {
            let (from, to) = (name(files, input)?, new_name(input)?);
            let bytes = files.get(&from)?.clone();
            files.insert(to, bytes);
        }
        _ => {
            let (to, bytes) = (new_name(input)?, input.short()?);
            files.insert(to, bytes.to_vec());
        }
    }
    Some(())
}

fn name(files: &Files, input: &mut Input<'_>) -> Option<String> {
    let at = usize::from(input.u8()?);
    files.keys().nth(at % files.len().max(1)).cloned()
}

fn new_name(input: &mut Input<'_>) -> Option<String> {
    let kind = input.u8()?;
    Some(match kind % 9 {
        0 | 1 => format!("{:016x}.seg", input.number(100)?),
        2 => format!("install-{:016x}.tmp", input.number(100)?),
        3 => format!("segment-{}.tmp", input.number(0)?),
        4 => format!("torn-{:016x}-{}.bak", input.number(100)?, kind / 9),
        5 => "meta".to_owned(),
        6 => "meta.tmp".to_owned(),
        7 => "writers".to_owned(),
        _ => "notes.txt".to_owned(),
    })
}

fn pick<'f>(files: &'f mut Files, input: &mut Input<'_>) -> Option<&'f mut Vec<u8>> {
    let name = name(files, input)?;
    files.get_mut(&name)
}

/// A file, and a place in it.
fn place<'f>(files: &'f mut Files, input: &mut Input<'_>) -> Option<(&'f mut Vec<u8>, usize)> {
    let bytes = pick(files, input)?;
    let at = usize::from(input.u16()?) % (bytes.len() + 1);
    Some((bytes, at))
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    if bytes.len() < at + with.len() {
        bytes.resize(at + with.len(), 0);
    }
    bytes[at..at + with.len()].copy_from_slice(with);
}

/// A segment's header with one field changed; a new one where there is none.
fn header(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    let bytes = pick(files, input)?;
    let mut header = SegmentHeader::decode(bytes).unwrap_or(SegmentHeader {
        cluster: ClusterId::new(0xabcd)?,
        base_offset: Offset::ZERO,
        base_index: Index::new(2),
        term: Term::new(1),
        previous_term: Term::new(1),
    });
    match input.u8()? % 5 {
        0 => header.base_offset = Offset::new(input.number(header.base_offset.get())?),
        1 => header.base_index = Index::new(input.number(header.base_index.get())?),
        2 => header.term = Term::new(input.number_u32(header.term.get())?),
        3 => header.previous_term = Term::new(input.number_u32(header.previous_term.get())?),
        _ => header.cluster = ClusterId::new(input.number(0xabcd)?)?,
    }
    overwrite(bytes, 0, &header.encode());
    Some(())
}

/// An entry that is sound in itself, at any place of a segment.
fn entry(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    let bytes = pick(files, input)?;
    let header = SegmentHeader::decode(bytes).ok()?;
    let how = input.u8()?;
    let at = match how & 0x30 {
        0 => usize::from(input.u16()?) % (bytes.len() + 1),
        0x10 => bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
        _ => bytes.len(),
    };
    let at = at.max(HEADER);
    let kind = [Kind::Data, Kind::Data, Kind::Noop, Kind::Control][usize::from(how & 3)];
    let term = if how & 8 == 0 { header.term } else { Term::new(input.number_u32(header.term.get())?) };
    let (writer, sequence) =
        if how & 0x40 == 0 { (5, 1000) } else { (input.number(5)?, input.number(1000)?) };
    let payload = input.short()?;
    let prefix = Prefix {
        kind,
        last_of_batch: how & 4 == 0,
        payload_len: u32::try_from(payload.len()).ok()?,
        term,
        writer: WriterId::new(writer),
        sequence: Sequence::new(sequence),
    };
    let offset = header.base_offset.get().checked_add((at - HEADER) as u64)?;
    let mut framed = Vec::new();
    encode_into(&mut framed, Offset::new(offset), &prefix, payload, crc32c::crc32c(payload));
    overwrite(bytes, at, &framed);
    Some(())
}

fn mark(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    let bytes = files.get_mut("meta")?;
    let page = MARKS + usize::from(input.u8()? & 1) * 4096;
    bytes.resize(bytes.len().max(MARKS + 8192), 0);
    for at in [page + 8, page + 16, page + 24] {
        let old = u64_at(bytes, at)?;
        bytes[at..at + 8].copy_from_slice(&input.number(old)?.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[page..page + 32]);
    bytes[page + 32..page + 36].copy_from_slice(&crc.to_le_bytes());
    Some(())
}

/// One field of a slot of `meta`.
fn slot(files: &mut Files, input: &mut Input<'_>) -> Option<()> {
    /// Where each field begins, and its bytes.
    const FIELDS: [(usize, usize); 14] = [
        (8, 8),
        (24, 8),
        (32, 4),
        (36, 4),
        (40, 4),
        (44, 4),
        (48, 8),
        (56, 8),
        (64, 8),
        (72, 4),
        (76, 8),
        (84, 8),
        (92, 8),
        (100, 8),
    ];
    let bytes = files.get_mut("meta")?;
    let which = input.u8()?;
    let slot = bytes.get_mut(usize::from(which & 1) * SLOT..)?;
    for _ in 0..=(which >> 6) {
        let (at, len) = FIELDS[usize::from(input.u8()?) % FIELDS.len()];
        let mut old = [0; 8];
        old[..len].copy_from_slice(slot.get(at..at + len)?);
        let new = input.number(u64::from_le_bytes(old))?;
        slot[at..at + len].copy_from_slice(&new.to_le_bytes()[..len]);
    }
    let body = u32::from_le_bytes(*slot.get(16..)?.first_chunk()?) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(slot.get(..20)?), slot.get(24..24 + body.min(SLOT))?);
    slot[20..24].copy_from_slice(&crc.to_le_bytes());
    Some(())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
