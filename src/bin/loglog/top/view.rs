//! View: what is known of each node, and which of them is looked at.
//!
//! Owns:   the last sample of each node and the rates that follow from two; the choice of a node.
//! Never:  reads a clock: rates go by the nodes' own.

use std::collections::BTreeMap;

use super::sample::{Actors, Sample};

/// What is known.
#[derive(Debug)]
pub(super) struct View {
    nodes: Vec<Known>,
    chosen: usize,
}

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Known {
    /// Its admin endpoint.
    pub(super) admin: String,
    /// The last that it said.
    pub(super) sample: Option<Sample>,
    /// Why there is nothing newer.
    pub(super) error: Option<String>,
    rates: BTreeMap<String, f64>,
}

impl View {
    pub(super) fn new(admins: &[String]) -> Self {
        let known = |admin: &String| Known {
            admin: admin.clone(),
            sample: None,
            error: None,
            rates: BTreeMap::new(),
        };
        Self { nodes: admins.iter().map(known).collect(), chosen: 0 }
    }

    /// Takes in what the node after so many said.
    pub(super) fn take(&mut self, at: usize, answer: Result<Sample, String>) {
        let node = &mut self.nodes[at];
        match answer {
            Ok(sample) => {
                if let Some(before) = &node.sample {
                    node.rates = rates(&before.actors, &sample.actors);
                }
                node.sample = Some(sample);
                node.error = None;
            }
            Err(error) => node.error = Some(error),
        }
    }

    pub(super) fn nodes(&self) -> &[Known] {
        &self.nodes
    }

    /// The node looked at.
    pub(super) fn chosen(&self) -> &Known {
        &self.nodes[self.chosen]
    }

    /// Looks at the next one.
    pub(super) fn next(&mut self) {
        self.chosen = (self.chosen + 1) % self.nodes.len();
    }

    /// Looks at the one before.
    pub(super) fn previous(&mut self) {
        self.chosen = (self.chosen + self.nodes.len() - 1) % self.nodes.len();
    }
}

impl Known {
    /// Messages a second of an actor; `None` for one that was seen once only.
    pub(super) fn rate(&self, actor: &str) -> Option<f64> {
        self.rates.get(actor).copied()
    }
}

fn rates(before: &Actors, now: &Actors) -> BTreeMap<String, f64> {
    let Some(ms) = now.unix_ms.checked_sub(before.unix_ms).filter(|ms| *ms > 0) else {
        return BTreeMap::new();
    };
    let old: BTreeMap<&str, u64> =
        before.actors.iter().map(|actor| (actor.name.as_str(), actor.handled)).collect();
    let rate = |name: &str, handled: u64| {
        // A node that started anew begins at zero.
        let handled = handled.checked_sub(*old.get(name)?)?;
        Some((name.to_owned(), handled as f64 * 1000.0 / ms as f64))
    };
    now.actors.iter().filter_map(|actor| rate(&actor.name, actor.handled)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::Actor;
    use super::*;

    fn sample(unix_ms: u64, handled: &[(&str, u64)]) -> Sample {
        let actor = |(name, handled): &(&str, u64)| Actor {
            name: (*name).to_owned(),
            handled: *handled,
            ..Actor::default()
        };
        let actors = Actors { node: 1, unix_ms, actors: handled.iter().map(actor).collect() };
        Sample { actors, ..Sample::default() }
    }

    #[test]
    fn rates_follow_from_two_samples_and_a_new_life_has_none() {
        let mut view = View::new(&["a:1".to_owned(), "b:2".to_owned()]);
        view.take(0, Ok(sample(1000, &[("x", 10), ("y", 50)])));
        assert_eq!(view.chosen().rate("x"), None);
        view.take(0, Ok(sample(3000, &[("x", 30), ("y", 5), ("z", 9)])));
        assert_eq!(view.chosen().rate("x"), Some(10.0));
        assert_eq!((view.chosen().rate("y"), view.chosen().rate("z")), (None, None));
        view.take(0, Err("gone".to_owned()));
        assert_eq!(view.chosen().error.as_deref(), Some("gone"));
        assert!(view.chosen().sample.is_some(), "what it said last stays");
        view.previous();
        assert_eq!(view.chosen().admin, "b:2");
        view.next();
        assert_eq!(view.chosen().admin, "a:1");
    }
}
