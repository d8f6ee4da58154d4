//! One simulated machine: its disk, and the life that a process leads on it.
//!
//! Owns:   what a kill takes and what a power cut takes.
//! Never:  decides when either comes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use loglog_core::consensus::Order;
use loglog_core::effects::{Fetch, Install};
use loglog_core::gate::Want;
use loglog_core::old_batches::Places;
use loglog_core::upload::UploadLimits;
use loglog_core::{Consensus, UploadBuffer, WriteGroup};
use loglog_proto::peer::{Copy, PeerAccepted};
use loglog_proto::request::{Append, Upload};
use loglog_proto::{Index, LogId, NodeId, Offset, RaftId, Term};
use loglog_storage::vfs::SimVfs;
use loglog_storage::{DataDir, Installer, LogReader, LogWriter, Mark, Meta, OpenOptions, SegmentKeeper};

use super::queue::Micros;

/// Which node; a wiped one's successor is another.
pub(super) type At = usize;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) client: usize,
    pub(super) number: u64,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Append(Append),
    Upload(Upload),
    Read { offset: Offset, limit: usize },
    End { linearizable: bool },
    Order(Order),
}

/// A machine.
pub(super) struct Node {
    pub(super) id: RaftId,
    pub(super) disk: SimVfs,
    pub(super) dir: PathBuf,
    pub(super) state: State,
    /// What the process holds beside the log; a restart of the storage group in place leaves it.
    pub(super) uploads: UploadBuffer,
    /// Its clock runs this many times as fast, in thousandths; its wall clock is ahead by so many milliseconds.
    pub(super) rate: u64,
    pub(super) ahead_ms: i64,
    /// Disk and network take this many times as long.
    pub(super) slow: u64,
    /// It does nothing until then.
    pub(super) paused_until: Micros,
    /// It dies after that many further effects.
    pub(super) dies_after: Option<u64>,
    /// It dies as soon as it has given a vote.
    pub(super) dies_at_vote: bool,
    /// The power will fail in the midst of a storage operation; twice, if recovery is to be hit.
    pub(super) is_power_failing: bool,
    pub(super) fails_again: bool,
    /// Faults were injected into its file system.
    pub(super) is_disk_faulty: bool,
    /// Its disk was filled, and that it was is not counted yet.
    pub(super) is_full: bool,
    pub(super) is_full_unfelt: bool,
    /// Until when its disk is through with no write.
    pub(super) hangs_until: Micros,
    pub(super) is_hang_unfelt: bool,
    /// Bytes below the mark were damaged, and not mended since.
    pub(super) is_damaged: bool,
    /// The mark, term and vote that its disk surely holds.
    pub(super) synced_mark: Mark,
    /// How far the log is synced, but for what a truncation, or a snapshot, may have taken off since.
    pub(super) synced_end: Offset,
    pub(super) synced_vote: (Term, Option<RaftId>),
    /// Counts lives and storage generations: what is told of another one is dropped (S13).
    pub(super) generation: u64,
}

/// How a machine stands.
pub(super) enum State {
    Up(Box<Life>),
    /// Up, and its log is damaged: it waits for other nodes.
    Mending(Mending),
    Down,
    /// Wiped, removed: it never comes back.
    Gone,
}

/// A repair under way.
pub(super) struct Mending {
    pub(super) dir: DataDir,
    pub(super) options: OpenOptions,
}

/// One generation of a storage group.
pub(super) struct Life {
    pub(super) dir: DataDir,
    pub(super) meta: Meta,
    pub(super) writer: LogWriter,
    pub(super) keeper: SegmentKeeper,
    pub(super) reader: LogReader,
    pub(super) core: Consensus<Token>,
    /// Groups that the writer has not written yet.
    pub(super) held: VecDeque<WriteGroup>,
    pub(super) is_writing: bool,
    pub(super) groups: u64,
    pub(super) is_mark_loose: bool,
    pub(super) active: Option<Offset>,
    pub(super) is_turn_due: bool,
    pub(super) is_looking: bool,
    pub(super) missing: HashSet<LogId>,
    pub(super) places: Places,
    pub(super) receiving: Option<Receiving>,
    /// How far its committed bytes were compared.
    pub(super) judged: Offset,
}

/// A snapshot on its way.
pub(super) struct Receiving {
    pub(super) install: Install,
    pub(super) installer: Installer,
    pub(super) first: Index,
    pub(super) offset: Offset,
    pub(super) peers: Vec<RaftId>,
    pub(super) failures: u32,
}

