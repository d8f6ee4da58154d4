//! The nemesis: strikes machines, disks, links and clocks, within what the promises allow.
//!
//! Owns:   what is struck, when, and for how long.
//! Keeps:  bytes below a mark are damaged on a minority at a time only, and a node that lost them is not struck so again before it is
//!         whole: more than that nobody promised to survive.

use loglog_proto::header::HEADER;
use loglog_storage::vfs::{Fault as DiskFault, OpKind};
use rand::Rng;

use super::dials::{Fault, Group};
use super::node::{At, Event, State, Undo};
use super::queue::{MS, SECOND};
use super::world::World;

impl World {
    /// Something strikes, now and then.
    pub(super) fn strike(&mut self) {
        let pause = self.rng.random_range(200 * MS..6 * SECOND);
        self.queue.push(pause, Event::Nemesis);
        let strokes: Vec<Fault> =
            Fault::ALL.iter().copied().filter(|fault| fault.group() == Group::Stroke).collect();
        let fault = strokes[self.rng.random_range(0..strokes.len())];
        if self.chance(fault) {
            let at = self.rng.random_range(0..self.nodes.len());
            self.stroke(fault, at);
        }
    }

    fn stroke(&mut self, fault: Fault, at: At) {
        let is_alive = self.nodes[at].is_up();
        match fault {
            Fault::Partition | Fault::OneWay | Fault::Isolate => self.cut(fault),
            Fault::Kill if is_alive => {
                self.count(fault);
                self.end_life(at, None);
            }
            Fault::PowerCut if is_alive => {
                self.count(fault);
                let survival = self.draw_survival();
                self.end_life(at, Some(survival));
            }
            Fault::Blackout => {
                self.count(fault);
                let survival = self.draw_survival();
                for at in 0..self.nodes.len() {
                    if !self.nodes[at].is_gone() {
                        self.end_life(at, Some(survival));
                    }
                }
            }
            Fault::CrashAtEffect if is_alive => {
                self.nodes[at].dies_after = Some(self.rng.random_range(0..60))
            }
            Fault::CrashAtVote if is_alive => {
                self.nodes[at].dies_at_vote = true;
                // There is no vote without an election.
                if let Some(leader) = self.sure_leader().filter(|leader| *leader != at) {
                    self.end_life(leader, None);
                }
            }
            Fault::CrashInDisk if is_alive => {
                let operations = self.rng.random_range(0..60);
                self.nodes[at].is_power_failing = true;
                self.nodes[at].disk.power_off_after(operations);
            }
            Fault::CrashInRecovery if is_alive => {
                self.nodes[at].fails_again = true;
                let survival = self.draw_survival();
                self.end_life(at, Some(survival));
            }
            Fault::FailedWrite if is_alive => {
                let how = if self.rng.random() {
                    DiskFault::Fail
                } else {
                    DiskFault::Short(self.rng.random_range(0..2000))
                };
                self.inject(at, OpKind::Write, how);
            }
            Fault::FailedSync if is_alive => {
                let kind = if self.rng.random_bool(0.7) { OpKind::Sync } else { OpKind::SyncDir };
                self.inject(at, kind, DiskFault::Fail);
            }
            Fault::FailedCall if is_alive => {
                let kinds =
                    [OpKind::Create, OpKind::Rename, OpKind::Remove, OpKind::Allocate, OpKind::SetLen];
                let kind = kinds[self.rng.random_range(0..kinds.len())];
                self.inject(at, kind, DiskFault::Fail);
            }
            Fault::FullDisk if is_alive => {
                let room = self.rng.random_range(0..400_000);
                let used = self.used(at);
                self.nodes[at].disk.set_space(Some(used + room));
                (self.nodes[at].is_full, self.nodes[at].is_full_unfelt) = (true, true);
                self.for_a_while(Undo::Room(at));
            }
            Fault::HungDisk if is_alive => {
                let time = self.rng.random_range(SECOND..20 * SECOND);
                let node = &mut self.nodes[at];
                (node.hangs_until, node.is_hang_unfelt) = (self.queue.now() + time, true);
            }
            Fault::BitFlip | Fault::ZeroPage | Fault::CutFile | Fault::LostFile => self.damage(fault, at),
            Fault::ClockJump => {
                self.count(fault);
                self.nodes[at].ahead_ms = self.rng.random_range(-31_536_000_000..31_536_000_000);
            }
            Fault::Drift => {
                self.count(fault);
                self.nodes[at].rate = self.rng.random_range(250..4000);
                self.for_a_while(Undo::Speed(at));
            }
            Fault::Slow => {
                self.count(fault);
                self.nodes[at].slow = self.rng.random_range(2..100);
                self.for_a_while(Undo::Speed(at));
            }
            Fault::Pause if is_alive => {
                self.count(fault);
                self.nodes[at].paused_until = self.queue.now() + self.rng.random_range(100 * MS..20 * SECOND);
            }
            Fault::RestartInPlace if is_alive => {
                self.count(fault);
                let generation = self.nodes[at].generation;
                self.queue.push(0, Event::Restart { at, generation });
            }
            Fault::Wipe => self.operator.is_wipe_due = true,
            _ => {}
        }
    }

    fn inject(&mut self, at: At, kind: OpKind, how: DiskFault) {
        // Writes and syncs are many, the others few.
        let often = matches!(kind, OpKind::Write | OpKind::Sync);
        let after = self.rng.random_range(0..if often { 30 } else { 3 });
        self.nodes[at].is_disk_faulty = true;
        self.nodes[at].disk.inject(kind, after, how);
    }

