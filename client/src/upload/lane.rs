//! Lane: what is to be uploaded to one node.
//!
//! Owns:   a queue of chunks and the count of its bytes, those encoded for the socket included.
//! Keeps:  no more than the limit waits (one chunk larger than that if it is alone), and nothing while the node is away; what has
//!         its outcome is let go.
//! Never:  makes anybody wait.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::chunk::Chunk;
use super::task;
use crate::hub::Hub;
use crate::members::Member;

/// Below this many bytes the whole queue is not searched for what can be let go.
const SEARCH_FROM: usize = 64 << 10;

/// What is to be uploaded to one node.
#[derive(Debug)]
pub(super) struct Lane {
    member: Member,
    queue: Mutex<Queue>,
    /// Bytes in `queue`, readable without its lock.
    queued: AtomicUsize,
    /// Bytes that the task has taken and not yet written.
    unwritten: AtomicUsize,
    wake: Notify,
}

#[derive(Debug)]
struct Queue {
    chunks: VecDeque<Arc<Chunk>>,
    /// Whether the node is there, or is being greeted for the first time.
    open: bool,
    /// With so many bytes the whole queue is searched next.
    search_at: usize,
    counts: Counts,
}

/// What became of uploads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) taken: u64,
    pub(crate) skipped: u64,
    pub(crate) connections: u64,
    /// Bytes held at the most.
    pub(crate) held_max: usize,
    /// Bytes held now.
    #[cfg(test)]
    pub(crate) held: usize,
}

/// A lane with its task, which ends with it.
#[derive(Debug)]
pub(super) struct OpenLane {
    lane: Arc<Lane>,
    task: JoinHandle<()>,
}

impl OpenLane {
    pub(super) fn start(lane: Lane, hub: Weak<Hub>) -> Arc<Self> {
        let lane = Arc::new(lane);
        let task = tokio::spawn(task::run(lane.clone(), hub));
        Arc::new(Self { lane, task })
    }
}

impl Deref for OpenLane {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.lane
    }
}

impl Drop for OpenLane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lane {
    pub(super) fn new(member: Member) -> Self {
        let chunks = VecDeque::new();
        let queue = Queue { chunks, open: true, search_at: SEARCH_FROM, counts: Counts::default() };
        let (queued, unwritten) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { member, queue: Mutex::new(queue), queued, unwritten, wake: Notify::new() }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// Whether anything offered now may be taken.
    pub(super) fn takes(&self) -> bool {
        self.lock().open
    }

    /// Takes the chunks that there is room for and skips the others.
    pub(super) fn offer(&self, chunks: &[Arc<Chunk>], limit: usize) {
        let mut queue = self.lock();
        let mut wake = false;
        for chunk in chunks {
            if queue.open && !self.has_room(chunk, limit) {
                self.search(&mut queue);
            }
            let taken = queue.open && self.has_room(chunk, limit);
            let count = if taken { &mut queue.counts.taken } else { &mut queue.counts.skipped };
            *count += chunk.payloads();
            if taken {
                self.queued.fetch_add(chunk.bytes(), Ordering::Relaxed);
                queue.chunks.push_back(chunk.clone());
                wake = true;
            }
        }
        queue.counts.held_max = queue.counts.held_max.max(self.held());
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Lets go of what has its outcome: at once what is at the front, the rest when that is worth the search.
    pub(super) fn let_go(&self) {
        if self.queued.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut queue = self.lock();
        while let Some(chunk) = queue.chunks.pop_front_if(|chunk| chunk.is_settled()) {
            self.queued.fetch_sub(chunk.bytes(), Ordering::Relaxed);
        }
        if self.queued.load(Ordering::Relaxed) >= queue.search_at {
            self.search(&mut queue);
        }
    }

    /// Takes about `room` bytes of what is still of use.
    pub(super) fn take(&self, room: usize, into: &mut Vec<Arc<Chunk>>) {
        if self.queued.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (mut queue, mut taken) = (self.lock(), 0);
        while taken < room
            && let Some(chunk) = queue.chunks.pop_front()
        {
            self.queued.fetch_sub(chunk.bytes(), Ordering::Relaxed);
            if !chunk.is_settled() {
                taken += chunk.bytes();
                self.unwritten.fetch_add(chunk.bytes(), Ordering::Relaxed);
                into.push(chunk);
            }
        }
    }

    /// The task holds so many bytes.
    pub(super) fn set_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes, Ordering::Relaxed);
    }

    /// Waits until something may have been offered.
    pub(super) async fn offered(&self) {
        self.wake.notified().await;
    }

    /// The node is there.
    pub(super) fn opened(&self) {
        let mut queue = self.lock();
        queue.open = true;
        queue.counts.connections += 1;
    }

    /// The node is away. It will fetch what it misses.
    pub(super) fn closed(&self) {
        let mut queue = self.lock();
        queue.open = false;
        queue.chunks = VecDeque::new();
        queue.search_at = SEARCH_FROM;
        self.queued.store(0, Ordering::Relaxed);
        self.set_unwritten(0);
    }

    /// Bytes that wait for the node.
    pub(super) fn held(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Counts {
        Counts { held: self.held(), ..self.lock().counts }
    }

    fn has_room(&self, chunk: &Chunk, limit: usize) -> bool {
        let held = self.held();
        held == 0 || held + chunk.bytes() <= limit
    }

    fn search(&self, queue: &mut Queue) {
        queue.chunks.retain(|chunk| !chunk.is_settled());
        let bytes = queue.chunks.iter().map(|chunk| chunk.bytes()).sum();
        self.queued.store(bytes, Ordering::Relaxed);
        queue.search_at = SEARCH_FROM.max(2 * bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
