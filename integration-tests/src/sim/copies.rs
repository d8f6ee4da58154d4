//! Copies: payloads that no client brought, snapshots, and repairs, all from other nodes (S34).
//!
//! Keeps:  what comes is checked as in production, and so is what is served; that a peer does not answer is no answer.

use bytes::Bytes;
use loglog_core::chunk::{Chunk, payloads};
use loglog_core::copies;
use loglog_core::effects::Install;
use loglog_core::gate::Want;
use loglog_core::repair::{self, Answer, Step};
use loglog_proto::error::Code;
use loglog_proto::peer::{Copy, Locate, Located};
use loglog_proto::{Index, LogId, Offset, RaftId, RequestId};
use loglog_storage::{Gap, InstallError, Installer, MetaState, OpenError, Repair, RepairError};
use rand::Rng;

use super::dials::Fault;
use super::node::{At, Event, Life, Mending, Receiving, State};
use super::queue::MS;
use super::world::{GROUP, World};

/// Bytes of a chunk.
const CHUNK: u64 = 24 << 10;

impl World {
    /// Passes a wanted batch on, if clients have brought all its payloads.
    pub(super) fn deliver_uploads(&mut self, at: At, want: &Want) -> bool {
        let node = &mut self.nodes[at];
        let State::Up(life) = &mut node.state else { return false };
        let Ok(found) = node.uploads.take(&want.references) else { return false };
        if let Err(error) = life.core.payloads(want, found) {
            self.violate(format!("node {at} was given what it wanted, and: {error}"));
        }
        self.turn_soon(at);
        true
    }

    /// What was missing at the last look, too, is fetched.
    pub(super) fn look_for_missing(&mut self, at: At, generation: u64) {
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        life.is_looking = false;
        let (wants, leader) = (life.core.wanted(), life.core.status().leader);
        let missing = wants.iter().map(|want| want.log_id).collect();
        let known = std::mem::replace(&mut life.missing, missing);
        if wants.is_empty() {
            return;
        }
        self.look_soon(at);
        for want in wants {
            if !self.deliver_uploads(at, &want) && known.contains(&want.log_id) {
                self.fetch(at, want, leader);
            }
        }
    }

    fn fetch(&mut self, at: At, want: Want, leader: Option<RaftId>) {
        let generation = self.nodes[at].generation;
        let Some(life) = self.nodes[at].life() else { return };
        let own = life.meta.state().membership.clone();
        let mut peers: Vec<RaftId> = own.voters.iter().chain(&own.learners).map(|it| it.id).collect();
        peers.extend(leader);
        let peer = peers[self.rng.random_range(0..peers.len())];
        let Some(&to) = self.by_id.get(&peer).filter(|to| **to != at) else { return };
        let copy = Copy {
            id: RequestId::new(1),
            first: want.log_id.index,
            last: want.log_id,
            offset: want.offset,
            limit: want.log_len.get(),
        };
        if !self.is_cut(at, to) {
            let delay = self.delay(at, to);
            self.queue.push(delay, Event::CopyAsked { from: at, generation, to, want, copy });
        }
    }

    pub(super) fn copy_asked(&mut self, from: At, generation: u64, to: At, want: Want, copy: Copy) {
        let copied = self.nodes[to].life().and_then(|life| match copies::copy(&life.reader, copy) {
            Ok(copied) => Some(copied),
            Err(refusal) if refusal.code == Code::NotUploaded => {
                copies::unsynced(life.core.unsynced(copy.last)?, copy)
            }
            Err(_) => None,
        });
        if let Some(copied) = copied
            && !self.is_cut(to, from)
        {
            let delay = self.delay(to, from);
            self.queue.push(delay, Event::Copied { at: from, generation, want, bytes: copied.bytes });
        }
    }

