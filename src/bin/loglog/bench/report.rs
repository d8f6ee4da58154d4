//! Report: what a bench found, for people, as JSON and as CSV.
//!
//! Owns:   the forms, and `--json` and `--csv`.
//! Keeps:  JSON and CSV have the same fields in the same order: both are made of one list.
//! Never:  computes a figure.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::exit::Outcome;
use crate::output::Output;
use crate::table::facts;

/// How to print.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Form {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,

    /// Print the result as CSV: a line of names, the same as in JSON, and a line of figures.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
enum Figure {
    Count(u64),
    Number(f64),
    Text(String),
    None,
}

/// Figures, each with its name, and the same in words.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    figures: Vec<(String, Figure)>,
    rows: Vec<(String, String)>,
}

impl Report {
    /// A whole number.
    pub(super) fn count(&mut self, name: &str, value: u64) {
        self.figures.push((name.to_owned(), Figure::Count(value)));
    }

    /// A number; three digits behind the point are kept.
    pub(super) fn number(&mut self, name: &str, value: f64) {
        let figure =
            if value.is_finite() { Figure::Number((value * 1e3).round() / 1e3) } else { Figure::None };
        self.figures.push((name.to_owned(), figure));
    }

    /// A number that may not be known.
    pub(super) fn maybe(&mut self, name: &str, value: Option<f64>) {
        self.number(name, value.unwrap_or(f64::NAN));
    }

    /// A word.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.figures.push((name.to_owned(), Figure::Text(value.to_owned())));
    }

    /// A line for people.
    pub(super) fn row(&mut self, name: &str, words: String) {
        self.rows.push((name.to_owned(), words));
    }

    fn csv(&self) -> [String; 2] {
        let names: Vec<&str> = self.figures.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<String> = self.figures.iter().map(|(_, figure)| figure.csv()).collect();
        [names.join(","), values.join(",")]
    }

    /// Lines for people.
    pub(super) fn for_people(&self) -> String {
        let rows: Vec<(&str, String)> =
            self.rows.iter().map(|(name, words)| (name.as_str(), words.clone())).collect();
        facts(&rows)
    }
}

impl Figure {
    fn csv(&self) -> String {
        match self {
            Self::Count(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) if text.contains([',', '"', '\n']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Self::Text(text) => text.clone(),
            Self::None => String::new(),
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.figures.len()))?;
        for (name, figure) in &self.figures {
            match figure {
                Figure::Count(value) => map.serialize_entry(name, value)?,
                Figure::Number(value) => map.serialize_entry(name, value)?,
                Figure::Text(value) => map.serialize_entry(name, value)?,
                Figure::None => map.serialize_entry(name, &())?,
            }
        }
        map.end()
    }
}

impl Form {
    /// Prints one report.
    pub(super) fn print(self, report: &Report) -> Outcome {
        let mut output = Output::new();
        if self.json {
            output.json(report)?;
        } else if self.csv {
            report.csv().iter().try_for_each(|line| output.line(line))?;
        } else {
            output.bytes(report.for_people().as_bytes())?;
        }
        output.flush()
    }

    /// Prints several of the same kind: as JSON a list, as CSV a line each.
    pub(super) fn print_all(self, reports: &[Report]) -> Outcome {
        let mut output = Output::new();
        if self.json {
            output.json(&reports)?;
        } else if self.csv {
            if let Some(first) = reports.first() {
                output.line(&first.csv()[0])?;
            }
            reports.iter().try_for_each(|report| output.line(&report.csv()[1]))?;
        } else {
            let words: Vec<String> = reports.iter().map(Report::for_people).collect();
            output.bytes(words.join("\n").as_bytes())?;
        }
        output.flush()
    }
}

/// A figure that is never negative, to the next whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures are positive and fit")]
pub(super) fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_and_csv_have_the_same_fields() {
        let mut report = Report::default();
        report.count("entries", 7);
        report.number("p50_us", 1.23456);
        report.maybe("disk", None);
        report.text("payload", "100:8,\"x\"");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json, r#"{"entries":7,"p50_us":1.235,"disk":null,"payload":"100:8,\"x\""}"#);
        let [names, values] = report.csv();
        assert_eq!(names, "entries,p50_us,disk,payload");
        assert_eq!(values, "7,1.235,,\"100:8,\"\"x\"\"\"");
        let fields: Value = serde_json::from_str(&json).unwrap();
        let mut named: Vec<&str> = names.split(',').collect();
        named.sort_unstable();
        assert_eq!(fields.as_object().unwrap().keys().collect::<Vec<_>>(), named);
    }

    #[test]
    fn what_is_no_number_is_none() {
        let mut report = Report::default();
        report.number("ratio", 1.0 / 0.0);
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"ratio":null}"#);
    }
}
