//! A byte of one node's file changes while the cluster runs. Whoever reads with checks gets the right bytes, learns which node has the
//! wrong ones, and has it repair itself while it runs; whoever reads without gets the wrong byte.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use loglog_client::{Client, Damage, EntriesOptions, Entry, Error, Offer};
use loglog_integration_tests::{Appender, Cluster, RawClient, until, within};
use loglog_proto::Offset;
use loglog_proto::check::{Checked, Verdict};
use loglog_proto::error::Code;
use loglog_proto::header::HEADER;
use loglog_proto::request::RequestBody;
use loglog_proto::response::ResponseBody;

use crate::repair::{check, fill, flip, has_repaired, segments, verify_compare};

/// Twice what the others allow: where the disk is busy with much else, a repair syncs several files.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a byte changes.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// In a segment that is full.
    Sealed,
    /// In the one that is written to.
    Last,
}

/// Flips a bit of a committed payload in a node's file; returns the file, the place in it, and the place in the log.
fn damage(
    cluster: &Cluster,
    id: u32,
    place: Where,
    entries: &[Entry],
    end: Offset,
) -> (PathBuf, usize, Offset) {
    let mut segments = segments(cluster, id);
    segments.retain(|(base, _)| *base < end.get());
    let (base, path) = match place {
        // A term that ended early leaves small ones.
        Where::Sealed => {
            segments.pop();
            segments.into_iter().max_by_key(|(_, path)| std::fs::metadata(path).unwrap().len()).unwrap()
        }
        Where::Last => segments.pop().unwrap(),
    };
    let len = std::fs::metadata(&path).unwrap().len() - HEADER as u64;
    let inside =
        |it: &&Entry| base <= it.offset.get() && it.end.get() <= base + len && !it.payload.is_empty();
    let inside: Vec<&Entry> = entries.iter().filter(inside).collect();
    // Of the last segment one of its last entries: above the mark that is saved on the disk, perhaps.
    let entry = match place {
        Where::Sealed => inside[inside.len() / 2],
        Where::Last => inside[inside.len() - 1],
    };
    let at = HEADER + usize::try_from(entry.offset.get() - base).unwrap() + loglog_proto::entry::PREFIX;
    flip(&path, at);
    (path, at, entry.offset)
}

type Told = Arc<Mutex<Vec<Damage>>>;

/// Reads the whole log with a client that turns to node `first` first.
fn read(
    cluster: &Cluster,
    first: u32,
    end: Offset,
    checked: bool,
) -> (Result<Vec<Entry>, Error>, Vec<Damage>) {
    let mut nodes = vec![cluster.client(first).to_owned()];
    nodes.extend(cluster.ids().filter(|id| *id != first).map(|id| cluster.client(id).to_owned()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let told = Told::default();
        let to = told.clone();
        let builder = Client::builder().endpoints(nodes);
        let builder = builder.on_damage(move |damage| to.lock().unwrap().push(damage.clone()));
        let client = builder.connect().await.unwrap();
        let options = EntriesOptions { checked, ..EntriesOptions::default() };
        let entries = client.entries_with(Offset::ZERO..end, options).try_collect().await;
        let told = std::mem::take(&mut *told.lock().unwrap());
        (entries, told)
    })
}

/// What a node has counted.
fn generation(cluster: &Cluster, id: u32) -> Option<u64> {
    cluster.status(id).filter(|status| status.role != "starting").map(|status| status.generation)
}

/// Tells a node that its bytes do not hold, until it is not busy with the last time.
fn ask(address: &str, offset: u64) -> Result<Checked, Code> {
    let ask = || match RawClient::connect(address).ask(RequestBody::Check { offset: Offset::new(offset) }) {
        ResponseBody::Checked(checked) => Some(Ok(*checked)),
        ResponseBody::Refused(refusal) if refusal.code.is_retryable() => None,
        ResponseBody::Refused(refusal) => Some(Err(refusal.code)),
        other => panic!("{other:?}"),
    };
    within("a check", DEADLINE, ask).0
}

