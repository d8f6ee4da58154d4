//! Helpers of the tests: raw logs, a model of a node, and a node in the test's own process.

pub(crate) mod log;
pub(crate) mod model;
pub(crate) mod node;
