//! LogLog as its users meet it: real processes, real sockets, real files. One story a file.

// Helpers of tests are tests: an unwrap that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod admin;
mod admin_command;
mod admin_description;
mod admin_kit;
mod admin_metrics;
mod bad_input;
mod bench;
mod busy_poll;
mod clocks;
mod cluster;
mod conformance;
mod crash;
mod embedded;
mod examples;
mod frozen_disk;
mod full_disk;
mod integrity;
mod life;
mod limits;
mod members;
mod observability;
mod page;
mod panics;
mod partitions;
mod peers;
mod power_cuts;
mod published;
mod python;
mod read_only;
mod repair;
mod rounds;
mod simulator;
mod slow_follower;
mod snapshots;
mod structure;
mod syscalls;
mod unix_socket;
mod uploads;

use loglog_integration_tests::DaemonOptions;
use tempfile::TempDir;

/// A daemon's options with its data in a folder of its own.
fn daemon(dir: &TempDir) -> DaemonOptions {
    DaemonOptions::new(env!("CARGO_BIN_EXE_loglogd"), dir.path().join("data")).set("data.free_min=1 MiB")
}
