//! Mender: repairs a damaged log from the other nodes, while consensus is not there (S10).
//!
//! ```text
//!   open ─► a gap ─► ask every peer ─► core::repair decides ─┬─► copy ─┐
//!     ▲                                ▲                     ├─► cut ──┤
//!     │                                └─ without that peer ─┤ failed  │
//!     │                                                      └─► wait  │ 0.2 s … 2 s
//!     └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Owns:   the directory, between a recovery that refused and the next one; connections to peers, for asking only.
//! Keeps:  this node neither votes nor leads meanwhile: it has no consensus. What is copied is checked on both sides (S34); the damaged
//!         file is kept aside (S7). It can be dropped at any moment: what was not put in place by then is begun again.
//! Never:  decides what fills a gap.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use loglog_core::repair::{self, Answer, Step};
use loglog_proto::error::Code;
use loglog_proto::{LogId, Offset};
use loglog_storage::{
    DataDir, Gap, IoFailure, MetaError, OpenError, OpenOptions, Repair, RepairError, ScanError,
};
use slog::{Logger, info, warn};

use super::SharedIdentity;
use super::bulk::{BulkError, BulkSource};
use crate::measures::Measures;
use crate::storage_group::RecoveryError;

/// First and longest wait between two rounds over the peers.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The mender.
pub(crate) struct Mender {
    dir: Arc<DataDir>,
    options: OpenOptions,
    peers: Vec<BulkSource>,
    measures: Arc<Measures>,
    /// What is waited for, as it was told last.
    told: String,
    log: Logger,
}

/// Why a step, or a copy, came to nothing.
enum Failed {
    /// Ask again, or another peer.
    Later(String),
    /// There is no going on.
    Final(RecoveryError),
}

impl From<RepairError> for Failed {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Failed(failure) if !failure.is_no_space() => Self::Final(failed(failure)),
            error => Self::Later(error.to_string()),
        }
    }
}

fn failed(failure: IoFailure) -> RecoveryError {
    RecoveryError::Open(OpenError::Io(failure))
}

impl Mender {
    /// A mender for this refusal of a recovery; none where it is no damage, or there are no other nodes to ask.
    pub(crate) fn new(
        dir: Arc<DataDir>,
        mut options: OpenOptions,
        refused: &RecoveryError,
        identity: &SharedIdentity,
        measures: Arc<Measures>,
        log: &Logger,
    ) -> Option<Self> {
        match refused {
            RecoveryError::Corrupt(_) => {}
            RecoveryError::Scan(ScanError::Corrupt { offset, .. }) => options.scan_from = Some(*offset),
            _ => return None,
        }
        let membership = identity.membership.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let members = membership.voters.into_iter().chain(membership.learners);
        let others = members.filter(|member| member.id != identity.raft_id());
        let peers: Vec<_> = others.map(|peer| BulkSource::new(Arc::clone(identity), peer)).collect();
        if peers.is_empty() {
            return None;
        }
        warn!(log, "the log is damaged: repairing it from the other nodes; until that is done this node neither votes nor leads";
            "damage" => %refused.damage(), "peers" => peers.len());
        Some(Self { dir, options, peers, measures, told: String::new(), log: log.clone() })
    }

