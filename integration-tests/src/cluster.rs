//! Cluster: several real `loglogd` processes that keep one log.
//!
//! Owns:   the processes, each stopped by its id when this is dropped; their configuration, ports, directories and logs.
//! Keeps:  a node comes back at the addresses it had.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use loglog_proto::error::Refusal;
use loglog_proto::header::HEADER;
use loglog_proto::manage::{Change, Manage, Managed, NewMember};
use loglog_proto::request::{Read, RequestBody};
use loglog_proto::response::{ResponseBody, Status};
use loglog_proto::{Length, NodeId, Offset};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::signal;
use crate::history::FinalLog;
use crate::layout::{Layout, Place};
use crate::raw::RawClient;
use crate::wait::{until, within};

/// The cluster id of every cluster here.
pub const CLUSTER: &str = "10910910910910ab";

/// How long a start, an election or a convergence may take: ten times what a slow machine needs.
const DEADLINE: Duration = Duration::from_secs(30);
/// Lines of each node that a test shows when it fails.
const LAST_LINES: usize = 12;
/// How long a node may take to say how it is; a frozen one never does.
const PATIENCE: Duration = Duration::from_secs(1);

/// The processes.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    dir: Option<TempDir>,
    nodes: BTreeMap<u32, Node>,
    segment_bytes_max: String,
}

#[derive(Debug)]
struct Node {
    place: Place,
    child: Option<Child>,
    /// Where this life's log begins.
    life: u64,
}

