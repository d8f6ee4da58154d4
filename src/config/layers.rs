//! The layers: each is read, checked, and laid over the one before.
//!
//! Owns:   reading of file, environment and flags; which layer each value came from; the checks across keys.
//! Never:  keeps a half-read configuration: either all of it holds or there is an error.

use std::path::PathBuf;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::error::{ConfigError, Layer};
use super::keys::{KEYS, Key, for_strangers};
use super::nearest::nearest;
use super::{NodeConfig, value};

/// Environment variables of the daemon begin with this; it is not the client's, whose variables are no unknown keys here.
const PREFIX: &str = "LOGLOGD";
/// Between section and key in a variable's name, since keys hold single underscores.
const SEPARATOR: &str = "__";

/// Where to look for a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one: none is looked for.
    pub file: Option<PathBuf>,
    /// Environment variables; `None` for the process's own.
    pub environment: Option<Map<String, String>>,
    /// `key=value`, a later one over an earlier.
    pub set: Vec<String>,
}

/// What holds in the end, and where each value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// What holds.
    pub config: NodeConfig,
    /// One for each of [`KEYS`].
    origins: Vec<Layer>,
}

impl Sources {
    /// Reads and checks every layer.
    ///
    /// # Errors
    /// [`ConfigError`], the first mistake found.
    pub fn load(&self) -> Result<Effective, ConfigError> {
        let effective = self.lay(&Layer::Flag)?;
        effective.check()?;
        Ok(effective)
    }

    /// Reads every layer, of which `set` is the last. What no key can know of itself is not yet checked.
    pub(crate) fn lay(&self, set: &Layer) -> Result<Effective, ConfigError> {
        let mut effective = Effective::default();
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let table = File::from_str(&text, FileFormat::Toml).collect().map_err(|error| {
                ConfigError::Syntax { path: path.clone(), message: error.to_string().trim().to_owned() }
            })?;
            effective.lay_over(flat(table), |_| Layer::File(path.clone()))?;
        }
        let environment = Environment::with_prefix(PREFIX)
            .prefix_separator("_")
            .separator(SEPARATOR)
            .source(self.environment.clone())
            .collect()
            .map_err(|error| ConfigError::Environment { message: error.to_string() })?;
        effective.lay_over(sorted(environment), |key| Layer::Variable(variable(key)))?;
        for assignment in &self.set {
            let Some((key, text)) = assignment.split_once('=') else {
                return Err(ConfigError::Flag { found: assignment.clone() });
            };
            let value = Value::new(None, ValueKind::String(text.to_owned()));
            effective.lay_over(vec![(key.trim().to_owned(), value)], |_| set.clone())?;
        }
        Ok(effective)
    }
}

impl Default for Effective {
    fn default() -> Self {
        Self { config: NodeConfig::default(), origins: vec![Layer::Default; KEYS.len()] }
    }
}

