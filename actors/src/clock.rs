//! Clock: microseconds since the process began, for measuring; cheaper to keep and compare than two kinds of time.
//!
//! Never:  tells the time of day, save for people.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the count begins, on both clocks.
static BEGAN: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), unix_ms()));

/// Now, in microseconds since the process first asked. Never 0, which stands for *never*.
pub(crate) fn now_us() -> u64 {
    let since = Instant::now().saturating_duration_since(BEGAN.0);
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()) + 1
}

/// The same moment in milliseconds since 1970, for people; `None` for 0.
pub(crate) fn to_unix_ms(us: u64) -> Option<u64> {
    (us != 0).then(|| BEGAN.1 + us / 1000)
}

/// The wall clock in milliseconds since 1970; for people only.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
