//! Tests of the crate as a whole: a conformance suite over both file systems, power cuts, damage.

mod conformance;
mod kit;
mod power_cut;
mod workload;
