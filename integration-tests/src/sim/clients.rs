//! Simulated clients: writers that pipeline and send again, readers at any node, askers for the end.
//!
//! They keep the rules that docs/protocol.md has for clients, as `client/` does: a known end until the first acknowledgement (S29),
//! each append behind the one before it, nothing sent anew under another number while its fate is open.
//!
//! Owns:   what is asked, of whom, again when; what every answer was.
//! Never:  judges an answer: the judge does.

use std::collections::VecDeque;

use bytes::Bytes;
use loglog_core::{Answer, Append as CheckedAppend, Role};
use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::request::{Append, Upload};
use loglog_proto::{Offset, Sequence, WriterId, crc32c};
use rand::Rng;

use super::dials::Fault;
use super::node::{Ask, At, Event, Reply, Token};
use super::queue::{MS, Micros, Queue, SECOND};
use super::world::World;
use crate::history::{self, EndSeen, OpId, ReadAnswer, Tick, payload};

/// Writers; each has a window of its own.
const WINDOWS: [usize; 5] = [1, 1, 4, 16, 48];
/// Readers, and askers for the end.
const READERS: usize = 2;
/// After so long an answer is not waited for any more.
const PATIENCE: Micros = 2 * SECOND;
/// Appends between two writer ids: a writer that went on for ever would never be new.
const SEQUENCES_MAX: u64 = 400;

/// All of them.
pub(super) struct Clients {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    /// The newest committed end that any answer named.
    heard_end: Offset,
    next_writer: u64,
    next_number: u64,
}

struct Writer {
    id: WriterId,
    window: usize,
    next: u64,
    /// The last append that has its place in the writer's order, and whether one was ever acknowledged.
    previous: Option<Sequence>,
    is_acknowledged: bool,
    known_end: Offset,
    outstanding: VecDeque<Pending>,
    target: At,
    /// Answers to what was sent before the last change of mind are heard only if they are good.
    sent_from: u64,
    /// When all is sent again, if nothing is heard.
    again_at: Micros,
    progress: u64,
}

struct Pending {
    op: OpId,
    sequence: Sequence,
    previous: Option<Sequence>,
    expect_end: Option<Offset>,
    /// Set where the writer had not been acknowledged anything when it was first sent.
    known_end: Option<Offset>,
    /// Every time that it was sent: the number that the answer will bear.
    numbers: Vec<u64>,
}

#[derive(Default)]
struct Reader {
    at: Offset,
    /// Number, when it was asked, what it is about.
    waiting: Option<(u64, Micros, Question)>,
}

#[derive(Clone, Copy)]
enum Question {
    Read { offset: Offset, limit: usize, node: At },
    End { linearizable: bool, node: At, least: Offset },
}

impl Clients {
    pub(super) fn new() -> Self {
        let writer = |window: &usize| Writer {
            id: WriterId::NONE,
            window: *window,
            next: 1,
            previous: None,
            is_acknowledged: false,
            known_end: Offset::ZERO,
            outstanding: VecDeque::new(),
            target: 0,
            sent_from: 0,
            again_at: 0,
            progress: 0,
        };
        let mut clients = Self {
            writers: WINDOWS.iter().map(writer).collect(),
            readers: (0..READERS).map(|_| Reader::default()).collect(),
            heard_end: Offset::ZERO,
            next_writer: 1,
            next_number: 1,
        };
        for writer in 0..clients.writers.len() {
            clients.renew(writer);
        }
        clients
    }

    pub(super) fn begin(&self, queue: &mut Queue<Event>) {
        for client in 0..self.writers.len() + self.readers.len() {
            queue.push(SECOND + client as u64 * MS, Event::Client { client });
        }
    }

