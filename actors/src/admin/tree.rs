//! Tree: the order in which actors are shown.

use std::collections::BTreeMap;

/// Orders `rows` so that a parent comes before its children, and children by name; rows whose parent is not there come last,
/// as roots.
pub(super) fn in_tree_order<T>(rows: Vec<T>, place: impl Fn(&T) -> (&str, Option<&str>)) -> Vec<T> {
    let names: Vec<String> = rows.iter().map(|row| place(row).0.to_owned()).collect();
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    let mut orphans = Vec::new();
    let at: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    for (row, own) in rows.iter().zip(0..) {
        match place(row).1 {
            None => children.entry(None).or_default().push(own),
            // Nobody is below himself.
            Some(parent) => match at.get(parent).filter(|parent| **parent != own) {
                Some(parent) => children.entry(Some(*parent)).or_default().push(own),
                None => orphans.push(own),
            },
        }
    }
    children.entry(None).or_default();
    for list in children.values_mut() {
        list.sort_by_key(|row| sort_key(&names[*row]));
    }
    orphans.sort_by_key(|row| sort_key(&names[*row]));

    let mut order = Vec::with_capacity(rows.len());
    let mut next: Vec<usize> = children[&None].iter().chain(&orphans).rev().copied().collect();
    while let Some(row) = next.pop() {
        order.push(row);
        next.extend(children.get(&Some(row)).into_iter().flatten().rev());
    }
    let mut rows: Vec<Option<T>> = rows.into_iter().map(Some).collect();
    order.into_iter().filter_map(|row| rows[row].take()).collect()
}

/// `peer-link-2` before `peer-link-10`.
fn sort_key(name: &str) -> (String, u64) {
    match name.rsplit_once('-').and_then(|(stem, number)| Some((stem, number.parse().ok()?))) {
        Some((stem, number)) => (stem.to_owned(), number),
        None => (name.to_owned(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_children_and_those_by_name() {
        let rows = vec![
            ("writer", Some("group")),
            ("connection-10", Some("listener")),
            ("node", None),
            ("lost", Some("nobody")),
            ("listener", Some("node")),
            ("connection-9", Some("listener")),
            ("consensus", Some("group")),
            ("group", Some("node")),
        ];
        let names: Vec<&str> = in_tree_order(rows, |row| *row).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["node", "group", "consensus", "writer", "listener", "connection-9", "connection-10", "lost"]
        );
        assert!(in_tree_order(Vec::<(&str, Option<&str>)>::new(), |row| *row).is_empty());
        assert_eq!(in_tree_order(vec![("a", Some("a"))], |row| *row).len(), 1, "shown all the same");
    }
}
