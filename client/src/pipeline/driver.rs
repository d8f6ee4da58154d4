//! The task that runs a pipeline: carries what happens to the state, and what the state decides to the world.
//!
//! Owns:   the link, the clock, the callers' completions.
//! Keeps:  takes all that is waiting at once, so that a busy pipeline costs little per append.
//! Never:  decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use loglog_proto::Offset;
use loglog_proto::request::RequestBody;
use loglog_proto::response::{Appended, ResponseBody};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

use super::PipelineOptions;
use super::silence::Silence;
use super::state::{Effects, LinkId, LinkLimits, Settings, State, Wish};
use crate::append_error::AppendError;
use crate::connection::{Connection, Replies, ReplySink};
use crate::error::Error;
use crate::hub::{Hub, Route};
use crate::search;
use crate::upload::Feed;

/// The most commands taken at once.
const COMMANDS: usize = 1024;
/// A timer that is set but not needed waits this long.
const FAR: Duration = Duration::from_secs(3600);

/// What callers hand in.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        completion: Completion,
        payload: Bytes,
        crc: u32,
        expect_end: Option<Offset>,
        /// `None`: just now, or so: a look at the clock for each would cost more than the rest of the call.
        called: Option<Instant>,
    },
    Flush(oneshot::Sender<Result<(), AppendError>>),
}

/// Where an outcome goes, and what it gives back to the budget.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) to: oneshot::Sender<Result<Appended, AppendError>>,
    pub(super) cost: u32,
}

/// A completion and how many appends came before it.
#[derive(Debug)]
struct Token {
    completion: Completion,
    ordinal: u64,
}

/// Runs one pipeline.
pub(super) struct Driver {
    hub: Arc<Hub>,
    state: State<Token>,
    feed: Feed,
    budget: Arc<Semaphore>,
    commands: mpsc::UnboundedReceiver<Command>,
    replies_to: mpsc::UnboundedSender<Replies>,
    replies: mpsc::UnboundedReceiver<Replies>,
    link: Option<(LinkId, Connection)>,
    links: u64,
    /// A link that was given up, and who leads instead, where known.
    left: Option<(Connection, Option<String>)>,
    connecting: Option<BoxFuture<'static, Result<Connection, Error>>>,
    learning: Option<BoxFuture<'static, (LinkId, Option<Offset>)>>,
    silence: Silence,
    /// A question to the other nodes, whether one of them leads.
    asking: Option<BoxFuture<'static, Option<Connection>>>,
    flushes: Flushes,
    started: Instant,
}

/// Who waits for what was handed in before.
#[derive(Default)]
struct Flushes {
    /// Appends taken so far.
    taken: u64,
    /// Each with the count of appends that must have their outcome.
    waiting: VecDeque<(u64, oneshot::Sender<Result<(), AppendError>>)>,
    error: Option<AppendError>,
}

impl Driver {
    pub(super) fn new(
        hub: Arc<Hub>,
        options: PipelineOptions,
        budget: Arc<Semaphore>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let settings = Settings { entries_max: options.entries_max, timeout: options.timeout };
        let (replies_to, replies) = mpsc::unbounded_channel();
        Self {
            feed: hub.uploads().feed(options.bytes_max),
            hub,
            state: State::new(settings, rand::random()),
            budget,
            commands,
            replies_to,
            replies,
            link: None,
            links: 0,
            left: None,
            connecting: None,
            learning: None,
            silence: Silence::default(),
            asking: None,
            flushes: Flushes::default(),
            started: Instant::now(),
        }
    }

    /// Runs until the pipeline was dropped and every append has its outcome.
    pub(super) async fn run(mut self) {
        let (mut commands, mut replies) = (Vec::with_capacity(COMMANDS), Vec::new());
        let mut open = true;
        let timer = sleep_until(self.started + FAR);
        tokio::pin!(timer);
        while open || !self.state.is_idle() {
            tokio::select! {
                biased;
                _ = self.replies.recv_many(&mut replies, COMMANDS) => self.take_replies(&mut replies),
                count = self.commands.recv_many(&mut commands, COMMANDS), if open => {
                    open = count > 0;
                    let now = Instant::now();
                    commands.drain(..).for_each(|command| self.take_command(command, now));
                }
                () = closed(self.link.as_ref()) => self.lost(),
                opened = pending_or(&mut self.connecting) => self.opened(opened),
                (link, end) = pending_or(&mut self.learning) => {
                    self.learning = None;
                    self.state.end_learnt(self.started.elapsed(), link, end);
                }
                successor = pending_or(&mut self.asking) => self.asked(successor),
                () = &mut timer => timer.as_mut().reset(Instant::now() + FAR),
            }
            let effects = self.state.advance(self.started.elapsed());
            self.carry_out(effects);
            let ask_at = self.listen();
            self.set(timer.as_mut(), ask_at);
        }
    }

