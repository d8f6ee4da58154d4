//! Pending requests of one connection: who waits for which id.
//!
//! Owns:   request ids and the places where replies go.
//! Keeps:  an id is used once in a connection's life; replies to one pipeline travel together.

use std::collections::{HashMap, VecDeque};

use loglog_proto::RequestId;
use loglog_proto::error::Refusal;
use loglog_proto::request::{Append, Request, RequestBody};
use loglog_proto::response::{Appended, Response, ResponseBody};
use tokio::sync::{mpsc, oneshot};

use crate::pipeline::state::{Attempt, LinkId};

/// Where the replies to a pipeline's appends go.
#[derive(Clone, Debug)]
pub(crate) struct ReplySink {
    pub(crate) link: LinkId,
    pub(crate) to: mpsc::UnboundedSender<Replies>,
}

impl ReplySink {
    fn is(&self, other: &Self) -> bool {
        self.link == other.link && self.to.same_channel(&other.to)
    }
}

/// Replies to appends, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) link: LinkId,
    pub(crate) replies: Vec<Reply>,
}

/// A reply to one append.
pub(crate) type Reply = (Attempt, Result<Appended, Refusal>);

/// Who waits for the reply to one request.
#[derive(Debug)]
pub(crate) enum Waiter {
    Ask(oneshot::Sender<ResponseBody>),
    /// The connection itself, which only wants to know that the node lives.
    Ping,
}

/// Appends that were sent together, whose ids follow each other.
#[derive(Debug)]
struct Run {
    first: u64,
    sink: ReplySink,
    /// `None`: it has its reply.
    attempts: Vec<Option<Attempt>>,
    left: usize,
}

/// All who wait.
#[derive(Debug)]
pub(crate) struct Pending {
    waiters: HashMap<u64, Waiter>,
    /// In the order of their ids, which is about that of their replies.
    runs: VecDeque<Run>,
    next: u64,
    batch: Option<(ReplySink, Vec<Reply>)>,
}

impl Pending {
    /// Nobody yet. Ids count from `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self { waiters: HashMap::new(), runs: VecDeque::new(), next, batch: None }
    }

    /// Whether one answer is waited for, no more and no less.
    pub(crate) fn is_lone(&self) -> bool {
        let mut left = self.waiters.len();
        // Two runs with something left are enough to know.
        for run in &self.runs {
            left += run.left;
            if left > 1 {
                break;
            }
        }
        left == 1
    }

    /// Notes a waiter and draws the id for its request.
    pub(crate) fn add(&mut self, waiter: Waiter) -> RequestId {
        let id = self.next;
        self.next += 1;
        self.waiters.insert(id, waiter);
        RequestId::new(id)
    }

    /// Notes appends that are sent together, and gives each its request.
    pub(crate) fn add_run(
        &mut self,
        appends: Vec<(Attempt, Append)>,
        sink: ReplySink,
        mut give: impl FnMut(Request),
    ) {
        let (first, left) = (self.next, appends.len());
        self.next += left as u64;
        let mut attempts = Vec::with_capacity(left);
        for ((attempt, append), id) in appends.into_iter().zip(first..) {
            attempts.push(Some(attempt));
            give(Request { id: RequestId::new(id), body: RequestBody::Append(append) });
        }
        if left > 0 {
            self.runs.push_back(Run { first, sink, attempts, left });
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.runs.is_empty()
    }

    /// Hands a reply to its waiter; appends' replies are gathered until [`Pending::flush`].
    ///
    /// # Errors
    /// What the reply has that no node should send.
    pub(crate) fn deliver(&mut self, response: Response) -> Result<(), String> {
        let id = response.id.get();
        if let Some((sink, attempt)) = self.take_append(id) {
            let reply = match response.body {
                ResponseBody::Appended(appended) => Ok(appended),
                ResponseBody::Refused(refusal) => Err(refusal),
                _ => return Err(format!("the reply to append {id} is of another kind")),
            };
            self.gather(sink, (attempt, reply));
            return Ok(());
        }
        match (self.waiters.remove(&id), response.body) {
            // Whoever asked may have gone: then nobody wants to know.
            (Some(Waiter::Ask(to)), body) => drop(to.send(body)),
            (Some(Waiter::Ping), _) => {}
            (None, ResponseBody::Refused(refusal)) => return Err(refusal.to_string()),
            (None, _) => return Err(format!("a reply to request {id}, which nobody made")),
        }
        Ok(())
    }

    /// Who waits for the reply to the append with this id. The sink only where it is not the one that replies are being gathered for.
    fn take_append(&mut self, id: u64) -> Option<(Option<ReplySink>, Attempt)> {
        let at = self.runs.partition_point(|run| run.first <= id).checked_sub(1)?;
        let run = &mut self.runs[at];
        let attempt = run.attempts.get_mut(usize::try_from(id - run.first).ok()?)?.take()?;
        run.left -= 1;
        let is_gathered = self.batch.as_ref().is_some_and(|(gathered, _)| gathered.is(&run.sink));
        let sink = (!is_gathered).then(|| run.sink.clone());
        while self.runs.front().is_some_and(|run| run.left == 0) {
            self.runs.pop_front();
        }
        Some((sink, attempt))
    }

    fn gather(&mut self, sink: Option<ReplySink>, reply: Reply) {
        if let Some(sink) = sink {
            self.flush();
            self.batch = Some((sink, Vec::new()));
        }
        if let Some((_, replies)) = &mut self.batch {
            replies.push(reply);
        }
    }

    /// Sends gathered replies on.
    pub(crate) fn flush(&mut self) {
        if let Some((sink, replies)) = self.batch.take() {
            // A pipeline that has ended needs no replies.
            let _ = sink.to.send(Replies { link: sink.link, replies });
        }
    }
}

