//! Messages: raft-rs' own, and the mirror of them that travels (S19).
//!
//! Owns:   the translation, both ways.
//! Never:  lets a field of raft-rs' protobuf reach a socket, or a peer's number reach raft-rs unchecked.

use bytes::Bytes;
use loglog_proto::peer::{RaftEntry, RaftKind, RaftMessage};
use loglog_proto::{Index, RaftId, Term};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata};

use super::log_store::{log_id, term};
use crate::control::SnapshotContent;

/// The kinds that travel.
const KINDS: [(MessageType, RaftKind); 12] = [
    (MessageType::MsgAppend, RaftKind::Append),
    (MessageType::MsgAppendResponse, RaftKind::AppendResponse),
    (MessageType::MsgRequestVote, RaftKind::RequestVote),
    (MessageType::MsgRequestVoteResponse, RaftKind::RequestVoteResponse),
    (MessageType::MsgRequestPreVote, RaftKind::RequestPreVote),
    (MessageType::MsgRequestPreVoteResponse, RaftKind::RequestPreVoteResponse),
    (MessageType::MsgHeartbeat, RaftKind::Heartbeat),
    (MessageType::MsgHeartbeatResponse, RaftKind::HeartbeatResponse),
    (MessageType::MsgTransferLeader, RaftKind::TransferLeader),
    (MessageType::MsgTimeoutNow, RaftKind::TimeoutNow),
    (MessageType::MsgReadIndex, RaftKind::ReadIndex),
    (MessageType::MsgReadIndexResp, RaftKind::ReadIndexResponse),
];

/// What raft-rs wants to say, as it travels. `None` for a kind that does not.
pub(super) fn outgoing(mut message: Message) -> Option<RaftMessage> {
    if message.msg_type == MessageType::MsgSnapshot {
        return announce_snapshot(message.take_snapshot(), &message);
    }
    let (_, kind) = KINDS.into_iter().find(|(theirs, _)| *theirs == message.msg_type)?;
    Some(RaftMessage {
        kind,
        from: RaftId::from_raw(message.from)?,
        to: RaftId::from_raw(message.to)?,
        term: term(message.term),
        log_term: term(message.log_term),
        index: Index::new(message.index),
        commit: Index::new(message.commit),
        commit_term: term(message.commit_term),
        reject: message.reject,
        reject_hint: Index::new(message.reject_hint),
        context: message.context,
        entries: message
            .entries
            .into_iter()
            .map(|entry| RaftEntry { log_id: log_id(&entry), content: entry.data, inline: Bytes::new() })
            .collect(),
    })
}

/// A snapshot as it travels: which batch it ends with, and what [`SnapshotContent`] says. Its bytes are copied by whoever wants them.
fn announce_snapshot(snapshot: Snapshot, message: &Message) -> Option<RaftMessage> {
    let last = snapshot.get_metadata();
    Some(RaftMessage {
        log_term: term(last.term),
        index: Index::new(last.index),
        context: snapshot.data.clone(),
        ..empty(
            RaftKind::Snapshot,
            RaftId::from_raw(message.from)?,
            RaftId::from_raw(message.to)?,
            term(message.term),
        )
    })
}

/// For raft-rs: a snapshot that is in place already.
pub(super) fn snapshot(message: &RaftMessage, content: &SnapshotContent) -> Message {
    let ids = |members: &[loglog_storage::Member]| members.iter().map(|it| it.id.get()).collect();
    let conf_state = ConfState {
        voters: ids(&content.membership.voters),
        learners: ids(&content.membership.learners),
        ..ConfState::default()
    };
    let metadata = SnapshotMetadata {
        conf_state: Some(conf_state).into(),
        index: message.index.get(),
        term: u64::from(message.log_term.get()),
        ..SnapshotMetadata::default()
    };
    let snapshot = Snapshot { metadata: Some(metadata).into(), ..Snapshot::default() };
    Message {
        msg_type: MessageType::MsgSnapshot,
        from: message.from.get(),
        to: message.to.get(),
        term: u64::from(message.term.get()),
        snapshot: Some(snapshot).into(),
        ..Message::default()
    }
}

/// Tells a leader that its snapshot is not to be had.
pub(super) fn snapshot_failed(from: RaftId, to: RaftId, term: Term) -> RaftMessage {
    RaftMessage { reject: true, ..empty(RaftKind::SnapshotStatus, from, to, term) }
}

fn empty(kind: RaftKind, from: RaftId, to: RaftId, term: Term) -> RaftMessage {
    RaftMessage {
        kind,
        from,
        to,
        term,
        log_term: Term::ZERO,
        index: Index::ZERO,
        commit: Index::ZERO,
        commit_term: Term::ZERO,
        reject: false,
        reject_hint: Index::ZERO,
        context: Bytes::new(),
        entries: Vec::new(),
    }
}

/// What a peer says, for raft-rs.
pub(super) fn incoming(message: RaftMessage) -> Message {
    let kind = KINDS.into_iter().find(|(_, ours)| *ours == message.kind);
    let (msg_type, _) = kind.expect("every kind that travels is listed");
    Message {
        msg_type,
        from: message.from.get(),
        to: message.to.get(),
        term: u64::from(message.term.get()),
        log_term: u64::from(message.log_term.get()),
        index: message.index.get(),
        commit: message.commit.get(),
        commit_term: u64::from(message.commit_term.get()),
        reject: message.reject,
        reject_hint: message.reject_hint.get(),
        context: message.context,
        entries: message.entries.into_iter().map(entry).collect::<Vec<_>>().into(),
        ..Message::default()
    }
}

fn entry(entry: RaftEntry) -> Entry {
    super::entry(entry.log_id, entry.content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loglog_proto::LogId;

    #[test]
    fn s19_every_field_that_matters_crosses_the_mirror() {
        for (msg_type, _) in KINDS {
            let message = Message {
                msg_type,
                from: (1 << 32) | 1,
                to: (1 << 32) | 2,
                term: 3,
                log_term: 2,
                index: 9,
                commit: 8,
                commit_term: 2,
                reject: true,
                reject_hint: 7,
                context: Bytes::from_static(b"context"),
                entries: vec![entry(RaftEntry {
                    log_id: LogId { term: Term::new(3), index: Index::new(10) },
                    content: Bytes::from_static(b"content"),
                    inline: Bytes::new(),
                })]
                .into(),
                ..Message::default()
            };
            assert_eq!(incoming(outgoing(message.clone()).unwrap()), message);
        }
        assert!(outgoing(Message { msg_type: MessageType::MsgHup, ..Message::default() }).is_none());
    }
}
