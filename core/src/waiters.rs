//! Waiters: who waits for which committed offset, and until when.
//!
//! Owns:   the waiting. `K` names a waiter.
//! Never:  reads a clock or a byte: time and the committed end are passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use loglog_proto::Offset;

/// Who waits.
#[derive(Debug)]
pub struct Waiters<K> {
    by_end: BTreeMap<(Offset, u64), K>,
    by_deadline: BTreeSet<(u64, u64)>,
    waiting: HashMap<u64, (Offset, u64)>,
    numbers: HashMap<K, u64>,
    next: u64,
}

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Self {
            by_end: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            waiting: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Waiters<K> {
    /// `key` waits until the log is committed to `end` or beyond, or `deadline_ms` has passed. Replaces an earlier wait of the key.
    pub fn wait(&mut self, key: K, end: Offset, deadline_ms: u64) {
        self.remove(&key);
        let number = self.next;
        self.next += 1;
        self.by_end.insert((end, number), key.clone());
        self.by_deadline.insert((deadline_ms, number));
        self.waiting.insert(number, (end, deadline_ms));
        self.numbers.insert(key, number);
    }

    /// Whom the log's growth to `committed` wakes, those who want least first.
    pub fn committed(&mut self, committed: Offset) -> Vec<K> {
        let mut woken = Vec::new();
        while let Some((&(end, number), _)) = self.by_end.first_key_value() {
            if end > committed {
                break;
            }
            woken.extend(self.take(number));
        }
        woken
    }

    /// Whose deadline has passed at `now_ms`.
    pub fn expire(&mut self, now_ms: u64) -> Vec<K> {
        let mut expired = Vec::new();
        while let Some(&(deadline, number)) = self.by_deadline.first() {
            if deadline > now_ms {
                break;
            }
            expired.extend(self.take(number));
        }
        expired
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// `key` waits no longer.
    pub fn remove(&mut self, key: &K) {
        if let Some(&number) = self.numbers.get(key) {
            self.take(number);
        }
    }

    /// Drops every waiter that `gone` names.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&K) -> bool) {
        let numbers: Vec<u64> =
            self.numbers.iter().filter(|(key, _)| gone(key)).map(|(_, &number)| number).collect();
        for number in numbers {
            self.take(number);
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take(&mut self, number: u64) -> Option<K> {
        let (end, deadline) = self.waiting.remove(&number)?;
        self.by_deadline.remove(&(deadline, number));
        let key = self.by_end.remove(&(end, number))?;
        self.numbers.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_are_woken_who_have_what_they_want() {
        let mut waiters = Waiters::default();
        waiters.wait("far", Offset::new(200), 10);
        waiters.wait("near", Offset::new(100), 10);
        assert_eq!(waiters.committed(Offset::new(99)), Vec::<&str>::new());
        assert_eq!(waiters.committed(Offset::new(150)), ["near"]);
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn those_expire_whose_time_is_up() {
        let mut waiters = Waiters::default();
        waiters.wait("late", Offset::new(1), 20);
        waiters.wait("soon", Offset::new(1), 10);
        assert_eq!(waiters.next_deadline_ms(), Some(10));
        assert_eq!(waiters.expire(10), ["soon"]);
        assert_eq!(waiters.committed(Offset::new(1)), ["late"]);
        assert!(waiters.is_empty() && waiters.next_deadline_ms().is_none());
    }

    #[test]
    fn a_second_wait_replaces_the_first() {
        let mut waiters = Waiters::default();
        waiters.wait(1, Offset::new(1), 10);
        waiters.wait(1, Offset::new(5), 10);
        assert_eq!(waiters.committed(Offset::new(4)), Vec::<i32>::new());
        waiters.remove_if(|_| true);
        assert!(waiters.is_empty());
        assert!(waiters.expire(100).is_empty());
    }
}
