//! A file's content in pages, cheap to copy.
//!
//! Owns:   the bytes of one state of a file. Pages that hold only zeros need not exist.
//! Keeps:  bytes behind the length are zeros.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::to_usize;

/// What a disk writes as a whole, or not at all, if we are lucky.
pub(super) const PAGE: usize = 4096;
/// What it writes as a whole even if we are not.
pub(super) const SECTOR: usize = 512;

pub(super) type Page = [u8; PAGE];

pub(super) const ZERO_PAGE: Page = [0; PAGE];

#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// The pages that `pos..pos + len` touches.
pub(super) fn touched(pos: u64, len: usize) -> std::ops::Range<u64> {
    let page = PAGE as u64;
    pos / page..(pos + len as u64).div_ceil(page)
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The numbers of all pages that may hold anything but zeros.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }

    pub(super) fn page(&self, number: u64) -> &Page {
        self.pages.get(&number).map_or(&ZERO_PAGE, |page| page)
    }

    pub(super) fn share(&self, number: u64) -> Option<Arc<Page>> {
        self.pages.get(&number).cloned()
    }

    pub(super) fn put(&mut self, number: u64, page: Option<Arc<Page>>) {
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }

    pub(super) fn read(&self, into: &mut [u8], pos: u64) -> usize {
        let n = to_usize(self.len.saturating_sub(pos).min(into.len() as u64));
        let mut done = 0;
        while done < n {
            let at = pos + done as u64;
            let within = to_usize(at % PAGE as u64);
            let some = (PAGE - within).min(n - done);
            into[done..done + some].copy_from_slice(&self.page(at / PAGE as u64)[within..within + some]);
            done += some;
        }
        n
    }

    pub(super) fn write(&mut self, bytes: &[u8], pos: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = pos + done as u64;
            let within = to_usize(at % PAGE as u64);
            let some = (PAGE - within).min(bytes.len() - done);
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| Arc::new(ZERO_PAGE));
            Arc::make_mut(page)[within..within + some].copy_from_slice(&bytes[done..done + some]);
            done += some;
        }
        self.len = self.len.max(pos + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let kept = len.div_ceil(PAGE as u64);
            self.pages.split_off(&kept);
            if !len.is_multiple_of(PAGE as u64)
                && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
            {
                Arc::make_mut(page)[to_usize(len % PAGE as u64)..].fill(0);
            }
        }
        self.len = len;
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(self.len)];
        self.read(&mut bytes, 0);
        bytes
    }
}
