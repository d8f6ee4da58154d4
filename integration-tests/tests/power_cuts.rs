//! Power cuts of real file systems under load: what was acknowledged is there afterwards, once, at its place, and the node starts.
//!
//! Each cut proves itself: a file that was synced before it is there, one that was not is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use loglog_integration_tests::checker::Enough;
use loglog_integration_tests::clock::now;
use loglog_integration_tests::history::Trim;
use loglog_integration_tests::loop_fs::Kind;
use loglog_integration_tests::{Cluster, Layout, Load, LoadOptions, LoopFs, RawClient, until};
use loglog_proto::Offset;
use loglog_proto::manage::{Change, Manage};
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::same_logs;

/// Ten times what was ever seen, and more.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of a disk: more than is ever kept of the log at a time.
const DISK: u64 = 1 << 30;
/// What is kept of the log when it is trimmed.
const KEPT: u64 = 300 << 10;

/// A cluster whose nodes have a disk each, and what they went through.
struct Site {
    // Before the cluster, whose folder they lie in.
    disks: BTreeMap<u32, LoopFs>,
    cluster: Cluster,
    rng: StdRng,
    trims: Vec<Trim>,
    tally: Tally,
}

/// What happened.
#[derive(Default)]
struct Tally {
    /// Disks cut, each with its proof.
    cuts: u64,
    /// By where they hit.
    moments: BTreeMap<&'static str, u64>,
    /// Nodes that ended by themselves, when their disk failed.
    own_ends: u64,
    /// Starts that found an unfinished write and cut it.
    torn: u64,
    /// From the cut until an append was acknowledged that was handed in after the start.
    away: Vec<Duration>,
    /// Between the first and the last of disks that were cut together.
    spread: Duration,
}

impl Site {
    fn start(kinds: &[Kind]) -> Option<Self> {
        let layout = Layout::new(env!("CARGO_BIN_EXE_loglogd"), kinds.len() as u32);
        let mut cluster = Cluster::laid_out(layout.segment_bytes_max("256 KiB"));
        let disks = disks(&cluster, kinds)?;
        let seed = std::env::var("LOGLOG_TEST_SEED").ok().and_then(|it| it.parse().ok());
        let seed = seed.unwrap_or_else(|| rand::rng().random());
        println!("seed {seed}; LOGLOG_TEST_SEED={seed} chooses the same moments");
        for id in cluster.ids() {
            cluster.launch(id);
        }
        cluster.all_serve();
        let rng = StdRng::seed_from_u64(seed);
        Some(Self { disks, cluster, rng, trims: Vec::new(), tally: Tally::default() })
    }

    /// Lets the load go on for a while, then cuts these nodes' power at once, and switches it on again.
    fn strike(&mut self, load: &Load, ids: &[u32]) {
        // In turn, so that a few cuts are some of each.
        let trim = match self.tally.moments.values().sum::<u64>() % 5 {
            0 => {
                self.note("soon after a start");
                // A start takes some 30 ms, most of it recovery.
                self.pause(60_000);
                None
            }
            1 => {
                self.resumed(load);
                self.note("soon after a new segment");
                load.progress(self.rng.random_range(1..500), DEADLINE);
                let before = self.segments(ids[0]);
                until("a new segment", DEADLINE, || self.segments(ids[0]) != before);
                self.pause(2000);
                None
            }
            2 => {
                self.resumed(load);
                self.note("during a trim");
                load.progress(self.rng.random_range(1..1000), DEADLINE);
                let trim = self.begin_trim(load);
                self.pause(15_000);
                trim
            }
            _ => {
                self.resumed(load);
                self.note("anywhere");
                load.progress(self.rng.random_range(1..2000), DEADLINE);
                self.pause(2000);
                None
            }
        };
        self.cut(ids);
        if let Some((mut client, asked, invoked)) = trim {
            let answer = client.try_receive().ok().and_then(|it| match it.body {
                ResponseBody::Managed(managed) => Some((now(), Offset::new(managed.start))),
                _ => None,
            });
            self.trims.push(Trim { asked, invoked, answer });
        }
        let since = Instant::now();
        for id in ids {
            self.cluster.launch(*id);
        }
        self.tally.away.push(since.elapsed());
    }

    fn cut(&mut self, ids: &[u32]) {
        let mut disks: Vec<_> =
            self.disks.iter_mut().filter(|(id, _)| ids.contains(id)).map(|(_, disk)| disk).collect();
        self.tally.spread = self.tally.spread.max(LoopFs::cut_power(&mut disks));
        if self.rng.random_bool(0.5) {
            // S2: who is told that a write or a sync failed, ends. Not all of several have something to write.
            let cluster = &mut self.cluster;
            until("a node ends by itself", DEADLINE, || ids.iter().any(|id| cluster.has_ended(*id)));
        }
        for id in ids {
            let ended = self.cluster.end(*id);
            let is_own = ended.code() == Some(1);
            assert!(is_own || ended.signal() == Some(9), "node {id} ended with {ended}");
            self.tally.own_ends += u64::from(is_own);
            self.tally.torn += u64::from(self.cluster.says(*id, "cut a torn tail"));
        }
        for id in ids {
            self.disks.get_mut(id).unwrap().power_on();
            self.tally.cuts += 1;
        }
    }

    /// Waits until the nodes serve and appends go on.
    fn resumed(&mut self, load: &Load) {
        let since = Instant::now();
        self.cluster.all_serve();
        let took = load.resumed(since, DEADLINE).first;
        if let Some(last) = self.tally.away.last_mut() {
            *last = took;
        }
    }