    pub(super) fn copied(&mut self, at: At, generation: u64, want: &Want, bytes: &Bytes) {
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        match payloads(want, bytes).map(|found| life.core.payloads(want, found)) {
            Ok(Ok(())) => {
                self.fetched += 1;
                self.turn_soon(at);
            }
            Ok(Err(error)) => self.violate(format!("node {at} fetched batch {}, and: {error}", want.log_id)),
            Err(error) => self.violate(format!("node {at} fetched batch {}, and: {error}", want.log_id)),
        }
    }

    /// A snapshot is to take the place of a node's log (S25).
    pub(super) fn begin_install(&mut self, at: At, install: Install) {
        let node = &mut self.nodes[at];
        let (own, generation) = (node.id, node.generation);
        let State::Up(life) = &mut node.state else { return };
        if life.receiving.is_some() {
            return;
        }
        let content = &install.content;
        let members = content.membership.voters.iter().chain(&content.membership.learners);
        let peers: Vec<RaftId> = members.map(|member| member.id).filter(|id| *id != own).collect();
        let state = MetaState {
            start: content.start,
            membership: content.membership.clone(),
            segment_bytes_max: content.segment_bytes_max,
            ..life.meta.state().clone()
        };
        let (first, offset) = (content.start.index, content.start.offset);
        match life.dir.install(state) {
            Ok(installer) => {
                let last = install.last;
                life.receiving = Some(Receiving { install, installer, first, offset, peers, failures: 0 });
                self.tell(|| format!("node {at} receives the snapshot up to {last}"));
                self.queue.push(MS, Event::InstallStep { at, generation });
            }
            Err(InstallError::Failed(failure)) => {
                self.fail(at, &format!("cannot write a snapshot: {failure}"))
            }
            Err(_) => self.install_failed(at),
        }
    }

    fn install_failed(&mut self, at: At) {
        if let Some(life) = self.nodes[at].life() {
            life.receiving = None;
            life.core.install_failed();
            self.turn_soon(at);
        }
    }

    /// A life of another node that can be asked just now.
    fn asked_peer(&mut self, at: At, peer: RaftId) -> Option<&mut Life> {
        let to = *self.by_id.get(&peer)?;
        let is_lost = self.is_cut(at, to) || self.is_cut(to, at) || self.chance(Fault::Loss);
        self.nodes[to].life().filter(|_| !is_lost)
    }

    /// The next chunk of a snapshot.
    pub(super) fn install_step(&mut self, at: At, generation: u64) {
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let Some(receiving) = &life.receiving else { return };
        let (first, last, offset) = (receiving.first, receiving.install.last, receiving.offset);
        if first > last.index {
            return self.finish_install(at);
        }
        let (failures, peers) = (receiving.failures, receiving.peers.clone());
        let Some(&peer) = peers.get(failures as usize) else { return self.install_failed(at) };
        let copy = Copy { id: RequestId::new(1), first, last, offset, limit: CHUNK };
        let answer = self.asked_peer(at, peer).map(|peer| copies::copy(&peer.reader, copy));
        let Some(life) = self.nodes[at].life_of(generation) else { return };
        let Some(receiving) = &mut life.receiving else { return };
        match answer {
            Some(Ok(copied)) => match Chunk::check(&copy, copied) {
                Ok(chunk) => {
                    (receiving.first, receiving.offset) = (chunk.next, chunk.end());
                    match put(&mut receiving.installer, &chunk) {
                        Ok(()) => {}
                        Err(InstallError::Failed(failure)) => {
                            return self.fail(at, &format!("cannot write a snapshot: {failure}"));
                        }
                        Err(_) => return self.install_failed(at),
                    }
                }
                Err(why) => return self.violate(format!("node {at} was sent a chunk, and: {why}")),
            },
            _ => receiving.failures += 1,
        }
        let delay = self.rng.random_range(MS..50 * MS);
        self.queue.push(delay, Event::InstallStep { at, generation });
    }

