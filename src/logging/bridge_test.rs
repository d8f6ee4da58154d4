//! Events of `tracing` and `log` arrive as records, and only those that pass.

use std::sync::{Arc, Mutex};

use slog::{Drain, FilterLevel, Never, OwnedKVList};
use tracing_core::callsite::{Callsite, DefaultCallsite, Identifier};
use tracing_core::field::FieldSet;
use tracing_core::{Kind, field};

use super::*;
use crate::logging::LevelSpec;

/// Keeps each record as `LEVEL message key=value…`.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Kept {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

impl Drain for Kept {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let mut line = Line(format!("{} {}", record.level().as_str(), record.msg()));
        record.kv().serialize(record, &mut line).unwrap();
        self.0.lock().unwrap().push(line.0);
        Ok(())
    }
}

fn bridge(levels: &str) -> (Kept, LevelHandle, Logger) {
    let kept = Kept::default();
    let levels = LevelHandle::new(&levels.parse::<LevelSpec>().unwrap());
    (kept.clone(), levels, Logger::root(kept, slog::o!()))
}

/// What `tracing::debug!(target: "dependency::part", size, "read")` would make; that crate is no dependency of ours.
static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
static METADATA: Metadata<'static> = Metadata::new(
    "event",
    "dependency::part",
    tracing_core::Level::DEBUG,
    Some("part.rs"),
    Some(7),
    Some("dependency::part"),
    FieldSet::new(&["message", "size", "ok"], Identifier(&CALLSITE)),
    Kind::EVENT,
);

/// Asks as the macros do: the callsite's interest once, then `enabled`, and only then dispatches.
fn event(size: u64) {
    let interest = CALLSITE.register();
    let enabled =
        !interest.is_never() && (interest.is_always() || dispatcher::get_default(|to| to.enabled(&METADATA)));
    if enabled {
        let fields = CALLSITE.metadata().fields();
        let of = |name| fields.field(name).unwrap();
        let values: [(&field::Field, Option<&dyn field::Value>); 3] =
            [(&of("message"), Some(&"read")), (&of("size"), Some(&size)), (&of("ok"), Some(&true))];
        Event::dispatch(&METADATA, &fields.value_set(&values));
    }
}

#[test]
fn tracing_events_arrive_with_their_fields_and_follow_the_level_at_run_time() {
    let (kept, levels, logger) = bridge("info");
    let subscriber = Registry::default().with(SlogLayer::new(logger, levels.clone()));
    dispatcher::with_default(&Dispatch::new(subscriber), || {
        event(1);
        assert_eq!(kept.take(), [""; 0]);
        levels.set(LevelSpec::all(FilterLevel::Debug));
        event(2);
        assert_eq!(kept.take(), ["DEBUG read target=dependency::part size=2 ok=true"]);
        levels.set(LevelSpec::info());
        event(3);
        assert_eq!(kept.take(), [""; 0]);
    });
}

#[test]
fn a_tracing_target_has_its_own_level() {
    let (kept, levels, logger) = bridge("error,dependency=debug");
    let subscriber = Registry::default().with(SlogLayer::new(logger, levels));
    dispatcher::with_default(&Dispatch::new(subscriber), || event(4));
    assert_eq!(kept.take().len(), 1);
}

#[test]
fn log_records_arrive_and_follow_the_level() {
    use log::Log as _;
    let (kept, levels, logger) = bridge("warning,actix=info");
    let facade = LogFacade { logger, levels };
    let say = |level, target| {
        let mut record = log::Record::builder();
        record.level(level).target(target).module_path_static(Some("actix::actor"));
        facade.log(&record.args(format_args!("mailbox {}", "full")).build());
    };
    say(log::Level::Info, "actix::actor");
    say(log::Level::Debug, "actix::actor");
    say(log::Level::Info, "mio");
    say(log::Level::Error, "mio");
    assert_eq!(kept.take(), ["INFO mailbox full target=actix::actor", "ERROR mailbox full target=mio"]);
}
