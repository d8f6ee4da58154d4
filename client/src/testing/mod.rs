//! Helpers of the tests: raw logs, a model of a node, and nodes in the test's own process, alone or three together.

pub(crate) mod cluster;
pub(crate) mod fake_log;
pub(crate) mod node;
