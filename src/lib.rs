//! LogLog as a library.

pub mod config;
pub mod logging;
pub mod options;
pub mod units;
