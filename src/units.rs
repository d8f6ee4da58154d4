//! Units: sizes and durations as people write them, and back.
//!
//! Owns:   parsing and printing of byte counts (`64 MiB`) and durations (`250 ms`).
//! Keeps:  exactness: what is parsed is a whole number of bytes or microseconds, and printing loses nothing.
//! Never:  guesses a unit: a plain number is refused, and the refusal says what to write.

use std::time::Duration;

/// Units of bytes, the one to print with first.
const BYTES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Units of time in microseconds, the one to print with first.
const TIMES: &[(&str, u64)] =
    &[("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1), ("µs", 1)];

/// What is measured, for the words of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A number of bytes.
    Bytes,
    /// A span of time.
    Duration,
}

/// Why a text is no size or duration. The message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A plain number.
    #[error("a unit is missing: write {suggestion}")]
    NoUnit {
        /// The same number with a unit.
        suggestion: String,
    },
    /// A unit that does not exist, or not for this quantity.
    #[error("unknown unit '{unit}': {}", .quantity.expected())]
    UnknownUnit {
        /// The unit found.
        unit: String,
        /// What was to be measured.
        quantity: Quantity,
    },
    /// A unit in the wrong letters.
    #[error("unknown unit '{unit}': did you mean '{suggestion}'?")]
    Letters {
        /// The unit found.
        unit: String,
        /// The unit in the right letters.
        suggestion: &'static str,
    },
    /// No number in front.
    #[error("no number: {}", .quantity.expected())]
    NoNumber {
        /// What was to be measured.
        quantity: Quantity,
    },
    /// A fraction of the smallest unit.
    #[error("not a whole number of {}", .quantity.smallest())]
    NotWhole {
        /// What was to be measured.
        quantity: Quantity,
    },
    /// Over 64 bits.
    #[error("too large")]
    TooLarge,
}

impl Quantity {
    /// What to write, in words.
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Bytes => {
                "expected a number of bytes with its unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as \"64 MiB\""
            }
            Self::Duration => "expected a duration with its unit (us, ms, s, min, h), such as \"250 ms\"",
        }
    }

    const fn smallest(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Duration => "microseconds",
        }
    }

    const fn units(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Bytes => BYTES,
            Self::Duration => TIMES,
        }
    }

    /// What somebody who wrote the plain number `count` may have meant.
    fn suggestion(self, count: u64) -> String {
        match self {
            Self::Bytes => {
                let (plain, neat) = (format!("{count} B"), format_bytes(count));
                if plain == neat { format!("\"{plain}\"") } else { format!("\"{plain}\" or \"{neat}\"") }
            }
            Self::Duration => format!("\"{count} s\" or \"{count} ms\""),
        }
    }

    fn parse(self, text: &str) -> Result<u64, UnitError> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim());
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return Err(UnitError::NoNumber { quantity: self });
        }
        if unit.is_empty() {
            let count = whole.parse().map_err(|_| UnitError::TooLarge)?;
            return Err(UnitError::NoUnit { suggestion: self.suggestion(count) });
        }
        let (_, factor) =
            self.units().iter().find(|(name, _)| *name == unit).ok_or_else(|| self.unknown(unit))?;
        // Nine digits behind the point are more than any unit can use, and keep the product within 128 bits.
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err(UnitError::NotWhole { quantity: self });
        }
        let mut scale = 1_u128;
        let mut digits = u128::from(whole.parse::<u64>().map_err(|_| UnitError::TooLarge)?);
        for digit in fraction.bytes() {
            scale *= 10;
            digits = digits * 10 + u128::from(digit - b'0');
        }
        let product = digits * u128::from(*factor);
        if product % scale != 0 {
            return Err(UnitError::NotWhole { quantity: self });
        }
        u64::try_from(product / scale).map_err(|_| UnitError::TooLarge)
    }

    fn unknown(self, unit: &str) -> UnitError {
        match self.units().iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((suggestion, _)) => UnitError::Letters { unit: unit.to_owned(), suggestion },
            None => UnitError::UnknownUnit { unit: unit.to_owned(), quantity: self },
        }
    }
}

/// Bytes, written with their unit: `64 MiB`, `1.5 GiB`, `10kB`.
///
/// # Errors
/// [`UnitError`], whose message says what to write.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    Quantity::Bytes.parse(text)
}

