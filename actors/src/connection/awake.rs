//! Awake: looks for a client's next request again and again for a while, where sleeping and being woken would take longer than it takes
//! the client to send it.
//!
//! Owns:   when to do so, and how long: after a client's last answer has left, `connection.busy_poll`.
//! Keeps:  the thread's other tasks run in between, and each look is at all of its sockets.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::Notify;
use tokio::task::yield_now;

/// One connection's.
#[derive(Debug)]
pub(crate) struct Awake {
    /// Zero: never.
    span: Duration,
    answered: Notify,
}

impl Awake {
    /// So long after each last answer.
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, answered: Notify::new() }
    }

    /// Whatever the client has asked for is answered.
    pub(crate) fn answered(&self) {
        if !self.span.is_zero() {
            self.answered.notify_one();
        }
    }

    /// Waits for the next request.
    pub(crate) async fn wait_for<T>(&self, request: impl Future<Output = T>) -> T {
        let mut request = pin!(request);
        loop {
            select! {
                biased;
                request = &mut request => return request,
                () = self.answered.notified(), if !self.span.is_zero() => {}
            }
            let until = Instant::now() + self.span;
            while Instant::now() < until {
                select! {
                    biased;
                    request = &mut request => return request,
                    () = yield_now() => {}
                }
            }
        }
    }
}
