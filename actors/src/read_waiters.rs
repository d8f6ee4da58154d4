//! Read waiters actor: wakes connections whose reads wait for the log to grow.
//!
//! Owns:   who waits for which end, and until when.
//! Never:  reads a byte: a woken connection does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message};
use loglog_core::Waiters;
use loglog_core::upload::ClientId;
use loglog_proto::{Offset, RequestId};
use serde_json::json;
use std::collections::HashMap;

use crate::connection::{Connection, Woken};
use crate::faults::{Fault, Faults, fail_as_told};
use crate::guard::Ctx;
use crate::supervisor::Handle;
use crate::view::LogView;

/// The name of the one actor of this kind in a node.
pub const NAME: &str = "read-waiters";

/// How finely deadlines are kept.
const GRAIN: Duration = Duration::from_millis(5);

/// The actor.
pub struct ReadWaiters {
    waiters: Waiters<(ClientId, RequestId)>,
    /// Connections with at least one wait.
    connections: HashMap<ClientId, (Handle<Connection>, usize)>,
    view: Arc<LogView>,
    faults: Faults,
    count: Arc<AtomicUsize>,
    began: Instant,
}

/// A read of a connection waits.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wait {
    /// Whose it is.
    pub client: ClientId,
    /// Whom to wake.
    pub connection: Handle<Connection>,
    /// Which of its reads.
    pub id: RequestId,
    /// Until the log is committed this far.
    pub end: Offset,
    /// Or this much time has passed.
    pub timeout: Duration,
}

/// A connection has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Gone(pub ClientId);

/// The log has grown; how far, the view says.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Grown;

impl ReadWaiters {
    /// Nobody waits yet. `count` shows others how many do.
    pub fn new(view: Arc<LogView>, faults: Faults, count: Arc<AtomicUsize>) -> Self {
        count.store(0, Ordering::Relaxed);
        Self {
            waiters: Waiters::default(),
            connections: HashMap::new(),
            view,
            faults,
            count,
            began: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wake(&mut self, woken: Vec<(ClientId, RequestId)>) {
        for (client, id) in woken {
            if let Some((connection, waits)) = self.connections.get_mut(&client) {
                // A connection that is gone needs no waking.
                let _ = connection.tell(Woken(id));
                *waits -= 1;
                if *waits == 0 {
                    self.connections.remove(&client);
                }
            }
        }
        self.count.store(self.waiters.len(), Ordering::Relaxed);
    }
}

impl Actor for ReadWaiters {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.faults.on_start(NAME);
        ctx.show(|it| json!({ "waiting": it.waiters.len(), "connections": it.connections.len() }));
        ctx.run_interval(GRAIN, |waiters, _| {
            if !waiters.waiters.is_empty() {
                let now = waiters.now_ms();
                let expired = waiters.waiters.expire(now);
                waiters.wake(expired);
            }
        });
    }
}

impl Drop for ReadWaiters {
    /// After a panic nobody would be woken: every read looks again for itself, and waits anew if it must.
    fn drop(&mut self) {
        let all = self.waiters.expire(u64::MAX);
        self.wake(all);
    }
}

impl Handler<Wait> for ReadWaiters {
    type Result = ();

    fn handle(&mut self, wait: Wait, _ctx: &mut Self::Context) {
        let timeout = u64::try_from(wait.timeout.as_millis()).unwrap_or(u64::MAX);
        let deadline = self.now_ms().saturating_add(timeout);
        let key = (wait.client, wait.id);
        self.waiters.remove(&key);
        self.waiters.wait(key, wait.end, deadline);
        self.connections.entry(wait.client).or_insert((wait.connection, 0)).1 += 1;
        // The log may have grown since the connection looked.
        let woken = self.waiters.committed(self.view.committed());
        self.wake(woken);
    }
}

impl Handler<Grown> for ReadWaiters {
    type Result = ();

    fn handle(&mut self, _grown: Grown, _ctx: &mut Self::Context) {
        let woken = self.waiters.committed(self.view.committed());
        self.wake(woken);
    }
}

impl Handler<Gone> for ReadWaiters {
    type Result = ();

    fn handle(&mut self, Gone(client): Gone, _ctx: &mut Self::Context) {
        if self.connections.remove(&client).is_some() {
            self.waiters.remove_if(|(waiting, _)| *waiting == client);
            self.count.store(self.waiters.len(), Ordering::Relaxed);
        }
    }
}

impl Handler<Fault> for ReadWaiters {
    type Result = ();

    fn handle(&mut self, Fault(how): Fault, ctx: &mut Self::Context) {
        fail_as_told(how, ctx);
    }
}
