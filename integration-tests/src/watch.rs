//! Watch: asks every node in turn for ends and bytes, all the time, and notes what it is told.
//!
//! Owns:   a thread and its connections.
//! Keeps:  a node that does not answer costs it a second at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use loglog_proto::error::{Code, Detail};
use loglog_proto::request::{self, RequestBody};
use loglog_proto::response::ResponseBody;
use loglog_proto::{NodeId, Offset};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::clock::now;
use crate::history::{EndSeen, History, Read, ReadAnswer};
use crate::raw::RawClient;

/// How long a node may be silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions, so that watching is no load.
const PAUSE: Duration = Duration::from_millis(4);
/// Of one read.
const BYTES_MAX: u64 = 2000;

/// Somebody who asks.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<History>>,
}

impl Watch {
    /// Begins with `nodes`. What it is told goes into a history without operations.
    #[must_use]
    pub fn start(nodes: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut history, mut rng) = (History::new(), StdRng::seed_from_u64(nodes.len() as u64));
            let mut watched: Vec<Watched> = (1..).zip(nodes).map(|(id, at)| Watched::new(id, at)).collect();
            for turn in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let count = watched.len();
                watched[turn % count].ask(&mut rng, &mut history);
                std::thread::sleep(PAUSE);
            }
            history
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; returns what was told.
    ///
    /// # Panics
    /// If a node answered what is no answer.
    #[must_use]
    pub fn finish(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is ended once").join().expect("only answers")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A node that is asked.
struct Watched {
    node: NodeId,
    address: String,
    connection: Option<RawClient>,
    /// The last end that it told.
    end: Offset,
}

impl Watched {
    fn new(id: u32, address: String) -> Self {
        let node = NodeId::new(id).expect("not zero");
        Self { node, address, connection: None, end: Offset::ZERO }
    }

    /// Asks one thing. What cannot be answered now is asked again another time.
    fn ask(&mut self, rng: &mut StdRng, history: &mut History) {
        let Some(mut connection) =
            self.connection.take().or_else(|| RawClient::open(&self.address, PATIENCE).ok())
        else {
            return;
        };
        let told = match rng.random_range(0..4) {
            0 => self.ask_end(&mut connection, true, history),
            1 => self.ask_end(&mut connection, false, history),
            _ => self.read(&mut connection, rng, history),
        };
        if told.is_ok() {
            self.connection = Some(connection);
        }
    }

    fn ask_end(
        &mut self,
        connection: &mut RawClient,
        linearizable: bool,
        history: &mut History,
    ) -> std::io::Result<()> {
        let invoked = now();
        match connection.try_ask(RequestBody::End { linearizable })? {
            ResponseBody::End { start, end } => {
                let (node, completed) = (self.node, now());
                history.ends.push(EndSeen { node, linearizable, start, end, invoked, completed });
                self.end = end;
            }
            ResponseBody::Refused(_) => {}
            other => panic!("no end: {other:?}"),
        }
        Ok(())
    }

    fn read(
        &mut self,
        connection: &mut RawClient,
        rng: &mut StdRng,
        history: &mut History,
    ) -> std::io::Result<()> {
        let offset = Offset::new(rng.random_range(0..=self.end.get() + 100));
        let (limit, invoked) = (rng.random_range(1..=BYTES_MAX), now());
        let ask = request::Read { offset, limit, wait_ms: 0, min_end: None };
        let answer = match connection.try_ask(RequestBody::Read(ask))? {
            ResponseBody::Data(data) => {
                assert_eq!(data.offset, offset, "what was asked for");
                ReadAnswer::Data { bytes: data.bytes, end: data.end }
            }
            ResponseBody::Refused(refusal) => match (refusal.code, refusal.detail) {
                (Code::Trimmed, Detail::Number(start)) => ReadAnswer::Trimmed { start: Offset::new(start) },
                (Code::BeyondEnd, Detail::Number(end)) => ReadAnswer::BeyondEnd { end: Offset::new(end) },
                _ => return Ok(()),
            },
            other => panic!("no read: {other:?}"),
        };
        let (node, completed) = (self.node, now());
        history.reads.push(Read { node, offset, limit, invoked, completed, answer });
        Ok(())
    }
}
