//! Strace: has system calls of a real process fail.
//!
//! Owns:   an `strace` that is attached to the process, and goes when this is dropped; what it saw.
//! Keeps:  a fault counts only where it was seen: `injected`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::signal;
use crate::loop_fs::has;
use crate::wait::until;

const DEADLINE: Duration = Duration::from_secs(30);

/// An `strace` at work.
#[derive(Debug)]
pub struct Strace {
    child: Child,
    process: u32,
    seen: PathBuf,
}

/// Whether tests may use root's powers here and `strace` is there; says what is missing.
#[must_use]
pub fn is_possible() -> bool {
    if std::env::var("LOGLOG_ROOT_TESTS").as_deref() != Ok("1") {
        println!("skipped: traces other processes; run as root with LOGLOG_ROOT_TESTS=1");
        return false;
    }
    if !has("strace") {
        println!("skipped: needs `strace`, which is not installed");
        return false;
    }
    true
}

/// What runs a program under `strace` with a fault from its first call on; its process is the program's own.
#[must_use]
pub fn under<'a>(call: &'a str, fault: &'a str, seen: &'a str) -> Vec<&'a str> {
    // -D: strace is the grandchild.
    vec!["strace", "-D", "-q", "-f", "-o", seen, "-e", call, "-e", fault]
}

/// The arguments `-e` that look at `call` alone and have it do `how` from its `when`th time on, which is counted in each thread.
#[must_use]
pub fn fault(call: &str, how: &str, when: &str) -> [String; 2] {
    [format!("trace={call}"), format!("inject={call}:{how}:when={when}")]
}

/// How many faults `strace` noted.
#[must_use]
pub fn injected(seen: &Path) -> usize {
    std::fs::read_to_string(seen).unwrap_or_default().matches("(INJECTED)").count()
}

impl Strace {
    /// Attaches to every thread of `process`. What is seen goes to the file `seen`.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn attach(process: u32, fault: &[String; 2], seen: &Path) -> Self {
        let _ = std::fs::remove_file(seen);
        let mut command = Command::new("strace");
        command.args(["-q", "-f", "-p", &process.to_string(), "-o"]).arg(seen);
        command.args(["-e", &fault[0], "-e", &fault[1]]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("strace runs");
        let tracer = format!("TracerPid:\t{}", child.id());
        let is_traced = |thread: std::io::Result<std::fs::DirEntry>| {
            let status = thread.and_then(|it| std::fs::read_to_string(it.path().join("status")));
            // One that was hit at once has ended, and waits for us to notice.
            status.map_or(true, |it| it.lines().any(|line| line == tracer || line.starts_with("State:\tZ")))
        };
        until("all threads are traced, or gone", DEADLINE, || {
            std::fs::read_dir(format!("/proc/{process}/task")).map_or(true, |mut it| it.all(is_traced))
        });
        Self { child, process, seen: seen.to_owned() }
    }

    /// How many calls it has had fail so far.
    #[must_use]
    pub fn injected(&self) -> usize {
        injected(&self.seen)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|it| it.is_none()) {
            // It lets go of the process.
            signal(self.child.id(), "INT");
        }
        let _ = self.child.wait();
        // A thread that it was about to take may be left stopped.
        let _ =
            Command::new("kill").args(["-CONT", &self.process.to_string()]).stderr(Stdio::null()).status();
    }
}
