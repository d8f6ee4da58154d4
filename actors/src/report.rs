//! Report: an actor's stats as they are shown, in the words and units of the admin endpoint.
//!
//! Owns:   nothing: copies of one moment.

use serde::Serialize;
use serde_json::Value;

use crate::clock::to_unix_ms;
use crate::guard::Restart;
use crate::histogram::Histogram;
use crate::stats::{ActorStats, MessageStats, Panic, State};

/// One actor, or one part of a node that is none and has actors below it, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorReport {
    /// Unique among the living.
    pub name: String,
    /// The type of actor.
    pub kind: &'static str,
    /// Name of the actor or part that it belongs to; none for the node.
    pub parent: Option<String>,
    /// What follows its end.
    pub restart: Restart,
    /// Where it is in its life.
    pub state: State,
    /// Messages waiting; none of an actor that has ended.
    pub mailbox: u64,
    /// For how long the oldest of them has been waiting; 0 if none is, or no times are taken.
    pub oldest_wait_ms: u64,
    /// Messages told to it.
    pub enqueued: u64,
    /// Messages it took out of its mailbox.
    pub handled: u64,
    /// Restarts, in place or with its group.
    pub restarts: u64,
    /// How often it panicked.
    pub panics: u64,
    /// The last panic, kept across restarts.
    pub last_panic: Option<Panic>,
    /// For how long it has made no progress, if that is long enough to be called a stall.
    pub stalled_ms: Option<u64>,
    /// Stalls so far, kept across restarts.
    pub stalls: u64,
    /// When it last ran to where it waits, in milliseconds since 1970.
    pub last_progress_unix_ms: Option<u64>,
}

/// One actor at length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActorDetail {
    /// In short.
    #[serde(flatten)]
    pub summary: ActorReport,
    /// Each type of message that it has handled, in the order of names.
    pub messages: Vec<MessageReport>,
    /// Its own state, as it told last.
    pub observed: Option<Value>,
}

/// Messages of one type, as one actor handled them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageReport {
    /// The message.
    pub r#type: &'static str,
    /// How many.
    pub handled: u64,
    /// Microseconds in the mailbox; zeros for what does not pass through it, such as what a socket brings.
    pub wait_us: Spread,
    /// Microseconds in the handler.
    pub handling_us: Spread,
}

/// How times are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of them took no longer than this.
    pub p50: u64,
    /// 99 of 100 took no longer than this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl From<&Histogram> for Spread {
    fn from(histogram: &Histogram) -> Self {
        let seen = histogram.snapshot();
        Self { p50: seen.quantile(0.5), p99: seen.quantile(0.99), max: seen.max }
    }
}

impl From<&MessageStats> for MessageReport {
    fn from(message: &MessageStats) -> Self {
        Self {
            r#type: message.name,
            handled: message.handling.snapshot().count(),
            wait_us: Spread::from(&message.wait),
            handling_us: Spread::from(&message.handling),
        }
    }
}

impl ActorReport {
    /// `stats` as they are at `now`.
    pub(crate) fn of(stats: &ActorStats, now: u64) -> Self {
        let has_ended = stats.state().has_ended();
        let oldest = stats.oldest().filter(|_| !has_ended);
        Self {
            name: stats.name().to_string(),
            kind: stats.kind,
            parent: stats.parent.clone(),
            restart: stats.restart,
            state: stats.state(),
            mailbox: if has_ended { 0 } else { stats.queued() },
            oldest_wait_ms: oldest.map_or(0, |told| now.saturating_sub(told) / 1000),
            enqueued: stats.enqueued(),
            handled: stats.handled(),
            restarts: stats.restarts(),
            panics: stats.panics(),
            last_panic: stats.last_panic(),
            stalled_ms: stats.stalled(now).map(|us| us / 1000),
            stalls: stats.stalls(),
            last_progress_unix_ms: to_unix_ms(stats.progress()),
        }
    }
}

impl ActorDetail {
    /// `stats` as they are at `now`.
    pub(crate) fn of(stats: &ActorStats, now: u64) -> Self {
        let mut messages: Vec<_> =
            stats.messages().iter().map(|message| MessageReport::from(&**message)).collect();
        messages.sort_by_key(|message| message.r#type);
        Self { summary: ActorReport::of(stats, now), messages, observed: stats.observed() }
    }
}
