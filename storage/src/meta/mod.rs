//! `meta`: the little that a node must not forget beside the log itself.
//!
//! ```text
//!     save ──► the slot not chosen ──► sync ──► chosen         (term, vote, identity, membership, start)
//!     save_mark ──► its own page, no sync                      (the mark: the saved commit)
//! ```
//!
//! Owns:   the file `meta`.
//! Keeps:  one valid slot on the disk at any moment, one mark page too; term, start and mark never sink; a vote is
//!         never changed within its term.
//! Never:  writes a slot without a sync, or again after a failure (S2, S6).

mod format;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use loglog_proto::Index;

use self::format::{MARKS_AT, META_BYTES, MarkPage, PAGE, SLOT, Slot, newer};
pub use self::state::{LogStart, Mark, Member, Membership, MetaState};
use crate::error::{IoFailure, Meant};
use crate::names;
use crate::shared::Shared;
use crate::vfs::{OpenMode, Vfs, VfsFile, read_full_at};

/// Why `meta` was not written.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The members' addresses do not fit. Nothing was written.
    #[error("membership does not fit into the {max} bytes that meta has for it")]
    TooLarge {
        /// Bytes of a slot.
        max: usize,
    },
    /// A write or sync failed. Final (S2).
    #[error(transparent)]
    Failed(#[from] IoFailure),
    /// An earlier write or sync had failed.
    #[error("meta is closed since an earlier failure: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
}

/// Why `meta` could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaOpenError {
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// Neither slot, or neither mark, is valid.
    #[error("{detail}")]
    Corrupt { path: PathBuf, offset: u64, detail: String },
}

/// The open file `meta`.
#[derive(Debug)]
pub struct Meta {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    slot: Slot,
    /// Where `slot` lies: 0 or 1.
    slot_at: usize,
    /// Whether the other slot says the same.
    is_mirrored: bool,
    mark: MarkPage,
    /// The page to which marks go until the next sync. The other holds the last synced one.
    mark_at: usize,
    mark_unsynced: bool,
    poison: Option<String>,
    /// Set once the log is open: what is durable bounds the mark.
    shared: Option<Arc<Shared>>,
}

/// What opening `meta` found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetaFindings {
    /// Slots that were neither valid nor empty.
    pub(crate) slots_invalid: u32,
    /// Mark pages that were not valid.
    pub(crate) marks_invalid: u32,
    /// A snapshot is past its point of no return (S25): its files are the log, once recovery has renamed them.
    pub(crate) is_installing: bool,
}

impl Meta {
    /// What was last saved.
    #[must_use]
    pub fn state(&self) -> &MetaState {
        &self.slot.state
    }

