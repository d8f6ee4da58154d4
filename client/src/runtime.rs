//! Runtime: where a client's tasks run and its timers tick.
//!
//! Owns:   a thread of its own, for a client that was made outside of any runtime; else nothing.
//! Keeps:  whoever waits for a client may do so anywhere: in another runtime, or in none.

use std::pin::pin;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The runtime of a client's own work.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    handle: Handle,
    _thread: Option<Arc<Thread>>,
}

/// A thread that ends with the last who needs it.
#[derive(Debug)]
struct Thread {
    _ends: oneshot::Sender<()>,
}

impl Runtime {
    /// The one that this runs in, or one of its own.
    ///
    /// # Errors
    /// No thread can be had for it.
    pub(crate) fn current_or_own() -> std::io::Result<Self> {
        match Handle::try_current() {
            Ok(handle) => Ok(Self { handle, _thread: None }),
            Err(_) => Self::own(),
        }
    }

    /// A thread for this client alone, which lives as long as the client does.
    fn own() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        let work = move || {
            // Nothing is ever sent: it is dropped.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("loglog-client".to_owned()).spawn(work)?;
        Ok(Self { handle, _thread: Some(Arc::new(Thread { _ends: ends })) })
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Lets `future` use this runtime's timers and sockets, whoever polls it.
    pub(crate) async fn within<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let _here = self.handle.enter();
            future.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_and_tasks_of_one_runtime_serve_who_has_none() {
        let runtime = Runtime::current_or_own().unwrap();
        let slept = runtime.within(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::spawn(async { 7 }).await.unwrap()
        });
        assert_eq!(crate::block_on(slept), 7);
    }
}
