//! Timer: waits within an async task until a moment, to some microseconds.
//!
//! The runtime's own timer counts milliseconds, which is longer than an append takes: appends that are due would be sent late, and
//! all of that would count as their latency.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::exit::{Outcome, Stop};

/// One timer: a descriptor that becomes readable when it is time. The runtime waits for it as for the end of a pipe that it reads from, which
/// is the one of its types that takes any descriptor and needs no unsafe code for it.
#[derive(Debug)]
pub(super) struct Timer {
    timer: File,
    readable: Receiver,
    /// What it is set to.
    set_to: Cell<Option<Instant>>,
}

impl Timer {
    pub(super) fn new() -> Outcome<Self> {
        let make = || {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = File::from(timerfd_create(TimerfdClockId::Monotonic, flags)?);
            let readable = Receiver::from_file_unchecked(timer.try_clone()?)?;
            Ok(Self { timer, readable, set_to: Cell::new(None) })
        };
        make().map_err(|error: io::Error| Stop::failed(format!("cannot make a timer: {error}")))
    }

    /// Waits until `moment`. Given up before it comes, it may be called again.
    pub(super) async fn until(&self, moment: Instant) {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() || self.sleep(left, moment).await.is_err() {
                return;
            }
        }
    }

    async fn sleep(&self, left: Duration, moment: Instant) -> io::Result<()> {
        // Whoever waits for two things at once comes here again for each of them.
        if self.set_to.replace(Some(moment)) != Some(moment) {
            let it_value = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            // Setting it also forgets what it has counted before.
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        loop {
            self.readable.readable().await?;
            match self.readable.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    self.set_to.set(None);
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_and_never_too_short() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap_or_else(|stop| panic!("{stop:?}"));
            let begin = Instant::now();
            for step in 1..=20 {
                let moment = begin + Duration::from_micros(300 * step);
                timer.until(moment).await;
                assert!(Instant::now() >= moment);
            }
            // What is past is no wait.
            timer.until(begin).await;
            println!("{:?} for 6 ms", begin.elapsed());
        });
    }
}
