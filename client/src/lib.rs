//! The Rust client of LogLog.
