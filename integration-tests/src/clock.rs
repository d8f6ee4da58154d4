//! Clock: the one clock by which everything in this process is recorded.

use std::sync::LazyLock;
use std::time::Instant;

use crate::history::Tick;

/// Nanoseconds since it was first asked.
#[must_use]
pub fn now() -> Tick {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Tick::new(u64::try_from(BEGAN.elapsed().as_nanos()).expect("some centuries"))
}
