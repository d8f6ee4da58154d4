//! Tests of the crate as a whole: a conformance suite over both file systems, power cuts, damage.

mod arbitrary;
mod check;
mod conformance;
mod damage;
mod faults;
mod install;
mod kit;
mod order;
mod power_cut;
mod workload;
