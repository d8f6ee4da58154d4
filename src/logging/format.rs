//! How records look.
//!
//! Owns:   the choice between lines for people and JSON for machines, and both.
//! Keeps:  the time in a record is that of writing, which follows its making at once unless the queue is long;
//!         a standard error that is closed or full of errors never stops the process: what cannot be written is lost.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::SystemTime;

use slog::{Drain, FnValue, Level, Never, PushFnValue, Record};
use slog_json::Json;
use slog_term::{FullFormat, TermDecorator};

/// How records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// [`LogFormat::Terminal`] if standard error is a terminal, [`LogFormat::Json`] if not.
    #[default]
    Auto,
    /// Lines for people, in colours where the terminal has them, with local time.
    Terminal,
    /// One JSON object a line: `ts` (RFC 3339, UTC), `level`, `msg`, and the record's own keys.
    Json,
}

/// A text that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, terminal or json")]
pub struct FormatError;

impl LogFormat {
    /// As it stands in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Terminal => "terminal",
            Self::Json => "json",
        }
    }

    /// What `auto` means here; never [`LogFormat::Auto`].
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if io::stderr().is_terminal() => Self::Terminal,
            Self::Auto => Self::Json,
            chosen => chosen,
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        [Self::Auto, Self::Terminal, Self::Json]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or(FormatError)
    }
}

/// Lines for people on standard error.
pub(super) fn terminal() -> impl Drain<Ok = (), Err = Never> + Send {
    FullFormat::new(TermDecorator::new().stderr().build()).use_original_order().build().ignore_res()
}

/// One JSON object a line.
pub(super) fn json(to: impl io::Write + Send) -> impl Drain<Ok = (), Err = Never> + Send {
    Json::new(to)
        .set_flush(true)
        // slog emits the last of these first.
        .add_key_value(slog::o!(
            "msg" => PushFnValue(|record: &Record<'_>, to| to.emit(record.msg())),
            "level" => FnValue(|record: &Record<'_>| level_name(record.level())),
            "ts" => PushFnValue(|_: &Record<'_>, to| to.emit(rfc3339(SystemTime::now()))),
        ))
        .build()
        .ignore_res()
}

/// As in `log.level`.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A time as RFC 3339 in UTC, to the millisecond: `2026-11-22T19:25:41.933Z`.
///
/// By hand, since it is all the calendar we need. Source: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`, for days from 1970 on.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March, in eras of 400 years: the leap day is then a year's last day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        // As `date -u -d @…` prints them.
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_704_067_199_001, "2023-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }
}
