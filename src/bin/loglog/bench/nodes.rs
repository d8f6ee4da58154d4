//! Nodes: processes of the bench's own to measure.
//!
//! Owns:   the `loglogd` processes, and the folder that their data and logs lie in.
//! Keeps:  no process and no folder outlives this, whatever ends the bench.
//! Never:  ends a process that it did not start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::folder::Folder;
use super::ports::Ports;
use crate::exit::{Exit, Outcome, Stop};

/// How often a cluster is begun anew because somebody took one of its ports meanwhile.
const TRIES: usize = 5;
/// How long an end in order may take.
const END: Duration = Duration::from_secs(60);
/// Between two looks at what a node does.
const LOOK: Duration = Duration::from_millis(1);

/// What is to be started.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// How many nodes.
    pub(super) nodes: u16,
    /// `loglogd`'s `--set` for each of them.
    pub(super) set: Vec<String>,
    /// How long they may take to recover their logs and begin to serve.
    pub(super) patience: Duration,
}

/// The processes. Dropped, they are killed; [`OwnNodes::stop`] ends them in order.
#[derive(Debug)]
pub(super) struct OwnNodes {
    // Before the folder: that is removed when no process writes into it any more.
    running: Vec<OwnNode>,
    folder: Folder,
    plan: Plan,
    program: PathBuf,
}

/// One process.
#[derive(Debug)]
struct OwnNode {
    child: Child,
    log: PathBuf,
    client: String,
    admin: String,
}

impl OwnNodes {
    /// Starts them in a new folder below `data`, and waits until each of them serves.
    pub(super) async fn start(plan: Plan, data: &Path) -> Outcome<Self> {
        let folder = Folder::make(data)?;
        let mut nodes = Self { running: Vec::new(), folder, plan, program: program()? };
        nodes.start_again().await?;
        Ok(nodes)
    }

    /// Starts those that were stopped or killed, on what lies in their folders.
    pub(super) async fn start_again(&mut self) -> Outcome {
        for tries in 1.. {
            match self.try_start().await {
                Err(Stop::Failure(_, message)) if is_taken(&message) && tries < TRIES => {
                    self.running.clear();
                    // A cluster forms once: half of one is none.
                    for number in 1..=self.plan.nodes {
                        let _ = std::fs::remove_dir_all(self.data(number));
                    }
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    async fn try_start(&mut self) -> Outcome {
        let ports = Ports::choose(self.plan.nodes)?;
        for number in 1..=self.plan.nodes {
            let node = self.spawn(number, &ports)?;
            self.running.push(node);
        }
        let deadline = Instant::now() + self.plan.patience;
        for node in &mut self.running {
            node.serves(deadline).await?;
        }
        Ok(())
    }

    fn data(&self, number: u16) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn spawn(&self, number: u16, ports: &Ports) -> Outcome<OwnNode> {
        let log = self.data(number).with_extension("log");
        let failed = |what: &Path, error| Stop::failed(format!("cannot run {}: {error}", what.display()));
        let words = File::create(&log).map_err(|error| failed(&log, error))?;
        let mut command = Command::new(&self.program);
        let dir = format!("data.dir={}", self.data(number).display());
        for setting in ports.settings(number).iter().chain([&dir]).chain(&self.plan.set) {
            command.arg("--set").arg(setting);
        }
        // The variables of a daemon's environment would be the same for all of them.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("LOGLOGD_")) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
        let child = command.spawn().map_err(|error| failed(&self.program, error))?;
        Ok(OwnNode { child, log, client: String::new(), admin: String::new() })
    }

    /// Where clients connect, with commas between.
    pub(super) fn endpoints(&self) -> String {
        self.running.iter().map(|node| node.client.as_str()).collect::<Vec<_>>().join(",")
    }

    /// The admin endpoint of each.
    pub(super) fn admins(&self) -> Vec<String> {
        self.running.iter().map(|node| node.admin.clone()).collect()
    }

    /// Where their data lies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends them in order, and waits for that.
    pub(super) async fn stop(&mut self) -> Outcome {
        for node in &self.running {
            node.signal(Signal::TERM);
        }
        let deadline = Instant::now() + END;
        for node in &mut self.running {
            node.ended(deadline).await?;
        }
        self.running.clear();
        Ok(())
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        self.running.clear();
    }
}

impl OwnNode {
    /// Waits until it serves, and notes where.
    async fn serves(&mut self, deadline: Instant) -> Outcome {
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(record) = serving(&log) {
                let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
                (self.client, self.admin) = (text("clients"), text("admin"));
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let last = last_words(&log);
                let exit = if status.code() == Some(Exit::Usage as i32) { Exit::Usage } else { Exit::Failed };
                return Err(Stop::new(
                    exit,
                    format!("a node of the bench's own ended with {status}: {last}"),
                ));
            }
            if Instant::now() > deadline {
                let last = last_words(&log);
                return Err(Stop::new(
                    Exit::Unavailable,
                    format!("a node of the bench's own does not come to serve: {last}"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // One that has ended by itself needs none.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    async fn ended(&mut self, deadline: Instant) -> Outcome {
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                return Err(Stop::failed("a node of the bench's own did not end and was killed"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_taken(message: &str) -> bool {
    message.contains("in use")
}

/// `loglogd` lies where this program lies.
fn program() -> Outcome<PathBuf> {
    let own = std::env::current_exe().map_err(|error| Stop::failed(format!("where am I? {error}")))?;
    let path = own.with_file_name("loglogd");
    if path.exists() {
        Ok(path)
    } else {
        Err(Stop::failed(format!(
            "--nodes needs loglogd beside this program: there is no {}",
            path.display()
        )))
    }
}

/// What a node logs when it begins to serve.
fn serving(log: &str) -> Option<Value> {
    let line = log.lines().find(|line| line.contains("\"serving\""))?;
    serde_json::from_str(line).ok()
}

/// Why a node ended: the last line that is for people, else the last.
fn last_words(log: &str) -> &str {
    let plain = log.lines().rfind(|line| line.starts_with("loglogd: "));
    plain.or(log.lines().next_back()).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_found() {
        let log = "{\"msg\":\"configured\"}\n{\"msg\":\"serving\",\"clients\":\"a:1\",\"admin\":\"a:2\"}\nloglogd: no\n";
        assert_eq!(serving(log).unwrap()["clients"], "a:1");
        assert_eq!(last_words(log), "loglogd: no");
        assert_eq!(last_words("x\ny\n"), "y");
        assert!(serving("{\"msg\":\"serving\"").is_none(), "half a line");
    }
}
