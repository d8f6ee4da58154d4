//! Load: one writer's appends, as fast as their answers come (closed loop) or as they are due (open loop).
//!
//! It shares processors with the nodes that it measures, so it does as little as it can for each append: answers come in the order of
//! the appends, so only the oldest is waited for; and it looks at the clock for every 16th append only, where many are in flight.
//!
//! Owns:   when an append is sent and what its latency is counted from.
//! Keeps:  in an open loop that is the moment at which it was due, however late it is sent: a node that stalls does not
//!         spare itself the appends that would have waited.
//! Never:  verifies.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use loglog_client::{AppendError, Client, Pipeline, PipelineOptions, Ticket};

use super::payload::Source;
use super::tally::Tally;
use super::timer::Timer;
use crate::exit::Outcome;

/// More than so many in flight, and only every [`SAMPLE`]th has its time taken: an append takes less than a microsecond then, and two looks at
/// the clock are a good part of that.
const FEW: usize = 64;
const SAMPLE: u64 = 16;

/// When to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// One writer.
#[derive(Debug)]
pub(super) struct Writer {
    pipeline: Pipeline,
    source: Source,
    /// Which one of the bench's writers it is, from 0.
    number: u64,
    in_flight: usize,
    sent: u64,
}

impl Window {
    pub(super) fn from_now(warmup: Duration, duration: Duration) -> Self {
        let begin = Instant::now() + warmup;
        Self { begin, end: begin + duration }
    }

    fn has(&self, moment: Instant) -> bool {
        (self.begin..self.end).contains(&moment)
    }
}

/// Of how many appends the latency is taken from one.
pub(super) const fn sampled(in_flight: usize) -> u64 {
    if in_flight > FEW { SAMPLE } else { 1 }
}

impl Writer {
    /// A writer over `client`'s connection.
    pub(super) fn new(client: &Client, source: &Source, number: u64, in_flight: usize) -> Self {
        // Room for all that are in flight, each with what the pipeline adds to it: the loops below are what binds.
        let largest = source.payload_max() + 1024;
        let options = PipelineOptions {
            entries_max: in_flight,
            bytes_max: in_flight.saturating_mul(largest),
            ..PipelineOptions::default()
        };
        Self { pipeline: client.pipeline(options), source: source.clone(), number, in_flight, sent: 0 }
    }

    /// Hands in the next append.
    pub(super) async fn send(&mut self) -> Result<Ticket, AppendError> {
        let payload = self.source.payload(self.number, self.sent);
        self.sent += 1;
        self.pipeline.append(payload).await
    }

    /// Keeps as many in flight as there may be, until the window is over.
    pub(super) async fn closed_loop(&mut self, window: Window) -> Tally {
        let mut tally = Tally::new();
        if let Err(error) = self.as_many_as_may_be(window, &mut tally).await {
            tally.error(error);
        }
        tally
    }

    async fn as_many_as_may_be(&mut self, window: Window, tally: &mut Tally) -> Result<(), AppendError> {
        let every = sampled(self.in_flight);
        let mut flying: VecDeque<(Option<Instant>, Ticket)> = VecDeque::with_capacity(self.in_flight);
        // As of the last look at the clock.
        let mut is_measured = false;
        loop {
            if flying.len() == self.in_flight
                && let Some((stamp, ticket)) = flying.pop_front()
            {
                let appended = ticket.await?;
                if let Some(stamp) = stamp {
                    let now = Instant::now();
                    is_measured = window.has(now);
                    if is_measured {
                        tally.latencies.record(now - stamp);
                    }
                }
                tally.acknowledged(&appended, is_measured);
            }
            let stamp = self.sent.is_multiple_of(every).then(Instant::now);
            if stamp.is_some_and(|now| now >= window.end) {
                break;
            }
            let ticket = self.send().await?;
            flying.push_back((stamp, ticket));
        }
        for (_, ticket) in flying {
            tally.acknowledged(&ticket.await?, false);
        }
        Ok(())
    }

    /// Sends one append each `every`, the first at `begin`, until the window is over. No more than `in_flight` are on their way: those that
    /// are due meanwhile wait, and that counts.
    pub(super) async fn open_loop(
        &mut self,
        begin: Instant,
        every: Duration,
        window: Window,
    ) -> Outcome<Tally> {
        let timer = Timer::new()?;
        let mut tally = Tally::new();
        if let Err(error) = self.as_they_are_due((begin, every), window, &timer, &mut tally).await {
            tally.error(error);
        }
        Ok(tally)
    }

