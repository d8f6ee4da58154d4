//! The key that somebody meant.
//!
//! Owns:   the measure of likeness between what was typed and what exists.

/// The most alike of `candidates`, if any is alike enough to be meant.
pub(super) fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let (distance, best) =
        candidates.map(|candidate| (distance(&typed, candidate), candidate)).min_by_key(|(d, _)| *d)?;
    // A third of the letters may be wrong: `data.directory` still finds `data.dir`, `colour` finds nothing.
    (distance <= (typed.chars().count() / 3).max(2)).then_some(best)
}

/// Levenshtein's: letters to insert, remove or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = corner + usize::from(letter != *other);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("abc", "abd", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected);
            assert_eq!(distance(b, a), expected);
        }
    }

    #[test]
    fn a_slip_finds_its_key_and_nonsense_none() {
        let keys = ["data.dir", "data.free_min", "listen.client"];
        assert_eq!(nearest("data.dri", keys.into_iter()), Some("data.dir"));
        assert_eq!(nearest("Data.Dir", keys.into_iter()), Some("data.dir"));
        assert_eq!(nearest("listen.clients", keys.into_iter()), Some("listen.client"));
        assert_eq!(nearest("colour", keys.into_iter()), None);
    }
}
