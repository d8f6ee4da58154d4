//! `loglog bench`: how much, how fast.
//!
//! Owns:   the list of what can be measured. Each lies in a file of its own.
//! Keeps:  every acknowledgement that is counted is a durable one, and what was acknowledged is looked for in the log.

mod append;
mod disk;
mod embedded;
mod fill;
mod folder;
mod follow;
mod follower;
mod latency;
mod load;
mod nodes;
mod payload;
mod ports;
mod probe;
mod raw;
mod read;
mod recovery;
mod report;
mod scale;
mod sendfile;
mod tail;
mod tally;
mod target;
mod timer;
mod verify;
mod wire;

use clap::Subcommand;
use loglog_proto::limits::{PAYLOAD_BYTES_MAX, WRITER_SEQUENCES_MAX};

use crate::connect::Endpoints;
use crate::exit::Outcome;
use loglog::units::parse_bytes_or_plain;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Durable appends: rate and latency.
    Append(append::Args),
    /// The log in bulk, and beside it the most that this machine can send over loopback.
    Read(read::Args),
    /// From an append to a reader that waits for it.
    Tail(tail::Args),
    /// Idle followers of the log's end: what each costs, and how long until all of them have what was appended.
    Follow(follow::Args),
    /// One connection with so many appends in flight beside so many connections with one each.
    Scale(scale::Args),
    /// How long a node takes to come back with a log of some size, and how fast it appends to it.
    Recovery(recovery::Args),
    /// The same node from within its program and over loopback TCP, in turns: how much faster it is built in.
    Embedded(embedded::Args),
}

pub(crate) async fn run(bench: Bench, at: &Endpoints) -> Outcome {
    match bench {
        Bench::Append(args) => append::run(&args, at).await,
        Bench::Read(args) => read::run(&args, at).await,
        Bench::Tail(args) => tail::run(&args, at).await,
        Bench::Follow(args) => follow::run(&args, at).await,
        Bench::Scale(args) => scale::run(&args, at).await,
        Bench::Recovery(args) => recovery::run(&args, at).await,
        Bench::Embedded(args) => embedded::run(&args).await,
    }
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes_or_plain(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
        .ok_or_else(|| format!("the largest payload has {PAYLOAD_BYTES_MAX} bytes"))
}

fn in_flight(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=WRITER_SEQUENCES_MAX).contains(count))
        .ok_or_else(|| format!("expected a number from 1 to {WRITER_SEQUENCES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_bounded() {
        assert_eq!(payload_bytes("4 KiB"), Ok(4096));
        assert!(payload_bytes("16 MiB").is_err());
        assert_eq!(in_flight("1"), Ok(1));
        assert!(in_flight("0").is_err());
        assert!(in_flight("5000").is_err());
    }
}
