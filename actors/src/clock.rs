//! Clock: microseconds since the machine started, for measuring; cheaper to read, to keep and to compare than two kinds of time. It is read
//! some three times a message.
//!
//! Never:  tells the time of day, save for people.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The same moment on both clocks: microseconds of this one, milliseconds since 1970.
static ANCHOR: LazyLock<(u64, u64)> = LazyLock::new(|| (now_us(), unix_ms()));

/// Now, in microseconds on a clock that nobody sets. Never 0, which stands for *never*.
pub(crate) fn now_us() -> u64 {
    // Linux has this clock; nothing about it can fail.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 1 };
    // Neither part is ever negative.
    (now.tv_sec().unsigned_abs() * 1_000_000 + now.tv_nsec().unsigned_abs() / 1000).max(1)
}

/// The same moment in milliseconds since 1970, for people; `None` for 0.
pub(crate) fn to_unix_ms(us: u64) -> Option<u64> {
    let (anchor_us, anchor_ms) = *ANCHOR;
    let moment = || (anchor_ms + us / 1000).saturating_sub(anchor_us / 1000);
    (us != 0).then(moment)
}

/// The wall clock in milliseconds since 1970; for people only.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
