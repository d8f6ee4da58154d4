//! The simulated disk is as bad as it says, and no worse.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn file(sim: &SimVfs) -> Arc<dyn VfsFile> {
    sim.create_dir_all(Path::new("d")).unwrap();
    sim.open(Path::new("d/f"), OpenMode::CreateNew).unwrap()
}

fn found(sim: &SimVfs) -> Option<Vec<u8>> {
    sim.contents(Path::new("d/f")).ok()
}

#[test]
fn a_name_is_durable_with_its_directory() {
    let sim = SimVfs::new();
    let f = file(&sim);
    f.write_all_at(b"abc", 0).unwrap();
    f.sync_all().unwrap();
    let before = sim.fork();
    sim.sync_dir(Path::new("d")).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    before.power_cut(Survival::None, &mut rng);
    sim.power_cut(Survival::None, &mut rng);
    assert_eq!((found(&before), found(&sim)), (None, Some(b"abc".to_vec())));
    assert!(f.write_all_at(b"x", 0).is_err(), "its process is dead");
}

#[test]
fn unsynced_bytes_may_be_lost_and_killing_keeps_them_unsynced() {
    let sim = SimVfs::new();
    let f = file(&sim);
    f.write_all_at(b"abc", 0).unwrap();
    f.sync_data().unwrap();
    sim.sync_dir(Path::new("d")).unwrap();
    f.write_all_at(b"xyz", 3).unwrap();
    sim.kill();
    assert_eq!(found(&sim), Some(b"abcxyz".to_vec()));
    sim.power_cut(Survival::None, &mut StdRng::seed_from_u64(1));
    assert_eq!(found(&sim), Some(b"abc".to_vec()));
}

#[test]
fn a_shrunk_length_needs_more_than_sync_data() {
    let sim = SimVfs::new();
    let f = file(&sim);
    f.write_all_at(b"abcdef", 0).unwrap();
    f.sync_all().unwrap();
    sim.sync_dir(Path::new("d")).unwrap();
    f.set_len(3).unwrap();
    f.sync_data().unwrap();
    let before = sim.fork();
    f.sync_all().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    before.power_cut(Survival::None, &mut rng);
    sim.power_cut(Survival::None, &mut rng);
    assert_eq!((found(&before), found(&sim)), (Some(b"abcdef".to_vec()), Some(b"abc".to_vec())));
}

#[test]
fn a_failed_sync_loses_what_reads_still_show() {
    let sim = SimVfs::new();
    let f = file(&sim);
    sim.sync_dir(Path::new("d")).unwrap();
    f.write_all_at(b"abc", 0).unwrap();
    sim.inject(OpKind::Sync, 0, Fault::Fail);
    assert!(f.sync_data().is_err());
    f.sync_data().unwrap();
    assert_eq!(found(&sim), Some(b"abc".to_vec()));
    sim.power_cut(Survival::All, &mut StdRng::seed_from_u64(1));
    assert_eq!(found(&sim), Some(b"abc".to_vec()), "unless it was written back nevertheless");
    let sim = SimVfs::new();
    let f = file(&sim);
    sim.sync_dir(Path::new("d")).unwrap();
    f.write_all_at(b"abc", 0).unwrap();
    sim.inject(OpKind::Sync, 0, Fault::Fail);
    assert!(f.sync_data().is_err());
    f.sync_data().unwrap();
    sim.power_cut(Survival::None, &mut StdRng::seed_from_u64(1));
    assert_ne!(found(&sim), Some(b"abc".to_vec()), "and the second sync made nothing durable");
}

#[test]
fn a_random_subset_keeps_pages_of_some_moment() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let sim = SimVfs::new();
        let f = file(&sim);
        f.write_all_at(&[1; 8192], 0).unwrap();
        f.sync_all().unwrap();
        sim.sync_dir(Path::new("d")).unwrap();
        f.write_all_at(&[2; 8192], 0).unwrap();
        f.write_all_at(&[3; 8192], 0).unwrap();
        sim.power_cut(Survival::RandomSubset, &mut StdRng::seed_from_u64(seed));
        let bytes = found(&sim).unwrap();
        assert_eq!(bytes.len(), 8192);
        seen.insert((bytes[0], bytes[4096]));
    }
    assert_eq!(seen.len(), 9, "every pair of moments: {seen:?}");
}

#[test]
fn space_runs_out_and_comes_back() {
    let sim = SimVfs::new();
    sim.set_space(Some(10));
    let f = file(&sim);
    f.allocate(0, 8).unwrap();
    assert_eq!(f.allocate(8, 8).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(sim.free_bytes(Path::new("d")).unwrap(), 2);
    sim.remove(Path::new("d/f")).unwrap();
    assert_eq!(sim.free_bytes(Path::new("d")).unwrap(), 10);
}