    /// The mark last given to [`Meta::save_mark`], synced or not.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark.mark
    }

    /// Writes and syncs `state` (S6), into one slot and then into the other. On return it is durable, and so is the mark last saved.
    ///
    /// # Errors
    /// [`MetaError`]; but for [`MetaError::TooLarge`] it is final.
    ///
    /// # Panics
    /// If `state` breaks what this file keeps: identity changed, term or start sunk, a vote changed within its term.
    pub fn save(&mut self, state: MetaState) -> Result<(), MetaError> {
        self.check_successor(&state);
        self.save_slot(state, self.slot.install)?;
        self.mirror()
    }

    /// Writes `mark` to its page, without a sync. A mark lower than the last is a broken promise.
    ///
    /// # Errors
    /// [`MetaError`], final.
    ///
    /// # Panics
    /// If the mark would sink, or pass what is durable on this node.
    pub fn save_mark(&mut self, mark: Mark) -> Result<(), MetaError> {
        self.alive()?;
        let old = self.mark.mark;
        assert!(mark.index >= old.index, "the mark's index never sinks: {} after {}", mark.index, old.index);
        assert!(
            mark.offset >= old.offset,
            "the mark's offset never sinks: {} after {}",
            mark.offset,
            old.offset
        );
        if let Some(shared) = &self.shared {
            let (last, end) = shared.durable();
            assert!(mark.index <= last.index, "the mark {} stays within what is durable, {last}", mark.index);
            assert!(mark.offset <= end, "the mark {} stays within what is durable, {end}", mark.offset);
        }
        if mark == old {
            return Ok(());
        }
        self.write_mark(mark)
    }

    /// Makes the mark durable.
    ///
    /// # Errors
    /// [`MetaError`], final.
    pub fn sync(&mut self) -> Result<(), MetaError> {
        self.alive()?;
        if self.mark_unsynced {
            let synced = self.file.sync_data();
            self.note(synced.meant("sync", &self.path))?;
            self.synced();
        }
        Ok(())
    }

    /// A mark page is overwritten only while the other one holds the last synced mark.
    fn write_mark(&mut self, mark: Mark) -> Result<(), MetaError> {
        let page = MarkPage { number: self.mark.number.wrapping_add(1), mark };
        let written = self.file.write_all_at(&page.encode(), mark_pos(self.mark_at));
        self.note(written.meant("write the mark to", &self.path))?;
        self.mark = page;
        self.mark_unsynced = true;
        Ok(())
    }

    /// Lowers the mark with a loss that its owner has accepted (S10), and the membership's index: the log ends with batch `last` now. Who
    /// the members are stays as it was last applied.
    pub(crate) fn accept_loss(&mut self, mark: Mark, last: Index) -> Result<(), MetaError> {
        if mark != self.mark.mark {
            self.write_mark(mark)?;
            self.sync()?;
        }
        let mut state = self.slot.state.clone();
        if state.membership.index > last {
            state.membership.index = last;
            self.save_slot(state, None)?;
        }
        self.mirror()
    }

    /// The other slot says the same from now on: a slot that rots later takes no vote, no members and no end of an installation with it.
    pub(crate) fn mirror(&mut self) -> Result<(), MetaError> {
        if !self.is_mirrored {
            self.save_slot(self.slot.state.clone(), self.slot.install)?;
            self.is_mirrored = true;
        }
        Ok(())
    }

    /// The snapshot past its point of no return (S25).
    pub(crate) fn install(&self) -> Option<Mark> {
        self.slot.install
    }

    /// The point of no return of a snapshot (S25).
    pub(crate) fn save_install(&mut self, state: MetaState, install: Option<Mark>) -> Result<(), MetaError> {
        self.check_successor(&state);
        self.save_slot(state, install)
    }

    /// The snapshot's files are in place: the mark first, synced, then the slot that forgets the installation.
    pub(crate) fn finish_install(&mut self, state: MetaState, mark: Mark) -> Result<(), MetaError> {
        assert!(mark >= self.mark.mark, "the mark never sinks");
        self.write_mark(mark)?;
        self.sync()?;
        self.save_slot(state, None)?;
        self.mirror()
    }

    pub(crate) fn watch(&mut self, shared: Arc<Shared>) {
        shared.note_saved_start(self.slot.state.start.offset);
        self.shared = Some(shared);
    }

    fn check_successor(&self, state: &MetaState) {
        let old = &self.slot.state;
        assert_eq!(state.cluster, old.cluster, "a directory keeps its cluster");
        assert_eq!(state.node, old.node, "a directory keeps its node");
        assert!(state.term >= old.term, "the term never sinks: {} after {}", state.term, old.term);
        let revoted = state.term == old.term && old.vote.is_some() && state.vote != old.vote;
        assert!(!revoted, "a vote is never changed within its term");
        assert!(state.start.offset >= old.start.offset, "the start never sinks");
        assert!(state.start.index >= old.start.index, "the start never sinks");
        assert!(state.membership.index >= old.membership.index, "the membership never goes back");
    }

    fn save_slot(&mut self, state: MetaState, install: Option<Mark>) -> Result<(), MetaError> {
        self.alive()?;
        let slot = Slot { number: self.slot.number.wrapping_add(1), state, install };
        let bytes = slot.encode().ok_or(MetaError::TooLarge { max: SLOT })?;
        let at = 1 - self.slot_at;
        let written = self.file.write_all_at(&bytes, slot_pos(at));
        self.note(written.meant("write a slot of", &self.path))?;
        let synced = self.file.sync_data();
        self.note(synced.meant("sync", &self.path))?;
        self.slot = slot;
        self.slot_at = at;
        self.is_mirrored = false;
        self.synced();
        if let Some(shared) = &self.shared {
            shared.note_saved_start(self.slot.state.start.offset);
        }
        Ok(())
    }

    /// Both pages are on the disk now: the next mark goes to the older one.
    fn synced(&mut self) {
        if self.mark_unsynced {
            self.mark_at = 1 - self.mark_at;
            self.mark_unsynced = false;
        }
    }

    fn alive(&self) -> Result<(), MetaError> {
        match &self.poison {
            Some(reason) => Err(MetaError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn note(&mut self, result: Result<(), IoFailure>) -> Result<(), MetaError> {
        if let Err(failure) = &result {
            self.poison.get_or_insert_with(|| failure.to_string());
        }
        Ok(result?)
    }

    /// Makes the file in `dir`: whole under a temporary name, then renamed, so that it is there or it is not.
    pub(crate) fn form(vfs: &dyn Vfs, dir: &Path, state: &MetaState) -> Result<(), MetaError> {
        let mut bytes = Vec::with_capacity(META_BYTES);
        for number in [1, 2] {
            let slot = Slot { number, state: state.clone(), install: None };
            bytes.extend_from_slice(&slot.encode().ok_or(MetaError::TooLarge { max: SLOT })?);
            bytes.resize(bytes.len().next_multiple_of(SLOT), 0);
        }
        for number in [1, 2] {
            bytes.extend_from_slice(&MarkPage { number, mark: state.start.mark() }.encode());
        }
        assert_eq!(bytes.len(), META_BYTES, "slots and marks fill the file");
        let temporary = dir.join(names::META_TEMPORARY);
        let path = dir.join(names::META);
        if vfs.exists(&temporary).meant("look for", &temporary)? {
            vfs.remove(&temporary).meant("remove", &temporary)?;
        }
        let file = vfs.open(&temporary, OpenMode::CreateNew).meant("create", &temporary)?;
        file.write_all_at(&bytes, 0).meant("write", &temporary)?;
        file.sync_all().meant("sync", &temporary)?;
        vfs.rename(&temporary, &path).meant("rename to", &path)?;
        vfs.sync_dir(dir).meant("sync", dir)?;
        Ok(())
    }

    /// Reads the file, then rewrites and syncs what it chose: the page cache is not the disk (S8).
    pub(crate) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        accept_loss: bool,
    ) -> Result<(Self, MetaFindings), MetaOpenError> {
        let path = dir.join(names::META);
        let file = vfs.open(&path, OpenMode::ReadWrite).meant("open", &path)?;
        let contents = Contents::read(&*file, &path)?;
        let (slot_at, slot) = contents.chosen_slot(&path)?;
        let (mark_at, mark) = match contents.chosen_mark(slot.state.start) {
            Some(chosen) => chosen,
            None if accept_loss => (0, MarkPage { number: 0, mark: slot.state.start.mark() }),
            None => {
                let detail = "neither mark page is valid".to_owned();
                return Err(MetaOpenError::Corrupt { path, offset: MARKS_AT as u64, detail });
            }
        };
        check_install(&slot, Some(mark.mark), &path)?;
        let bytes = slot.encode().ok_or_else(|| MetaOpenError::Corrupt {
            path: path.clone(),
            offset: slot_pos(slot_at),
            detail: "a slot that does not fit".to_owned(),
        })?;
        file.write_all_at(&bytes, slot_pos(slot_at)).meant("rewrite the chosen slot of", &path)?;
        file.write_all_at(&mark.encode(), mark_pos(mark_at)).meant("rewrite the mark in", &path)?;
        file.sync_data().meant("sync", &path)?;
        let findings = contents.findings();
        let meta = Self {
            file,
            path,
            is_mirrored: contents.are_slots_alike(),
            slot,
            slot_at,
            mark,
            mark_at: 1 - mark_at,
            mark_unsynced: false,
            poison: None,
            shared: None,
        };
        Ok((meta, findings))
    }

    /// State and mark as they lie on the disk, without touching them.
    pub(crate) fn peek(
        vfs: &dyn Vfs,
        path: &Path,
    ) -> Result<(MetaState, Option<Mark>, MetaFindings), MetaOpenError> {
        let file = vfs.open(path, OpenMode::Read).meant("open", path)?;
        let contents = Contents::read(&*file, path)?;
        let (_, slot) = contents.chosen_slot(path)?;
        let mark = contents.chosen_mark(slot.state.start).map(|(_, page)| page.mark);
        check_install(&slot, mark, path)?;
        let findings = MetaFindings { is_installing: slot.install.is_some(), ..contents.findings() };
        Ok((slot.state, mark, findings))
    }
}

/// A snapshot takes the place of a log that it goes beyond: any other would take away what was committed.
fn check_install(slot: &Slot, mark: Option<Mark>, path: &Path) -> Result<(), MetaOpenError> {
    match (slot.install, mark) {
        (Some(install), Some(mark)) if install < mark => Err(MetaOpenError::Corrupt {
            path: path.to_owned(),
            offset: 0,
            detail: format!(
                "it installs a snapshot up to batch {}, behind the mark {}",
                install.index, mark.index
            ),
        }),
        _ => Ok(()),
    }
}

fn slot_pos(at: usize) -> u64 {
    (at * SLOT) as u64
}

fn mark_pos(at: usize) -> u64 {
    (MARKS_AT + at * PAGE) as u64
}

/// Slots and marks as read.
struct Contents {
    slots: [Result<Slot, &'static str>; 2],
    marks: [Option<MarkPage>; 2],
}

impl Contents {
    fn read(file: &dyn VfsFile, path: &Path) -> Result<Self, IoFailure> {
        let mut bytes = vec![0; META_BYTES];
        let found = read_full_at(file, &mut bytes, 0).meant("read", path)?;
        bytes.truncate(found);
        let part = |from: usize, len: usize| bytes.get(from..(from + len).min(found)).unwrap_or_default();
        Ok(Self {
            slots: [Slot::decode(part(0, SLOT)), Slot::decode(part(SLOT, SLOT))],
            marks: [MarkPage::decode(part(MARKS_AT, PAGE)), MarkPage::decode(part(MARKS_AT + PAGE, PAGE))],
        })
    }

    fn chosen_slot(&self, path: &Path) -> Result<(usize, Slot), MetaOpenError> {
        let valid = self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.as_ref().ok()?)));
        match valid.max_by(|(_, one), (_, other)| newer(one.number, other.number)) {
            Some((at, slot)) => Ok((at, slot.clone())),
            None => {
                let why =
                    |slot: &Result<Slot, &'static str>| slot.as_ref().err().copied().unwrap_or_default();
                let (first, second) = (why(&self.slots[0]), why(&self.slots[1]));
                let detail = format!("neither slot is valid (first: {first}; second: {second})");
                Err(MetaOpenError::Corrupt { path: path.to_owned(), offset: 0, detail })
            }
        }
    }

    fn are_slots_alike(&self) -> bool {
        let [Ok(first), Ok(second)] = &self.slots else { return false };
        first.state == second.state && first.install == second.install
    }

    fn chosen_mark(&self, start: LogStart) -> Option<(usize, MarkPage)> {
        let valid = self.marks.iter().enumerate().filter_map(|(at, page)| Some((at, (*page)?)));
        let valid = valid.filter(|(_, page)| start.admits(page.mark));
        valid.max_by(|(_, one), (_, other)| newer(one.number, other.number))
    }

    fn findings(&self) -> MetaFindings {
        let invalid_slot = |slot: &&Result<Slot, &'static str>| slot.is_err();
        let slots_invalid =
            u32::from(invalid_slot(&&self.slots[0])) + u32::from(invalid_slot(&&self.slots[1]));
        let marks_invalid = u32::from(self.marks[0].is_none()) + u32::from(self.marks[1].is_none());
        MetaFindings { slots_invalid, marks_invalid, is_installing: false }
    }
}
