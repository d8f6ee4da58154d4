//! What the fuzz targets share.
//!
//! Owns:   reading of a fuzzer's bytes, data directories that are whole and then changed, what must hold of any directory.
//! Never:  part of the product: see docs/reliability.md, "Fuzzing".

pub mod alter;
pub mod base;
pub mod frames;
pub mod input;
pub mod look;
