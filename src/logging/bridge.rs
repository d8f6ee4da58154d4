//! What dependencies say, brought into slog.
//!
//! actix speaks through `log`; others, now or later, through `tracing`. raft-rs takes a slog logger and needs no bridge.
//!
//! Owns:   a `tracing` layer and a `log` logger that turn each event into a record.
//! Keeps:  an event that would not pass costs no formatting: both ask the level first, each time anew, so that a
//!         change at run time reaches them.
//! Never:  follows spans: their fields are left out.

use std::fmt;

use slog::{BorrowedKV, KV, Key, Level, Logger, Record, RecordLocation, RecordStatic, Serializer};
use tracing_core::field::{Field, Visit};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, Metadata, Subscriber, dispatcher};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use super::LevelHandle;

/// Somebody else in this process receives what dependencies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another logger already receives what this process's libraries say through `{facade}`")]
pub struct CaptureError {
    facade: &'static str,
}

/// Sends the process's `log` and `tracing` events to `logger`.
pub(super) fn install(logger: &Logger, levels: &LevelHandle) -> Result<(), CaptureError> {
    let subscriber = Registry::default().with(SlogLayer::new(logger.clone(), levels.clone()));
    dispatcher::set_global_default(Dispatch::new(subscriber))
        .map_err(|_| CaptureError { facade: "tracing" })?;
    log::set_boxed_logger(Box::new(LogFacade { logger: logger.clone(), levels: levels.clone() }))
        .map_err(|_| CaptureError { facade: "log" })?;
    // The level is asked for each event, since it may change.
    log::set_max_level(log::LevelFilter::Trace);
    Ok(())
}

/// Emits a record; `target` is what the dependency calls the speaking part.
fn emit(
    logger: &Logger,
    level: Level,
    place: (&'static str, &'static str, u32),
    message: &fmt::Arguments<'_>,
    fields: &Fields,
) {
    let (module, file, line) = place;
    let location = RecordLocation { file, line, column: 0, function: "", module };
    let fixed = RecordStatic { location: &location, tag: "", level };
    logger.log(&Record::new(&fixed, message, BorrowedKV(fields)));
}

/// A `tracing` layer that turns events into slog records, with their target and fields.
#[derive(Clone, Debug)]
pub struct SlogLayer {
    logger: Logger,
    levels: LevelHandle,
}

impl SlogLayer {
    /// Events that `levels` allows go to `logger`.
    #[must_use]
    pub const fn new(logger: Logger, levels: LevelHandle) -> Self {
        Self { logger, levels }
    }
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing_core::Level::ERROR => Level::Error,
        tracing_core::Level::WARN => Level::Warning,
        tracing_core::Level::INFO => Level::Info,
        tracing_core::Level::DEBUG => Level::Debug,
        tracing_core::Level::TRACE => Level::Trace,
    }
}

impl<S: Subscriber> Layer<S> for SlogLayer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // `always` and `never` would be remembered beyond a change of the level.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.levels.allows(level_of(metadata), metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::of(metadata.target());
        event.record(&mut fields);
        let place = (
            metadata.module_path().unwrap_or_default(),
            metadata.file().unwrap_or_default(),
            metadata.line().unwrap_or_default(),
        );
        emit(&self.logger, level_of(metadata), place, &format_args!("{}", fields.message), &fields);
    }
}

/// The receiver of `log` records.
struct LogFacade {
    logger: Logger,
    levels: LevelHandle,
}

const fn level_of_log(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warning,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

impl log::Log for LogFacade {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.levels.allows(level_of_log(metadata.level()), metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = (
            record.module_path_static().unwrap_or_default(),
            record.file_static().unwrap_or_default(),
            record.line().unwrap_or_default(),
        );
        let fields = Fields::of(record.target());
        emit(&self.logger, level_of_log(record.level()), place, record.args(), &fields);
    }

    fn flush(&self) {}
}

/// An event's message and fields, as slog wants them.
struct Fields {
    target: String,
    message: String,
    values: Vec<(&'static str, Value)>,
}

enum Value {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

impl Fields {
    fn of(target: &str) -> Self {
        Self { target: target.to_owned(), message: String::new(), values: Vec::new() }
    }

    fn text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.values.push((field.name(), Value::Text(text)));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.values.push((field.name(), Value::Bool(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.values.push((field.name(), Value::Signed(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.values.push((field.name(), Value::Unsigned(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.values.push((field.name(), Value::Float(value)));
    }
}

impl KV for Fields {
    fn serialize(&self, _: &Record<'_>, to: &mut dyn Serializer) -> slog::Result {
        to.emit_str(Key::from("target"), &self.target)?;
        for (name, value) in &self.values {
            match value {
                Value::Bool(value) => to.emit_bool(name, *value)?,
                Value::Signed(value) => to.emit_i64(name, *value)?,
                Value::Unsigned(value) => to.emit_u64(name, *value)?,
                Value::Float(value) => to.emit_f64(name, *value)?,
                Value::Text(value) => to.emit_str(name, value)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "bridge_test.rs"]
mod tests;
