//! Faults on demand: an actor panics, or gets stuck, because somebody asked it to, where `debug.faults` allows.
//!
//! Owns:   which actors can be told, and which are to panic at their next start.
//! Never:  does anything unless asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message};

use crate::guard::Ctx;
use crate::supervisor::Handle;

/// The longest stall that can be asked for, and the one that is meant where none is named.
const STALL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// Where an actor panics, or that it gets stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a handler.
    Handler,
    /// In a future of the actor.
    Async,
    /// In a handler, and then in `started`.
    Started,
    /// Not at all: its handler blocks for so long, and with it the thread that the actor shares with others.
    Stall(Duration),
}

impl How {
    /// A stall of so many milliseconds.
    ///
    /// # Errors
    /// The bound, if that is longer.
    pub fn stall(ms: u64) -> Result<Self, String> {
        let wanted = Duration::from_millis(ms);
        if wanted > STALL.0 {
            return Err(format!("a stall lasts {} ms at most, not {ms}", STALL.0.as_millis()));
        }
        Ok(Self::Stall(wanted))
    }
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "handler" => Ok(Self::Handler),
            "async" => Ok(Self::Async),
            "started" => Ok(Self::Started),
            "stall" => Ok(Self::Stall(STALL.1)),
            other => match other.strip_prefix("stall:").map(str::parse) {
                Some(Ok(ms)) => Self::stall(ms),
                Some(Err(_)) => Err(format!("a stall is told as stall:MILLISECONDS, not '{other}'")),
                None => Err(format!(
                    "a fault is one of handler, async, started, stall:MILLISECONDS, not '{other}'"
                )),
            },
        }
    }
}

/// Panic now, or get stuck.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Fault(pub How);

type Inject = Arc<dyn Fn(How) + Send + Sync>;

/// The actors that can be told to fail.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    actors: BTreeMap<String, Inject>,
    at_start: BTreeSet<String>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().actors.keys()).finish()
    }
}

impl Faults {
    /// Makes an actor reachable under `name`.
    pub(crate) fn enlist<A>(&self, name: &str, handle: &Handle<A>)
    where
        A: Actor<Context = Ctx<A>> + Handler<Fault>,
    {
        // Not its owner, which it would keep for ever, and with it every actor here.
        let inner = Arc::downgrade(&self.inner);
        let (own_name, handle) = (name.to_owned(), handle.clone());
        let inject = move |how| {
            if let (How::Started, Some(inner)) = (how, inner.upgrade()) {
                Self { inner }.lock().at_start.insert(own_name.clone());
            }
            // An actor that is down already has what it was asked for.
            let _ = handle.tell(Fault(how));
        };
        self.lock().actors.insert(name.to_owned(), Arc::new(inject));
    }

    /// Tells the actor called `name` to fail.
    ///
    /// # Errors
    /// The names there are, if it is none of them.
    pub fn inject(&self, name: &str, how: How) -> Result<(), String> {
        let inject = self.lock().actors.get(name).cloned();
        match inject {
            Some(inject) => {
                inject(how);
                Ok(())
            }
            None => {
                let names: Vec<String> = self.lock().actors.keys().cloned().collect();
                Err(format!("no actor is called '{name}'; there are: connection, {}", names.join(", ")))
            }
        }
    }

    /// For `started`: panics if that was asked for.
    pub(crate) fn on_start(&self, name: &str) {
        let asked = self.lock().at_start.remove(name);
        assert!(!asked, "injected fault in started");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every actor does about a [`Fault`].
pub(crate) fn fail_as_told<A: Actor<Context = Ctx<A>>>(how: How, ctx: &mut Ctx<A>) {
    match how {
        How::Handler | How::Started => panic!("injected fault in a handler"),
        How::Async => {
            ctx.spawn(actix::fut::wrap_future(async { panic!("injected fault in a future") }));
        }
        // What an actor must never do, and what this is about.
        How::Stall(wanted) => std::thread::sleep(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_says_how_long_and_is_bounded() {
        let parsed = |text: &str| How::from_str(text);
        assert_eq!(parsed("stall"), Ok(How::Stall(Duration::from_secs(5))));
        assert_eq!(parsed("stall:250"), Ok(How::Stall(Duration::from_millis(250))));
        assert_eq!(parsed("stall:60000"), Ok(How::Stall(Duration::from_secs(60))));
        for wrong in ["stall:60001", "stall:", "stall:-1", "stall:soon", "stalls", ""] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