    /// Repairs until the log opens.
    ///
    /// # Errors
    /// [`RecoveryError`] for what no other node can mend.
    pub(crate) async fn mend(mut self) -> Result<(), RecoveryError> {
        let mut wait = BACKOFF.0;
        while let Some(gap) = self.open().await? {
            match self.step(&gap).await {
                Ok(()) => wait = BACKOFF.0,
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Later(why)) => {
                    self.tell(&gap, why);
                    actix_rt::time::sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
        info!(self.log, "the log is repaired");
        Ok(())
    }

    /// The first gap; none if the log opens.
    async fn open(&mut self) -> Result<Option<Box<Gap>>, RecoveryError> {
        let (dir, options) = (Arc::clone(&self.dir), self.options);
        let opened = blocking(move || match dir.open(options) {
            Ok(mut recovered) => {
                // Batches of a later term than ours may have been copied: a node's term is never behind its log's.
                let (last, mut state) = (recovered.last, recovered.meta.state().clone());
                if state.term < last.term {
                    (state.term, state.vote) = (last.term, None);
                    recovered.meta.save(state).map_err(meta_failed)?;
                }
                Ok(recovered
                    .report
                    .disproved
                    .map_or(Opened::Whole, |cut| Opened::Cut(cut.bytes, recovered.report.side_files)))
            }
            Err(OpenError::Corrupt { gap, .. }) => Ok(Opened::Gap(gap)),
            Err(error) => Err(RecoveryError::Open(error)),
        });
        match opened.await?? {
            Opened::Gap(gap) => Ok(Some(gap)),
            Opened::Whole => Ok(None),
            Opened::Cut(bytes, aside) => {
                self.measures.repaired();
                warn!(self.log, "cut what the other nodes have proved to be never committed";
                    "from" => self.options.uncommitted_from.map(Offset::get), "bytes" => bytes, "kept_aside" => ?aside);
                Ok(None)
            }
        }
    }

    async fn step(&mut self, gap: &Gap) -> Result<(), Failed> {
        let (mut answers, silent) = self.ask(gap).await;
        let mut failed = String::new();
        loop {
            let step = repair::decide(gap, &answers);
            let Step::Copy { peer, last } = step else {
                return self.without_a_copy(step, gap, failed + &silent).await;
            };
            match self.copy(peer, gap, last).await {
                // It says from memory what it holds, and may be damaged there as we are: in this round it is not asked again.
                Err(Failed::Later(why)) => {
                    failed += &format!("; {why}");
                    answers[peer] = answers[peer].map(Answer::without_what_it_holds);
                }
                done => return done,
            }
        }
    }

    /// A step other than a copy; `said` is what peers said that gave none.
    async fn without_a_copy(&mut self, step: Step, gap: &Gap, said: String) -> Result<(), Failed> {
        match step {
            Step::Copy { .. } => Ok(()),
            Step::Trim(header) => {
                let (dir, offset) = (Arc::clone(&self.dir), gap.offset);
                let repaired = blocking(move || dir.repair(header, offset)?.finish());
                let aside = repaired.await.map_err(Failed::Final)??;
                self.measures.repaired();
                warn!(self.log, "cut a sealed segment to its length"; "at" => offset.get(), "kept_aside" => ?aside);
                Ok(())
            }
            Step::Cut => {
                self.options.uncommitted_from = Some(gap.offset);
                Ok(())
            }
            Step::Wait(why) => Err(Failed::Later(format!("{why}{said}"))),
        }
    }

    /// What every peer says, and for people what those say that do not answer.
    async fn ask(&mut self, gap: &Gap) -> (Vec<Option<Answer>>, String) {
        let (mut answers, mut silent) = (Vec::new(), String::new());
        for peer in &mut self.peers {
            let asked = async {
                let first = peer.locate(gap.first).await?;
                let until = match gap.until {
                    Some(until) => Some(peer.locate(until.last.index).await?),
                    None => None,
                };
                Ok::<_, BulkError>(Answer { first, until })
            };
            match asked.await {
                Ok(answer) => answers.push(Some(answer)),
                Err(error) => {
                    silent += &format!("; node {}: {}", peer.peer().id.node(), words(&error));
                    answers.push(None);
                }
            }
        }
        (answers, silent)
    }

    /// Copies the gap, or what of it lies in its first segment, and puts it in place. `Later` where nothing of it came.
    async fn copy(&mut self, peer: usize, gap: &Gap, last: LogId) -> Result<(), Failed> {
        let source = &mut self.peers[peer];
        let node = source.peer().id.node();
        let wanted = gap.until.map_or(gap.used.max(gap.mark.offset), |until| until.offset);
        let (mut first, mut offset, mut repair) = (gap.first, gap.offset, None::<Repair>);
        let broken_off = loop {
            let chunk = match source.chunk(first, offset, last).await {
                Ok(chunk) => chunk,
                // What has come so far is kept: the rest is the next gap, and may come from another peer.
                Err(error) if repair.is_some() => break Some(error),
                Err(error) => return Err(Failed::Later(format!("node {node}: {}", words(&error)))),
            };
            if repair.as_ref().is_some_and(|repair| repair.header() != chunk.header) {
                break None;
            }
            (first, offset) = (chunk.next, chunk.end());
            let (dir, from) = (Arc::clone(&self.dir), gap.offset);
            let adding = blocking(move || {
                let mut repair = match repair {
                    Some(repair) => repair,
                    None => dir.repair(chunk.header, from)?,
                };
                repair.append(&chunk.bytes)?;
                Ok::<_, RepairError>(repair)
            });
            repair = Some(adding.await.map_err(Failed::Final)??);
            if first > last.index || offset >= wanted {
                break None;
            }
        };
        let Some(repair) = repair else { return Ok(()) };
        let (base, end_offset) = (repair.header().base_offset, repair.end());
        let dir = Arc::clone(&self.dir);
        let finishing = blocking(move || {
            let finished = repair.finish();
            // Whoever drops this mender meanwhile leaves the directory locked for as long as this writes (S13).
            drop(dir);
            finished
        });
        let aside = finishing.await.map_err(Failed::Final)??;
        self.measures.repaired();
        warn!(self.log, "repaired a range of the log from another node"; "node" => node.get(), "segment" => %base,
            "from" => gap.offset.get(), "to" => end_offset.get(), "kept_aside" => ?aside);
        if let Some(error) = broken_off {
            warn!(self.log, "the copy broke off"; "node" => node.get(), "why" => words(&error));
        }
        Ok(())
    }

    /// Says what is waited for, once for each change.
    fn tell(&mut self, gap: &Gap, why: String) {
        let what = format!("batch {} at offset {}: {why}", gap.first, gap.offset);
        if self.told != what {
            warn!(self.log, "waiting to repair the log: this node neither votes nor leads"; "why" => &what);
            self.told = what;
        }
    }
}

/// What an attempt to open came to.
enum Opened {
    Whole,
    Cut(u64, Vec<std::path::PathBuf>),
    Gap(Box<Gap>),
}

fn words(error: &BulkError) -> String {
    match error {
        BulkError::Trimmed { .. } => {
            format!("{error}; if that is so on every node, replace this one: `loglog members replace`")
        }
        BulkError::Refused(refusal) if refusal.code == Code::Damaged => {
            format!("it is damaged there too: {refusal}")
        }
        error => error.to_string(),
    }
}

fn meta_failed(error: MetaError) -> RecoveryError {
    match error {
        MetaError::Failed(failure) => failed(failure),
        error => RecoveryError::Panicked(error.to_string()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RecoveryError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RecoveryError::Panicked(error.to_string()))
}
