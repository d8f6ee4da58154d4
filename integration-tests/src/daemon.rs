//! Daemon: a real `loglogd` process.
//!
//! Owns:   the process, started on an ephemeral port, stopped by its id when this is dropped; its log.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::wait::{until, within};

/// How long a start may take: ten times what a slow machine needs.
const START: Duration = Duration::from_secs(30);

/// How to start one.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The `loglogd` to run.
    pub program: PathBuf,
    /// Where data lies.
    pub data_dir: PathBuf,
    /// `--set` for each.
    pub settings: Vec<String>,
    /// How many file descriptors it may open; `None` for as many as the tests.
    pub descriptors_max: Option<u32>,
}

/// A running process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    address: String,
    admin: String,
    log: PathBuf,
}

impl DaemonOptions {
    /// A daemon with its data in `data_dir`.
    pub fn new(program: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        let (program, data_dir) = (program.into(), data_dir.into());
        Self { program, data_dir, settings: Vec::new(), descriptors_max: None }
    }

    /// Adds a `--set`.
    #[must_use]
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Lets it open at most `max` file descriptors.
    #[must_use]
    pub const fn descriptors_max(mut self, max: u32) -> Self {
        self.descriptors_max = Some(max);
        self
    }

    /// The command, not started; its log goes to `log`.
    ///
    /// # Panics
    /// If the log cannot be made.
    #[must_use]
    pub fn command(&self, log: &Path) -> Command {
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let mut command = match self.descriptors_max {
            // The soft limit and the hard one: the daemon raises the one to the other.
            Some(max) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"ulimit -n "$0" && exec "$@""#]).arg(max.to_string()).arg(&self.program);
                shell
            }
            None => Command::new(&self.program),
        };
        command.arg("--set").arg(format!("data.dir={}", self.data_dir.display()));
        for key in ["listen.client", "listen.admin"] {
            if !self.settings.iter().any(|setting| setting.starts_with(&format!("{key}="))) {
                command.arg("--set").arg(format!("{key}=127.0.0.1:0"));
            }
        }
        command.args(["--set", "log.format=json"]);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(&self) -> Daemon {
        let log = self.data_dir.with_extension("log");
        let served_before = records(&log).iter().filter(|record| record["msg"] == "serving").count();
        let mut child = self.command(&log).spawn().expect("loglogd starts");
        let serving = || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("loglogd ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            records(&log).into_iter().filter(|record| record["msg"] == "serving").nth(served_before)
        };
        let (record, _) = within("loglogd serves", START, serving);
        let address = record["clients"].as_str().expect("the log names the address").to_owned();
        let admin = record["admin"].as_str().unwrap_or_default().to_owned();
        Daemon { child, address, admin, log }
    }

    /// Starts it where it must refuse; returns its exit status and what it said.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn start_refused(&self) -> (ExitStatus, String) {
        let log = self.data_dir.with_extension("refused.log");
        let _ = std::fs::remove_file(&log);
        let mut child = self.command(&log).spawn().expect("loglogd starts");
        let ended =
            within("loglogd refuses to start", START, || child.try_wait().expect("a child can be asked"));
        (ended.0, std::fs::read_to_string(&log).unwrap_or_default())
    }
}

impl Daemon {
    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where its admin endpoint is; empty if there is none.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every record of its log so far.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        records(&self.log)
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.id())).unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    /// The most memory it ever used, bytes.
    #[must_use]
    pub fn peak_resident_bytes(&self) -> u64 {
        peak_resident_bytes(self.id())
    }

    /// kill -9, and waits for the end.
    ///
    /// # Panics
    /// If there was nothing left to kill.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "it ran until it was killed");
    }

    /// SIGTERM, and waits for the end; returns the exit status and how long it took.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        signal(self.id(), "TERM");
        let mut status = None;
        let took = until("loglogd stops", Duration::from_secs(50), || {
            status = self.child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        (status.expect("it ended"), took)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it does not within `deadline`.
    pub fn ended(mut self, deadline: Duration) -> ExitStatus {
        within("loglogd ends", deadline, || self.child.try_wait().expect("a child can be asked")).0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
///
/// # Panics
/// If it cannot be sent.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.expect("kill runs").success(), "signal {name} to {process}");
}

/// The most memory that a process ever used, bytes.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn peak_resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok()).expect("a living process")
        * 1024
}

fn records(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
