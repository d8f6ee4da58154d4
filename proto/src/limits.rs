//! Limits: every size that a peer or a file may claim is checked against one of these first.
//!
//! Owns:   the constants of format and protocol. A cluster's own choices lie in its configuration.

use crate::entry::OVERHEAD;
use crate::position::Length;

/// The largest payload of an entry, bytes: what its 24-bit length can say.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;

/// The largest entry with prefix and suffix, bytes.
pub const ENTRY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + OVERHEAD;

/// A batch is closed before it passes this many bytes, unless one entry alone does.
pub const BATCH_BYTES: usize = 1 << 20;

/// The largest batch, bytes: one entry, however large, or many up to [`BATCH_BYTES`].
pub const BATCH_BYTES_MAX: usize = ENTRY_BYTES_MAX;

/// The most entries in one batch.
pub const BATCH_ENTRIES_MAX: usize = 16_384;

/// The largest payload that travels in the leader's messages to followers. Clients upload larger ones only.
pub const INLINE_BYTES_MAX: usize = 512;

/// G of SAFETY S3: the most bytes that may be written and not yet synced. A constant of the format,
/// since recovery tells a torn tail from corruption by it (S9).
pub const WRITE_GROUP_BYTES_MAX: Length = Length::new(32 << 20);

/// The largest frame on a client connection, length prefix excluded, bytes: the largest payload and the fields around it.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 1024;

/// The largest offset, index or count that a header or `meta` may claim. No log gets there, and sums of two do not run over.
pub const POSITION_MAX: u64 = 1 << 62;

/// The most bytes that one read returns.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// The longest that a read waits, milliseconds.
pub const READ_WAIT_MS_MAX: u64 = 60_000;

/// How many of a writer's last sequences a node remembers (N of SAFETY S27), so also the most appends a writer keeps in flight.
pub const WRITER_SEQUENCES_MAX: usize = 4096;

/// A writer is forgotten this many log bytes after its last entry (D of SAFETY S27). A cluster value; this is its only setting yet.
pub const WRITER_MEMORY: Length = Length::new(256 << 20);

const _: () = assert!(WRITE_GROUP_BYTES_MAX.get() >= BATCH_BYTES_MAX as u64);
const _: () = assert!(BATCH_BYTES <= BATCH_BYTES_MAX);
