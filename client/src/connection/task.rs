//! The task that owns a socket.
//!
//! Owns:   both halves of the socket, what is to be written, what was received, who waits.
//! Keeps:  everything queued goes out in one write, everything received is decoded before anybody is told.
//! Never:  outlives the socket: when one ends, so does the other, and all who wait see their channel close.

use std::time::Instant;

use bytes::BytesMut;
use loglog_proto::frame;
use loglog_proto::limits::FRAME_BYTES_MAX;
use loglog_proto::request::{Request, RequestBody};
use loglog_proto::response::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::outbox::Outbox;
use super::pending::{Pending, Waiter};
use super::{Command, HELLO_ID, Habits};

/// Room for what one read from the socket may bring.
pub(crate) const RECEIVE_BYTES: usize = 64 * 1024;
/// With this much waiting for the socket, no more is encoded.
const OUTBOX_BYTES: usize = 1 << 20;
/// The most commands taken at once.
const COMMANDS: usize = 256;

/// The socket and its surroundings.
pub(super) struct Task<R, W> {
    reader: R,
    writer: W,
    commands: mpsc::UnboundedReceiver<Command>,
    received: BytesMut,
    outbox: Outbox,
    pending: Pending,
    habits: Habits,
    /// Until when it does not sleep.
    awake_until: Option<Instant>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Task<R, W> {
    /// `received` may hold bytes that came behind the welcome.
    pub(super) fn new(
        reader: R,
        writer: W,
        commands: mpsc::UnboundedReceiver<Command>,
        received: BytesMut,
        habits: Habits,
    ) -> Self {
        let (outbox, pending) = (Outbox::default(), Pending::new(HELLO_ID + 1));
        Self { reader, writer, commands, received, outbox, pending, habits, awake_until: None }
    }

    /// Runs until the socket breaks, the node breaks the protocol or falls silent, or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut commands = Vec::with_capacity(COMMANDS);
        let mut silence = interval(self.habits.quiet);
        silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        silence.reset();
        let (mut heard, mut pinged) = (false, false);
        let mut open = true;
        if self.receive().is_err() {
            return;
        }
        loop {
            tokio::select! {
                biased;
                count = self.commands.recv_many(&mut commands, COMMANDS), if open && self.outbox.len() < OUTBOX_BYTES => {
                    open = count > 0;
                    commands.drain(..).for_each(|command| self.encode(command));
                    self.outbox.seal();
                }
                result = self.writer.write_buf(&mut self.outbox), if self.outbox.len() > 0 => {
                    if !matches!(result, Ok(1..)) {
                        break;
                    }
                    let is_lone = !self.habits.busy_poll.is_zero() && self.pending.is_lone();
                    self.awake_until = is_lone.then(|| Instant::now() + self.habits.busy_poll);
                }
                result = self.reader.read_buf(&mut self.received) => {
                    if !matches!(result, Ok(1..)) || self.receive().is_err() {
                        break;
                    }
                    (heard, pinged) = (true, false);
                }
                () = yield_now(), if self.awake_until.is_some() => {
                    let awake = self.awake_until.filter(|until| Instant::now() < *until);
                    self.awake_until = awake.filter(|_| !self.pending.is_empty());
                }
                _ = silence.tick() => {
                    // A node that is busy elsewhere still answers a question about its end; one that is gone does not.
                    if !heard && !self.pending.is_empty() {
                        if pinged {
                            break;
                        }
                        pinged = true;
                        self.ping();
                    }
                    heard = false;
                }
            }
            if !open && self.pending.is_empty() && self.outbox.len() == 0 {
                break;
            }
        }
        self.pending.flush();
    }

    fn encode(&mut self, command: Command) {
        match command {
            Command::Ask { body, reply } => {
                let id = self.pending.add(Waiter::Ask(reply));
                self.outbox.push(&Request { id, body });
            }
            Command::Appends { appends, sink } => {
                self.pending.add_run(appends, sink, |request| self.outbox.push(&request));
            }
        }
    }

    fn ping(&mut self) {
        let id = self.pending.add(Waiter::Ping);
        self.outbox.push(&Request { id, body: RequestBody::End { linearizable: false } });
        self.outbox.seal();
    }

    /// Decodes and delivers every whole frame.
    fn receive(&mut self) -> Result<(), String> {
        while let Some(frame) =
            frame::split(&mut self.received, FRAME_BYTES_MAX).map_err(|error| error.to_string())?
        {
            let response = Response::decode(&frame).map_err(|error| error.to_string())?;
            self.pending.deliver(response)?;
        }
        self.pending.flush();
        self.received.reserve(RECEIVE_BYTES);
        Ok(())
    }
}
