//! What the log itself and snapshots say: batches of references, control entries.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_core::batch::Content;
use loglog_core::control::{Control, MEMBERS_MAX, SnapshotContent};

fuzz_target!(|bytes: &[u8]| {
    let shared = Bytes::copy_from_slice(bytes);
    if let Ok(content) = Content::decode(&shared) {
        assert_eq!(content.encode(), shared);
        assert!(content.log_len().get() >= 32);
    }
    if let Ok(control) = Control::decode(bytes) {
        assert_eq!(control.encode(), shared);
        if let Control::Members { voters, learners } = &control {
            assert!(!voters.is_empty() && voters.len() + learners.len() <= MEMBERS_MAX);
        }
    }
    if let Ok(snapshot) = SnapshotContent::decode(bytes) {
        assert_eq!(snapshot.encode(), shared);
    }
});
