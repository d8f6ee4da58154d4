//! nats-server 7556: a flipped bit in the files that say which streams there are, on a minority. Such a node took its data for something that
//! belongs to nobody and deleted it; once it led, it had others do the same.
//!
//! Here `meta` is damaged in every way: a node either goes on with its other half or refuses to start and says why. No file of the log is
//! deleted, cut or written meanwhile, the others go on, and a node that was damaged and leads has nobody delete anything.
//!
//! Fails if a damaged or missing `meta` is taken for that of a new node, or if anything is tidied up before it is read (S6, S7).

use std::path::Path;

use loglog_integration_tests::Appender;

use super::{files, goes_on, lead, start, why};
use crate::repair::{check, fill, flip, verify_compare};

/// Of a slot of `meta`, and where its mark pages begin.
const SLOT: usize = 16 << 10;
const MARKS: usize = 2 * SLOT;
const PAGE: usize = 4 << 10;

type Harm = fn(&Path);

/// What is done to `meta`, and whether a node can go on with what is left.
const HARMS: [(&str, Harm, bool); 11] = [
    ("a bit of the first slot", |meta| flip(meta, 44), true),
    ("a bit of the other slot", |meta| flip(meta, SLOT + 44), true),
    ("a bit of the first mark", |meta| flip(meta, MARKS + 20), true),
    ("a bit of the other mark", |meta| flip(meta, MARKS + PAGE + 20), true),
    ("a bit of both slots", |meta| [44, SLOT + 44].into_iter().for_each(|at| flip(meta, at)), false),
    ("a bit of both marks", |meta| [20, PAGE + 20].into_iter().for_each(|at| flip(meta, MARKS + at)), false),
    ("no bytes", |meta| std::fs::write(meta, b"").unwrap(), false),
    ("half of it", |meta| cut(meta, SLOT as u64 / 2), false),
    ("zeros", |meta| std::fs::write(meta, vec![0; MARKS + 2 * PAGE]).unwrap(), false),
    ("something else", |meta| std::fs::write(meta, vec![0xa5; MARKS + 2 * PAGE]).unwrap(), false),
    ("gone", |meta| std::fs::remove_file(meta).unwrap(), false),
];

fn cut(path: &Path, length: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[test]
fn nats_7556_damaged_metadata_deletes_nothing_here_or_elsewhere() {
    let mut cluster = start(3);
    let mut appender = Appender::new(1, cluster.clients());
    fill(&mut appender, 1, 200, 3 << 20);
    for (what, harm, is_survived) in HARMS {
        let _ = cluster.converge();
        let victim = cluster.follower();
        cluster.stop(victim);
        let (data, meta) = (cluster.data(victim), cluster.data(victim).join("meta"));
        let kept = std::fs::read(&meta).unwrap();
        let sound = files(&data);
        harm(&meta);
        let harmed = files(&data);
        assert_ne!(sound, harmed, "{what}");
        if is_survived {
            cluster.restart(victim);
            // What it believes is not what the others must believe.
            lead(&cluster, victim);
            fill(&mut appender, 1, 20, 50_000);
            let segments = sound.keys().filter(|name| name.ends_with(".seg"));
            for id in cluster.ids() {
                let there = files(&cluster.data(id));
                let lost: Vec<_> = segments.clone().filter(|name| !there.contains_key(*name)).collect();
                assert!(lost.is_empty(), "{what}: node {id} lost {lost:?}");
            }
            check(&cluster, std::slice::from_ref(&appender));
            println!("meta with {what}: node {victim} serves and leads");
        } else {
            cluster.launch(victim);
            // The others go on meanwhile.
            fill(&mut appender, 1, 20, 20_000);
            let status = cluster.ended(victim);
            assert_eq!(status.code(), Some(1), "{what}");
            let said = why(&cluster, victim);
            assert!(said.contains("meta"), "{what}: {said}");
            assert_eq!(files(&data), harmed, "{what}: it touched nothing");
            println!("meta with {what}: node {victim} says: {said}");
            std::fs::write(&meta, kept).unwrap();
            cluster.restart(victim);
        }
    }
    goes_on(&cluster, &mut appender);
    verify_compare(&mut cluster);
}
