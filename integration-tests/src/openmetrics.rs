//! OpenMetrics: reads the text format, and accepts nothing that the specification (version 1.0) does not.
//!
//! ```text
//!   # TYPE name kind · # UNIT name unit · # HELP name words      once each, before the samples of that family
//!   name_suffix{label="value",…} number                          suffix by kind; families and label sets stand together
//!   # EOF
//! ```
//!
//! Owns:   the rules; what was read.
//! Never:  reads timestamps or exemplars: our nodes send none, and a text with one is refused.

use std::collections::BTreeMap;

/// A label set, in the order of names.
pub type Labels = BTreeMap<String, String>;

/// All families by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// The families.
    pub families: BTreeMap<String, Family>,
}

/// One metric family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Empty if none is named.
    pub unit: String,
    /// What it means.
    pub help: String,
    /// Full names, labels, values, in their order.
    pub samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Reads a whole answer.
    ///
    /// # Errors
    /// The first line that breaks a rule, and which.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with '# EOF' and a line feed")?;
        let mut found = Self::default();
        let mut current = String::new();
        for line in body.split_terminator('\n') {
            found.line(line, &mut current).map_err(|problem| format!("{problem}: {line:?}"))?;
        }
        for (name, family) in &found.families {
            family.check(name).map_err(|problem| format!("{name}: {problem}"))?;
        }
        Ok(found)
    }

    /// The value of the one sample of this full name and these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut samples = self.families.values().flat_map(|family| &family.samples);
        samples.find(|(own, their, _)| own == name && *their == labels).map(|(.., value)| *value)
    }

    fn line(&mut self, line: &str, current: &mut String) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut parts = rest.splitn(3, ' ');
            let (Some(what), Some(name), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
                return Err("a comment that says nothing".to_owned());
            };
            if !is_name(name, true) {
                return Err("no name of a metric".to_owned());
            }
            if name != current {
                if self.families.contains_key(name) {
                    return Err("this family was there before".to_owned());
                }
                name.clone_into(current);
            }
            let family = self.families.entry(name.to_owned()).or_default();
            if !family.samples.is_empty() {
                return Err("described after its samples".to_owned());
            }
            let field = match what {
                "TYPE" if ["counter", "gauge", "histogram", "info"].contains(&text) => &mut family.kind,
                "UNIT" if name.ends_with(&format!("_{text}")) => &mut family.unit,
                "HELP" => &mut family.help,
                _ => return Err("no such description, or it does not fit".to_owned()),
            };
            if !field.is_empty() || text.is_empty() {
                return Err("described twice, or not at all".to_owned());
            }
            text.clone_into(field);
            return Ok(());
        }
        let (name, labels, value) = sample(line)?;
        let family = self.families.get_mut(current.as_str()).ok_or("a sample without a family")?;
        let suffix = name.strip_prefix(current.as_str()).ok_or("a sample of another family")?;
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => return Err("a family without a type".to_owned()),
        };
        if !suffixes.contains(&suffix) {
            return Err(format!("a sample of a {} does not end so", family.kind));
        }
        if family.kind != "gauge" && (value.is_nan() || value < 0.0) {
            return Err("below zero, or no number".to_owned());
        }
        if family.samples.iter().any(|(own, their, _)| *own == name && *their == labels) {
            return Err("the same sample twice".to_owned());
        }
        family.samples.push((name, labels, value));
        Ok(())
    }
}

impl Family {
    /// What only the whole family shows.
    fn check(&self, name: &str) -> Result<(), String> {
        if self.kind.is_empty() || self.help.is_empty() {
            return Err("no type, or no words about it".to_owned());
        }
        let is_ours = |labels: &Labels| labels.keys().filter(|key| *key != "le").cloned().collect::<Vec<_>>();
        if self.samples.iter().any(|(_, labels, _)| is_ours(labels) != is_ours(&self.samples[0].1)) {
            return Err("label sets of different names".to_owned());
        }
        if self.kind == "info" && self.samples.iter().any(|(.., value)| *value != 1.0) {
            return Err("an info that is not 1".to_owned());
        }
        if self.kind == "histogram" {
            return self.check_histogram(name);
        }
        Ok(())
    }

    /// Histograms here have no labels of their own.
    fn check_histogram(&self, name: &str) -> Result<(), String> {
        let of = |suffix: &str| {
            let full = format!("{name}{suffix}");
            self.samples.iter().filter(move |(own, ..)| *own == full).collect::<Vec<_>>()
        };
        let ([(_, none, _)], [(_, nothing, count)]) = (&of("_sum")[..], &of("_count")[..]) else {
            return Err("not one sum and one count".to_owned());
        };
        if !none.is_empty() || !nothing.is_empty() {
            return Err("labels at sum or count".to_owned());
        }
        let mut last = (f64::NEG_INFINITY, 0.0);
        for (_, labels, value) in of("_bucket") {
            let bound = labels.get("le").and_then(|le| number(le)).ok_or("a bucket without a bound")?;
            if bound <= last.0 || *value < last.1 {
                return Err(format!("buckets out of order at {bound}"));
            }
            last = (bound, *value);
        }
        if last.0 != f64::INFINITY || last.1 != *count {
            return Err("the last bucket is not +Inf, or is not the count".to_owned());
        }
        Ok(())
    }
}

