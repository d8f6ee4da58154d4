//! What a node reads on its peer port, and what it makes of the contents: any bytes at all.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use loglog_core::batch::Content;
use loglog_core::chunk::Chunk;
use loglog_core::control::{Control, SnapshotContent};
use loglog_fuzz::frames::{comes_back, each_frame};
use loglog_proto::peer::{Copy, PEER_FRAME_BYTES_MAX, PeerMessage, RAFT_ENTRIES_MAX};
use loglog_proto::{Index, LogId};

fn one(frame: &Bytes) {
    let message = match PeerMessage::decode(frame) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    match &message {
        PeerMessage::Raft(raft) => {
            assert!(raft.entries.len() <= RAFT_ENTRIES_MAX);
            let _ = SnapshotContent::decode(&raft.context);
            for entry in &raft.entries {
                if let Ok(content) = Content::decode(&entry.content) {
                    assert_eq!(content.encode(), entry.content);
                    let _ = content.log_len();
                    if let Content::Control(payload) = content {
                        let _ = Control::decode(&payload);
                    }
                }
            }
        }
        PeerMessage::Copied(copied) => {
            // Asked for in the best of ways: all the rest is the peer's.
            let Some(base) = &copied.header else { return };
            let first =
                if copied.offset == base.base_offset { base.base_index } else { base.base_index.next() };
            let last = LogId { term: base.term, index: Index::new(first.get().saturating_add(2)) };
            let copy = Copy { id: copied.id, first, last, offset: copied.offset, limit: 1 << 20 };
            if let Ok(chunk) = Chunk::check(&copy, copied.clone()) {
                assert_eq!(chunk.bytes, copied.bytes);
                assert!(chunk.next > chunk.first && chunk.next <= last.index.next());
                let _ = chunk.end();
            }
        }
        _ => {}
    }
    comes_back(&message, usize::MAX, PeerMessage::encode, PeerMessage::decode);
}

fuzz_target!(|bytes: &[u8]| {
    each_frame(bytes, PEER_FRAME_BYTES_MAX, one);
    one(&Bytes::copy_from_slice(bytes));
});
