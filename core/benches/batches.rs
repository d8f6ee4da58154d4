//! What consensus costs, in memory: appends are decided, proposed, framed for the writer, synced at once, committed and answered. One voter,
//! and three, where what it costs all of them is counted: messages between them, and payloads that a client has brought to each.
//!
//!     cargo bench -p loglog-core --bench batches

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loglog_core::{Answer, Append, Consensus, Recovery, Role, Settings, Writers};
use loglog_proto::limits::{WRITER_MEMORY, WRITER_SEQUENCES_MAX};
use loglog_proto::peer::RaftMessage;
use loglog_proto::{ClusterId, Incarnation, Index, Length, NodeId, Offset, RaftId, Sequence, WriterId};
use loglog_storage::{LogStart, Member, Membership, MetaState};
use rand::SeedableRng;
use rand::rngs::StdRng;

const PAYLOAD: usize = 100;

fn raft_id(node: u32) -> RaftId {
    let incarnation = Incarnation::new(7).expect("an incarnation");
    RaftId::new(NodeId::new(node).expect("an id"), incarnation)
}

fn consensus(node: u32, voters: u32) -> Consensus<u64> {
    let member = |node| Member {
        id: raft_id(node),
        peer_address: format!("127.0.0.1:{node}"),
        client_address: format!("127.0.0.1:1{node}"),
    };
    let voters = (1..=voters).map(member).collect();
    let meta = MetaState {
        cluster: ClusterId::new(5).expect("an id"),
        node: raft_id(node).node(),
        incarnation: raft_id(node).incarnation(),
        term: LogStart::GENESIS.previous_term,
        vote: None,
        membership: Membership { index: Index::new(1), voters, learners: Vec::new() },
        start: LogStart::GENESIS,
        segment_bytes_max: Length::new(64 << 20),
    };
    let writers = Writers::new(WRITER_MEMORY, WRITER_SEQUENCES_MAX, Offset::ZERO);
    let mark = meta.start.mark();
    let recovery = Recovery { meta, mark, tail: Vec::new(), terms: Vec::new(), writers };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Consensus::new(Settings::default(), recovery, StdRng::seed_from_u64(u64::from(node)), &logger)
}

/// Voters without disks or sockets between them: what is written is synced, what is sent arrives.
struct Cluster {
    nodes: Vec<Consensus<u64>>,
    messages: Vec<(u64, RaftMessage)>,
    /// What every entry holds.
    payload: Bytes,
    crc: u32,
    sequence: u64,
    answered: usize,
}

impl Cluster {
    /// Led by its first node.
    fn new(voters: u32) -> Self {
        let payload = Bytes::from(vec![0xa5; PAYLOAD]);
        let mut cluster = Self {
            nodes: (1..=voters).map(|node| consensus(node, voters)).collect(),
            messages: Vec::new(),
            crc: loglog_proto::crc32c(&payload),
            payload,
            sequence: 0,
            answered: 0,
        };
        cluster.settle();
        let mut ticks = 0;
        while cluster.nodes[0].status().role != Role::Leader {
            cluster.nodes[0].tick();
            cluster.settle();
            ticks += 1;
            assert!(ticks < 1000, "nobody opposes");
        }
        cluster
    }

    /// The same writer's next appends.
    fn appends(&mut self, count: u64) -> Vec<Append> {
        let append = |number: u64| Append {
            writer: WriterId::new(9),
            previous: (number > 1).then(|| Sequence::new(number - 1)),
            sequence: Sequence::new(number),
            known_end: Some(Offset::ZERO),
            expect_end: None,
            payload: self.payload.clone(),
            payload_crc: self.crc,
        };
        let appends = (self.sequence + 1..=self.sequence + count).map(append).collect();
        self.sequence += count;
        appends
    }

    /// All of it, until every append is answered.
    fn commit(&mut self, appends: Vec<Append>) -> usize {
        self.answered = 0;
        for append in appends {
            self.nodes[0].append(0, append);
        }
        self.settle();
        self.answered
    }

    fn settle(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.turn(node));
        while !self.messages.is_empty() {
            for (life, message) in std::mem::take(&mut self.messages) {
                let to = message.to.node().get() as usize - 1;
                self.nodes[to].step(life, message).expect("a message of ours");
                self.turn(to);
            }
        }
    }

    /// Turns until there is nothing more to do: a sync brings the next.
    fn turn(&mut self, at: usize) {
        loop {
            let node = &mut self.nodes[at];
            let effects = node.turn(1234);
            let life = node.status().accepted.life;
            self.messages.extend(effects.messages.into_iter().map(|message| (life, message)));
            let mut is_idle = effects.groups.is_empty() && effects.wants.is_empty();
            for want in effects.wants {
                let payloads = vec![self.payload.clone(); want.references.len()];
                node.payloads(&want, payloads).expect("what the references say");
            }
            for group in effects.groups {
                black_box(&group.batches);
                node.synced(group.number);
            }
            self.answered +=
                effects.answers.iter().filter(|(_, answer)| matches!(answer, Answer::Appended(_))).count();
            if let Some(standing) = effects.standing {
                is_idle = false;
                let from = raft_id(u32::try_from(at + 1).expect("few nodes"));
                let others = self.nodes.iter_mut().enumerate().filter(|(other, _)| *other != at);
                others.for_each(|(_, other)| other.stands(from, standing));
            }
            if is_idle {
                return;
            }
        }
    }
}

fn batches(criterion: &mut Criterion) {
    for voters in [1, 3] {
        let mut group = criterion.benchmark_group(format!("consensus, {voters} voters"));
        for count in [1, 100, 1000] {
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let cluster = std::cell::RefCell::new(Cluster::new(voters));
                bencher.iter_batched(
                    || cluster.borrow_mut().appends(count),
                    |appends| {
                        let committed = cluster.borrow_mut().commit(appends);
                        assert_eq!(committed as u64, count);
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);
