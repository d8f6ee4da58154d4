//! LogLog inside a program: a node of one's own, and its log.
//!
//! ```no_run
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! let node = loglog::Node::builder().data_dir("./my-log").start().await?;
//! let log = node.log();
//! let place = log.append("hello").await?;
//! println!("at {}", place.offset);
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Node`] is the way in. [`Node::log`] is the same [`Client`] that speaks to nodes elsewhere. A program without a runtime waits with [`block_on`].
//!
//! How programs build on a log, from the first append to replicated state machines, stands in `docs/guide.md`; whole programs in `examples/`.
//!
//! The rest is what the daemon and the command line are made of.

pub mod config;
pub mod logging;
pub mod node;
pub mod options;
pub mod units;

pub use loglog_client::*;
pub use node::{Node, NodeBuilder};

/// The guide's code, compiled and where it needs no node run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
struct Guide;
