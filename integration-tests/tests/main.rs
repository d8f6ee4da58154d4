//! LogLog as its users meet it: real processes, real sockets, real files. One story a file.

mod bad_input;
mod crash;
mod full_disk;
mod life;
mod panics;
mod python;
mod structure;

use loglog_integration_tests::DaemonOptions;
use tempfile::TempDir;

/// A daemon's options with its data in a folder of its own.
fn daemon(dir: &TempDir) -> DaemonOptions {
    DaemonOptions::new(env!("CARGO_BIN_EXE_loglogd"), dir.path().join("data")).set("data.free_min=1 MiB")
}