    /// Asks for a trim of what all readers have read, and does not wait for the answer.
    fn begin_trim(
        &self,
        load: &Load,
    ) -> Option<(RawClient, Offset, loglog_integration_tests::history::Tick)> {
        let (leader, _) = self.cluster.leader();
        let committed = self.cluster.status(leader)?.committed;
        // Readers that were away are behind.
        until("all readers have read it", DEADLINE, || load.read().get() >= committed);
        let (asked, invoked) = (Offset::new(committed.saturating_sub(KEPT)), now());
        let mut client = RawClient::open(self.cluster.client(leader), DEADLINE).ok()?;
        let manage = Manage { what: Change::Trim(asked), dry_run: false };
        client.send(RequestBody::Manage(Box::new(manage))).ok()?;
        Some((client, asked, invoked))
    }

    fn segments(&self, id: u32) -> Vec<std::ffi::OsString> {
        let names = std::fs::read_dir(self.cluster.data(id)).unwrap().map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = names.filter(|it| it.to_string_lossy().ends_with(".seg")).collect();
        names.sort();
        names
    }

    /// The power goes at a moment that nobody chose.
    fn pause(&mut self, microseconds_max: u64) {
        std::thread::sleep(Duration::from_micros(self.rng.random_range(0..microseconds_max)));
    }

    fn note(&mut self, moment: &'static str) {
        *self.tally.moments.entry(moment).or_default() += 1;
    }

    /// Ends the load and has everything judged.
    fn judge(&mut self, load: Load, acks: u64) {
        self.resumed(&load);
        load.progress(100, DEADLINE);
        let mut finished = load.finish();
        finished.history.trims.append(&mut self.trims);
        for _ in 0..self.tally.cuts {
            finished.history.fault("power cut");
        }
        let (end, _) = self.cluster.converge();
        let segments = self.cluster.assert_identical_files(end);
        let enough = Enough::acks(acks).faults("power cut", self.tally.cuts.max(1));
        let facts = finished.check(same_logs(&self.cluster, end), &enough);
        println!("{}\n{facts}; {end} bytes, {segments} segments kept", self.tally);
        let trims = finished.history.trims.iter().filter(|it| it.answer.is_some()).count();
        let asked = finished.history.trims.len();
        let start = self.cluster.status(1).expect("it serves").start;
        println!("{trims} of {asked} trims were answered; the log starts at {start}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut away = self.away.clone();
        away.sort();
        let [median, longest] = [away.len() / 2, away.len() - 1].map(|at| away[at]);
        write!(
            f,
            "{} cuts, each of which kept what was synced and lost what was not: {:?}; {} nodes ended by themselves before they were \
             killed; {} starts cut a torn tail; after a start appends went on within {median:?}, at most {longest:?}; disks cut together \
             went within {:?}",
            self.cuts, self.moments, self.own_ends, self.torn, self.spread
        )
    }
}

/// A disk for each node.
pub(crate) fn disks(cluster: &Cluster, kinds: &[Kind]) -> Option<BTreeMap<u32, LoopFs>> {
    let mut disks = BTreeMap::new();
    for (id, kind) in cluster.ids().zip(kinds) {
        let at = cluster.data(id);
        std::fs::create_dir(&at).unwrap();
        disks.insert(id, LoopFs::make(*kind, &at, DISK)?);
    }
    Some(disks)
}

/// How many cuts: a few, or with `LOGLOG_SOAK=1` many.
pub(crate) fn cuts(few: u64, many: u64) -> u64 {
    if std::env::var("LOGLOG_SOAK").as_deref() == Ok("1") { many } else { few }
}

fn cuts_of_one_node(kind: Kind) {
    let Some(mut site) = Site::start(&[kind]) else { return };
    let (cuts, began) = (cuts(20, 500), Instant::now());
    let load = Load::start(site.cluster.clients(), LoadOptions { writers: 4, in_flight: 100, readers: 1 });
    // A client's first connection finds a node, or fails.
    load.progress(100, DEADLINE);
    for cut in 1..=cuts {
        site.strike(&load, &[1]);
        if cut % 50 == 0 {
            println!("{cut} cuts in {:?}, {} acknowledged", began.elapsed(), load.acknowledged());
        }
    }
    println!("{cuts} cuts of {kind:?} in {:?}", began.elapsed());
    site.judge(load, cuts * 200);
}

#[test]
fn s08_power_cuts_of_a_node_on_ext4_lose_double_and_move_nothing() {
    cuts_of_one_node(Kind::Ext4);
}

#[test]
fn s08_power_cuts_of_a_node_on_xfs_lose_double_and_move_nothing() {
    cuts_of_one_node(Kind::Xfs);
}

#[test]
fn s01_power_cuts_of_all_three_nodes_at_once_lose_double_and_move_nothing() {
    let Some(mut site) = Site::start(&[Kind::Ext4, Kind::Xfs, Kind::Ext4]) else { return };
    let (cuts, began) = (cuts(3, 50), Instant::now());
    let load = Load::start(site.cluster.clients(), LoadOptions { writers: 4, in_flight: 32, readers: 3 });
    load.progress(100, DEADLINE);
    for cut in 1..=cuts {
        // One first: the others go on, and it has something to catch up with when all lose their power.
        let one = site.rng.random_range(1..=3);
        site.strike(&load, &[one]);
        site.strike(&load, &[1, 2, 3]);
        println!("{cut} cuts of all in {:?}, {} acknowledged", began.elapsed(), load.acknowledged());
    }
    site.judge(load, cuts * 200);
}