    fn take_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Append { completion, payload, crc, expect_end, called } => {
                let token = Token { completion, ordinal: self.flushes.taken };
                self.flushes.taken += 1;
                let called = called.unwrap_or(now).saturating_duration_since(self.started);
                self.state.heard_end(self.hub.end());
                self.state.append(Wish { token, payload, crc, expect_end, called });
            }
            Command::Flush(to) => self.flushes.waiting.push_back((self.flushes.taken, to)),
        }
    }

    fn take_replies(&mut self, replies: &mut Vec<Replies>) {
        self.silence.end();
        let now = self.started.elapsed();
        for Replies { link, replies } in replies.drain(..) {
            for (attempt, reply) in replies {
                if let Ok(appended) = &reply {
                    self.hub.heard_end(appended.end);
                }
                self.state.reply(now, link, attempt, reply);
            }
        }
    }

    fn opened(&mut self, opened: Result<Connection, Error>) {
        self.connecting = None;
        match opened {
            Ok(connection) => {
                self.links += 1;
                let id = LinkId(self.links);
                let limits = &connection.welcome().limits;
                let at_most = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
                let limits = LinkLimits {
                    appends_max: at_most(limits.writer_appends_max),
                    bytes_max: at_most(limits.connection_bytes_max),
                };
                self.state.connected(id, limits, self.hub.end());
                self.hub.uploads().append_through(connection.welcome().node);
                self.silence.end();
                self.link = Some((id, connection));
            }
            Err(Error::Ended) => self.state.abandon(self.started.elapsed()),
            Err(error) => self.state.connect_failed(self.started.elapsed(), &error.to_string()),
        }
    }

    fn lost(&mut self) {
        // What was answered before the loss counts.
        let mut replies = Vec::new();
        while let Ok(more) = self.replies.try_recv() {
            replies.push(more);
        }
        self.take_replies(&mut replies);
        if let Some((link, _)) = self.link.take() {
            self.state.disconnected(self.started.elapsed(), link);
        }
    }

    fn carry_out(&mut self, effects: Effects<Token>) {
        let Effects { done, sends, connect, learn_end, leave } = effects;
        let mut room = 0;
        for (Token { completion, .. }, outcome) in done {
            room += completion.cost as usize;
            if let (Err(error), None) = (&outcome, &self.flushes.error) {
                self.flushes.error = Some(error.clone());
            }
            // Whoever called may have dropped the ticket.
            let _ = completion.to.send(outcome);
        }
        self.budget.add_permits(room);
        let (generation, oldest) = self.state.oldest();
        self.feed.settle(generation, oldest);
        self.flushes.wake(self.state.front().map(|token| token.ordinal));
        if let Some((link, connection)) = self.link.as_ref() {
            if !sends.is_empty() {
                self.hub.refresh(connection);
                let uploads = self.feed.cut(&sends);
                connection.append(sends, ReplySink { link: *link, to: self.replies_to.clone() });
                self.feed.offer(uploads);
            }
            if learn_end {
                self.learning = Some(learn(*link, connection.clone(), self.hub.clone()).boxed());
            }
        }
        if let Some(leader) = leave
            && let Some((_, connection)) = self.link.take()
        {
            self.left = Some((connection, leader));
        }
        if connect {
            let (hub, left) = (self.hub.clone(), self.left.take());
            let connect = async move {
                if let Some((connection, leader)) = left {
                    hub.leave(&connection, leader.as_deref());
                }
                hub.connection(Route::Leader).await
            };
            self.connecting = Some(connect.boxed());
        }
    }

    /// Asks the other nodes who leads when this one has said nothing for long. Returns when to look again.
    fn listen(&mut self) -> Option<Instant> {
        let Some((_, connection)) = self.link.as_ref().filter(|_| !self.state.is_idle()) else {
            self.silence.end();
            return None;
        };
        let now = Instant::now();
        if self.silence.ask_at(now) <= now {
            self.silence.asked(now);
            if self.asking.is_none() && self.hub.has_choice() {
                let (hub, silent) = (self.hub.clone(), connection.welcome().node);
                self.asking = Some(async move { search::successor(&hub, silent).await }.boxed());
            }
        }
        Some(self.silence.ask_at(now))
    }

    /// Another node leads, or none says so. If this one has spoken meanwhile, it will say itself that it does not.
    fn asked(&mut self, successor: Option<Connection>) {
        self.asking = None;
        if let (Some(successor), Some((_, connection)), true) = (successor, &self.link, self.silence.lasts())
        {
            self.hub.leave(connection, None);
            self.hub.found_leader(&successor);
            self.lost();
        }
    }

    /// Sets the timer if it would fire too late. One that fires too early costs less than setting it each time.
    fn set(&self, timer: std::pin::Pin<&mut Sleep>, ask_at: Option<Instant>) {
        let wake_at = self.state.wake_at().map(|wake_at| self.started + wake_at);
        if let Some(wake_at) = wake_at.into_iter().chain(ask_at).min()
            && wake_at < timer.deadline()
        {
            timer.reset(wake_at);
        }
    }
}

impl Flushes {
    /// `oldest` is the append without an outcome that was taken first.
    fn wake(&mut self, oldest: Option<u64>) {
        let done = oldest.unwrap_or(self.taken);
        while let Some((_, to)) = self.waiting.pop_front_if(|(until, _)| *until <= done) {
            let _ = to.send(self.error.take().map_or(Ok(()), Err));
        }
    }
}

async fn learn(link: LinkId, connection: Connection, hub: Arc<Hub>) -> (LinkId, Option<Offset>) {
    let ask = connection.ask(RequestBody::End { linearizable: false });
    match tokio::time::timeout(hub.options().request_timeout, ask).await {
        Ok(Ok(ResponseBody::End { end, .. })) => {
            hub.heard_end(end);
            (link, Some(end))
        }
        _ => (link, None),
    }
}

async fn closed(link: Option<&(LinkId, Connection)>) {
    match link {
        Some((_, connection)) => connection.closed().await,
        None => std::future::pending().await,
    }
}

async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
