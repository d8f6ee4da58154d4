//! What the integration tests share: processes, faults, history, checker.
