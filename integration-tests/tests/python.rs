//! A client in another language, written from docs/protocol.md alone, against a real node.

use std::path::Path;
use std::process::Command;

use crate::daemon;

#[test]
fn a_python_client_appends_reads_and_waits() {
    let has_msgpack = Command::new("python3").args(["-c", "import msgpack"]).output();
    if !has_msgpack.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs python3 with msgpack (pip install msgpack)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = daemon(&dir).start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration-tests/client.py");
    let output = Command::new("python3").arg(script).arg(node.address()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("all held"), "{said}");
}