#[test]
fn s10_a_byte_that_changes_in_a_running_node_is_read_elsewhere_told_and_repaired_while_appends_go_on() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let (stop, grown) = (AtomicBool::new(false), AtomicU64::new(0));
    let nodes = cluster.clients();
    let mut first = Appender::new(1, nodes.clone());
    fill(&mut first, 1, 200, 3 << 20);
    let appender = std::thread::scope(|scope| {
        let (stop, grown) = (&stop, &grown);
        let appending = scope.spawn(move || {
            let mut appender = Appender::new(2, nodes);
            while !stop.load(Ordering::Relaxed) {
                fill(&mut appender, 2, 10, 5_000);
                grown.fetch_max(appender.acknowledged.last().unwrap().end.get(), Ordering::Relaxed);
            }
            appender
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let more = |what: &str, bytes: u64| {
                let wanted = grown.load(Ordering::Relaxed) + bytes;
                until(what, DEADLINE, || grown.load(Ordering::Relaxed) >= wanted);
            };
            for place in [Where::Sealed, Where::Last] {
                for leads in [false, true] {
                    more("appends before", 50_000);
                    let (leader, _) = cluster.leader();
                    let bad = if leads { leader } else { cluster.follower() };
                    let end = Offset::new(grown.load(Ordering::Relaxed));
                    // What is right, from another node.
                    let sound = cluster.ids().find(|id| *id != bad).unwrap();
                    let right = read(&cluster, sound, end, true).0.unwrap();
                    until("it has committed this", DEADLINE, || {
                        cluster.status(bad).is_some_and(|it| it.committed >= end.get())
                    });
                    let before = within("its generation", DEADLINE, || generation(&cluster, bad)).0;
                    let (path, at, offset) = damage(&cluster, bad, place, &right, end);

                    // Without checks the wrong byte comes, and nobody is told.
                    let (unchecked, told) = read(&cluster, bad, end, false);
                    let wrong: Vec<_> =
                        unchecked.unwrap().into_iter().zip(&right).filter(|(a, b)| a != *b).collect();
                    assert!(wrong.len() == 1 && wrong[0].0.offset == offset, "{place:?}: {wrong:?}");
                    assert!(told.is_empty());
                    let raw = cluster.log_of(bad, end);
                    assert_ne!(raw, cluster.log_of(sound, end), "nor does a raw read see anything");
                    assert_eq!(generation(&cluster, bad), Some(before), "nothing was done about it");

                    // With checks the right ones, and who has the wrong ones is named, and told.
                    let began = Instant::now();
                    let (entries, told) = read(&cluster, bad, end, true);
                    assert!(entries.unwrap() == right, "{place:?}, leads: {leads}");
                    let named: Vec<_> = told.iter().map(|it| (it.node.get(), it.offset)).collect();
                    assert_eq!(named, [(bad, offset)], "{told:?}");
                    assert_eq!(told[0].offer, Offer::Repairing, "{}", told[0]);
                    until("its file is as it was", DEADLINE, || {
                        let ours = std::fs::read(&path).unwrap();
                        let theirs =
                            std::fs::read(cluster.data(sound).join(path.file_name().unwrap())).unwrap();
                        ours[at] == theirs[at]
                    });
                    until("it serves", DEADLINE, || generation(&cluster, bad) == Some(before + 1));
                    let took = began.elapsed();
                    until("it says so", DEADLINE, || has_repaired(&cluster, bad));
                    assert!(read(&cluster, bad, end, true) == (Ok(right), Vec::new()));
                    more("appends behind", 50_000);
                    println!(
                        "{place:?}, leads: {leads}: node {bad} is whole {took:?} after it was first read with checks"
                    );

                    // Whoever asks again is told so, and nothing restarts.
                    let again = ask(cluster.client(bad), offset.get()).unwrap();
                    assert_eq!((again.verdict, again.damaged_at), (Verdict::Sound, None), "{again:?}");
                    for absurd in [u64::MAX, u64::MAX / 2, end.get() + (1 << 40)] {
                        assert_eq!(ask(cluster.client(bad), absurd), Err(Code::BeyondEnd));
                    }
                    assert_eq!(generation(&cluster, bad), Some(before + 1));
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let appender = appending.join().expect("an appender's end");
        worked.unwrap();
        appender
    });
    for id in cluster.ids() {
        let status = cluster.status(id).unwrap();
        assert_eq!(status.restarts, 0, "a repair is no failure of anybody's: {status:?}");
    }
    check(&cluster, &[first, appender]);
    verify_compare(&mut cluster);
}

#[test]
fn s10_two_nodes_damaged_at_different_places_repair_each_other_while_the_third_is_gone() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 4 << 20);
    let (end, _) = cluster.converge();
    let gone = cluster.follower();
    let right = read(&cluster, gone, end, true).0.unwrap();
    cluster.stop(gone);
    let both: Vec<u32> = cluster.ids().filter(|id| *id != gone).collect();
    let flip_in = |id, at: usize| {
        let path = &segments(&cluster, id)[at].1;
        flip(path, usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap() / 2);
    };
    for round in 0..8 {
        flip_in(both[0], 1);
        flip_in(both[1], 2);
        // At once: neither may wait for the other to be up.
        let told: Vec<_> = std::thread::scope(|scope| {
            let ask_both = both.iter().zip([1, 2]).map(|(id, at)| {
                let (cluster, offset) = (&cluster, segments(&cluster, *id)[at].0);
                scope.spawn(move || ask(cluster.client(*id), offset).map(|it| it.verdict))
            });
            ask_both.collect::<Vec<_>>().into_iter().map(|it| it.join().unwrap()).collect()
        });
        until("both are whole again", DEADLINE, || {
            both.iter().zip([1, 2]).all(|(id, at)| {
                ask(cluster.client(*id), segments(&cluster, *id)[at].0)
                    .is_ok_and(|it| it.verdict == Verdict::Sound)
            })
        });
        let waited = both.iter().filter(|id| cluster.says(**id, "waiting to repair the log")).count();
        println!("round {round}: told {told:?}, both repaired, {waited} of them had to wait");
        fill(&mut appender, 1, 50, 20_000);
    }
    // The same place on both: nobody has it, so neither goes down for it, and appends go on.
    let before: Vec<_> = both.iter().map(|id| generation(&cluster, *id)).collect();
    for id in &both {
        flip_in(*id, 0);
    }
    for id in &both {
        let checked = ask(cluster.client(*id), 0).unwrap();
        assert_eq!(checked.verdict, Verdict::Damaged, "{checked:?}");
        assert!(checked.message.contains("no other node gives"), "{checked:?}");
    }
    fill(&mut appender, 1, 50, 20_000);
    assert_eq!(both.iter().map(|id| generation(&cluster, *id)).collect::<Vec<_>>(), before);
    cluster.restart(gone);
    for id in &both {
        let checked = ask(cluster.client(*id), 0).unwrap();
        assert_eq!(checked.verdict, Verdict::Repairing, "now there is one that has it: {checked:?}");
        until("it is whole", DEADLINE, || {
            ask(cluster.client(*id), 0).is_ok_and(|it| it.verdict == Verdict::Sound)
        });
    }
    for id in cluster.ids() {
        assert!(read(&cluster, id, end, true) == (Ok(right.clone()), Vec::new()));
    }
    check(&cluster, &[appender]);
    verify_compare(&mut cluster);
}

/// Found by a reviewer: the peer that a damaged node asks first says that it holds the batch, and is damaged there too.
#[test]
fn s10_two_nodes_damaged_at_the_same_place_are_both_repaired_from_the_third() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_loglogd"), 3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 4 << 20);
    let (end, _) = cluster.converge();
    let right = read(&cluster, 3, end, true).0.unwrap();
    // Peers are asked in the order of their numbers, so 3, which is whole, comes last.
    for (first, then) in [(1, 2), (2, 1)] {
        for at in [0, 1] {
            for id in [first, then] {
                let path = &segments(&cluster, id)[at].1;
                flip(path, usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap() / 2);
            }
            for id in [first, then] {
                let offset = segments(&cluster, id)[at].0;
                let checked = ask(cluster.client(id), offset).unwrap();
                assert_eq!(checked.verdict, Verdict::Repairing, "{checked:?}");
                until("it is whole", DEADLINE, || {
                    ask(cluster.client(id), offset).is_ok_and(|it| it.verdict == Verdict::Sound)
                });
            }
        }
    }
    for id in cluster.ids() {
        assert!(read(&cluster, id, end, true) == (Ok(right.clone()), Vec::new()));
        assert_eq!(cluster.status(id).unwrap().restarts, 0);
    }
    check(&cluster, &[appender]);
    verify_compare(&mut cluster);
}