impl Cluster {
    /// Starts `n` nodes with segments of 1 MiB and waits until all serve.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn start(program: impl Into<PathBuf>, n: u32) -> Self {
        Self::form(Layout::new(program, n))
    }

    /// Starts nodes that lie as `layout` says and waits until all serve.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn form(layout: Layout) -> Self {
        let mut cluster = Self::laid_out(layout);
        for id in cluster.ids() {
            cluster.launch(id);
        }
        cluster.all_serve();
        cluster
    }

    /// Writes the configuration of `n` nodes; none is started.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn prepare(program: impl Into<PathBuf>, n: u32) -> Self {
        Self::laid_out(Layout::new(program, n))
    }

    /// Writes the configuration of nodes that lie as `layout` says; none is started.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn laid_out(layout: Layout) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let members: Vec<_> = layout.places.keys().map(|id| (*id, layout.members_for(*id))).collect();
        let nodes = layout.places.into_iter().map(|(id, place)| (id, Node { place, child: None, life: 0 }));
        let segment_bytes_max = layout.segment_bytes_max;
        let cluster =
            Self { program: layout.program, dir: Some(dir), nodes: nodes.collect(), segment_bytes_max };
        for (id, members) in members {
            cluster.configure(id, &format!("cluster.nodes = [\n{members}]"));
        }
        cluster
    }

    /// A node that is alone, running; others can be taken in.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn alone(program: impl Into<PathBuf>) -> Self {
        let mut cluster = Self::laid_out(Layout::new(program, 1));
        cluster.configure(1, "");
        cluster.launch(1);
        cluster.all_serve();
        cluster
    }

    /// Starts another node, in an empty directory, that waits to be taken in. One of this id that is down is started anew.
    ///
    /// # Panics
    /// If it does not.
    pub fn join(&mut self, id: u32) {
        self.nodes.entry(id).or_insert_with(|| Node { place: Place::here(), child: None, life: 0 });
        self.configure(id, "cluster.join = true");
        self.launch(id);
        self.serves(id);
    }

    /// A node that is down, or is to be ended now, counts no more.
    pub fn forget(&mut self, id: u32) {
        if let Some(mut child) = self.nodes.remove(&id).and_then(|node| node.child) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the leader for a change, again and again as long as it is told to try later.
    ///
    /// # Errors
    /// The refusal that stands.
    ///
    /// # Panics
    /// If nothing stands within a deadline.
    pub fn manage(&self, what: &Change) -> Result<Managed, Refusal> {
        let ask = || {
            let (leader, _) = self.leader();
            let mut client = RawClient::open(self.client(leader), DEADLINE).ok()?;
            let manage = Manage { what: what.clone(), dry_run: false };
            match client.try_ask(RequestBody::Manage(Box::new(manage))).ok()? {
                ResponseBody::Managed(managed) => Some(Ok(*managed)),
                ResponseBody::Refused(refusal) if refusal.code.is_retryable() => None,
                ResponseBody::Refused(refusal) => Some(Err(refusal)),
                other => panic!("{what:?}: {other:?}"),
            }
        };
        within(&format!("{what:?}"), DEADLINE * 2, ask).0
    }

    /// Takes in a node that waits for it, and gives it a vote when it has caught up; returns how long that took.
    ///
    /// # Panics
    /// If that is refused.
    pub fn take_in(&self, id: u32) -> Duration {
        let began = Instant::now();
        let node = NodeId::new(id).expect("a node id");
        let (peer, client) = (Some(self.peer(id).to_owned()), Some(self.client(id).to_owned()));
        self.manage(&Change::Add(NewMember { node, peer, client })).expect("a node that waits is taken in");
        self.manage(&Change::Promote(node)).expect("a learner that caught up votes");
        began.elapsed()
    }

    fn configure(&self, id: u32, cluster: &str) {
        // For a look at what went wrong.
        let level = std::env::var("LOGLOG_TEST_LEVEL").unwrap_or_else(|_| "info".to_owned());
        let (place, segment_bytes_max) = (&self.nodes[&id].place, &self.segment_bytes_max);
        // Little of it in memory: what a test does to the files is to be seen by those who read.
        let text = format!(
            "cluster.id = \"{CLUSTER}\"\n{cluster}\nnode.id = {id}\n\
             listen.client = \"{}\"\nlisten.peer = \"{}\"\nlisten.admin = \"127.0.0.1:0\"\ndata.dir = \"{}\"\ndata.free_min = \"1 MiB\"\n\
             data.tail_bytes_max = \"64 KiB\"\nsegment.bytes_max = \"{segment_bytes_max}\"\nraft.tick = \"50 ms\"\nlog.format = \"json\"\n\
             log.level = \"{level}\"\ndebug.faults = true\n",
            place.client,
            place.peer,
            self.data(id).display(),
        );
        std::fs::write(self.path().join(format!("{id}.toml")), text).expect("a configuration");
    }

    /// Every node's id.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        self.nodes.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Where clients of a node connect.
    #[must_use]
    pub fn client(&self, id: u32) -> &str {
        &self.nodes[&id].place.client
    }

    /// Where peers of a node connect.
    #[must_use]
    pub fn peer(&self, id: u32) -> &str {
        &self.nodes[&id].place.peer
    }

    /// Where the admin endpoint of a node is that is up; known before it serves clients.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn admin(&self, id: u32) -> String {
        let named = || self.records(id).iter().find_map(|it| it["admin"].as_str().map(str::to_owned));
        within("the admin endpoint is there", DEADLINE, named).0
    }

    /// Where clients connect, every node's.
    #[must_use]
    pub fn clients(&self) -> Vec<String> {
        self.nodes.values().map(|node| node.place.client.clone()).collect()
    }

    /// Where a node's data lies.
    #[must_use]
    pub fn data(&self, id: u32) -> PathBuf {
        self.path().join(id.to_string())
    }

    /// Whether the process was started and not ended by us since.
    #[must_use]
    pub fn is_up(&self, id: u32) -> bool {
        self.nodes[&id].child.is_some()
    }

    /// Starts a node; waits for nothing.
    ///
    /// # Panics
    /// If it runs already.
    pub fn launch(&mut self, id: u32) {
        self.launch_under(id, &[]);
    }

    /// Starts a node through another program and its arguments, which must become the node's process; waits for nothing.
    ///
    /// # Panics
    /// If it runs already.
    pub fn launch_under(&mut self, id: u32, under: &[&str]) {
        let (log, config) = (self.log(id), self.path().join(format!("{id}.toml")));
        let mut command = self.nodes[&id].place.command(&self.program, under);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let life = log.metadata().expect("a file's length").len();
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        assert!(node.child.is_none(), "node {id} runs already");
        node.life = life;
        node.child = Some(command.stderr(log).spawn().expect("loglogd starts"));
    }

    /// Starts a node and waits until it serves; returns how long that took.
    ///
    /// # Panics
    /// If it does not.
    pub fn restart(&mut self, id: u32) -> Duration {
        self.launch(id);
        self.serves(id)
    }

    /// Waits until every node that is up serves.
    ///
    /// # Panics
    /// If one does not.
    pub fn all_serve(&mut self) {
        for id in self.ids().filter(|id| self.is_up(*id)).collect::<Vec<_>>() {
            self.serves(id);
        }
    }

    /// Waits until a node serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn serves(&mut self, id: u32) -> Duration {
        until(&format!("node {id} serves"), DEADLINE, || {
            let child =
                self.nodes.get_mut(&id).and_then(|node| node.child.as_mut()).expect("a node that is up");
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("node {id} ended with {status}:\n{}", self.text(id));
            }
            self.says(id, "serving")
        })
    }

    /// kill -9, and waits for the end.
    ///
    /// # Panics
    /// If there was nothing left to kill.
    pub fn kill(&mut self, id: u32) {
        let mut child = self.take(id);
        child.kill().expect("it runs");
        let status = child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "node {id} ran until it was killed:\n{}", self.text(id));
    }

    /// Whether the process has ended by itself.
    ///
    /// # Panics
    /// If it was not up.
    pub fn has_ended(&mut self, id: u32) -> bool {
        let child = self.nodes.get_mut(&id).and_then(|node| node.child.as_mut()).expect("a node that is up");
        child.try_wait().expect("a child can be asked").is_some()
    }

    /// kill -9 unless it has ended by itself meanwhile; returns how it ended.
    ///
    /// # Panics
    /// If it was not up.
    pub fn end(&mut self, id: u32) -> ExitStatus {
        let mut child = self.take(id);
        let _ = child.kill();
        child.wait().expect("a child can be waited for")
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end in peace.
    pub fn stop(&mut self, id: u32) {
        signal(self.process(id), "TERM");
        let status = self.ended(id);
        assert_eq!(status.code(), Some(0), "{}", self.text(id));
    }

    /// Waits until a node ends by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self, id: u32) -> ExitStatus {
        let mut child = self.take(id);
        within("it ends", DEADLINE, || child.try_wait().expect("a child can be asked")).0
    }

    /// SIGSTOP.
    pub fn freeze(&self, id: u32) {
        signal(self.process(id), "STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self, id: u32) {
        signal(self.process(id), "CONT");
    }

    /// Removes all that a node that is down has on disk.
    ///
    /// # Panics
    /// If it cannot.
    pub fn wipe(&self, id: u32) {
        assert!(!self.is_up(id), "node {id} is down");
        std::fs::remove_dir_all(self.data(id)).expect("a folder that can be removed");
    }

    /// The process of a node that is up.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn process(&self, id: u32) -> u32 {
        self.nodes[&id].child.as_ref().expect("a node that is up").id()
    }

    /// What this life of a node has logged so far.
    #[must_use]
    pub fn records(&self, id: u32) -> Vec<Value> {
        self.text(id).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether this life of a node has logged a message that begins like this.
    #[must_use]
    pub fn says(&self, id: u32, begin: &str) -> bool {
        self.records(id).iter().any(|it| it["msg"].as_str().is_some_and(|it| it.starts_with(begin)))
    }

    /// How a node is; `None` if it does not say.
    #[must_use]
    pub fn status(&self, id: u32) -> Option<Status> {
        match RawClient::open(self.client(id), PATIENCE).ok()?.try_ask(RequestBody::Status).ok()? {
            ResponseBody::Status(status) => Some(*status),
            other => panic!("no status: {other:?}"),
        }
    }

    /// Has an actor of a node panic.
    ///
    /// # Panics
    /// If the node knows no such actor.
    pub fn inject(&self, id: u32, actor: &str, how: &str) {
        let fault = RequestBody::Fault { actor: actor.to_owned(), how: how.to_owned() };
        match RawClient::connect(self.client(id)).ask(fault) {
            ResponseBody::Injected => {}
            other => panic!("{actor} of node {id}: {other:?}"),
        }
    }

    /// Waits for a leader; returns it and how long that took.
    ///
    /// # Panics
    /// If none is elected.
    #[must_use]
    pub fn leader(&self) -> (u32, Duration) {
        within("there is a leader", DEADLINE, || {
            let up = self.ids().filter(|id| self.is_up(*id));
            let leads = up.filter_map(|id| self.status(id)).filter(|status| status.role == "leader");
            leads.max_by_key(|status| status.term).map(|status| status.node)
        })
    }

    /// A node that is up and does not lead.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn follower(&self) -> u32 {
        let leader = self.leader().0;
        self.ids().find(|id| *id != leader && self.is_up(*id)).expect("a follower")
    }

    /// Waits until all nodes agree on the leader and the committed end, all of it on each one's disk; returns that end.
    ///
    /// # Panics
    /// If they do not, saying how they are.
    #[must_use]
    pub fn converge(&self) -> (Offset, Duration) {
        let mut last = Vec::new();
        let converged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within("all nodes agree", DEADLINE, || {
                last = self.ids().map(|id| self.status(id)).collect();
                let all: Vec<&Status> = last.iter().flatten().collect();
                let first = all.first()?;
                let agrees = |it: &&Status| {
                    (it.leader, it.term, it.committed) == (first.leader, first.term, first.committed)
                        && it.durable == it.committed
                };
                let is_one = all.len() == last.len() && first.leader.is_some() && all.iter().all(agrees);
                is_one.then(|| Offset::new(first.committed))
            })
        }));
        converged.unwrap_or_else(|_| {
            let said: Vec<String> = last
                .iter()
                .map(|it| match it {
                    Some(it) => format!(
                        "node {}: {} in term {} under {:?}, committed {}, durable {}, generation {}, last panic {:?}",
                        it.node, it.role, it.term, it.leader, it.committed, it.durable, it.generation,
                        it.actors.iter().find_map(|actor| actor.last_panic.clone())
                    ),
                    None => "a node that does not answer".to_owned(),
                })
                .collect();
            panic!("the nodes do not agree:\n{}", said.join("\n"))
        })
    }

    /// What every node that is up serves from its start up to `end`.
    ///
    /// # Panics
    /// If one does not.
    #[must_use]
    pub fn final_logs(&self, end: Offset) -> Vec<FinalLog> {
        let up = self.ids().filter(|id| self.is_up(*id));
        up.map(|id| final_log(id, self.client(id), end)).collect()
    }

    /// Every byte of the log from its start up to `end`, as a node serves it.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn log_of(&self, id: u32, end: Offset) -> Vec<u8> {
        final_log(id, self.client(id), end).log.to_vec()
    }

    /// Checks that all nodes have the same segment files, byte for byte up to `end` (S35); returns how many.
    ///
    /// # Panics
    /// If they differ, saying where.
    pub fn assert_identical_files(&self, end: Offset) -> usize {
        let [first, others @ ..] = &self.ids().collect::<Vec<_>>()[..] else { panic!("no nodes") };
        let mut found = String::new();
        // Sealed files are brought to their length in the background.
        let identical = || {
            let difference = others.iter().find_map(|other| self.difference(*first, *other, end));
            found = difference.unwrap_or_default();
            found.is_empty()
        };
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("files are identical", Duration::from_secs(10), identical);
        }));
        assert!(waited.is_ok(), "{found}");
        segments(&self.data(*first), end).len()
    }

    fn difference(&self, one: u32, other: u32, end: Offset) -> Option<String> {
        let [ours, theirs] = [one, other].map(|id| segments(&self.data(id), end));
        let bases = |of: &[(u64, PathBuf)]| of.iter().map(|(base, _)| *base).collect::<Vec<_>>();
        if bases(&ours) != bases(&theirs) {
            return Some(format!(
                "segments of node {one}: {:?}\nsegments of node {other}: {:?}",
                bases(&ours),
                bases(&theirs)
            ));
        }
        for (at, ((base, our), (_, their))) in ours.iter().zip(&theirs).enumerate() {
            let [mut a, mut b] = [our, their].map(|path| std::fs::read(path).unwrap_or_default());
            if at + 1 == ours.len() {
                let used = HEADER + usize::try_from(end.get() - base).expect("a segment's length");
                a.truncate(used);
                b.truncate(used);
                if a.len() < used {
                    return Some(format!("{} ends before {end}", our.display()));
                }
            }
            if a != b {
                let at = a.iter().zip(&b).position(|(a, b)| a != b);
                return Some(format!(
                    "segment {base:016x} differs on nodes {one} and {other}: {} and {} bytes, first at {at:?}",
                    a.len(),
                    b.len()
                ));
            }
        }
        None
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().expect("the folder lives as long as the cluster").path()
    }

    fn log(&self, id: u32) -> PathBuf {
        self.path().join(format!("{id}.log"))
    }

    /// The log of this life.
    fn text(&self, id: u32) -> String {
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(self.log(id))
            && log.seek(SeekFrom::Start(self.nodes[&id].life)).is_ok()
        {
            let _ = log.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn take(&mut self, id: u32) -> Child {
        self.nodes.get_mut(&id).and_then(|node| node.child.take()).expect("a node that is up")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.values_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (id, node) in &self.nodes {
                let end = if node.child.is_some() { "was up" } else { "was down" };
                println!("node {id} {end}; the last that it said:");
                let text = self.text(*id);
                let lines: Vec<_> = text.lines().collect();
                lines[lines.len().saturating_sub(LAST_LINES)..]
                    .iter()
                    .for_each(|line| println!("    {line}"));
            }
        }
        if std::thread::panicking()
            && std::env::var_os("LOGLOG_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            println!("the nodes' files are kept in {}", dir.keep().display());
        }
    }
}

/// What a node serves from its start up to `end`, which it has committed.
///
/// # Panics
/// If it does not.
#[must_use]
pub fn final_log(id: u32, address: &str, end: Offset) -> FinalLog {
    let mut client = RawClient::connect(address);
    let ResponseBody::End { start, .. } = client.ask(RequestBody::End { linearizable: false }) else {
        panic!("node {id} does not say where its log begins")
    };
    let mut log = Vec::new();
    while start + Length::of(log.len()) < end {
        let offset = start + Length::of(log.len());
        let read = Read { offset, limit: 1 << 20, wait_ms: 0, min_end: None };
        match client.ask(RequestBody::Read(read)) {
            ResponseBody::Data(data) => log.extend_from_slice(&data.bytes),
            other => panic!("node {id} does not serve {offset}: {other:?}"),
        }
    }
    log.truncate((end - start).as_usize());
    FinalLog { node: NodeId::new(id).expect("a node id"), start, log: log.into(), committed: end }
}

/// A node's segment files that hold bytes below `end`, with their base offsets, in order.
fn segments(dir: &Path, end: Offset) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(dir)
        .expect("a data directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .filter_map(|path| {
            let base = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
            (base < end.get()).then_some((base, path))
        })
        .collect();
    found.sort();
    found
}