    /// A writer that has never appended anything, with an end learnt before it does.
    fn renew(&mut self, writer: usize) {
        let (id, known_end) = (WriterId::new(self.next_writer), self.heard_end);
        self.next_writer += 1;
        let writer = &mut self.writers[writer];
        (writer.id, writer.next, writer.previous, writer.is_acknowledged) = (id, 1, None, false);
        (writer.known_end, writer.outstanding) = (known_end, VecDeque::new());
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// From now on each writer is to get something done.
    pub(super) fn ask_for_progress(&mut self) {
        for writer in &mut self.writers {
            writer.progress = 0;
            writer.again_at = 0;
        }
    }

    pub(super) fn have_progressed(&self) -> bool {
        self.writers.iter().all(|writer| writer.progress > 0)
    }

    pub(super) fn describe(&self) -> String {
        let writers = self.writers.iter().map(|writer| {
            let front = writer.outstanding.front().map(|it| it.sequence.get());
            format!("{}: {} done, waits for {front:?}", writer.id, writer.progress)
        });
        writers.collect::<Vec<_>>().join("; ")
    }
}

impl World {
    /// A client wakes.
    pub(super) fn client(&mut self, client: usize) {
        let writers = self.clients.writers.len();
        let pause = if client < writers {
            self.write_on(client);
            self.rng.random_range(100 * MS..1800 * MS)
        } else {
            self.read_on(client - writers);
            self.rng.random_range(100 * MS..3000 * MS)
        };
        self.queue.push(pause, Event::Client { client });
    }

    /// New appends, as far as the window allows; or all of the old ones again.
    fn write_on(&mut self, client: usize) {
        let now = self.queue.now();
        let writer = &self.clients.writers[client];
        if !writer.outstanding.is_empty() && now >= writer.again_at {
            return self.send_again(client);
        }
        if writer.outstanding.is_empty() && writer.next > SEQUENCES_MAX {
            self.clients.renew(client);
        }
        let room = self.clients.writers[client].window - self.clients.writers[client].outstanding.len();
        if room == 0 {
            return;
        }
        if self.clients.writers[client].outstanding.is_empty() {
            self.clients.writers[client].target = self.likely_leader();
            self.clients.writers[client].sent_from = self.clients.next_number;
        }
        for _ in 0..self.rng.random_range(1..=room) {
            self.invoke(client);
        }
        self.clients.writers[client].again_at = now + PATIENCE;
    }

    fn invoke(&mut self, client: usize) {
        // Only alone: what is sent behind it would build on it.
        let is_conditional = self.clients.writers[client].window == 1 && self.rng.random_bool(0.2);
        let expect_end = is_conditional.then_some(self.clients.heard_end);
        let writer = &mut self.clients.writers[client];
        let (sequence, previous) = (Sequence::new(writer.next), writer.previous);
        let op = self.judge.invoked(self.queue.now(), (writer.id, sequence), previous, expect_end);
        let pending = Pending {
            op,
            sequence,
            previous,
            expect_end,
            known_end: (!writer.is_acknowledged).then_some(writer.known_end),
            numbers: Vec::new(),
        };
        writer.next += 1;
        writer.previous = Some(pending.sequence);
        writer.outstanding.push_back(pending);
        let at = writer.outstanding.len() - 1;
        self.send(client, at);
    }

    /// Uploads to the other nodes, and the append to the one that is thought to lead.
    fn send(&mut self, client: usize, pending: usize) {
        let number = self.clients.number();
        let writer = &mut self.clients.writers[client];
        let (id, target) = (writer.id, writer.target);
        let pending = &mut writer.outstanding[pending];
        pending.numbers.push(number);
        self.judge.sent(self.queue.now(), pending.op, pending.previous);
        let bytes = payload(pending.op);
        let (writer, sequence, crc) = (id, pending.sequence, Some(crc32c(&bytes)));
        let mut append = Append {
            writer,
            previous: pending.previous,
            sequence,
            known_end: pending.known_end,
            expect_end: pending.expect_end,
            crc,
            payload: Some(bytes.clone()),
        };
        // Some have nothing but uploads for the leader, too.
        let is_uploaded = self.rng.random_bool(0.1);
        if is_uploaded {
            append.payload = None;
        }
        for at in 0..self.nodes.len() {
            if at == target && !is_uploaded || self.nodes[at].is_gone() {
                continue;
            }
            if self.chance(Fault::UploadMissed) {
                self.count(Fault::UploadMissed);
                continue;
            }
            let mut payload = bytes.clone();
            if self.chance(Fault::UploadOther) {
                self.count(Fault::UploadOther);
                payload = damaged(&payload);
            }
            let upload = Upload::one(writer, sequence, payload);
            self.ask(at, Token { client, number: 0 }, Ask::Upload(upload));
        }
        if !is_uploaded && self.chance(Fault::PayloadDamaged) {
            self.count(Fault::PayloadDamaged);
            append.payload = Some(damaged(&bytes));
        }
        self.ask(target, Token { client, number }, Ask::Append(append));
    }