/// The same, where a plain number can only mean bytes: on a command line.
///
/// # Errors
/// [`UnitError`], whose message says what to write.
pub fn parse_bytes_or_plain(text: &str) -> Result<u64, UnitError> {
    text.trim().parse().or_else(|_| parse_bytes(text))
}

/// A duration, written with its unit: `5 s`, `250 ms`, `1.5 min`.
///
/// # Errors
/// [`UnitError`], whose message says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    Quantity::Duration.parse(text).map(Duration::from_micros)
}

/// The shortest exact text, in the largest unit that divides it: what [`parse_bytes`] reads back.
#[must_use]
pub fn format_bytes(count: u64) -> String {
    format_exact(count, &BYTES[..5])
}

/// The shortest exact text, in the largest unit that divides it: what [`parse_duration`] reads back.
/// Less than a microsecond is cut off, since no duration that was parsed has it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 { "0 s".to_owned() } else { format_exact(micros, TIMES) }
}

/// About how many bytes, for people: three digits and a unit.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
pub fn about_bytes(count: u64) -> String {
    for (name, factor) in &BYTES[..4] {
        if count >= *factor {
            return format!("{} {name}", three_digits(count as f64 / *factor as f64));
        }
    }
    format!("{count} B")
}

fn three_digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

fn format_exact(count: u64, units: &[(&str, u64)]) -> String {
    if count > 0 {
        for (name, factor) in units {
            if count.is_multiple_of(*factor) {
                return format!("{} {name}", count / factor);
            }
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("0 B", 0),
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            (" 1.5 GiB ", 3 << 29),
            ("10 kB", 10_000),
            ("2 MB", 2_000_000),
            ("1.25 kB", 1250),
            ("3 GB", 3_000_000_000),
            ("18446744073709551615 B", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations_are_exact() {
        for (text, micros) in [
            ("5 s", 5_000_000),
            ("250 ms", 250_000),
            ("1 us", 1),
            ("1 µs", 1),
            ("1.5 min", 90_000_000),
            ("2h", 7_200_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for bytes in [0, 1, 1000, 1024, 1025, 64 << 20, 3 << 29, 5 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        for micros in [0, 1, 1000, 1500, 60_000_000, 90_000_000, 3_600_000_000] {
            let duration = Duration::from_micros(micros);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        assert_eq!(format_bytes(3 << 29), "1536 MiB");
        assert_eq!(format_duration(Duration::from_millis(90_000)), "90 s");
    }

    #[test]
    fn a_plain_number_is_told_what_to_write() {
        let message = |text| parse_bytes(text).unwrap_err().to_string();
        assert_eq!(message("67108864"), "a unit is missing: write \"67108864 B\" or \"64 MiB\"");
        assert_eq!(message("5"), "a unit is missing: write \"5 B\"");
        let message = |text| parse_duration(text).unwrap_err().to_string();
        assert_eq!(message("5"), "a unit is missing: write \"5 s\" or \"5 ms\"");
        assert_eq!(parse_bytes_or_plain("5"), Ok(5));
        assert_eq!(parse_bytes_or_plain("5 kB"), Ok(5000));
    }

    #[test]
    fn a_bad_unit_is_named() {
        assert_eq!(parse_bytes("64 mib").unwrap_err().to_string(), "unknown unit 'mib': did you mean 'MiB'?");
        assert!(parse_bytes("64 s").unwrap_err().to_string().contains("such as \"64 MiB\""));
        assert!(parse_duration("5 parsecs").unwrap_err().to_string().contains("us, ms, s, min, h"));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "MiB", "-5 MiB", ". MiB", "1. MiB", "1.2.3 MiB", "+1 B", "1e3 B", "0x10 B"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes("1.5 B"), Err(UnitError::NotWhole { quantity: Quantity::Bytes }));
        assert_eq!(parse_duration("0.1 us"), Err(UnitError::NotWhole { quantity: Quantity::Duration }));
        assert_eq!(parse_bytes("99999999999 GiB"), Err(UnitError::TooLarge));
        assert_eq!(parse_bytes("99999999999999999999 B"), Err(UnitError::TooLarge));
    }

    #[test]
    fn people_see_three_digits() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"), (999 << 30, "999 GiB")]
        {
            assert_eq!(about_bytes(bytes), text);
        }
    }
}
