//! Helpers of the tests: raw logs, and a node in the test's own process.

pub(crate) mod log;
pub(crate) mod model;