    async fn as_they_are_due(
        &mut self,
        (begin, every): (Instant, Duration),
        window: Window,
        timer: &Timer,
        tally: &mut Tally,
    ) -> Result<(), AppendError> {
        let mut due = begin;
        let mut flying: VecDeque<(Instant, Ticket)> = VecDeque::with_capacity(self.in_flight);
        while due < window.end {
            let now = Instant::now();
            while due <= now && due < window.end && flying.len() < self.in_flight {
                let ticket = self.send().await?;
                flying.push_back((due, ticket));
                due += every;
            }
            if now >= window.end {
                // Those for which there was no room.
                tally.never_sent(due, every, window);
                break;
            }
            let is_full = flying.len() == self.in_flight;
            tokio::select! {
                biased;
                () = settle(&mut flying, window, tally) => {}
                () = timer.until(due), if !is_full => {}
            }
            if tally.errors > 0 {
                return Ok(());
            }
        }
        while !flying.is_empty() && tally.errors == 0 {
            settle(&mut flying, window, tally).await;
        }
        Ok(())
    }
}

/// Waits for the oldest answer, and takes all that have come with it: one look at the clock for all of them. Nothing is lost if this is given
/// up before.
async fn settle(flying: &mut VecDeque<(Instant, Ticket)>, window: Window, tally: &mut Tally) {
    let Some((due, oldest)) = flying.front_mut() else { return std::future::pending().await };
    let mut outcome = oldest.await;
    let (mut due, now) = (*due, Instant::now());
    loop {
        flying.pop_front();
        match outcome {
            Ok(appended) => {
                // It counts for the window in which it was due, whenever its answer comes.
                if window.has(due) {
                    tally.latencies.record(now - due);
                }
                tally.acknowledged(&appended, window.has(now));
            }
            Err(error) => return tally.error(error),
        }
        let Some((next_due, next)) = flying.front_mut() else { return };
        let Some(next_outcome) = next.now_or_never() else { return };
        (due, outcome) = (*next_due, next_outcome);
    }
}

#[cfg(test)]
mod tests {
    use loglog_client::MemoryLog;

    use super::super::payload::Mix;
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_stall_shows_up_in_the_latencies_of_all_that_were_due_meanwhile() {
        run(async {
            let log = MemoryLog::new();
            let source = Source::new(Mix::one(10), None, 1).unwrap();
            let mut writer = Writer::new(log.client(), &source, 0, 16);
            let window = Window::from_now(Duration::ZERO, Duration::from_millis(400));
            let every = Duration::from_millis(1);
            // Nobody sends anything and nobody answers for half of the window: this thread does something else.
            let stall = async {
                tokio::task::yield_now().await;
                std::thread::sleep(Duration::from_millis(200));
            };
            let (tally, ()) = tokio::join!(writer.open_loop(window.begin, every, window), stall);
            let tally = tally.unwrap_or_else(|stop| panic!("{stop:?}"));
            assert_eq!(tally.latencies.len() + tally.errors, 400, "each that was due counts, once");
            assert_eq!(tally.acknowledged + tally.unsent, 400);
            // Those that were due during the stall waited 100 ms on average: a quarter of all waited longer.
            assert!(tally.latencies.at(0.8) > 60e3, "{}", tally.latencies.words());
            assert!(tally.latencies.max() > 150e3, "{}", tally.latencies.words());
        });
    }

    #[test]
    fn a_closed_loop_measures_within_the_window_only() {
        run(async {
            let log = MemoryLog::new();
            let source = Source::new(Mix::one(10), None, 1).unwrap();
            for in_flight in [1, 100] {
                let mut writer = Writer::new(log.client(), &source, 0, in_flight);
                let window = Window::from_now(Duration::from_millis(20), Duration::from_millis(50));
                let tally = writer.closed_loop(window).await;
                assert_eq!(tally.errors, 0);
                assert!(tally.measured > 0 && tally.acknowledged > tally.measured);
                assert_eq!(tally.log_bytes, tally.acknowledged * 42);
                let timed = tally.measured / sampled(in_flight);
                assert!(tally.latencies.len() <= timed + 1 && tally.latencies.len() + 16 > timed);
            }
        });
    }
}