    /// Everything that is not settled goes to another node, in order.
    fn send_again(&mut self, client: usize) {
        let now = self.queue.now();
        let target = if self.rng.random_bool(0.7) {
            self.likely_leader()
        } else {
            self.rng.random_range(0..self.nodes.len())
        };
        let next_number = self.clients.next_number;
        let writer = &mut self.clients.writers[client];
        (writer.target, writer.sent_from) = (target, next_number);
        writer.again_at = now + PATIENCE;
        for pending in 0..self.clients.writers[client].outstanding.len() {
            self.send(client, pending);
        }
    }

    /// Who says that it leads; of several any.
    fn likely_leader(&mut self) -> At {
        let is_leader = |node: &mut super::node::Node| {
            node.life().is_some_and(|life| life.core.status().role == Role::Leader)
        };
        let leaders: Vec<At> = (0..self.nodes.len()).filter(|at| is_leader(&mut self.nodes[*at])).collect();
        match leaders.len() {
            0 => self.rng.random_range(0..self.nodes.len()),
            n => leaders[self.rng.random_range(0..n)],
        }
    }

    /// A request goes to a node.
    pub(super) fn ask(&mut self, to: At, token: Token, ask: Ask) {
        if self.chance(Fault::ClientLoss) {
            return self.count(Fault::ClientLoss);
        }
        let delay = self.rng.random_range(50..500) * self.nodes[to].slow;
        if self.chance(Fault::ClientReplay) && !matches!(ask, Ask::Order(_)) {
            self.count(Fault::ClientReplay);
            let later = self.rng.random_range(0..60 * SECOND);
            self.queue.push(later, Event::Asked { to, token, ask: ask.clone() });
        }
        self.queue.push(delay, Event::Asked { to, token, ask });
    }

    /// A node has an answer.
    pub(super) fn answer(&mut self, at: At, token: Token, answer: Reply) {
        if self.chance(Fault::ClientLoss) {
            return self.count(Fault::ClientLoss);
        }
        let delay = self.rng.random_range(50..500) * self.nodes[at].slow;
        self.queue.push(delay, Event::Answered { token, answer });
    }

    /// A request arrives at a node.
    pub(super) fn asked(&mut self, to: At, token: Token, ask: Ask) {
        let now_ms = self.queue.now() / MS;
        let node = &mut self.nodes[to];
        let super::node::State::Up(life) = &mut node.state else { return };
        let committed = life.core.status().committed.offset;
        match ask {
            Ask::Append(request) => {
                match self.join_payload(to, &request) {
                    Ok(append) => self.nodes[to].life().map(|life| life.core.append(token, append)),
                    Err(refusal) => self.nodes[to].life().map(|life| life.core.refuse(token, refusal)),
                };
                self.turn_soon(to);
            }
            Ask::Upload(upload) => {
                // A full buffer refuses; nobody waits for an upload's answer here.
                let _ = node.uploads.upload(token.client as u64, upload, now_ms);
            }
            Ask::Read { offset, limit } => {
                let start = life.reader.start();
                let reply = if offset < start {
                    Reply::Answer(Answer::Refused(Refusal::trimmed(offset, start)))
                } else if offset > committed {
                    Reply::Answer(Answer::Refused(Refusal::beyond_end(offset, committed)))
                } else {
                    match life.reader.read(offset, limit, committed) {
                        Ok(bytes) => Reply::Bytes { offset, bytes, end: committed },
                        Err(_) => return,
                    }
                };
                self.answer(to, token, reply);
            }
            Ask::End { linearizable: true } => {
                life.core.end(token);
                self.turn_soon(to);
            }
            Ask::End { linearizable: false } => {
                let start = life.reader.start();
                self.answer(to, token, Reply::End { start, end: committed });
            }
            Ask::Order(order) => {
                life.core.manage(token, order, false);
                self.turn_soon(to);
            }
        }
    }

