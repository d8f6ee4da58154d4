//! Args: the command line.
//!
//! Owns:   flags, and what they may say.
//! Never:  looks for a server: `servers` does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::plan::{Kind, Load, Plan, System};

/// Appends to LogLog and to what else would be picked for the job, in turns, on this machine: how fast, at what cost.
///
/// Every server is started for each run, in a folder of its own below --data, and stopped and removed after it. Every acknowledgement
/// counted is durable. Results go to standard output, words to standard error.
#[derive(Parser, Clone, Debug)]
#[command(name = "compare", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) what: What,

    /// Only these systems, in this order, as kind-nodes: loglog-1, loglog-3, redis-1, nats-1, nats-3, etcd-1, etcd-3. The first is what
    /// the others are held against. Each must be there.
    #[arg(long, value_name = "SYSTEM", global = true, value_delimiter = ',', value_parser = System::parse)]
    pub(crate) systems: Vec<System>,

    /// How often each system is measured, in turns.
    #[arg(long, value_name = "N", global = true, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,

    /// How long to measure in each run.
    #[arg(long, value_name = "TIME", global = true, default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// How long to append before measuring.
    #[arg(long, value_name = "TIME", global = true, default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,

    /// The folder below which all servers keep their data while they run: what is measured is its disk.
    #[arg(long, value_name = "DIR", global = true, default_value = ".")]
    pub(crate) data: PathBuf,

    /// Print one JSON object a run, and one for the summary.
    #[arg(long, global = true, conflicts_with = "csv")]
    pub(crate) json: bool,

    /// Print one line of comma-separated values a run.
    #[arg(long, global = true)]
    pub(crate) csv: bool,

    #[command(flatten)]
    pub(crate) servers: Paths,

    #[command(flatten)]
    pub(crate) connections: Connections,
}

/// Where servers are.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Paths {
    /// LogLog's node, a release build. Default: beside this program, then PATH.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) loglogd: Option<PathBuf>,

    /// Redis, 5 or newer. Default: PATH.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) redis_server: Option<PathBuf>,

    /// NATS, a version that knows `sync_interval: always`. Default: PATH.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) nats_server: Option<PathBuf>,

    /// etcd, 3.4 or newer. Default: PATH.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) etcd: Option<PathBuf>,
}

impl Paths {
    /// Where that kind's server is, if that was told.
    pub(crate) fn of(&self, kind: Kind) -> Option<&PathBuf> {
        match kind {
            Kind::LogLog => self.loglogd.as_ref(),
            Kind::Redis => self.redis_server.as_ref(),
            Kind::Nats => self.nats_server.as_ref(),
            Kind::Etcd => self.etcd.as_ref(),
        }
    }
}

/// The client's side. Appends in flight are spread over its connections, of which there are never more than of these.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Connections {
    /// Connections to LogLog, each a writer of its own.
    #[arg(long, value_name = "N", global = true, default_value_t = 1, value_parser = connections)]
    pub(crate) loglog_connections: usize,

    /// Connections to Redis. Default: 4, with payloads from 16 KiB on 16.
    #[arg(long, value_name = "N", global = true, value_parser = connections)]
    pub(crate) redis_connections: Option<usize>,

    /// Connections to NATS.
    #[arg(long, value_name = "N", global = true, default_value_t = 1, value_parser = connections)]
    pub(crate) nats_connections: usize,

    /// Connections to etcd.
    #[arg(long, value_name = "N", global = true, default_value_t = 2, value_parser = connections)]
    pub(crate) etcd_connections: usize,

    /// Threads of the client, with every system. More than one may help where there are cores that the servers leave alone.
    #[arg(long, value_name = "N", global = true, default_value_t = 1, value_parser = connections)]
    pub(crate) client_threads: usize,

    /// With one append in flight on a connection, LogLog's node and client, and our client of Redis, look so long for the next bytes before they
    /// sleep; the others cannot.
    #[arg(long, value_name = "TIME", global = true, default_value = "0s", value_parser = duration)]
    pub(crate) busy_poll: Duration,
}

/// What to compare.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum What {
    /// One node: LogLog and Redis streams, in four loads.
    Single,
    /// Three nodes: LogLog, NATS JetStream and etcd, in four loads.
    Three,
    /// Both of these.
    All,
    /// One load, on the systems that --systems names.
    Run {
        /// Bytes of payload in each entry, with or without a unit: 100, 1KiB, 64KiB.
        #[arg(long, value_name = "BYTES", default_value = "100", value_parser = bytes)]
        payload: usize,

        /// Appends in flight.
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = in_flight)]
        in_flight: usize,
    },
}

impl Args {
    pub(crate) fn plans(&self) -> Vec<Plan> {
        let mut plans = match &self.what {
            What::Single => vec![Plan::single()],
            What::Three => vec![Plan::three()],
            What::All => vec![Plan::single(), Plan::three()],
            What::Run { payload, in_flight } => {
                let systems = [Plan::single().systems, Plan::three().systems].concat();
                vec![Plan { systems, loads: vec![Load { payload: *payload, in_flight: *in_flight }] }]
            }
        };
        if !self.systems.is_empty() {
            // All loads of the presets, on what was named.
            plans.iter_mut().for_each(|plan| plan.systems.clone_from(&self.systems));
        }
        plans
    }
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = match number_and_unit(text) {
        Some((number, "us")) => number / 1e6,
        Some((number, "ms")) => number / 1e3,
        Some((number, "s")) => number,
        Some((number, "min")) => number * 60.0,
        _ => return Err("expected a number and us, ms, s or min, as in 500ms".to_owned()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "parsed without a sign, bounded")]
fn bytes(text: &str) -> Result<usize, String> {
    let bytes = match number_and_unit(text) {
        Some((number, "" | "B")) => number,
        Some((number, "KiB")) => number * 1024.0,
        Some((number, "MiB")) => number * 1024.0 * 1024.0,
        _ => return Err("expected a number, and B, KiB or MiB if you like".to_owned()),
    };
    // What NATS takes at most, unless it is told otherwise.
    if bytes > 1e6 {
        return Err("the largest payload that all of them take has 1,000,000 bytes".to_owned());
    }
    Ok(bytes as usize)
}

fn in_flight(text: &str) -> Result<usize, String> {
    let expected = "expected a number from 1 to 4096";
    text.parse().ok().filter(|count| (1..=4096).contains(count)).ok_or_else(|| expected.to_owned())
}

fn connections(text: &str) -> Result<usize, String> {
    let expected = "expected a number from 1 to 256";
    text.parse().ok().filter(|count| (1..=256).contains(count)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2 s"), Ok(Duration::from_secs(2)));
        assert!(duration("2").is_err());
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("64 KiB"), Ok(65536));
        assert!(bytes("16MiB").is_err());
        assert!(bytes("-1").is_err());
    }

    #[test]
    fn who_is_named_takes_the_presets_loads() {
        let args = Args::parse_from(["compare", "all", "--systems", "loglog-3,etcd-3"]);
        for plan in args.plans() {
            let names: Vec<String> = plan.systems.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["loglog-3", "etcd-3"]);
            assert!(!plan.loads.is_empty());
        }
    }
}