/// What happens.
pub(super) enum Event {
    Tick {
        at: At,
        generation: u64,
    },
    Turn {
        at: At,
        generation: u64,
    },
    Written {
        at: At,
        generation: u64,
    },
    Space {
        at: At,
        generation: u64,
    },
    Look {
        at: At,
        generation: u64,
    },
    OldRead {
        at: At,
        generation: u64,
        fetch: Fetch,
    },
    Said {
        from: RaftId,
        to: RaftId,
        life: u64,
        frame: bytes::Bytes,
    },
    Connect {
        from: At,
        to: At,
    },
    Accepted {
        at: At,
        generation: u64,
        to: u64,
        peer: RaftId,
        accepted: PeerAccepted,
    },
    CopyAsked {
        from: At,
        generation: u64,
        to: At,
        want: Want,
        copy: Copy,
    },
    Copied {
        at: At,
        generation: u64,
        want: Want,
        bytes: bytes::Bytes,
    },
    InstallStep {
        at: At,
        generation: u64,
    },
    Mend {
        at: At,
        generation: u64,
    },
    Start {
        at: At,
    },
    Restart {
        at: At,
        generation: u64,
    },
    /// The power fails, if this life is led still.
    PowerFails {
        at: At,
        generation: u64,
    },
    Asked {
        to: At,
        token: Token,
        ask: Ask,
    },
    Answered {
        token: Token,
        answer: Reply,
    },
    Client {
        client: usize,
    },
    Operator,
    Nemesis,
    Undo(Undo),
}

/// The end of something that lasts.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Cuts,
    Room(At),
    Speed(At),
}

/// What a client gets.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Answer(loglog_core::Answer),
    Bytes { offset: Offset, bytes: bytes::Bytes, end: Offset },
    End { start: Offset, end: Offset },
}

impl Event {
    /// The node that handles it, if it is not the world itself.
    pub(super) fn node(&self, by_id: &HashMap<RaftId, At>) -> Option<At> {
        match self {
            Self::Tick { at, .. }
            | Self::Turn { at, .. }
            | Self::Written { at, .. }
            | Self::Space { at, .. }
            | Self::Look { at, .. }
            | Self::OldRead { at, .. }
            | Self::Accepted { at, .. }
            | Self::CopyAsked { to: at, .. }
            | Self::Copied { at, .. }
            | Self::InstallStep { at, .. }
            | Self::Mend { at, .. }
            | Self::Restart { at, .. }
            | Self::PowerFails { at, .. }
            | Self::Asked { to: at, .. } => Some(*at),
            Self::Said { to, .. } => by_id.get(to).copied(),
            Self::Connect { .. }
            | Self::Start { .. }
            | Self::Answered { .. }
            | Self::Client { .. }
            | Self::Operator
            | Self::Nemesis
            | Self::Undo(_) => None,
        }
    }
}

impl Node {
    pub(super) fn new(id: RaftId) -> Self {
        let dir = PathBuf::from(format!("/node-{}", id.node()));
        Self {
            id,
            disk: SimVfs::new(),
            dir,
            state: State::Down,
            uploads: uploads(),
            rate: 1000,
            ahead_ms: 0,
            slow: 1,
            paused_until: 0,
            dies_after: None,
            dies_at_vote: false,
            is_power_failing: false,
            fails_again: false,
            is_disk_faulty: false,
            is_full: false,
            is_full_unfelt: false,
            hangs_until: 0,
            is_hang_unfelt: false,
            is_damaged: false,
            synced_mark: Mark::default(),
            synced_end: Offset::ZERO,
            synced_vote: (Term::ZERO, None),
            generation: 0,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.id.node()
    }

    pub(super) fn life(&mut self) -> Option<&mut Life> {
        match &mut self.state {
            State::Up(life) => Some(life),
            _ => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// The life of that generation, if it is still led.
    pub(super) fn life_of(&mut self, generation: u64) -> Option<&mut Life> {
        if self.generation != generation {
            return None;
        }
        self.life()
    }

    pub(super) fn vfs(&self) -> Arc<SimVfs> {
        Arc::new(self.disk.clone())
    }
}

/// A buffer for uploads; small, so that it fills.
pub(super) fn uploads() -> UploadBuffer {
    UploadBuffer::new(UploadLimits { bytes_max: 1 << 20, client_bytes_max: 512 << 10, expiry_ms: 10_000 })
}
