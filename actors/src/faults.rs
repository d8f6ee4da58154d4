//! Faults on demand: an actor panics because somebody asked it to, where `debug.faults` allows.
//!
//! Owns:   which actors can be told, and which are to panic at their next start.
//! Never:  does anything unless asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, AsyncContext, Handler, Message};

use crate::guard::Ctx;
use crate::supervisor::Handle;

/// Where an actor panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a handler.
    Handler,
    /// In a future of the actor.
    Async,
    /// In a handler, and then in `started`.
    Started,
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "handler" => Ok(Self::Handler),
            "async" => Ok(Self::Async),
            "started" => Ok(Self::Started),
            other => Err(format!("a fault is one of handler, async, started, not '{other}'")),
        }
    }
}

/// Panic now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Fault(pub How);

type Inject = Arc<dyn Fn(How) + Send + Sync>;

/// The actors that can be told to panic.
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
        let (faults, own_name, handle) = (self.clone(), name.to_owned(), handle.clone());
        let inject = move |how| {
            if how == How::Started {
                faults.lock().at_start.insert(own_name.clone());
            }
            // An actor that is down already has what it was asked for.
            let _ = handle.tell(Fault(how));
        };
        self.lock().actors.insert(name.to_owned(), Arc::new(inject));
    }

    /// Tells the actor called `name` to panic.
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
pub(crate) fn panic_as_told<A: Actor<Context = Ctx<A>>>(how: How, ctx: &mut Ctx<A>) {
    match how {
        How::Handler | How::Started => panic!("injected fault in a handler"),
        How::Async => {
            ctx.spawn(actix::fut::wrap_future(async { panic!("injected fault in a future") }));
        }
    }
}