    /// Between two lives of the storage group a snapshot that is whole takes the place of the log.
    fn finish_install(&mut self, at: At) {
        // In peace, what is with the writer is written first; or not all of it.
        while self.rng.random_bool(0.7) && self.nodes[at].life().is_some_and(|life| !life.held.is_empty()) {
            let generation = self.nodes[at].generation;
            self.write(at, generation);
        }
        if !self.sync_mark(at) {
            return;
        }
        let node = &mut self.nodes[at];
        let State::Up(life) = std::mem::replace(&mut node.state, State::Down) else { return };
        let Life { dir, reader, receiving, meta, writer, keeper, .. } = *life;
        let Some(Receiving { install: Install { last, content }, installer, .. }) = receiving else { return };
        // Their threads have ended.
        drop((meta, writer, keeper));
        // What is not acknowledged may go, unless our own log holds what the snapshot ends with (Raft §7).
        let (before, is_ours) = (self.nodes[at].synced_end, reader.holds(last));
        self.nodes[at].synced_end = before.min(content.end);
        match dir.finish_install(installer, last, content.end, &reader) {
            Ok(()) if is_ours => {
                return self
                    .violate(format!("node {at} installs a snapshot that ends at {last}, which it holds"));
            }
            Ok(()) => {
                self.installs += 1;
                self.nodes[at].synced_end = content.end;
                self.nodes[at].synced_mark = loglog_storage::Mark { index: last.index, offset: content.end };
                self.tell(|| format!("node {at} installed the snapshot up to {last}"));
            }
            Err(error @ (InstallError::Invalid { .. } | InstallError::NoSpace { .. })) => {
                self.nodes[at].synced_end = before;
                self.tell(|| format!("node {at} does not install the snapshot up to {last}: {error}"));
            }
            Err(error) => return self.fail(at, &format!("cannot put a snapshot in place: {error}")),
        }
        self.recover(at, dir, loglog_storage::OpenOptions::default());
    }

    /// A step of a repair (S10).
    pub(super) fn mend(&mut self, at: At, generation: u64) {
        let node = &mut self.nodes[at];
        if node.generation != generation {
            return;
        }
        let State::Mending(Mending { dir, mut options }) = std::mem::replace(&mut node.state, State::Down)
        else {
            return;
        };
        let gap = match dir.open_with(options, GROUP) {
            Ok(mut recovered) => {
                // A node's term is never behind its log's.
                let (last, mut state) = (recovered.last, recovered.meta.state().clone());
                if state.term < last.term {
                    (state.term, state.vote) = (last.term, None);
                    if let Err(error) = recovered.meta.save(state) {
                        return self.fail(at, &format!("cannot save the term: {error}"));
                    }
                }
                drop(recovered);
                return self.recover(at, dir, loglog_storage::OpenOptions::default());
            }
            Err(OpenError::Corrupt { gap, .. }) => gap,
            Err(error) => return self.fail(at, &format!("cannot open: {error}")),
        };
        let members = match dir.peek() {
            Ok(state) => state.membership,
            Err(error) => return self.fail(at, &format!("cannot open: {error}")),
        };
        let own = self.nodes[at].id;
        let peers: Vec<RaftId> = members
            .voters
            .iter()
            .chain(&members.learners)
            .map(|member| member.id)
            .filter(|id| *id != own)
            .collect();
        let mut trimmed = 0;
        // Who was switched off for good says nothing any more, and whoever runs the cluster knows it.
        let silent = |peer: &&RaftId| self.by_id.get(peer).is_none_or(|at| self.nodes[*at].is_gone());
        let switched_off = peers.iter().filter(silent).count();
        let mut answers: Vec<Option<Answer>> =
            peers.iter().map(|peer| self.locate(at, *peer, &gap, &mut trimmed)).collect();
        if trimmed > 0 && trimmed + switched_off == peers.len() {
            // What is missing here is gone everywhere: the node has to be replaced, as its log says.
            return self.give_up_on(at);
        }
        let repaired = loop {
            let step = repair::decide(&gap, &answers);
            self.tell(|| format!("node {at} mends {} at {}: {step:?}", gap.first, gap.offset));
            break match step {
                Step::Copy { peer, last } => match self.copy_gap(at, &dir, peers[peer], &gap, last) {
                    Ok(false) => {
                        // It does not give what it says it holds: whoever else does is asked at once, as the mender has it.
                        answers[peer] = answers[peer].map(Answer::without_what_it_holds);
                        continue;
                    }
                    copied => copied,
                },
                Step::Trim(header) => dir.repair(header, gap.offset).and_then(Repair::finish).map(|_| true),
                Step::Cut => {
                    options.uncommitted_from = Some(gap.offset);
                    Ok(true)
                }
                Step::Wait(_) => Ok(false),
            };
        };
        let delay = match repaired {
            Ok(true) => 10 * MS,
            Ok(false) | Err(RepairError::Invalid { .. }) => 500 * MS,
            Err(RepairError::Failed(failure)) if failure.is_no_space() => 500 * MS,
            Err(RepairError::Failed(failure)) => return self.fail(at, &format!("cannot repair: {failure}")),
        };
        self.nodes[at].state = State::Mending(Mending { dir, options });
        self.queue.push(delay, Event::Mend { at, generation });
    }

