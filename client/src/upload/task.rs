//! The task that uploads to one node.
//!
//! Owns:   the socket, and what was taken from the lane and not yet written.
//! Keeps:  everything queued goes out in one write; answers are counted, not read; a lost node is sought again, ever more seldom.
//! Never:  sends again what was lost with a connection.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use loglog_proto::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::lane::Lane;
use crate::backoff;
use crate::connection::{Greeted, Outbox, greet};
use crate::hub::Hub;

/// With this much waiting for the socket, no more is taken from the lane.
const OUTBOX_BYTES: usize = 256 << 10;
/// A connection that lasted this long was a good one: the next is tried at once.
const GOOD: Duration = Duration::from_secs(1);

/// Uploads for as long as the client lives; ended from outside.
pub(super) async fn run(lane: Arc<Lane>, hub: Weak<Hub>) {
    let mut failures = 0;
    loop {
        let Some((cluster, options)) =
            hub.upgrade().map(|hub| (hub.members().cluster(), hub.options().clone()))
        else {
            return;
        };
        let member = lane.member();
        if let Ok(greeted) = greet(&member.endpoint, cluster, options.connect_timeout).await
            && greeted.welcome.node == member.node
        {
            let began = Instant::now();
            lane.opened();
            if let Some(hub) = hub.upgrade() {
                hub.learn(&member.endpoint, &greeted.welcome);
            }
            carry(&lane, greeted, options.quiet).await;
            if began.elapsed() >= GOOD {
                failures = 0;
            }
        }
        lane.closed();
        let pause = backoff::seek(failures, &mut rand::rng());
        sleep(pause).await;
        failures = failures.saturating_add(1);
    }
}

/// Runs until the socket breaks, or the node is silent for twice `quiet` while it owes answers.
async fn carry(lane: &Lane, greeted: Greeted, quiet: Duration) {
    let Greeted { mut reader, mut writer, received, .. } = greeted;
    let mut answers = Answers { received, skip: 0, count: 0 };
    let (mut outbox, mut taken, mut owed) = (Outbox::default(), Vec::new(), 0_u64);
    let mut silence = interval(quiet);
    silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    silence.reset();
    let mut silent = 0;
    loop {
        if outbox.len() < OUTBOX_BYTES {
            lane.take(OUTBOX_BYTES - outbox.len(), &mut taken);
            for chunk in taken.drain(..) {
                owed += 1;
                chunk.pieces().for_each(|piece| outbox.push_encoded(piece));
            }
        }
        tokio::select! {
            biased;
            written = writer.write_buf(&mut outbox), if outbox.has_remaining() => {
                if !matches!(written, Ok(1..)) {
                    return;
                }
                lane.set_unwritten(outbox.len());
            }
            read = reader.read_buf(&mut answers.received) => {
                if !matches!(read, Ok(1..)) || !answers.skip() || answers.count > owed {
                    return;
                }
                silent = 0;
            }
            () = lane.offered() => {}
            _ = silence.tick() => {
                silent = if owed > answers.count { silent + 1 } else { 0 };
                if silent > 2 {
                    return;
                }
            }
        }
    }
}

/// Answers to uploads. Whether a hint was taken changes nothing, so only their number counts.
struct Answers {
    received: BytesMut,
    /// Bytes of the frame at the front that have not come yet.
    skip: usize,
    count: u64,
}

impl Answers {
    /// Counts frames that begin in what came. False: these are no frames.
    fn skip(&mut self) -> bool {
        loop {
            let here = self.skip.min(self.received.len());
            self.received.advance(here);
            self.skip -= here;
            if self.skip > 0 || self.received.len() < size_of::<u32>() {
                break;
            }
            self.skip = usize::try_from(self.received.get_u32()).unwrap_or(usize::MAX);
            self.count += 1;
            if self.skip > FRAME_BYTES_MAX {
                return false;
            }
        }
        self.received.reserve(4096);
        true
    }
}