    /// Joins an append with its payload: the one that it carries, the one that was uploaded here, or to another node (S31).
    fn join_payload(&mut self, at: At, request: &Append) -> Result<CheckedAppend, Refusal> {
        let key = (request.writer, request.sequence);
        let mut refusal = Refusal::new(Code::NotUploaded, "no payload was uploaded");
        if let Some(payload) = &request.payload {
            match CheckedAppend::new(request, payload.clone(), crc32c(payload)) {
                Ok(append) => return Ok(append),
                Err(damaged) => refusal = damaged,
            }
        }
        let others = (0..self.nodes.len()).filter(|other| *other != at);
        for node in std::iter::once(at).chain(others) {
            let is_reached = node == at || !(self.is_cut(at, node) || self.is_cut(node, at));
            if is_reached
                && self.nodes[node].is_up()
                && let Some((payload, crc)) = self.nodes[node].uploads.get(key)
                && let Ok(append) = CheckedAppend::new(request, payload, crc)
            {
                self.nodes[at].uploads.mark_used(key);
                return Ok(append);
            }
        }
        Err(refusal)
    }

    /// An answer arrives.
    pub(super) fn answered(&mut self, token: Token, answer: Reply) {
        let writers = self.clients.writers.len();
        if token.client == super::operator::CLIENT {
            return self.obeyed(token, answer);
        }
        if token.client >= writers {
            return self.read_answered(token.client - writers, token.number, answer);
        }
        let Reply::Answer(answer) = answer else { return };
        let now = self.queue.now();
        let client = token.client;
        let writer = &mut self.clients.writers[client];
        let attempt_of = |it: &Pending| it.numbers.iter().position(|number| *number == token.number);
        let found = writer.outstanding.iter().enumerate();
        let Some((which, attempt)) = found.filter_map(|(at, it)| Some((at, attempt_of(it)?))).next() else {
            return;
        };
        let op = writer.outstanding[which].op;
        let is_recent = token.number > writer.sent_from;
        match answer {
            Answer::Appended(appended) => {
                writer.is_acknowledged = true;
                writer.progress += 1;
                writer.again_at = now + PATIENCE;
                writer.outstanding.remove(which);
                self.clients.heard_end = self.clients.heard_end.max(appended.end);
                self.settle(op, attempt, history::Answer::Acknowledged(appended));
            }
            Answer::Refused(refusal) => match refusal.code {
                Code::Conflict => {
                    // It was alone. What comes next builds on what came before it.
                    let pending = writer.outstanding.remove(which).expect("it was found");
                    writer.previous = pending.previous;
                    writer.progress += 1;
                    let end = offset_of(&refusal);
                    self.clients.heard_end = self.clients.heard_end.max(end);
                    self.settle(op, attempt, history::Answer::Conflict { end });
                }
                Code::UnknownWriter => {
                    // What is open stays open for ever; another writer goes on, with an end that is learnt now.
                    let answer = history::Answer::Refused(refusal.code);
                    self.judge.answered(now, op, attempt, answer, false);
                    let target = self.likely_leader();
                    let end = self.committed(target).unwrap_or(Offset::ZERO);
                    self.clients.heard_end = self.clients.heard_end.max(end);
                    self.clients.renew(client);
                    self.judge.unknown_writers += 1;
                }
                _ if is_recent => {
                    let answer = history::Answer::Refused(refusal.code);
                    self.judge.answered(now, op, attempt, answer, false);
                    if refusal.code == Code::DiskFull {
                        self.full_disk_is_felt();
                    }
                    let pause = self.rng.random_range(20 * MS..400 * MS);
                    let writer = &mut self.clients.writers[client];
                    writer.again_at = writer.again_at.min(now + pause);
                }
                _ => {}
            },
            Answer::Uploaded | Answer::End { .. } | Answer::Managed(_) => {}
        }
    }