    fn for_a_while(&mut self, undo: Undo) {
        let time = self.rng.random_range(SECOND..40 * SECOND);
        self.queue.push(time, Event::Undo(undo));
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Cuts => {
                self.cuts.clear();
                self.is_cut_felt = false;
            }
            Undo::Room(at) => {
                self.nodes[at].disk.set_space(None);
                self.nodes[at].is_full = false;
            }
            Undo::Speed(at) => (self.nodes[at].slow, self.nodes[at].rate) = (1, 1000),
        }
    }

    /// Some nodes do not reach the others; or some directions are cut.
    fn cut(&mut self, fault: Fault) {
        let nodes: Vec<At> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_gone()).collect();
        self.undo(Undo::Cuts);
        if fault == Fault::Isolate {
            // What it takes meanwhile is never committed, and is truncated later.
            let Some(leader) = self.sure_leader() else { return };
            let is_deaf = self.rng.random_bool(0.5);
            for other in nodes.iter().filter(|it| **it != leader) {
                self.cuts.insert((leader, *other), fault);
                if is_deaf {
                    self.cuts.insert((*other, leader), fault);
                }
            }
        } else if fault == Fault::Partition {
            let side: Vec<bool> = nodes.iter().map(|_| self.rng.random()).collect();
            for (a, a_side) in nodes.iter().zip(&side) {
                for (b, b_side) in nodes.iter().zip(&side) {
                    if a_side != b_side {
                        self.cuts.insert((*a, *b), fault);
                    }
                }
            }
        } else {
            for a in &nodes {
                for b in &nodes {
                    if a != b && self.rng.random_bool(0.3) {
                        self.cuts.insert((*a, *b), fault);
                    }
                }
            }
        }
        self.for_a_while(Undo::Cuts);
    }

    /// Bytes below the mark change on a disk whose process has just died; on a minority of the voters at a time.
    fn damage(&mut self, fault: Fault, at: At) {
        let voters = self.nodes.iter().filter(|node| !node.is_gone()).count();
        if !self.nodes[at].is_up() || self.harmed() + 1 > (voters.min(3) - 1) / 2 {
            return;
        }
        let Some(life) = self.nodes[at].life() else { return };
        // Who is not taken in yet has nobody to ask.
        let members = life.meta.state().membership.clone();
        if members.index == loglog_proto::Index::ZERO {
            return;
        }
        let (segments, mark) = (life.reader.segments(), self.nodes[at].synced_mark.offset);
        let whole: Vec<_> = segments.iter().filter(|segment| segment.header.base_offset < mark).collect();
        if whole.is_empty() {
            return;
        }
        let segment = whole[self.rng.random_range(0..whole.len())].clone();
        let base = segment.header.base_offset;
        let below = (segment.end.min(mark) - base).get();
        let is_wholly_below = segment.end <= mark && segment.sealed;
        let pos = self.rng.random_range(0..HEADER as u64 + below);
        // What lies above the mark in the same file must stay: nothing tells its loss from a torn tail (S10).
        if matches!(fault, Fault::LostFile | Fault::CutFile) && !is_wholly_below {
            return;
        }
        self.end_life(at, None);
        let disk = self.nodes[at].disk.clone();
        let Ok(mut bytes) = disk.contents(&segment.path) else { return };
        let at_byte = usize::try_from(pos).unwrap_or(0);
        match fault {
            Fault::BitFlip => bytes[at_byte] ^= 1 << self.rng.random_range(0..8),
            Fault::ZeroPage => {
                let end = (HEADER + usize::try_from(below).unwrap_or(0)).min(bytes.len());
                let from = at_byte / 4096 * 4096;
                bytes[from..(from + 4096).min(end)].fill(0);
            }
            Fault::CutFile => bytes.truncate(at_byte),
            _ => {}
        }
        self.tell(|| format!("node {at}: {fault} in the segment at {base}, position {pos}, mark {mark}"));
        if fault == Fault::LostFile {
            disk.lose(&segment.path);
        } else {
            disk.plant(&segment.path, &bytes);
        }
        self.nodes[at].is_damaged = true;
        self.count(fault);
    }

    /// The storm is over: nothing fails any more, and everybody is started who is not up.
    pub(super) fn calm(&mut self) {
        self.tell(|| "calm".to_owned());
        self.is_stormy = false;
        self.undo(Undo::Cuts);
        for at in 0..self.nodes.len() {
            let is_power_failing = self.nodes[at].is_power_failing;
            self.mend_disk(at);
            let node = &mut self.nodes[at];
            (node.slow, node.rate, node.paused_until, node.dies_after) = (1, 1000, 0, None);
            (node.dies_at_vote, node.hangs_until) = (false, 0);
            match node.state {
                State::Down => self.queue.push(0, Event::Start { at }),
                // The machine may be in the midst of losing its power.
                State::Up(_) | State::Mending(_) if is_power_failing => self.end_life(at, None),
                _ => {}
            }
        }
    }

    /// When an event for a paused node is due, if it is not now.
    pub(super) fn paused_for(&self, at: At) -> Option<u64> {
        let until = self.nodes[at].paused_until;
        until.checked_sub(self.queue.now()).filter(|wait| *wait > 0)
    }
}
