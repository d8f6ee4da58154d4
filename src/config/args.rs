//! The daemon's flags.
//!
//! Owns:   what `loglogd --help` says.

use std::path::PathBuf;

use clap::Parser;

use super::{ConfigError, Effective, Sources};

/// A node of LogLog: a replicated, strictly ordered, append-only binary log.
///
/// Without any flags: one node, reachable from this machine only, with its data in ./loglog-data.
#[derive(Parser, Clone, Debug)]
#[command(name = "loglogd", version, after_help = AFTER_HELP)]
pub struct DaemonArgs {
    /// Read this configuration file (TOML; configs/default.toml explains every key).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key, such as data.dir=/var/lib/loglog; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Print the configuration that would hold, as a file, and exit.
    #[arg(long)]
    pub print_config: bool,
}

const AFTER_HELP: &str = "\
Configuration, the later over the earlier: defaults, file, environment, flags.
An environment variable is the key in capitals, its dots doubled underscores: LOGLOGD_DATA__DIR=/var/lib/loglog.
Sizes and durations carry units: \"64 MiB\", \"250 ms\". Unknown keys are errors.";

impl DaemonArgs {
    /// Reads the configuration that these flags lead to.
    ///
    /// # Errors
    /// [`ConfigError`], the first mistake found.
    pub fn load(&self) -> Result<Effective, ConfigError> {
        Sources { file: self.config.clone(), environment: None, set: self.set.clone() }.load()
    }
}
