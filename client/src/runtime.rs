//! Runtime: where a client's tasks run and its timers tick.
//!
//! Owns:   a thread, from the first call that comes from outside of any tokio runtime; it ends with the client.
//! Keeps:  whoever waits for a client may do so anywhere. Within a runtime, all that a call needs runs there, as with any tokio library;
//!         what a runtime that is gone took along (connections, pipelines) is begun again in the next.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The caller's runtime, or the client's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime(Arc<OnceLock<Thread>>);

/// A thread that ends with the last who needs it.
#[derive(Debug)]
struct Thread {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        let work = move || {
            // Nothing is ever sent: it is dropped.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("loglog-client".to_owned()).spawn(work)?;
        Ok(Self { handle, _ends: ends })
    }
}

impl Runtime {
    fn own(&self) -> &Handle {
        &self.0.get_or_init(|| Thread::start().expect("a thread for the client's tasks")).handle
    }

    /// # Panics
    /// Outside of any runtime, if the system gives no thread.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match Handle::try_current() {
            Ok(current) => current.spawn(task),
            Err(_) => self.own().spawn(task),
        }
    }

    /// Lets `future` use timers, sockets and tasks, whoever polls it.
    ///
    /// # Panics
    /// As [`Runtime::spawn`].
    pub(crate) async fn within<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let _here = Handle::try_current().is_err().then(|| self.own().enter());
            future.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_and_tasks_are_there_for_who_has_none() {
        let runtime = Runtime::default();
        let slept = runtime.within(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::spawn(async { 7 }).await.unwrap()
        });
        assert_eq!(crate::block_on(slept), 7);
    }

    #[test]
    fn who_has_a_runtime_uses_that() {
        let (runtime, own) = (Builder::new_current_thread().build().unwrap(), Runtime::default());
        let id = runtime.block_on(own.within(async { Handle::current().id() }));
        assert_eq!(id, runtime.handle().id());
        assert!(own.0.get().is_none(), "no thread was needed");
    }
}
