//! `loglog actors` against a real node.

use std::process::{Command, Output};

use loglog_integration_tests::RawClient;
use loglog_integration_tests::http::get_json;

use crate::admin_kit::append;
use crate::daemon;

fn actors(admin: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loglog"));
    command.arg("actors").args(args).env("LOGLOG_ADMIN", admin).output().unwrap()
}

fn out(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_prints_the_tree_one_actor_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    append(&mut RawClient::connect(node.address()), 1);
    let tree = out(&actors(node.admin(), &[]));
    println!("{tree}");
    let line = |name: &str| tree.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
    assert!(line("node ").starts_with("node "), "{tree}");
    assert!(line("storage-group").starts_with("  storage-group"), "{tree}");
    assert!(line("consensus").starts_with("    consensus"), "{tree}");
    assert!(line("consensus").contains("running"), "{tree}");

    let one = out(&actors(node.admin(), &["consensus"]));
    println!("{one}");
    for part in ["consensus (Consensus)", "after a panic", "group", "role", "leader", "message"] {
        assert!(one.contains(part), "{part:?} in\n{one}");
    }

    let json: serde_json::Value = serde_json::from_str(&out(&actors(node.admin(), &["--json"]))).unwrap();
    assert_eq!(json["actors"].as_array().unwrap().len(), tree.lines().count() - 1);
    let json: serde_json::Value =
        serde_json::from_str(&out(&actors(node.admin(), &["segment-writer", "--json"]))).unwrap();
    assert_eq!(json["kind"], get_json(node.admin(), "/api/actors/segment-writer")["kind"]);
}

#[test]
fn what_is_not_there_is_told_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let code = |output: &Output| (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    let (status, said) = code(&actors(node.admin(), &["nobody"]));
    assert_eq!(status, Some(1));
    assert!(said.contains("no actor is called 'nobody'"), "{said}");
    // Something listens there, but no admin endpoint.
    let (status, said) = code(&actors(node.address(), &[]));
    assert_eq!(status, Some(5), "{said}");
    let admin = node.admin().to_owned();
    assert_eq!(node.stop().0.code(), Some(0));
    let (status, said) = code(&actors(&admin, &[]));
    assert_eq!(status, Some(5));
    assert!(said.contains("LOGLOG_ADMIN"), "{said}");
    assert_eq!(code(&actors("nonsense", &[])).0, Some(2));
}