#[cfg(test)]
mod tests {
    use loglog_proto::response::Appended;
    use loglog_proto::{Offset, Sequence, Term, WriterId};

    use super::*;

    fn append(sequence: u64) -> (Attempt, Append) {
        let sequence = Sequence::new(sequence);
        let append = Append {
            writer: WriterId::new(1),
            previous: None,
            sequence,
            known_end: None,
            expect_end: None,
            crc: None,
            payload: None,
        };
        (Attempt { generation: 0, sequence }, append)
    }

    fn reply(id: u64) -> Response {
        let place = Appended { offset: Offset::new(id), end: Offset::new(id + 1), term: Term::new(1) };
        Response { id: RequestId::new(id), body: ResponseBody::Appended(place) }
    }

    #[test]
    fn replies_find_their_appends_in_any_order_and_once() {
        let (to, mut replies) = mpsc::unbounded_channel();
        let sink = |link| ReplySink { link: LinkId(link), to: to.clone() };
        let mut pending = Pending::new(2);
        let mut ids = Vec::new();
        pending.add_run(vec![append(1), append(2)], sink(1), |request| ids.push(request.id.get()));
        let (asked, mut answer) = oneshot::channel();
        let ask = pending.add(Waiter::Ask(asked));
        pending.add_run(vec![append(3)], sink(1), |request| ids.push(request.id.get()));
        pending.add_run(vec![append(1)], sink(2), |request| ids.push(request.id.get()));
        assert_eq!((ids.as_slice(), ask.get()), (&[2, 3, 5, 6][..], 4));
        for id in [5, 3, 6, 2] {
            pending.deliver(reply(id)).unwrap();
        }
        assert!(pending.deliver(reply(2)).is_err(), "once");
        assert!(!pending.is_empty());
        pending.deliver(reply(4)).unwrap();
        assert!(answer.try_recv().is_ok() && pending.is_empty());
        pending.flush();
        let mut found = Vec::new();
        while let Ok(Replies { link, replies }) = replies.try_recv() {
            found.push((link.0, replies.iter().map(|(at, _)| at.sequence.get()).collect::<Vec<_>>()));
        }
        assert_eq!(found, [(1, vec![3, 2]), (2, vec![1]), (1, vec![1])]);
    }
}