#[test]
fn a_node_that_is_alone_says_that_it_is_damaged_and_serves_on() {
    let cluster = Cluster::alone(env!("CARGO_BIN_EXE_loglogd"));
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 3 << 20);
    let end = appender.acknowledged.last().unwrap().end;
    let right = read(&cluster, 1, end, true).0.unwrap();
    let (_, _, offset) = damage(&cluster, 1, Where::Sealed, &right, end);
    for _ in 0..3 {
        let (error, told) = read(&cluster, 1, end, true);
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Damaged { node: Some(node), .. } if node.get() == 1), "{error}");
        let [Damage { offer: Offer::Damaged(why), offset: at, .. }] = &told[..] else { panic!("{told:?}") };
        assert!(*at == offset && why.contains("alone"), "{why}");
    }
    // The rest of it, and appends.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let behind: Vec<Entry> = runtime.block_on(async {
        let client = Client::connect(cluster.client(1)).await.unwrap();
        let from = right.iter().find(|it| it.offset > offset).unwrap().offset;
        client.entries(from..end).try_collect().await.unwrap()
    });
    assert_eq!(behind, right[right.len() - behind.len()..]);
    assert!(behind.len() > 100);
    fill(&mut appender, 1, 50, 100_000);
    assert_eq!(generation(&cluster, 1), Some(1), "it never went down");
    until("it says so", DEADLINE, || cluster.says(1, "the log is damaged"));
    for absurd in [u64::MAX, end.get() + (1 << 30)] {
        assert_eq!(ask(cluster.client(1), absurd), Err(Code::BeyondEnd));
    }
}
