//! LogLog's actors: thin shells around `core`, and the supervisor that restarts what fails.
//!
//! ```text
//! node
//!  ├─ storage group (one for all, through recovery; SAFETY S13)
//!  │    ├─ SegmentWriter     owns the active segment; one write + one sync per write group; its own thread
//!  │    ├─ SegmentKeeper     prepares the next segment while the disk is idle; its own thread
//!  │    └─ Consensus         owns the engine and meta; ticks, proposes, carries effects out
//!  ├─ UploadBuffer           payloads waiting for their place; survives a storage restart
//!  ├─ ReadWaiters            who waits for which committed offset
//!  ├─ Listener               accepts; one Connection per client, never restarted
//!  └─ (Admin)                no actor: HTTP from a thread of its own, looks at what the others leave in shared counters
//! ```
//!
//! Owns:   threads, mailboxes, sockets, restarts.
//! Never:  decides anything that a unit test could not reach without a runtime: that is `core`'s.

pub mod admin;
pub mod backoff;
mod catch;
mod client_socket;
mod clock;
pub mod connection;
pub mod consensus;
pub mod context;
pub mod credits;
pub mod family;
pub mod faults;
mod genesis;
pub mod guard;
pub mod histogram;
mod integrity;
pub mod listener;
mod local_port;
mod manage;
pub mod measures;
pub mod node;
pub mod peer;
mod process;
pub mod read_waiters;
pub mod registry;
pub mod report;
pub mod segment_keeper;
pub mod segment_writer;
pub mod services;
pub mod stats;
pub mod storage_group;
pub mod supervisor;
mod thread;
pub mod ticket;
pub mod upload_buffer;
pub mod view;
mod waiting;
mod watch;

pub use local_port::{LocalChannels, LocalPort};
pub use node::{Node, NodeError, NodeOptions};
pub use peer::formation::ClusterNode;