    fn locate(&mut self, at: At, peer: RaftId, gap: &Gap, trimmed: &mut usize) -> Option<Answer> {
        let peer = self.asked_peer(at, peer)?;
        let committed = peer.core.status().committed.index;
        let mut ask = |index: Index| -> Option<Located> {
            let located = copies::locate(&peer.reader, committed, Locate { id: RequestId::new(1), index });
            *trimmed += usize::from(located.as_ref().is_err_and(|it| it.code == Code::Trimmed));
            located.ok()
        };
        let first = ask(gap.first)?;
        let until = match gap.until {
            Some(until) => Some(ask(until.last.index)?),
            None => None,
        };
        Some(Answer { first, until })
    }

    /// Copies the gap, or what of it lies in its first segment.
    fn copy_gap(
        &mut self,
        at: At,
        dir: &loglog_storage::DataDir,
        peer: RaftId,
        gap: &Gap,
        last: LogId,
    ) -> Result<bool, RepairError> {
        let wanted = gap.until.map_or(gap.used.max(gap.mark.offset), |until| until.offset);
        let (mut first, mut offset, mut repair) = (gap.first, gap.offset, None::<Repair>);
        while first <= last.index && (repair.is_none() || offset < wanted) {
            let copy = Copy { id: RequestId::new(1), first, last, offset, limit: CHUNK };
            let answer = self.asked_peer(at, peer).map(|peer| copies::copy(&peer.reader, copy));
            let Some(Ok(copied)) = answer else { break };
            let chunk = match Chunk::check(&copy, copied) {
                Ok(chunk) => chunk,
                Err(why) => {
                    self.violate(format!("node {at} was sent a chunk, and: {why}"));
                    break;
                }
            };
            if repair.as_ref().is_some_and(|repair| repair.header() != chunk.header) {
                break;
            }
            (first, offset) = (chunk.next, chunk.end());
            let mut under_way = match repair.take() {
                Some(repair) => repair,
                None => dir.repair(chunk.header, gap.offset)?,
            };
            under_way.append(&chunk.bytes)?;
            repair = Some(under_way);
        }
        match repair {
            Some(repair) => repair.finish().map(|_| true),
            None => Ok(false),
        }
    }

    /// How far a node's own log is committed.
    pub(super) fn committed(&mut self, at: At) -> Option<Offset> {
        self.nodes[at].life().map(|life| life.core.status().committed.offset)
    }
}

fn put(installer: &mut Installer, chunk: &Chunk) -> Result<(), InstallError> {
    if chunk.offset == chunk.header.base_offset {
        installer.segment(chunk.header)?;
    }
    installer.append(&chunk.bytes)
}
