//! Pending requests of one connection: who waits for which id.
//!
//! Owns:   request ids and the places where replies go.
//! Keeps:  an id is used once in a connection's life; replies to one pipeline travel together.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use loglog_proto::RequestId;
use loglog_proto::error::Refusal;
use loglog_proto::response::{Appended, Response, ResponseBody};
use tokio::sync::{mpsc, oneshot};

use crate::pipeline::state::{Attempt, LinkId};

/// Where the replies to a pipeline's appends go.
#[derive(Clone, Debug)]
pub(crate) struct ReplySink {
    pub(crate) link: LinkId,
    pub(crate) to: mpsc::UnboundedSender<Replies>,
}

/// Replies to appends, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) link: LinkId,
    pub(crate) replies: Vec<Reply>,
}

/// A reply to one append.
pub(crate) type Reply = (Attempt, Result<Appended, Refusal>);

/// Who waits for one reply.
#[derive(Debug)]
pub(crate) enum Waiter {
    Ask(oneshot::Sender<ResponseBody>),
    Append(ReplySink, Attempt),
    /// The connection itself, which only wants to know that the node lives.
    Ping,
}

/// All who wait.
#[derive(Debug)]
pub(crate) struct Pending {
    waiters: HashMap<u64, Waiter, BuildHasherDefault<IdHasher>>,
    next: u64,
    batch: Option<(ReplySink, Vec<Reply>)>,
}

/// Ids count up, so a multiplication spreads them well enough; nobody else chooses them.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Pending {
    /// Nobody yet. Ids count from `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self { waiters: HashMap::default(), next, batch: None }
    }

    /// Notes a waiter and draws the id for its request.
    pub(crate) fn add(&mut self, waiter: Waiter) -> RequestId {
        let id = self.next;
        self.next += 1;
        self.waiters.insert(id, waiter);
        RequestId::new(id)
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Hands a reply to its waiter; appends' replies are gathered until [`Pending::flush`].
    ///
    /// # Errors
    /// What the reply has that no node should send.
    pub(crate) fn deliver(&mut self, response: Response) -> Result<(), String> {
        let id = response.id.get();
        let Some(waiter) = self.waiters.remove(&id) else {
            return match response.body {
                ResponseBody::Refused(refusal) => Err(refusal.to_string()),
                _ => Err(format!("a reply to request {id}, which nobody made")),
            };
        };
        match waiter {
            // Whoever asked may have gone: then nobody wants to know.
            Waiter::Ask(to) => drop(to.send(response.body)),
            Waiter::Ping => {}
            Waiter::Append(sink, attempt) => {
                let reply = match response.body {
                    ResponseBody::Appended(appended) => Ok(appended),
                    ResponseBody::Refused(refusal) => Err(refusal),
                    _ => return Err(format!("the reply to append {id} is of another kind")),
                };
                match &mut self.batch {
                    Some((gathered, replies))
                        if gathered.link == sink.link && gathered.to.same_channel(&sink.to) =>
                    {
                        replies.push((attempt, reply));
                    }
                    _ => {
                        self.flush();
                        self.batch = Some((sink, vec![(attempt, reply)]));
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends gathered replies on.
    pub(crate) fn flush(&mut self) {
        if let Some((sink, replies)) = self.batch.take() {
            // A pipeline that has ended needs no replies.
            let _ = sink.to.send(Replies { link: sink.link, replies });
        }
    }
}
