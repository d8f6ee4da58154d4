//! What the source itself must keep to.

use std::path::{Path, PathBuf};

fn sources(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Files of the workspace's crates whose code has `pattern`, and that `allowed` does not cover.
fn offenders(crates: &[&str], pattern: &str, allowed: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for name in crates {
        sources(&root.join(name).join("src"), &mut files);
    }
    assert!(!files.is_empty());
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    files.retain(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        !path.starts_with(root.join(allowed))
            && text.lines().any(|line| is_code(line) && line.contains(pattern))
    });
    files
}

#[test]
fn s19_raft_rs_is_named_in_one_place_only() {
    let crates = ["proto", "storage", "core", "actors", "client", "."];
    for pattern in ["use raft", "RawNode", "eraftpb", "protobuf"] {
        let found = offenders(&crates, pattern, "core/src/consensus");
        assert!(found.is_empty(), "{pattern} in {found:?}");
    }
}

#[test]
fn core_is_pure() {
    let patterns = [
        "std::fs",
        "std::net",
        "std::thread",
        "Instant::now",
        "SystemTime::now",
        "rand::rng()",
        "use actix",
        "use tokio",
    ];
    for pattern in patterns {
        let found = offenders(&["core"], pattern, "nowhere");
        assert!(found.is_empty(), "{pattern} in {found:?}");
    }
}

#[test]
fn the_client_knows_no_crate_of_ours_but_proto() {
    for pattern in ["loglog_storage", "loglog_core", "loglog_actors"] {
        let found = offenders(&["client"], pattern, "nowhere");
        assert!(found.is_empty(), "{pattern} in {found:?}");
    }
}
