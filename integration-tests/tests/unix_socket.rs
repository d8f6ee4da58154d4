//! A node as a process on this machine: clients come through a Unix socket, and its file's permissions say who may.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use loglog_integration_tests::DaemonOptions;
use tempfile::TempDir;

use crate::daemon;

/// A user with no rights.
const NOBODY: &str = "65534";

fn with_socket(dir: &TempDir) -> (DaemonOptions, String) {
    let socket = dir.path().join("log.sock");
    let socket = socket.to_str().unwrap().to_owned();
    (daemon(dir).set(&format!("listen.unix={socket}")), socket)
}

fn loglog(under: &[&str], socket: &str, args: &[&str]) -> Output {
    let mut words: Vec<&str> = under.to_vec();
    let endpoint = format!("unix:{socket}");
    words.push(env!("CARGO_BIN_EXE_loglog"));
    words.extend(["--endpoints", &endpoint]);
    words.extend(args);
    Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
}

fn append(socket: &str, payload: &Path) -> Output {
    loglog(&[], socket, &["append", "--whole", payload.to_str().unwrap()])
}

#[test]
fn the_command_line_works_over_it_and_what_a_killed_node_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (options, socket) = with_socket(&dir);
    let payload = dir.path().join("payload");
    std::fs::write(&payload, "over the socket").unwrap();
    let node = options.start();
    assert!(append(&socket, &payload).status.success());
    let read = loglog(&[], &socket, &["read"]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "over the socket\n");
    let status = loglog(&[], &socket, &["status"]);
    assert!(status.status.success(), "{status:?}");
    // Another node may not take it.
    let other = TempDir::new().unwrap();
    let (status, said) = daemon(&other).set(&format!("listen.unix={socket}")).start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&socket) && said.contains("another process"), "{said}");
    assert!(append(&socket, &payload).status.success(), "it is still there");
    // Killed, it leaves the file; the next life takes its place, and removes it at its end.
    node.kill();
    assert_eq!(append(&socket, &payload).status.code(), Some(5));
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    let node = options.start();
    assert!(append(&socket, &payload).status.success());
    assert_eq!(node.stop().0.code(), Some(0));
    assert!(!Path::new(&socket).exists());
}

/// Without a port, over the socket alone; and a daemon that nobody could reach is none.
#[test]
fn it_may_be_the_only_way() {
    let dir = tempfile::tempdir().unwrap();
    let (options, socket) = with_socket(&dir);
    let node = options.clone().set("listen.client=").set("listen.peer=").start();
    assert_eq!(node.address(), format!("unix:{socket}"));
    assert!(loglog(&[], &socket, &["end"]).status.success());
    assert_eq!(node.stop().0.code(), Some(0));
    let (status, said) = options.set("listen.client=").set("listen.unix=").start_refused();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("no client could reach"), "{said}");
}

/// What is no socket is nobody's to remove.
#[test]
fn a_file_in_its_place_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (options, socket) = with_socket(&dir);
    std::fs::write(&socket, "precious").unwrap();
    let (status, said) = options.start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn its_permissions_say_who_may_connect() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (options, socket) = with_socket(&dir);
    for (mode, may_others) in [("600", false), ("660", false), ("666", true)] {
        let node = options.clone().set(&format!("listen.unix_mode={mode}")).start();
        let found = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        assert_eq!(format!("{found:o}"), mode);
        if std::env::var("LOGLOG_ROOT_TESTS").as_deref() != Ok("1") {
            println!("skipped: as another user, which needs root (LOGLOG_ROOT_TESTS=1)");
        } else {
            // The program itself must be where that user can find it.
            let program = dir.path().join("loglog");
            std::fs::copy(env!("CARGO_BIN_EXE_loglog"), &program).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let output = Command::new("setpriv")
                .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
                .arg(&program)
                .args(["--endpoints", &format!("unix:{socket}"), "end"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), may_others, "mode {mode}: {said}");
            assert!(may_others || said.contains("ermission denied"), "{said}");
        }
        assert_eq!(node.stop().0.code(), Some(0));
    }
    let (status, said) = options.set("listen.unix_mode=999").start_refused();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("listen.unix_mode") && said.contains("octal"), "{said}");
}
