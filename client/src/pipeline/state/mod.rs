//! Pipeline state: every decision about appends on their way, and nothing else.
//!
//! ```text
//!     queue   front ─────────────────────────────► back
//!             │ sent on this link │ not yet sent │
//!                                 └ `sent`         a sequence for each, growing by one
//!
//!     link    Down ─► Up: Flowing ─► Draining ─► (Waiting | Learning) ─► Flowing …
//! ```
//!
//! Owns:   the writer's identity, the appends without an outcome, what may be said about each.
//! Keeps:  sequences grow in the order of the calls and an append keeps its own for as long as its writer lives;
//!         on one link there is never more than one try of an append without an answer;
//!         "not written" is said only where it can never become untrue.
//! Never:  owns a socket, a task or a clock; its random numbers come from a seed.
//!
//! # When may the client conclude what?
//!
//! A *try* is one copy of an append sent on one link. Each ends in one of three ways: acknowledged, refused, or *loose*: the
//! link was lost (or the node said `Interrupted` or `TimedOut`) before the answer. A loose try may have been written,
//! and may still be written later: its bytes may sit in a socket's buffer on the node.
//!
//! - **Acknowledged** is true whichever try it answers, and however late.
//! - **Refused** speaks for that try only. The append itself is certainly not in the log, now or ever, only if none of its
//!   tries is loose. So: a retryable refusal never ends an append; a final one ends it with `may_have_happened` = "a try is loose".
//! - **Conflict** says more: the node looks for the sequence first (S28), so no try was written before the end it names, and that
//!   end is committed (S30) and only grows. If it lies beyond the expected one, no loose try can succeed either:
//!   nothing was written. If it lies before it, a loose try might find the log grown to just that end.
//! - **OutOfOrder** means that the predecessor named is not the writer's last in the log. On a first try: the predecessor was refused,
//!   so its successors on that link come back like this. On a resend: the same, or an append that was
//!   given up has been written after all. Neither is an error: the sequence in the answer is the one to name next time. Naming it
//!   is safe, since only appends without an outcome wait in the queue, and what was given up before them is either
//!   that last one or, having a smaller sequence than what follows, can never be written any more.
//! - **UnknownWriter** means that the log no longer remembers the writer, or a sequence older than its last ones. Looked at from the
//!   front of the queue, once every try on the link is answered: an append with a loose try may have been written before it was
//!   forgotten; nobody can tell, and it ends as `UnknownOutcome`. One without was never written, and so neither was anything behind
//!   it: each try of those named it, or one that came after it, as the predecessor. Nor will they ever be under the old name: the
//!   writer is absent, and what its tries say (no known end, or one that can only become older) never makes it new. So
//!   the pipeline draws a new writer and goes on with all that is left, loose tries or not.
//!
//! **Known end (S29).** Until a writer's first acknowledgement every append carries an end learnt before the writer sent anything,
//! hence before that append's first try. It is never refreshed once something was sent: with a newer end, a forgotten first
//! copy would look like none.
//!
//! **Draining.** After any refusal nothing more is sent until every try on the link is answered; then all that is left goes out again
//! in order, each naming the one before it. That costs a round trip in a rare case and keeps "one try on a link" true.

mod identity;
mod link;
mod types;
mod waiting;

use std::collections::VecDeque;
use std::time::Duration;

use loglog_proto::error::{Code, Detail, Refusal};
use loglog_proto::request::Append;
use loglog_proto::response::Appended;
use loglog_proto::{Offset, Sequence};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::append_error::AppendError;
use crate::backoff;
use identity::Identity;
use link::{Link, Mode, Then};
pub(crate) use types::{Attempt, Effects, LinkId, LinkLimits, Settings, Wish};
use waiting::{Stage, Waiting};

/// So long may a link take to answer what is out before it is given up.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// So many rounds at a node that knows no leader or is not able, before another node is sought.
const FRUITLESS_ROUNDS: u32 = 3;

/// Everything a pipeline knows. Times are counted from any fixed moment.
#[derive(Debug)]
pub(crate) struct State<T> {
    settings: Settings,
    rng: SmallRng,
    identity: Identity,
    queue: VecDeque<Waiting<T>>,
    /// `queue[..sent]` were sent on this link since the last drain.
    sent: usize,
    /// Payload bytes of tries without an answer.
    bytes_out: usize,
    /// The newest sequence sent on this link since the last drain.
    last_sent: Option<Sequence>,
    link: Link,
    /// Rounds in a row in which nothing was acknowledged.
    failures: u32,
    effects: Effects<T>,
}

