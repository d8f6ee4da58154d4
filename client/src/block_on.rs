//! Block on: for programs that have no runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits in this thread until `future` is done. For programs without a runtime: everything that a client or a node of this library returns can be
/// waited for like this. Within a runtime it would hold up other tasks: await there.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // Woken for nothing at times: then it is polled for nothing.
            Poll::Pending => std::thread::park(),
        }
    }
}