/// `name{label="value",…} number`, and nothing behind it.
fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no sample")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no name of a metric".to_owned());
    }
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(key, false) {
                return Err("no name of a label".to_owned());
            }
            let (value, after) = quoted(after)?;
            if labels.insert(key.to_owned(), value).is_some() {
                return Err("a label twice".to_owned());
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').ok_or("neither ',' nor '}' behind a label")?;
        }
    }
    let value = rest.strip_prefix(' ').and_then(number).ok_or("no number at the end")?;
    Ok((name.to_owned(), labels, value))
}

/// What stands before the closing quote, unescaped, and what stands behind.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => out.push('\\'),
                Some((_, '"')) => out.push('"'),
                Some((_, 'n')) => out.push('\n'),
                _ => return Err("a backslash before nothing that needs one".to_owned()),
            },
            c => out.push(c),
        }
    }
    Err("a quote that does not end".to_owned())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust reads more words than the format knows.
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

fn is_name(name: &str, may_have_colons: bool) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (may_have_colons && c == ':');
    name.chars().all(is_good) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_seconds Times.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
        a_seconds_sum 1.5\na_seconds_count 3\na_seconds_bucket{le=\"0.1\"} 1\na_seconds_bucket{le=\"+Inf\"} 3\n\
        # HELP b Things.\n# TYPE b counter\nb_total{x=\"1\"} 5\nb_total{x=\"a\\\"\\\\\\n\"} 0\n\
        # HELP c State.\n# TYPE c gauge\nc -1.0\n# HELP d Build.\n# TYPE d info\nd_info{v=\"1\"} 1\n# EOF\n";

    #[test]
    fn a_sound_text_is_read() {
        let found = Exposition::parse(GOOD).unwrap();
        assert_eq!(found.families.len(), 4);
        assert_eq!(found.value("b_total", &[("x", "1")]), Some(5.0));
        assert_eq!(found.value("b_total", &[("x", "a\"\\\n")]), Some(0.0));
        assert_eq!(found.value("c", &[]), Some(-1.0));
        assert_eq!(found.value("c", &[("x", "1")]), None);
    }

    #[test]
    fn every_broken_rule_is_found() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF\n\n"),
            ("# EOF\n", "c 2\n# EOF\n"),
            ("# TYPE c gauge\n", ""),
            ("# TYPE c gauge\n", "# TYPE c gauge\n# TYPE c gauge\n"),
            ("# TYPE c gauge", "# TYPE c colour"),
            ("# HELP c State.\n", ""),
            ("# UNIT a_seconds seconds", "# UNIT a_seconds bytes"),
            ("c -1.0\n", "c -1.0\nc -1.0\n"),
            ("c -1.0\n", "c -1.0\n\n"),
            ("c -1.0", "c_total -1.0"),
            ("c -1.0", "c inf"),
            ("c -1.0", "c"),
            ("c -1.0", "c -1.0 12 x"),
            ("b_total{x=\"1\"} 5", "b_total{x=\"1\"} -5"),
            ("b_total{x=\"1\"} 5", "b_total{x=\"1\"} NaN"),
            ("b_total{x=\"1\"} 5", "b{x=\"1\"} 5"),
            ("b_total{x=\"1\"} 5", "b_total{x=\"1} 5"),
            ("b_total{x=\"1\"} 5", "b_total{x=\"\\1\"} 5"),
            ("b_total{x=\"1\"} 5", "b_total{y=\"1\"} 5"),
            ("b_total{x=\"1\"} 5", "b_total{x=\"1\",x=\"1\"} 5"),
            ("b_total{x=\"1\"} 5", "b_total{1=\"1\"} 5"),
            ("# HELP d Build.\n", "# HELP b Things.\n"),
            ("d_info{v=\"1\"} 1", "d_info{v=\"1\"} 2"),
            ("a_seconds_count 3\n", ""),
            ("a_seconds_count 3", "a_seconds_count 4"),
            ("a_seconds_bucket{le=\"0.1\"} 1", "a_seconds_bucket{le=\"0.1\"} 4"),
            ("a_seconds_bucket{le=\"+Inf\"} 3", "a_seconds_bucket{le=\"0.05\"} 3"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert!(Exposition::parse(&bad).is_err(), "{from:?} made {to:?} passes");
        }
    }
}
