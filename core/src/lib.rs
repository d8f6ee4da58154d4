//! LogLog's decisions: consensus, group commit, writers, upload buffer, waiters.
