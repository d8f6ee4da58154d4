//! LogLog as a library.

pub mod config;
pub mod logging;
pub mod units;
