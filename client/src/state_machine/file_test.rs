//! The snapshot file: golden bytes; cuts, flips and crashes; the state that lies there stays whole or is an error.

use std::io::{self, Read, Write};
use std::path::Path;

use loglog_proto::{ClusterId, Offset, Term};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::error::SnapshotError;
use super::file::SnapshotFile;
use super::header::{Applied, HEADER, Header, Place};

fn cluster() -> ClusterId {
    ClusterId::new(0x0102_0304_0506_0708).unwrap()
}

fn place(at: u64) -> Place {
    Place { at: Offset::new(at), last: Some(Applied { offset: Offset::new(at - 40), term: Term::new(3) }) }
}

fn lock(path: &Path) -> SnapshotFile {
    SnapshotFile::lock(path.to_owned()).unwrap()
}

/// What lies there, if anything.
fn found(file: &SnapshotFile) -> Result<Option<(Header, Vec<u8>)>, SnapshotError> {
    let Some(mut snapshot) = file.read()? else { return Ok(None) };
    let mut body = Vec::new();
    snapshot.body.read_to_end(&mut body).unwrap();
    Ok(Some((snapshot.header, body)))
}

fn write(file: &SnapshotFile, at: u64, body: &[u8]) {
    file.write(cluster(), place(at), |to| to.write_all(body)).unwrap();
}

/// A folder and a whole snapshot's bytes in it.
fn whole(body: &[u8]) -> (tempfile::TempDir, SnapshotFile, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let file = lock(&path);
    write(&file, 104, body);
    let bytes = std::fs::read(path).unwrap();
    (dir, file, bytes)
}

#[test]
fn golden_bytes() {
    let (_dir, file, bytes) = whole(b"the state");
    let golden = b"LLsnap\x01\x00\x08\x07\x06\x05\x04\x03\x02\x01\x68\x00\x00\x00\x00\x00\x00\x00\
        \x40\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00";
    assert_eq!(bytes[..36], golden[..]);
    assert_eq!(bytes[36..40], loglog_proto::crc32c(b"the state").to_le_bytes());
    assert_eq!(bytes[40..48], 9_u64.to_le_bytes());
    assert_eq!(bytes[48..52], loglog_proto::crc32c(&bytes[..48]).to_le_bytes());
    assert_eq!(&bytes[52..], b"the state");
    let (header, body) = found(&file).unwrap().unwrap();
    assert_eq!((header.cluster, header.place, &body[..]), (cluster(), place(104), &b"the state"[..]));
}

#[test]
fn there_may_be_none_and_a_state_may_be_empty_or_long() {
    let dir = tempfile::tempdir().unwrap();
    let file = lock(&dir.path().join("state"));
    assert!(found(&file).unwrap().is_none());
    for body in [vec![], vec![7; 300_000]] {
        file.write(cluster(), Place { at: Offset::ZERO, last: None }, |to| to.write_all(&body)).unwrap();
        let (header, found) = found(&file).unwrap().unwrap();
        assert_eq!(header.place, Place { at: Offset::ZERO, last: None });
        assert_eq!(found, body);
    }
}

#[test]
fn two_replicas_do_not_share_a_file() {
    let (dir, file, _) = whole(b"x");
    let path = dir.path().join("state");
    let error = SnapshotFile::lock(path.clone()).unwrap_err();
    assert!(matches!(&error, SnapshotError::InUse { path: it } if *it == path), "{error}");
    drop(file);
    lock(&path);
}

#[test]
fn until_the_rename_the_last_snapshot_counts() {
    let (dir, file, _) = whole(b"first");
    // The process dies before the rename …
    file.prepare(cluster(), place(204), |to| to.write_all(b"second")).unwrap();
    drop(file);
    let file = lock(&dir.path().join("state"));
    assert_eq!(found(&file).unwrap().unwrap().1, b"first");
    // … or half-way through writing; what is left is overwritten.
    std::fs::write(file.temporary(), [0; 17]).unwrap();
    assert_eq!(found(&file).unwrap().unwrap().1, b"first");
    write(&file, 304, b"third");
    let (header, body) = found(&file).unwrap().unwrap();
    assert_eq!((header.place, &body[..]), (place(304), &b"third"[..]));
    assert!(!file.temporary().exists());
}