impl Effective {
    /// Every key with its value and where that came from: for the start log.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, String, &Layer)> {
        KEYS.iter().zip(&self.origins).map(|(key, layer)| (key.name, (key.show)(&self.config), layer))
    }

    /// Every key with its value, as it would stand in a file: for whoever looks in from outside.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String)> {
        self.entries().map(|(name, value, _)| (name.to_owned(), for_strangers(name, value))).collect()
    }

    /// The values that somebody set, on one line: for the start log.
    #[must_use]
    pub fn summary(&self) -> String {
        let set: Vec<String> = self
            .entries()
            .filter(|(_, _, layer)| **layer != Layer::Default)
            .map(|(name, value, _)| format!("{name} = {}", for_strangers(name, value)))
            .collect();
        if set.is_empty() { "all defaults".to_owned() } else { set.join(", ") }
    }

    /// A configuration file that says the same, each value with where it came from: what `--print-config` prints.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut last = "";
        for (name, value, layer) in self.entries() {
            let (section, key) = name.split_once('.').expect("every key has a section");
            if section != last {
                let gap = if last.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}[{section}]\n"));
                last = section;
            }
            let comment = match layer {
                Layer::Default => String::new(),
                // A path may hold anything, a comment no line break.
                layer => format!("  # {}", layer.to_string().escape_debug()),
            };
            out.push_str(&format!("{key} = {value}{comment}\n"));
        }
        out
    }

    fn lay_over(
        &mut self,
        values: Vec<(String, Value)>,
        layer_of: impl Fn(&str) -> Layer,
    ) -> Result<(), ConfigError> {
        for (name, value) in values {
            let layer = layer_of(&name);
            let Some(at) = KEYS.iter().position(|key| key.name == name) else {
                let hint = hint(&name, &layer);
                return Err(ConfigError::UnknownKey { key: name, layer, hint });
            };
            let Key { name, set, .. } = KEYS[at];
            set(&mut self.config, &value).map_err(|problem| ConfigError::BadValue {
                key: name,
                value: value::shown(&value),
                layer: layer.clone(),
                problem,
            })?;
            self.origins[at] = layer;
        }
        Ok(())
    }

    /// What no key can know of itself.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let nodes = &config.cluster.nodes;
        if !nodes.is_empty() && !nodes.iter().any(|node| node.id == config.node.id) {
            let problem = format!("{} is none of the ids in 'cluster.nodes': add it there", config.node.id);
            return Err(self.conflict("node.id", problem));
        }
        if config.cluster.join && !nodes.is_empty() {
            let problem =
                "a node either joins a cluster that is there or forms one with 'cluster.nodes': leave one \
                           of the two out"
                    .to_owned();
            return Err(self.conflict("cluster.join", problem));
        }
        if config.cluster.join && config.cluster.id.is_none() {
            let problem =
                "a node that joins must know whom: set 'cluster.id' to the id that `loglog status` shows"
                    .to_owned();
            return Err(self.conflict("cluster.join", problem));
        }
        if config.cluster.join || nodes.len() > 1 {
            let must = |who: &str| format!("{who} must reach a member of a cluster: give it an address");
            if config.listen.peer.is_none() {
                return Err(self.conflict("listen.peer", must("the other nodes")));
            }
            if config.listen.client.is_none() {
                return Err(self.conflict("listen.client", must("the clients of all nodes")));
            }
        }
        let listen =
            [("client", config.listen.client), ("peer", config.listen.peer), ("admin", config.listen.admin)];
        let listen: Vec<_> =
            listen.into_iter().filter_map(|(name, address)| Some((name, address?))).collect();
        for (at, (name, address)) in listen.iter().enumerate().skip(1) {
            if let Some((other, _)) = listen[..at].iter().find(|(_, o)| o == address && o.port() != 0) {
                let key = if *name == "peer" { "listen.peer" } else { "listen.admin" };
                return Err(
                    self.conflict(key, format!("{address} is 'listen.{other}' too: choose another port"))
                );
            }
        }
        Ok(())
    }

    fn conflict(&self, key: &'static str, problem: String) -> ConfigError {
        let layer =
            KEYS.iter().zip(&self.origins).find(|(k, _)| k.name == key).map(|(_, layer)| layer.clone());
        ConfigError::Conflict { key, layer: layer.unwrap_or(Layer::Default), problem }
    }
}

/// The variable that sets `key`.
fn variable(key: &str) -> String {
    format!("{PREFIX}_{}", key.to_uppercase().replace('.', SEPARATOR))
}

fn hint(name: &str, layer: &Layer) -> String {
    let section = format!("{name}.");
    let inside: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|key| key.starts_with(&section)).collect();
    if !inside.is_empty() {
        return format!("it is the section of {}", inside.join(", "));
    }
    let spelt = |key: &str| match layer {
        Layer::Variable(_) => variable(key),
        _ => format!("'{key}'"),
    };
    if let Some(key) = nearest(name, KEYS.iter().map(|key| key.name)) {
        return format!("did you mean {}?", spelt(key));
    }
    match layer {
        // Kubernetes sets LOGLOGD_PORT and the like for a service of that name.
        Layer::Variable(_) => format!(
            "variables that begin with {PREFIX}_ are the daemon's, such as {}: remove it (or, if Kubernetes \
             set it, say enableServiceLinks: false)",
            variable("data.dir")
        ),
        _ => "`loglogd --print-config` lists all keys".to_owned(),
    }
}

/// Nested tables as dotted keys, in order.
fn flat(table: Map<String, Value>) -> Vec<(String, Value)> {
    let mut out = Map::new();
    flatten(String::new(), table, &mut out);
    sorted(out)
}

fn flatten(prefix: String, table: Map<String, Value>, out: &mut Map<String, Value>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(key, inner, out),
            // An empty section says nothing, unless it is none.
            ValueKind::Table(_) if KEYS.iter().any(|k| k.name.starts_with(&format!("{key}."))) => {}
            kind => {
                out.insert(key, Value::new(None, kind));
            }
        }
    }
}

/// Maps have no order, and messages should not depend on chance.
fn sorted(values: Map<String, Value>) -> Vec<(String, Value)> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(|(a, _), (b, _)| a.cmp(b));
    values
}