impl<T> State<T> {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let identity = Identity::draw(&mut rng, 0);
        Self {
            settings,
            rng,
            identity,
            queue: VecDeque::new(),
            sent: 0,
            bytes_out: 0,
            last_sent: None,
            link: Link::Down { retry_at: Duration::ZERO, connecting: false },
            failures: 0,
            effects: Effects::default(),
        }
    }

    /// Whether no append waits for its outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The oldest append that waits for its outcome.
    pub(crate) fn front(&self) -> Option<&T> {
        self.queue.front().map(|waiting| &waiting.wish.token)
    }

    /// Which of the writers is in use, and the oldest sequence without an outcome.
    pub(crate) fn oldest(&self) -> (u32, Option<Sequence>) {
        (self.identity.generation, self.queue.front().map(|waiting| waiting.sequence))
    }

    /// An append was called.
    pub(crate) fn append(&mut self, wish: Wish<T>) {
        let sequence = self.identity.number();
        let (stage, loose, forgotten, last) = (Stage::Idle, false, false, None);
        self.queue.push_back(Waiting { wish, sequence, stage, loose, forgotten, last });
    }

    /// Some answer named a committed end. Of use only while nothing was sent (S29).
    pub(crate) fn heard_end(&mut self, end: Offset) {
        if !self.identity.exposed && !self.identity.must_learn {
            self.identity.known_end = self.identity.known_end.max(Some(end));
        }
    }

    /// A link is there; its node's committed end was `end` when it opened.
    pub(crate) fn connected(&mut self, id: LinkId, limits: LinkLimits, end: Offset) {
        debug_assert!(matches!(self.link, Link::Down { .. }), "one link at a time");
        self.heard_end(end);
        self.link = Link::Up { id, limits, outstanding: 0, mode: Mode::Flowing };
    }

    /// No link could be had.
    pub(crate) fn connect_failed(&mut self, now: Duration, why: &str) {
        for waiting in &mut self.queue {
            waiting.last = Some(why.to_owned());
        }
        self.go_down(now);
    }

    /// There will never be a link again: nobody waits any longer.
    pub(crate) fn abandon(&mut self, now: Duration) {
        self.go_down(now);
        while let Some(front) = self.queue.front() {
            let may_have_happened = front.loose;
            self.finish(0, Err(AppendError::Closed { may_have_happened }));
        }
    }

    /// The link was lost. Every try on it that has no answer is loose from now on.
    pub(crate) fn disconnected(&mut self, now: Duration, link: LinkId) {
        if matches!(self.link, Link::Up { id, .. } if id == link) {
            for waiting in self.queue.iter_mut().filter(|waiting| waiting.stage == Stage::Out) {
                waiting.last = Some("the connection was lost".to_owned());
            }
            self.go_down(now);
        }
    }

    /// The end asked for on `link`, or none if the node refused.
    pub(crate) fn end_learnt(&mut self, now: Duration, link: LinkId, end: Option<Offset>) {
        if let Some(end) = end {
            self.identity.must_learn = false;
            self.heard_end(end);
        }
        let wait = backoff::wait(self.failures, &mut self.rng);
        if let Link::Up { id, mode: mode @ Mode::Learning, .. } = &mut self.link
            && *id == link
        {
            *mode = if end.is_some() { Mode::Flowing } else { Mode::Waiting { until: now + wait } };
        }
    }

    /// A try was answered.
    pub(crate) fn reply(
        &mut self,
        now: Duration,
        link: LinkId,
        attempt: Attempt,
        reply: Result<Appended, Refusal>,
    ) {
        if attempt.generation != self.identity.generation {
            return;
        }
        let mut current = false;
        if let Link::Up { id, outstanding, .. } = &mut self.link
            && *id == link
        {
            current = true;
            *outstanding = outstanding.saturating_sub(1);
        }
        match reply {
            Ok(appended) => self.acknowledged(attempt.sequence, appended),
            Err(refusal) if current => self.refused(now, attempt.sequence, refusal),
            // It speaks for a try that counts as loose already.
            Err(_) => {}
        }
    }

    fn acknowledged(&mut self, sequence: Sequence, appended: Appended) {
        self.identity.acknowledged = true;
        self.identity.last = self.identity.last.max(Some(sequence));
        self.failures = 0;
        if let Some(at) = self.find(sequence) {
            self.finish(at, Ok(appended));
        }
    }

    fn refused(&mut self, now: Duration, sequence: Sequence, refusal: Refusal) {
        let found = self.find(sequence).filter(|at| self.queue[*at].stage == Stage::Out);
        let mut then = match refusal.code {
            Code::OutOfOrder | Code::Conflict | Code::UnknownWriter => Then::SendAgain,
            Code::NotLeader => match &refusal.detail {
                Detail::Text(leader) => Then::Leave(Some(leader.clone())),
                _ if self.failures >= FRUITLESS_ROUNDS => Then::Leave(None),
                _ => Then::Wait,
            },
            Code::Unavailable | Code::Interrupted if self.failures >= FRUITLESS_ROUNDS => Then::Leave(None),
            code if code.is_retryable() => Then::Wait,
            _ => Then::SendAgain,
        };
        if let (Code::OutOfOrder, Detail::Number(last)) = (refusal.code, &refusal.detail) {
            self.learn_last(sequence, Sequence::new(*last));
        }
        if let Some(at) = found {
            let waiting = &mut self.queue[at];
            waiting.stage = Stage::Refused;
            self.bytes_out -= waiting.wish.payload.len();
            let error = match refusal.code {
                Code::OutOfOrder => None,
                Code::Conflict => Some(waiting.conflict(&refusal, self.identity.writer)),
                Code::UnknownWriter => {
                    waiting.forgotten = true;
                    None
                }
                code if code.is_retryable() => {
                    waiting.loose |= code.may_have_happened();
                    None
                }
                _ => Some(waiting.refused(&refusal, self.identity.writer)),
            };
            match error {
                Some(error) => {
                    // An outcome is no failure of the link: what comes next, as a contender's next try, need not wait.
                    self.failures = 0;
                    self.finish(at, Err(error));
                }
                None => waiting.last = Some(refusal.to_string()),
            }
        }
        if let Link::Up { mode, .. } = &mut self.link {
            let since = match mode {
                Mode::Draining { since, then: before } => {
                    then = then.max(before.clone());
                    *since
                }
                _ => now,
            };
            *mode = Mode::Draining { since, then };
        }
    }

    /// The node said that `last` is the writer's newest in the log, when `sequence` was to follow another.
    fn learn_last(&mut self, sequence: Sequence, last: Sequence) {
        if last < sequence && Some(last) > self.identity.last {
            self.identity.last = Some(last);
            self.failures = 0;
        }
    }

    /// Time has passed, and inputs were given: decides what to do next.
    pub(crate) fn advance(&mut self, now: Duration) -> Effects<T> {
        self.expire(now);
        self.settle(now);
        self.pump();
        std::mem::take(&mut self.effects)
    }

    /// When [`State::advance`] is to be called at the latest, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let deadline =
            self.queue.front().zip(self.settings.timeout).map(|(front, after)| front.wish.called + after);
        let link = match &self.link {
            Link::Down { retry_at, connecting: false } if !self.queue.is_empty() => Some(*retry_at),
            Link::Up { mode: Mode::Draining { since, .. }, .. } => Some(*since + DRAIN_MAX),
            Link::Up { mode: Mode::Waiting { until }, .. } => Some(*until),
            _ => None,
        };
        deadline.into_iter().chain(link).min()
    }

    fn expire(&mut self, now: Duration) {
        let Some(after) = self.settings.timeout else { return };
        while let Some(front) = self.queue.front_mut()
            && front.wish.called + after <= now
        {
            let may_have_happened = front.loose || front.stage == Stage::Out;
            let (writer, sequence, last) = (self.identity.writer, front.sequence, front.last.take());
            self.finish(0, Err(AppendError::TimedOut { after, may_have_happened, last, writer, sequence }));
        }
    }

    /// Ends a drain or a wait whose time has come.
    fn settle(&mut self, now: Duration) {
        match &mut self.link {
            Link::Down { retry_at, connecting } => {
                if !*connecting && !self.queue.is_empty() && *retry_at <= now {
                    *connecting = true;
                    self.effects.connect = true;
                }
            }
            Link::Up { mode: mode @ Mode::Waiting { .. }, .. } => {
                if matches!(mode, Mode::Waiting { until } if *until <= now) {
                    *mode = Mode::Flowing;
                }
            }
            Link::Up { outstanding: 0, mode: Mode::Draining { then, .. }, .. } => {
                let then = then.clone();
                self.begin_round();
                self.settle_forgotten();
                match then {
                    Then::Leave(leader) => {
                        self.effects.leave = Some(leader);
                        self.go_down(now);
                    }
                    Then::SendAgain if self.failures == 0 => self.resume(Mode::Flowing),
                    Then::SendAgain | Then::Wait => {
                        let wait = backoff::wait(self.failures, &mut self.rng);
                        self.resume(Mode::Waiting { until: now + wait });
                    }
                }
                self.failures = self.failures.saturating_add(1);
            }
            Link::Up { mode: Mode::Draining { since, .. }, .. } if *since + DRAIN_MAX <= now => {
                self.effects.leave = Some(None);
                self.go_down(now);
            }
            Link::Up { .. } => {}
        }
    }

    /// Sends what may be sent.
    fn pump(&mut self) {
        let Link::Up { limits, outstanding, mode: mode @ Mode::Flowing, .. } = &mut self.link else { return };
        let Some(front) = self.queue.front() else { return };
        let known_end = match self.identity {
            Identity { acknowledged: true, .. } => None,
            Identity { known_end: Some(end), .. } => Some(end),
            Identity { known_end: None, .. } => {
                *mode = Mode::Learning;
                self.effects.learn_end = true;
                return;
            }
        };
        let appends_max = self.settings.entries_max.min(limits.appends_max).max(1);
        let window_end = front.sequence.get().saturating_add(appends_max as u64);
        while let Some(waiting) = self.queue.get_mut(self.sent) {
            let length = waiting.wish.payload.len();
            let fits = *outstanding == 0 || self.bytes_out + length <= limits.bytes_max;
            if waiting.sequence.get() >= window_end || *outstanding >= appends_max || !fits {
                break;
            }
            let sequence = waiting.sequence;
            // One that is in the log already needs no true predecessor: the node finds it first (S28).
            let previous = self.identity.last.max(self.last_sent).filter(|previous| *previous < sequence);
            let append = Append {
                writer: self.identity.writer,
                previous,
                sequence,
                known_end,
                expect_end: waiting.wish.expect_end,
                crc: Some(waiting.wish.crc),
                payload: Some(waiting.wish.payload.clone()),
            };
            waiting.stage = Stage::Out;
            waiting.forgotten = false;
            self.effects.sends.push((Attempt { generation: self.identity.generation, sequence }, append));
            self.identity.exposed = true;
            self.last_sent = Some(sequence);
            self.bytes_out += length;
            self.sent += 1;
            *outstanding += 1;
        }
    }

    fn find(&self, sequence: Sequence) -> Option<usize> {
        match self.queue.front() {
            Some(front) if front.sequence == sequence => Some(0),
            _ => self.queue.binary_search_by_key(&sequence, |waiting| waiting.sequence).ok(),
        }
    }

    fn finish(&mut self, at: usize, outcome: Result<Appended, AppendError>) {
        let Some(waiting) = self.queue.remove(at) else { return };
        if at < self.sent {
            self.sent -= 1;
        }
        if waiting.stage == Stage::Out {
            self.bytes_out -= waiting.wish.payload.len();
        }
        self.effects.done.push((waiting.wish.token, outcome));
    }

    /// Everything is to be sent again, from the front.
    fn begin_round(&mut self) {
        for waiting in &mut self.queue {
            waiting.loose |= waiting.stage == Stage::Out;
            waiting.stage = Stage::Idle;
        }
        (self.sent, self.bytes_out, self.last_sent) = (0, 0, None);
    }

    fn go_down(&mut self, now: Duration) {
        self.begin_round();
        let retry_at = now + backoff::seek(self.failures, &mut self.rng);
        self.failures = self.failures.saturating_add(1);
        self.link = Link::Down { retry_at, connecting: false };
    }

    fn resume(&mut self, next: Mode) {
        if let Link::Up { mode, .. } = &mut self.link {
            *mode = next;
        }
    }

    /// Where the log has forgotten the writer: names what nobody can tell any more, and goes on with the rest under a new name.
    fn settle_forgotten(&mut self) {
        while let Some(front) = self.queue.front().filter(|front| front.forgotten) {
            if front.loose {
                let (writer, sequence) = (self.identity.writer, front.sequence);
                self.finish(0, Err(AppendError::UnknownOutcome { writer, sequence }));
                continue;
            }
            self.identity = Identity::draw(&mut self.rng, self.identity.generation + 1);
            self.identity.must_learn = true;
            for waiting in &mut self.queue {
                waiting.sequence = self.identity.number();
                (waiting.loose, waiting.forgotten) = (false, false);
            }
        }
    }
}

#[cfg(test)]
#[path = "../sim_test.rs"]
mod sim;
#[cfg(test)]
#[path = "../state_test.rs"]
mod tests;
