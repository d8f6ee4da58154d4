//! Stats: what many figures come to.
//!
//! Owns:   medians, ratios, and how numbers look.
//! Never:  knows what they measure.

/// The middle of the values, or between the two that are there. Nothing of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// The least, the median and the most of the rounds' ratios: each is of two figures that one round gave, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Ratio {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

/// Of pairs (ours, peer's). What divides by nothing is left out; nothing of nothing.
pub(crate) fn ratio(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Ratio> {
    let all: Vec<f64> =
        pairs.into_iter().filter(|(_, peer)| *peer > 0.0).map(|(ours, peer)| ours / peer).collect();
    Some(Ratio {
        least: all.iter().copied().min_by(f64::total_cmp)?,
        median: median(all.iter().copied())?,
        most: all.iter().copied().max_by(f64::total_cmp)?,
    })
}

/// `1,234,567`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes, as whoever names a payload writes them.
pub(crate) fn bytes_text(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// Microseconds, in the unit that suits them.
pub(crate) fn micros_text(micros: f64) -> String {
    match micros {
        _ if micros < 1e3 => format!("{micros:.0} us"),
        _ if micros < 1e4 => format!("{:.2} ms", micros / 1e3),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // Twice as fast in each round, though the rounds differ by ten: the medians' ratio would be the same, the pairs' says it's steady.
        let steady = ratio([(20.0, 10.0), (200.0, 100.0), (2.0, 1.0)]);
        assert_eq!(steady, Some(Ratio { least: 2.0, median: 2.0, most: 2.0 }));
        // The median of ratios is not the ratio of medians (5 / 5).
        let pairs = ratio([(1.0, 10.0), (5.0, 2.5), (10.0, 5.0)]);
        assert_eq!(pairs, Some(Ratio { least: 0.1, median: 2.0, most: 2.0 }));
        assert_eq!(ratio([(1.0, 0.0)]), None);
    }

    #[test]
    fn numbers_look_like_numbers() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(bytes_text(100), "100 B");
        assert_eq!(bytes_text(65536), "64 KiB");
        assert_eq!(micros_text(153.0), "153 us");
        assert_eq!(micros_text(1534.0), "1.53 ms");
        assert_eq!(micros_text(15340.0), "15.3 ms");
    }
}
