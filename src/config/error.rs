//! What can be wrong with a configuration, and where.
//!
//! Owns:   the words: each message names key, value, layer and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Nowhere: built in.
    Default,
    /// In the configuration file.
    File(PathBuf),
    /// In an environment variable, by its name.
    Variable(String),
    /// By `--set`.
    Flag,
    /// By the program that the node is part of.
    Builder,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag => f.write_str("flag --set"),
            Self::Builder => f.write_str("the node's builder"),
        }
    }
}

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not TOML: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the place; several lines.
        message: String,
    },
    /// A variable cannot be read.
    #[error("cannot read the environment: {message}")]
    Environment {
        /// Why.
        message: String,
    },
    /// `--set` without `=`.
    #[error("--set wants key=value, such as data.dir=/var/lib/loglog, and not '{found}'")]
    Flag {
        /// What stands there.
        found: String,
    },
    /// A key that does not exist.
    #[error("unknown key '{key}' in {layer}; {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it is set.
        layer: Layer,
        /// What may have been meant.
        hint: String,
    },
    /// A value that the key cannot have.
    #[error("bad value {value} for '{key}' in {layer}: {problem}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, as it is written there.
        value: String,
        /// Where it is set.
        layer: Layer,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// Two values that cannot both be.
    #[error("'{key}' (from {layer}) does not fit: {problem}")]
    Conflict {
        /// The key to change.
        key: &'static str,
        /// Where it is set.
        layer: Layer,
        /// What it does not fit to, and what to do.
        problem: String,
    },
}
