//! Waiting: a condition, a deadline, and what was waited for.

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it holds; returns how long that took.
///
/// # Panics
/// When `deadline` has passed first, naming `what`.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    within(what, deadline, || condition().then_some(())).1
}

/// Asks `find` again and again until it finds something; returns that, and how long it took.
///
/// # Panics
/// When `deadline` has passed first, naming `what`.
pub fn within<T>(what: &str, deadline: Duration, mut find: impl FnMut() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return (found, began.elapsed());
        }
        assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
