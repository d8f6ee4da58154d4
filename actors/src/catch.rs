//! Catching: a panic becomes a value, with the place where it happened.
//!
//! Owns:   the panic hook's memory of where this thread panicked last.
//! Keeps:  the hook that was there runs as ever.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::clock::unix_ms;
use crate::stats::Panic;

thread_local! {
    /// Where this thread panicked last, if nobody asked yet.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is inside [`catch`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Has the panic hook remember where a guarded thread panics, before the hook that was there runs as ever.
///
/// Only a hook sees the location. A hook set later that does not chain costs us the location, no more.
pub(crate) fn note_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if GUARDED.try_with(Cell::get).unwrap_or(false) {
                let location = panic.location().map(ToString::to_string);
                let _ = LOCATION.try_with(|cell| cell.replace(location));
            }
            previous(panic);
        }));
    });
}

/// Runs `f`, turning a panic into a value.
///
/// Unwind safety is the caller's: every caller here drops what `f` may have left half done.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    LOCATION.take();
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(outer);
    result.map_err(|payload| Panic {
        text: text_of(&*payload),
        location: LOCATION.take(),
        unix_ms: unix_ms(),
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without text".to_owned()
    }
}