    fn settle(&mut self, op: OpId, attempt: usize, answer: history::Answer) {
        self.tell(|| format!("{op}: {answer:?}"));
        if let Some(violation) = self.judge.answered(self.queue.now(), op, attempt, answer, true) {
            self.violate(violation);
        }
    }

    fn read_on(&mut self, reader: usize) {
        let now = self.queue.now();
        if self.clients.readers[reader].waiting.is_some_and(|(_, since, _)| now < since + PATIENCE) {
            return;
        }
        let number = self.clients.number();
        let node = self.rng.random_range(0..self.nodes.len());
        let (question, ask) = if self.rng.random_bool(0.6) {
            let from = self.clients.readers[reader].at;
            let offset = match self.rng.random_range(0..4) {
                0 => Offset::new(self.rng.random_range(0..=self.clients.heard_end.get())),
                _ => from,
            };
            let limit = self.rng.random_range(1..100_000);
            (Question::Read { offset, limit, node }, Ask::Read { offset, limit })
        } else {
            let linearizable = self.rng.random_bool(0.7);
            let node = if linearizable { self.likely_leader() } else { node };
            let least = self.judge.acknowledged_end();
            (Question::End { linearizable, node, least }, Ask::End { linearizable })
        };
        let (Question::Read { node, .. } | Question::End { node, .. }) = question;
        self.clients.readers[reader].waiting = Some((number, now, question));
        let client = self.clients.writers.len() + reader;
        self.ask(node, Token { client, number }, ask);
    }

    fn read_answered(&mut self, reader: usize, number: u64, answer: Reply) {
        let Some((_, since, question)) =
            self.clients.readers[reader].waiting.take_if(|(waiting, ..)| *waiting == number)
        else {
            return;
        };
        let (invoked, completed) = (Tick::new(since), Tick::new(self.queue.now()));
        let violation = match question {
            Question::Read { offset, limit, node } => {
                let answer = match answer {
                    Reply::Bytes { offset, bytes, end } => {
                        self.clients.readers[reader].at = offset + loglog_proto::Length::of(bytes.len());
                        ReadAnswer::Data { bytes, end }
                    }
                    Reply::Answer(Answer::Refused(refusal)) if refusal.code == Code::Trimmed => {
                        let start = offset_of(&refusal);
                        self.clients.readers[reader].at = start;
                        ReadAnswer::Trimmed { start }
                    }
                    Reply::Answer(Answer::Refused(refusal)) if refusal.code == Code::BeyondEnd => {
                        ReadAnswer::BeyondEnd { end: offset_of(&refusal) }
                    }
                    _ => return,
                };
                let (id, limit) = (self.nodes[node].node(), limit as u64);
                let read = history::Read { node: id, offset, limit, invoked, completed, answer };
                self.judge.read(node, read)
            }
            Question::End { linearizable, node, least } => {
                let (start, end) = match answer {
                    Reply::End { start, end } | Reply::Answer(Answer::End { start, end }) => (start, end),
                    _ => return,
                };
                self.clients.heard_end = self.clients.heard_end.max(end);
                let node_id = self.nodes[node].node();
                let seen = EndSeen { node: node_id, linearizable, start, end, invoked, completed };
                self.judge.end(node, seen, least)
            }
        };
        if let Some(violation) = violation {
            self.violate(violation);
        }
    }

    fn full_disk_is_felt(&mut self) {
        for at in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[at].is_full_unfelt) {
                return self.count(Fault::FullDisk);
            }
        }
    }
}

/// The offset that goes with a refusal.
fn offset_of(refusal: &Refusal) -> Offset {
    match refusal.detail {
        Detail::Number(offset) => Offset::new(offset),
        _ => Offset::ZERO,
    }
}

/// Other bytes.
fn damaged(payload: &Bytes) -> Bytes {
    let mut bytes = payload.to_vec();
    match bytes.first_mut() {
        Some(byte) => *byte ^= 0x55,
        None => bytes.push(1),
    }
    Bytes::from(bytes)
}
