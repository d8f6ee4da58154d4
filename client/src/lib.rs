//! The Rust client of LogLog, a strictly ordered, append-only, binary log.
//!
//! ```no_run
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! use futures_util::StreamExt;
//! use loglog_client::{AppendOptions, Client, Compression, Offset, PackBuilder, PackOptions, PipelineOptions};
//!
//! let client = Client::connect("127.0.0.1:19194").await?;
//!
//! // One entry, acknowledged once it is committed.
//! let first = client.append("hello").await?;
//!
//! // Only if nobody else has appended since.
//! let options = AppendOptions { expect_end: Some(first.end) };
//! if let Err(error) = client.append_with("next", options).await {
//!     eprintln!("{error}; may have happened: {}", error.may_have_happened());
//! }
//!
//! // Many on their way at once, in strict order, each exactly once.
//! let pipeline = client.pipeline(PipelineOptions::default());
//! for number in 0..1000 {
//!     let _ticket = pipeline.append(format!("line {number}")).await?;
//! }
//! pipeline.flush().await?;
//!
//! // Several small events in one entry.
//! let mut pack = PackBuilder::new();
//! pack.push(b"deposited")?;
//! pack.push(b"withdrawn")?;
//! client.append(pack.finish()).await?;
//!
//! // The same, compressed, and each event with a checksum that goes with it wherever the pack is copied.
//! let options = PackOptions { compression: Compression::Lz4, checksums: true };
//! let mut pack = PackBuilder::with(options);
//! pack.push(b"deposited")?;
//! let packed = client.append(pack.finish()).await?;
//!
//! // Whoever reads does the same for all packs.
//! let mut entries = client.entries(packed.offset..);
//! while let Some(entry) = entries.next().await {
//!     for (position, event) in entry?.events()? {
//!         println!("{position} {} bytes", event.len());
//!     }
//! }
//!
//! // What there is, then what comes.
//! let mut entries = client.follow(Offset::ZERO);
//! while let Some(entry) = entries.next().await {
//!     let entry = entry?;
//!     println!("{} {} bytes", entry.offset, entry.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: connects, appends, reads, asks how a node is. Within a tokio runtime (with I/O and time) it works there; a program without one waits with [`block_on`].
//! - [`Pipeline`] and [`Ticket`]: appends at full speed.
//! - [`Entries`], [`Follow`], [`Client::tail_start`]: the log as entries.
//! - [`PackBuilder`], [`Pack`], [`Entry::events`]: events within entries, compressed and with checksums of their own by choice; see [`pack`].
//! - [`StateMachine`], [`Replica`]: state that is a function of the log, with snapshots; see [`state_machine`].
//! - [`Lease`]: at most one of many programs does something; see [`lease`].
//! - [`Log`], [`MemoryLog`]: what can be done with a log wherever it is; one in memory, for tests.
//! - [`Client::members`], [`Client::manage`]: who keeps the log; trimming it, changing its members, moving the lead.
//! - [`AppendError`] answers *may I retry?* and *could it have taken effect?*; [`Error`] is for all else.
//!
//! In a cluster any endpoint will do: appends find the leader, follow it when it changes and carry their payloads to every node at once, and
//! any node serves reads. Members may come and go meanwhile.
//!
//! Each entry's CRC is checked when it is read, since nodes check nothing: what one of them has damaged is read from another, the node is told to
//! repair its copy, and [`ClientBuilder::on_damage`] says which one it was.
//!
//! How to build on all this, in the order in which a newcomer meets it: `docs/guide.md`; whole programs: `examples/`.
//!
//! Whatever is lost on the way is sent again under the same writer and sequence, and the log takes each sequence once. The
//! reasoning stands in the source, at the head of `pipeline/state.rs`; the protocol in `docs/protocol.md`.

mod append_error;
mod ask;
mod backoff;
mod block_on;
mod builder;
mod client;
#[cfg(test)]
mod client_test;
#[cfg(test)]
mod cluster_test;
mod connection;
mod damage;
#[cfg(test)]
mod damage_test;
mod endpoints;
mod error;
mod hub;
pub mod lease;
mod local;
mod log;
mod manage;
#[cfg(test)]
mod manage_test;
mod members;
mod memory;
pub mod pack;
mod pipeline;
mod read;
mod runtime;
mod search;
pub mod state_machine;
#[cfg(test)]
mod testing;
mod upload;

pub use append_error::AppendError;
pub use block_on::block_on;
pub use builder::ClientBuilder;
pub use client::{Client, Ends};
pub use damage::{Damage, Offer};
pub use endpoints::{Endpoint, Endpoints};
pub use error::Error;
pub use lease::{Lease, LeaseError};
pub use local::{LocalEndpoint, LocalNode, LocalSocket};
pub use log::Log;
pub use memory::MemoryLog;
pub use pack::{Compression, EventPosition, Events, Pack, PackBuilder, PackError, PackOptions};
pub use pipeline::{AppendOptions, Pipeline, PipelineOptions, Ticket};
#[doc(hidden)]
pub use read::Splitter;
pub use read::{Entries, EntriesOptions, Entry, Follow, ReadOptions};
pub use state_machine::{ApplyError, Replica, ReplicaError, ReplicaOptions, SnapshotError, StateMachine};

pub use loglog_proto::entry::EntryError;
pub use loglog_proto::error::{Code, Detail, Refusal};
pub use loglog_proto::manage::{Change, Managed, MemberStatus, NewMember};
pub use loglog_proto::response::{ActorStatus, Appended, Data, Status, Welcome};
pub use loglog_proto::{ClusterId, Length, NodeId, Offset, Sequence, Term, WriterId};
