//! Spark: a row of small bars that shows how a number went.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` of `values`, the newest at the right; a space where there is none. The highest of them fills its cell.
pub(super) fn spark(values: &[Option<f64>], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let most = shown.iter().flatten().fold(0.0, |most: f64, value| most.max(*value));
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if *value <= 0.0 || most <= 0.0 => BARS[0],
        Some(value) => {
            // At most 7, since no value is above the highest.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let height = (value / most * 7.0).round() as usize;
            BARS[height.min(7)]
        }
    };
    let bars: String = shown.iter().map(bar).collect();
    format!("{bars:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stands_right_and_the_highest_is_full() {
        let values = [Some(900.0), Some(0.0), Some(5.0), None, Some(10.0)];
        assert_eq!(spark(&values, 4), "▁▅ █");
        assert_eq!(spark(&values, 6), " █▁▁ ▁");
        assert_eq!(spark(&[], 3), "   ");
        assert_eq!(spark(&[Some(0.0)], 1), "▁");
    }
}
