//! Which records pass.
//!
//! Owns:   the levels, their text (`info,raft=debug`), the handle that changes them at run time.
//! Keeps:  a record that nothing lets pass costs one atomic load.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use slog::{Drain, FilterLevel, Level, Never, OwnedKVList, Record};

const NAMES: [(&str, FilterLevel); 7] = [
    ("off", FilterLevel::Off),
    ("critical", FilterLevel::Critical),
    ("error", FilterLevel::Error),
    ("warning", FilterLevel::Warning),
    ("info", FilterLevel::Info),
    ("debug", FilterLevel::Debug),
    ("trace", FilterLevel::Trace),
];

/// A level for all, and others for parts of the program: `info,raft=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    general: FilterLevel,
    /// By module, `::` between its parts, the longest name first, so that the first that fits is the nearest.
    modules: Vec<(String, FilterLevel)>,
}

/// A text that names no levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{found}': expected off, critical, error, warning, info, debug or trace, then module=level where parts \
     differ, such as \"info,raft=debug\""
)]
pub struct LevelError {
    found: String,
}

impl LevelSpec {
    /// `level` for all.
    #[must_use]
    pub const fn all(level: FilterLevel) -> Self {
        Self { general: level, modules: Vec::new() }
    }

    /// `info` for all.
    #[must_use]
    pub const fn info() -> Self {
        Self::all(FilterLevel::Info)
    }

    /// The level of `module`'s records.
    fn of(&self, module: &str) -> FilterLevel {
        let own = self.modules.iter().find(|(name, _)| {
            module.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        own.map_or(self.general, |(_, level)| *level)
    }

    /// The most talkative level of all, as a number.
    fn max(&self) -> usize {
        let modules = self.modules.iter().map(|(_, level)| level.as_usize());
        modules.fold(self.general.as_usize(), usize::max)
    }
}

fn level(text: &str) -> Option<FilterLevel> {
    let text = if text == "warn" { "warning" } else { text };
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
}

fn name(level: FilterLevel) -> &'static str {
    NAMES.iter().find(|(_, other)| *other == level).map_or("off", |(name, _)| name)
}

impl FromStr for LevelSpec {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let mut general = None;
        let mut modules = Vec::new();
        for part in text.split(',').map(str::trim) {
            let error = || LevelError { found: part.to_owned() };
            match part.split_once('=') {
                None if general.is_none() => general = Some(level(part).ok_or_else(error)?),
                None => return Err(error()),
                Some((module, _)) if module.trim().is_empty() => return Err(error()),
                Some((module, text)) => {
                    modules.push((module.trim().to_owned(), level(text.trim()).ok_or_else(error)?));
                }
            }
        }
        modules.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Ok(Self { general: general.unwrap_or(FilterLevel::Info), modules })
    }
}

impl fmt::Display for LevelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self.general))?;
        self.modules.iter().try_for_each(|(module, level)| write!(f, ",{module}={}", name(*level)))
    }
}

/// Changes the level while the program runs. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct LevelHandle(Arc<Levels>);

#[derive(Debug)]
struct Levels {
    /// The most talkative [`FilterLevel`] of all, as a number.
    max: AtomicUsize,
    spec: RwLock<LevelSpec>,
}

impl LevelHandle {
    pub(super) fn new(spec: &LevelSpec) -> Self {
        Self(Arc::new(Levels { max: AtomicUsize::new(spec.max()), spec: RwLock::new(spec.clone()) }))
    }

    /// Sets what holds from now on.
    pub fn set(&self, spec: LevelSpec) {
        let max = spec.max();
        *self.0.spec.write().unwrap_or_else(PoisonError::into_inner) = spec;
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// What holds now.
    #[must_use]
    pub fn get(&self) -> LevelSpec {
        self.0.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether any module's records of this level pass.
    #[must_use]
    pub fn allows_any(&self, level: Level) -> bool {
        level.as_usize() <= self.0.max.load(Ordering::Relaxed)
    }

    /// Whether `module`'s records of this level pass.
    #[must_use]
    pub fn allows(&self, level: Level, module: &str) -> bool {
        self.allows_any(level)
            && self.0.spec.read().unwrap_or_else(PoisonError::into_inner).of(module).accepts(level)
    }
}

/// Passes on what the handle allows.
pub(super) struct LevelFilter<D> {
    drain: D,
    handle: LevelHandle,
}

impl<D> LevelFilter<D> {
    pub(super) const fn new(drain: D, handle: LevelHandle) -> Self {
        Self { drain, handle }
    }
}

impl<D: Drain<Ok = (), Err = Never>> Drain for LevelFilter<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.handle.allows(record.level(), record.module()) {
            self.drain.log(record, values)
        } else {
            Ok(())
        }
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.handle.allows_any(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_and_printed() {
        for text in ["info", "off", "warning,raft=debug", "trace,a::b::c=error,a::b=off"] {
            assert_eq!(text.parse::<LevelSpec>().unwrap().to_string(), text);
        }
        assert_eq!("warn".parse(), Ok(LevelSpec::all(FilterLevel::Warning)));
        assert_eq!("raft=debug".parse::<LevelSpec>().unwrap().to_string(), "info,raft=debug");
        for bad in ["", "loud", "info,debug", "info,=debug", "info,raft=", "info,raft=loud", "info,", "INFO"]
        {
            assert!(bad.parse::<LevelSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_module_decides() {
        let handle = LevelHandle::new(&"warning,raft=debug,raft::log=off".parse().unwrap());
        assert!(handle.allows(Level::Debug, "raft"));
        assert!(handle.allows(Level::Debug, "raft::core"));
        assert!(!handle.allows(Level::Trace, "raft::core"));
        assert!(!handle.allows(Level::Critical, "raft::log"));
        assert!(!handle.allows(Level::Info, "rafting"));
        assert!(handle.allows(Level::Warning, "rafting"));
        assert!(handle.allows_any(Level::Debug));
        assert!(!handle.allows_any(Level::Trace));
    }

    #[test]
    fn every_clone_sees_a_change() {
        let handle = LevelHandle::new(&LevelSpec::info());
        let other = handle.clone();
        assert!(!other.allows(Level::Debug, "x"));
        handle.set(LevelSpec::all(FilterLevel::Debug));
        assert_eq!(other.get(), LevelSpec::all(FilterLevel::Debug));
        assert!(other.allows(Level::Debug, "x"));
        handle.set("off,y=trace".parse().unwrap());
        assert!(!other.allows(Level::Critical, "x"));
        assert!(other.allows(Level::Trace, "y::z"), "the modules of the new text count, too");
        handle.set(LevelSpec::all(FilterLevel::Off));
        assert!(!other.allows_any(Level::Critical));
    }
}
