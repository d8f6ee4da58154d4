//! Cluster: servers of one system, for as long as a run takes.
//!
//! Owns:   their processes and their folder. Both are gone when this is dropped, whatever ended the run.
//! Never:  ends a process that it has not started, or by a name.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to stop before it is killed: its data is thrown away, so it loses nothing.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Lines of a server's own words that go into an error.
const WORDS: usize = 8;

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn make(path: PathBuf) -> Result<Self, String> {
        fs::create_dir(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        // Servers are told absolute paths, wherever they change to.
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("compare: {} is left behind: {error}", self.0.display());
        }
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

/// Servers, and where clients reach them. Fields go in this order: processes before what they write to.
#[derive(Debug)]
pub(crate) struct Cluster {
    processes: Vec<Process>,
    pub(crate) clients: Vec<SocketAddr>,
    folder: Folder,
}

impl Cluster {
    pub(crate) fn new(folder: PathBuf) -> Result<Self, String> {
        Ok(Self { processes: Vec::new(), clients: Vec::new(), folder: Folder::make(folder)? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder of one node's own.
    pub(crate) fn node_path(&self, node: usize) -> Result<PathBuf, String> {
        let path = self.path().join(format!("node-{node}"));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Starts one server; what it says goes to a file.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<(), String> {
        let log = self.path().join(format!("server-{}.log", self.processes.len() + 1));
        let out = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let err = out.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.map_err(|error| format!("cannot start {}: {error}", command_name(command)))?;
        self.processes.push(Process { child, log });
        Ok(())
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.child.id()).collect()
    }

    /// Whether all of them still run. The error has their last words.
    pub(crate) fn alive(&mut self) -> Result<(), String> {
        for (at, process) in self.processes.iter_mut().enumerate() {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(format!("server {} ended ({status}):\n{}", at + 1, last_words(&process.log)));
            }
        }
        Ok(())
    }

    /// What every server said last.
    pub(crate) fn last_words(&self) -> String {
        self.processes.iter().map(|process| last_words(&process.log)).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.terminate();
        }
        let deadline = Instant::now() + STOP_WITHIN;
        for process in &mut self.processes {
            process.wait_until(deadline);
        }
    }
}

impl Process {
    fn terminate(&mut self) {
        // Not waited for yet: its id is still its own.
        if let Ok(None) = self.child.try_wait() {
            let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }

    fn wait_until(&mut self, deadline: Instant) {
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn last_words(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let words = &lines[lines.len().saturating_sub(WORDS)..];
    words.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Ports of 127.0.0.1 that nobody uses now, all different.
pub(crate) fn free_ports(count: usize) -> Result<Vec<SocketAddr>, String> {
    let bind = |_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        })
    };
    let bound: Result<Vec<_>, _> = (0..count).map(bind).collect();
    // Held until all are there, so that none is given twice.
    let bound = bound.map_err(|error| format!("no free port: {error}"))?;
    Ok(bound.into_iter().map(|(_, address)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_leaves_nothing_behind() {
        let within = tempfile::tempdir().expect("a folder");
        let path = within.path().join("run");
        let mut cluster = Cluster::new(path.clone()).expect("made");
        cluster.start(Command::new("sleep").arg("600")).expect("started");
        assert_eq!(cluster.alive(), Ok(()));
        let pid = cluster.pids()[0];
        drop(cluster);
        assert!(!path.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let within = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::new(within.path().join("run")).expect("made");
        cluster.start(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"])).expect("started");
        let error = loop {
            if let Err(error) = cluster.alive() {
                break error;
            }
        };
        assert!(error.contains("no luck") && error.contains('3'), "{error}");
        assert!(
            cluster.start(&mut Command::new("/nowhere/at/all")).is_err_and(|e| e.contains("/nowhere/at/all"))
        );
    }

    #[test]
    fn ports_are_all_different() {
        let mut ports = free_ports(9).expect("nine");
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), 9);
    }
}
