//! A file: as the process sees it, as the disk has it, and what lies between.
//!
//! Owns:   the writes not yet synced, in order.
//! Keeps:  `now` is `durable` after all of `ops`.
//! Never:  promises more than POSIX: a power cut may keep any page of any moment since the last sync.

use std::collections::BTreeSet;

use rand::Rng;

use super::Survival;
use super::pages::{PAGE, Page, Pages, SECTOR, touched};
use crate::error::to_usize;

/// A change of a file that is not yet durable.
#[derive(Clone, Debug)]
pub(super) enum FileOp {
    Write { pos: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl FileOp {
    fn apply(&self, to: &mut Pages) {
        match self {
            Self::Write { pos, bytes } => to.write(bytes, *pos),
            Self::SetLen(len) => to.set_len(*len),
        }
    }

    /// Changes one page as the operation does. False where it does not touch it.
    fn apply_to_page(&self, number: u64, page: &mut Page) -> bool {
        let start = number * PAGE as u64;
        let end = start + PAGE as u64;
        match self {
            Self::Write { pos, bytes } => {
                let (from, to) = ((*pos).max(start), (*pos + bytes.len() as u64).min(end));
                if from >= to {
                    return false;
                }
                let source = &bytes[to_usize(from - pos)..to_usize(to - pos)];
                page[to_usize(from - start)..to_usize(to - start)].copy_from_slice(source);
                true
            }
            Self::SetLen(len) => {
                if *len < end {
                    page[to_usize(len.saturating_sub(start))..].fill(0);
                }
                *len < end
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) now: Pages,
    durable: Pages,
    /// With the number of each among all operations of the file system.
    ops: Vec<(u64, FileOp)>,
    /// Open files.
    pub(super) handles: usize,
}

impl Inode {
    /// A file whose bytes are durable.
    pub(super) fn planted(bytes: &[u8]) -> Self {
        let mut now = Pages::default();
        now.write(bytes, 0);
        Self { durable: now.clone(), now, ops: Vec::new(), handles: 0 }
    }

    pub(super) fn apply(&mut self, number: u64, op: FileOp) {
        op.apply(&mut self.now);
        self.ops.push((number, op));
    }

    /// The numbers of the operations that are not durable.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> + '_ {
        self.ops.iter().map(|(number, _)| *number)
    }

    /// What was written since the last sync reaches the disk, and the length.
    pub(super) fn sync_all(&mut self) {
        for number in self.dirty() {
            self.durable.put(number, self.now.share(number));
        }
        self.durable.set_len(self.now.len());
        self.ops.clear();
    }

    /// As `sync_all`, but a length that has shrunk stays as it was on the disk, and so do the bytes behind it.
    pub(super) fn sync_data(&mut self) {
        let (old_len, new_len) = (self.durable.len(), self.now.len());
        if new_len >= old_len {
            return self.sync_all();
        }
        let behind = self.durable.to_vec().split_off(to_usize(new_len));
        self.sync_all();
        self.durable.write(&behind, new_len);
        self.ops = vec![(0, FileOp::SetLen(new_len))];
    }

    /// The pages that differ from the disk because of an operation.
    fn dirty(&self) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::new();
        for (_, op) in &self.ops {
            match op {
                FileOp::Write { pos, bytes } => numbers.extend(touched(*pos, bytes.len())),
                FileOp::SetLen(len) => {
                    numbers.extend(self.durable.numbers().filter(|n| (n + 1) * PAGE as u64 > *len))
                }
            }
        }
        numbers
    }

    /// The sync failed: the pages count as clean, and are not on the disk.
    pub(super) fn forget_unsynced(&mut self) {
        self.ops.clear();
    }

    /// Changes what process and disk have, at once.
    pub(super) fn corrupt(&mut self, pos: u64, mask: u8) {
        for pages in [&mut self.now, &mut self.durable] {
            let mut byte = [0];
            if pages.read(&mut byte, pos) == 1 {
                pages.write(&[byte[0] ^ mask], pos);
            }
        }
    }

    /// The power goes: what is on the disk is all there is from now on. `cutoff` is for [`Survival::Prefix`].
    pub(super) fn power_cut(&mut self, survival: Survival, cutoff: u64, rng: &mut impl Rng) {
        match survival {
            Survival::None => {}
            Survival::All => self.durable = self.now.clone(),
            Survival::Prefix => {
                for (number, op) in &self.ops {
                    if *number < cutoff {
                        op.apply(&mut self.durable);
                    } else if *number == cutoff {
                        partly(op, rng).apply(&mut self.durable);
                    }
                }
            }
            Survival::RandomSubset => self.durable = self.random_image(rng),
        }
        self.now = self.durable.clone();
        self.ops.clear();
        self.handles = 0;
    }

    /// Every page, or every sector of it, as it was at some moment since the last sync; the length likewise.
    fn random_image(&self, rng: &mut impl Rng) -> Pages {
        let mut lengths = vec![self.durable.len()];
        for (_, op) in &self.ops {
            let before = lengths[lengths.len() - 1];
            lengths.push(match op {
                FileOp::Write { pos, bytes } => before.max(pos + bytes.len() as u64),
                FileOp::SetLen(len) => *len,
            });
        }
        let mut image = self.durable.clone();
        for number in self.dirty() {
            let mut page = self.moment(number, rng);
            match rng.random_range(0..8) {
                0 | 1 => {
                    let other = self.moment(number, rng);
                    for sector in (0..PAGE).step_by(SECTOR) {
                        if rng.random() {
                            page[sector..sector + SECTOR].copy_from_slice(&other[sector..sector + SECTOR]);
                        }
                    }
                }
                2 => self.tear(number, &mut page, rng),
                _ => {}
            }
            image.write(&page, number * PAGE as u64);
        }
        let len = lengths[rng.random_range(0..lengths.len())];
        let full = image.len();
        image.set_len(len.min(full));
        image.set_len(len);
        image
    }

    /// The disk was in the middle of this page, at some byte of those that change.
    fn tear(&self, number: u64, page: &mut Page, rng: &mut impl Rng) {
        let other = self.moment(number, rng);
        let differs = |at: &usize| page[*at] != other[*at];
        if let (Some(first), Some(last)) = ((0..PAGE).find(differs), (0..PAGE).rfind(differs)) {
            let at = rng.random_range(first..=last);
            page[at..].copy_from_slice(&other[at..]);
        }
    }

    /// A page after some number of the operations that touched it.
    fn moment(&self, number: u64, rng: &mut impl Rng) -> Page {
        let mut page = *self.durable.page(number);
        let mut moments = vec![page];
        for (_, op) in &self.ops {
            if op.apply_to_page(number, &mut page) {
                moments.push(page);
            }
        }
        moments[rng.random_range(0..moments.len())]
    }
}

/// The first bytes of a write, to a page's end.
fn partly(op: &FileOp, rng: &mut impl Rng) -> FileOp {
    match op {
        FileOp::Write { pos, bytes } => {
            let page = PAGE as u64;
            let end = (pos + rng.random_range(0..=bytes.len() as u64)) / page * page;
            let kept = to_usize(end.saturating_sub(*pos));
            FileOp::Write { pos: *pos, bytes: bytes[..kept].to_vec() }
        }
        FileOp::SetLen(len) => FileOp::SetLen(*len),
    }
}
