//! Configuration from any file, any variables, any flags: it holds, or the words say why not.
#![no_main]

use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use config::Map;
use libfuzzer_sys::fuzz_target;
use loglog::config::Sources;
use loglog_fuzz::input::Input;

/// One file in memory, its text replaced each time.
fn file(text: &[u8]) -> PathBuf {
    static FILE: OnceLock<Mutex<std::fs::File>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let made = rustix::fs::memfd_create("config", rustix::fs::MemfdFlags::CLOEXEC);
        Mutex::new(made.expect("memory").into())
    });
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text)).expect("memory");
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Keys that are there; any other text is used as it is.
fn key(text: &str) -> String {
    const KEYS: &[&str] = &[
        "cluster.id",
        "cluster.nodes",
        "cluster.join",
        "node.id",
        "data.dir",
        "data.free_min",
        "data.accept_loss",
        "data.direct_io",
        "data.tail_bytes_max",
        "listen.client",
        "listen.peer",
        "listen.admin",
        "advertise.client",
        "advertise.peer",
        "segment.bytes_max",
        "upload.bytes_max",
        "connection.bytes_max",
        "connection.max",
        "connection.busy_poll",
        "peers.bulk_bytes_per_second",
        "log.level",
        "log.format",
        "raft.tick",
        "debug.faults",
    ];
    match text.as_bytes() {
        [byte] => KEYS[usize::from(*byte) % KEYS.len()].to_owned(),
        _ => text.to_owned(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Some(pairs) = input.u8() else { return };
    let mut text = || input.short().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (mut environment, mut set) = (Map::new(), Vec::new());
    for pair in 0..pairs % 8 {
        let (Some(name), Some(value)) = (text(), text()) else { break };
        if pairs & (8 << (pair % 4)) != 0 {
            environment.insert(format!("LOGLOGD_{}", key(&name).to_uppercase().replace('.', "__")), value);
        } else {
            set.push(format!("{}={value}", key(&name)));
        }
    }
    let sources = Sources { file: Some(file(input.0)), environment: Some(environment), set };
    let effective = match sources.load() {
        Ok(effective) => effective,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(!effective.summary().is_empty());
    let printed = effective.to_toml();
    let sources =
        Sources { file: Some(file(printed.as_bytes())), environment: Some(Map::new()), set: Vec::new() };
    match sources.load() {
        Ok(again) => assert_eq!(again.config, effective.config, "{printed}"),
        Err(error) => panic!("what is printed is read: {error}\n{printed}"),
    }
});
