//! Thread: one that actors run on, and that ends with whoever has it.
//!
//! Owns:   an arbiter. Left to itself it would live on, with nobody to stop it, where a start fails half-way.

use actix_rt::{Arbiter, ArbiterHandle};

/// A thread for actors. Dropped, it ends after what it does just now.
#[derive(Debug)]
pub(crate) struct Thread(Option<Arbiter>);

impl Thread {
    pub(crate) fn start() -> Self {
        Self(Some(Arbiter::new()))
    }

    pub(crate) fn handle(&self) -> ArbiterHandle {
        self.arbiter().handle()
    }

    /// Ends it after what it does just now.
    pub(crate) fn stop(&self) {
        self.arbiter().stop();
    }

    /// Ends it, and waits until it is gone.
    pub(crate) fn join(mut self) {
        if let Some(arbiter) = self.0.take() {
            arbiter.stop();
            // A thread whose last actor is gone ends by itself.
            let _ = arbiter.join();
        }
    }

    fn arbiter(&self) -> &Arbiter {
        self.0.as_ref().expect("only joining takes it")
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(arbiter) = &self.0 {
            arbiter.stop();
        }
    }
}
