//! What goes into the state and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use loglog_proto::request::Append;
use loglog_proto::response::Appended;
use loglog_proto::{Offset, Sequence};

use crate::append_error::AppendError;

/// Which link, counted from 1 in a pipeline's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Names the append that a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Which of the pipeline's writers, counted from 0.
    pub(crate) generation: u32,
    pub(crate) sequence: Sequence,
}

/// What bounds a pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Appends without an outcome on the way to the node.
    pub(crate) entries_max: usize,
    /// From its call to its outcome. The same for all, so that deadlines pass in order.
    pub(crate) timeout: Option<Duration>,
}

/// What a node allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    pub(crate) appends_max: usize,
    pub(crate) bytes_max: usize,
}

/// An append as it was called. `T` is how its outcome gets back.
#[derive(Debug)]
pub(crate) struct Wish<T> {
    pub(crate) token: T,
    pub(crate) payload: Bytes,
    pub(crate) crc: u32,
    pub(crate) expect_end: Option<Offset>,
    pub(crate) called: Duration,
}

/// What is to be done now.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    /// Outcomes, in order.
    pub(crate) done: Vec<(T, Result<Appended, AppendError>)>,
    /// To be sent on the current link, in order.
    pub(crate) sends: Vec<(Attempt, Append)>,
    /// A link is wanted.
    pub(crate) connect: bool,
    /// The node's end is wanted, on the current link.
    pub(crate) learn_end: bool,
    /// The link is given up; the inner value says where the leader is, if that is known.
    pub(crate) leave: Option<Option<String>>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self { done: Vec::new(), sends: Vec::new(), connect: false, learn_end: false, leave: None }
    }
}