#[test]
fn a_body_that_fails_leaves_the_last_snapshot() {
    let (_dir, file, _) = whole(b"first");
    let fails = |to: &mut dyn Write| {
        to.write_all(b"half of the sec")?;
        Err(io::Error::other("no more"))
    };
    let error = file.write(cluster(), place(204), fails).unwrap_err();
    assert!(error.to_string().contains("no more") && error.to_string().contains("state"), "{error}");
    assert_eq!(found(&file).unwrap().unwrap().1, b"first");
    assert!(!file.temporary().exists());
}

#[test]
fn a_disk_that_fails_is_named() {
    let (dir, file, _) = whole(b"first");
    std::fs::create_dir(file.temporary()).unwrap();
    let error = file.write(cluster(), place(204), |to| to.write_all(b"second")).unwrap_err();
    assert!(matches!(&error, SnapshotError::Io { what: "create", .. }), "{error}");
    assert!(error.to_string().contains("state.tmp"), "{error}");
    let missing = SnapshotFile::lock(dir.path().join("none/state")).unwrap_err();
    assert!(missing.to_string().contains("none/state.lock"), "{missing}");
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_what_to_do() {
    let (dir, file, bytes) = whole(b"the state");
    let path = dir.path().join("state");
    let says = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = found(&file).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(what) && text.contains(path.to_str().unwrap()), "{text}");
        error
    };
    says(b"", "it has 0 bytes, not even a header's");
    says(&[0; 200], "it does not begin as a snapshot does");
    says(&bytes[..60], "it has 60 bytes instead of 61");
    says(&[&bytes[..], b"x"].concat(), "it has 62 bytes instead of 61");
    let error = says(&[&bytes[..60], b"E"].concat(), "its content does not match its checksum");
    assert!(error.to_string().contains("remove it"), "{error}");
    let mut later = bytes.clone();
    later[6] = 2;
    let error = says(&later, "version 2");
    assert!(matches!(error, SnapshotError::Version { found: 2, .. }));
}

proptest! {
    // Each writes and syncs files.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read(body in vec(any::<u8>(), 0..5000), pieces in 1usize..50, at in 40u64..) {
        let dir = tempfile::tempdir().unwrap();
        let file = lock(&dir.path().join("state"));
        let in_pieces = |to: &mut dyn Write| body.chunks(pieces).try_for_each(|piece| to.write_all(piece));
        file.write(cluster(), place(at), in_pieces).unwrap();
        let (header, read) = found(&file).unwrap().unwrap();
        prop_assert_eq!(header.place, place(at));
        prop_assert_eq!(read, body);
    }

    #[test]
    fn no_cut_and_no_flip_goes_unnoticed(body in vec(any::<u8>(), 0..300), cut in any::<Index>(), bit in any::<Index>()) {
        let (dir, file, bytes) = whole(&body);
        let path = dir.path().join("state");
        std::fs::write(&path, &bytes[..cut.index(bytes.len())]).unwrap();
        prop_assert!(found(&file).is_err());

        let (mut flipped, bit) = (bytes.clone(), bit.index(8 * bytes.len()));
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).unwrap();
        prop_assert!(found(&file).is_err());

        std::fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(found(&file).unwrap().unwrap().1, body);
    }

    #[test]
    fn pages_of_zeros_are_noticed(body in vec(1u8.., 100..900), page in any::<Index>()) {
        // A file whose length is on disk and some of whose content is not.
        let (dir, file, mut bytes) = whole(&body);
        let page = page.index(bytes.len() / 100) * 100;
        let end = bytes.len().min(page + 100);
        bytes[page..end].fill(0);
        std::fs::write(dir.path().join("state"), &bytes).unwrap();
        prop_assert!(found(&file).is_err());
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), header in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let file = lock(&path);
        let bytes = if header { [b"LLsnap\x01\x00", &bytes[..]].concat() } else { bytes };
        std::fs::write(&path, &bytes).unwrap();
        prop_assert!(found(&file).is_err());
    }
}

#[test]
fn a_header_with_a_right_sum_is_still_looked_at() {
    let mut header = Header {
        cluster: cluster(),
        place: place(104),
        body_crc: 0,
        body_length: loglog_proto::Length::ZERO,
    };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    header.place.last = Some(Applied { offset: Offset::new(104), term: Term::new(1) });
    assert!(Header::decode(&header.encode()).is_err());
    let mut nobody = [0; HEADER];
    nobody[..8].copy_from_slice(b"LLsnap\x01\x00");
    let crc = loglog_proto::crc32c(&nobody[..48]).to_le_bytes();
    nobody[48..].copy_from_slice(&crc);
    assert!(Header::decode(&nobody).is_err());
}
